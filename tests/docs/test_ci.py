"""The workflow of a public forge does what `.ci/run` does; version and citation agree."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from importlib import resources

import pytest
import yaml

from tests.support.house import ROOT

PATH = ROOT / ".github" / "workflows" / "ci.yml"
TEXT = PATH.read_text("utf-8")
WORKFLOW = {str(name).replace("True", "on"): x for name, x in yaml.safe_load(TEXT).items()}
JOBS = WORKFLOW["jobs"]
BEYOND = {"package"}  # a job that .ci/run does not have: it installs into two more environments


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def steps(job) -> list[str]:
    """What the steps of a job run, a command each."""
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


def plain(command: str) -> str:
    """A command without what depends on where it runs."""
    for word in (".venv/bin/", ' --pythonpath "$python"', '"$python"', " 2>&1", " | tee site.log"):
        command = command.replace(word, "python" if word == '"$python"' else "")
    return " ".join(command.split()).replace("--quiet", "-q")


def local() -> list[str]:
    """The commands of .ci/run in their order: those of the README's line, and Python's modules."""
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    quick = (ROOT / "README.md").read_text("utf-8").split("```\n")[1].splitlines()[1]
    found = re.findall(r'"\$python" -m (?!experiments|"experiments)[^)\n]+', text)
    return [plain(x) for x in [*quick.split(" && ")[1:], *found]]


def test_the_two_have_the_same_steps():
    theirs = [
        plain(line)
        for name, job in JOBS.items() if name not in BEYOND
        for line in steps(job)
        if line.startswith("python -m ") and "pip install" not in line
    ]  # fmt: skip
    ours = [line for line in local() if "pip install" not in line]
    assert ours and sorted(theirs) == sorted(ours)
    assert steps(JOBS["runs"])[-1] == ".ci/run --runs"


def test_the_two_install_the_same():
    wanted = re.search(r"pip install (.+)", local()[0])
    assert wanted is not None
    assert steps(JOBS["tests"])[0] == f"python -m pip install {wanted[1]}"
    extras = re.search(r"'(\.\[.+\])'", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert extras is not None and f"'{extras[1]}'" in steps(JOBS["checks"])[0]


def test_a_warning_of_the_documentation_is_refused_in_both():
    pattern = "grep -qiE 'warning|griffe:'"
    assert pattern in TEXT and pattern in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_workflow_is_careful():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
    assert all(0 < job["timeout-minutes"] <= 60 for job in JOBS.values())
    for line in re.findall(r"uses: (.+)", TEXT):
        assert re.search(r"@[0-9a-f]{40}\b|@v\d+ # by tag", line), line
    checkouts = [
        s for job in JOBS.values() for s in job["steps"] if "checkout" in s.get("uses", "")
    ]
    assert all(x["with"]["persist-credentials"] is False for x in checkouts)
    assert "${{ github.event" not in TEXT  # nothing of a stranger's in a shell


def test_the_tests_run_on_every_python_that_is_promised():
    pythons = re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])
    assert JOBS["tests"]["strategy"]["matrix"]["python"] == pythons
    low, high = (tuple(map(int, x.split("."))) for x in (pythons[0], pythons[-1]))
    wanted = f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
    assert setup()["options"]["python_requires"] == wanted


def test_the_workflow_fits_the_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="comes with check-jsonschema")
    pytest.importorskip("check_jsonschema", reason="pip install '.[test]'")
    folder = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "github-workflows.json").read_text("utf-8"))
    jsonschema.validate(WORKFLOW, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**WORKFLOW, "jobs": {"a": {"steps": "none"}}}, schema)


def test_the_workflow_passes_actionlint():
    if (program := shutil.which("actionlint")) is None:
        pytest.skip("no actionlint on the path")
    done = subprocess.run([program, str(PATH)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_version_is_the_same_everywhere():
    version = setup()["metadata"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == version and cited["license"] == setup()["metadata"]["license"]
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert not released or released[0] == version


def test_the_citation_has_what_its_format_wants():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert {"message", "title", "authors"} <= set(cited)
    people = [cited["authors"], *(x["authors"] for x in cited["references"])]
    assert all("name" in x or {"family-names", "given-names"} <= set(x) for y in people for x in y)


@pytest.mark.slow
def test_the_citation_fits_the_schema(tmp_path):
    """With cffconvert in an environment of its own, since it needs an older jsonschema."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "cffconvert>=2,<3"], check=True)
    command = [tmp_path / "venv/bin/cffconvert", "--validate", "-i", ROOT / "CITATION.cff"]
    assert subprocess.run(command, check=False).returncode == 0
