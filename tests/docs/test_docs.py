"""The pages: links resolve, named files exist, the README stays short and can be run."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.house import ROOT, read_house

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
SOURCE = re.compile(r"(smz_jax|experiments|tests|docs)/[\w./]*(\.(py|md|yaml|png|json)|/)")
DOTTED = re.compile(r"(smz_jax|tests|experiments)(\.\w+)+")
WRITTEN = {"table.md", "verify.md", "peer.md", "macros_json.md", ".md"}
NAMED = re.compile(r"`((?:smz_jax|experiments)/[\w/]+\.py)`,\s+`(\w[\w.]*(?:` and `\w+)?)`")
MODULES = read_house().paths
QUICK_START = """\
python3.11 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && \
.venv/bin/python -m experiments.breakout
python3.11 -m venv .venv && .venv/bin/pip install -q -r requirements.txt '.[test]' && \
.venv/bin/python -m pytest -q
"""
IDIOM = re.compile(
    r"\b(asked of|is asked|was asked|held to be|holds? to be|told apart|goes on with|gone on with"
    r"|looked at)\b"
)


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown and GitHub both spell them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"`", "", heading)).strip().lower()
        found.add(re.sub(r"\s", "-", plain))
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_resolve(page):
    wrong = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", path):
            continue
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_named_in_a_page_exist(page):
    """Paths such as `smz_jax/types.py` in backticks, and dotted names of modules and functions."""
    wrong = []
    for code in CODE.findall(prose(page)):
        if SOURCE.fullmatch(code) and not (ROOT / code).exists():
            wrong.append(code)
        if DOTTED.fullmatch(code) and not _is_defined(code):
            wrong.append(code)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_functions_named_after_their_file_are_in_it(page):
    """`smz_jax/envs/vector.py`, `LanesVectorEnv.recv`: the walks of the architecture."""
    wrong = []
    for path, names in NAMED.findall(prose(page)):
        text = (ROOT / path).read_text("utf-8")
        for name in re.split(r"` and `|\.", names):
            if not re.search(rf"\b(def|class) {name}\b|^{name}\b", text, re.MULTILINE):
                wrong.append(f"{path}: {name}")
    assert wrong == []


def test_no_source_cites_a_document_that_is_not_here():
    """A reader of a comment can open what it names; `WRITTEN` is what a command leaves."""
    cited = {
        (path.relative_to(ROOT), name)
        for folder in ("smz_jax", "experiments", "tests")
        for suffix in ("py", "yaml")
        for path in (ROOT / folder).rglob(f"*.{suffix}")
        if path != Path(__file__)
        for name in re.findall(r"[\w./]+\.md\b", path.read_text("utf-8"))
    }
    missing = [(path, name) for path, name in cited
               if not (ROOT / name).exists() and Path(name).name not in WRITTEN]  # fmt: skip
    assert missing == []


def _is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name that a module spells."""
    if dotted in MODULES or (ROOT / dotted.replace(".", "/")).is_dir():
        return True
    if (ROOT / f"{dotted.replace('.', '/')}.py").exists():
        return True
    module, _, name = dotted.rpartition(".")
    path = MODULES.get(module)
    return path is not None and re.search(rf"\b{name}\b", path.read_text("utf-8")) is not None


def test_every_page_is_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))

    def leaves(tree) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return [leaf for part in (tree.values() if isinstance(tree, dict) else tree)
                for leaf in leaves(part)]  # fmt: skip

    listed = leaves(settings["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(x.relative_to(ROOT / "docs")) for x in (ROOT / "docs").rglob("*.md")}


def test_every_room_has_an_api_page():
    rooms = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
    names = {x.name for x in (ROOT / "smz_jax").iterdir() if (x / "__init__.py").exists()}
    assert rooms == names | {"types"}


def test_the_readme_is_short_and_its_two_commands_stay():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    section = text.split("## Quick start")[1].split("\n## ")[0]
    assert section.count("```") == 2
    assert section.split("```\n")[1] == QUICK_START
    assert len(IMAGE.findall(text)) == 3


def test_pictures_are_small():
    most = {".png": 200_000, ".gif": 2_000_000}
    for path in (ROOT / "docs" / "images").rglob("*.*"):
        assert path.stat().st_size < most[path.suffix], path.name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_use_the_words_of_the_field(page):
    assert IDIOM.findall(prose(page)) == []


def test_the_code_uses_the_words_of_the_field():
    sources = [x for name in ("smz_jax", "experiments") for x in (ROOT / name).rglob("*.py")]
    found = {x.name: IDIOM.findall(" ".join(x.read_text("utf-8").split())) for x in sources}
    assert {name: words for name, words in found.items() if words} == {}


def test_the_docs_extra_is_pinned():
    text = (ROOT / "setup.cfg").read_text("utf-8")
    block = text.split("\ndocs =\n")[1].split("\n[")[0]
    lines = [line for line in block.splitlines() if line.startswith("    ")]
    assert lines and all("==" in line for line in lines)
