"""The diffs that end the guides: each applies to this tree, and the tests that they add pass."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.house import ROOT

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDED_TEST = re.compile(r"^\+\+\+ b/(tests/.*test_\w+\.py)$", re.MULTILINE)


def diff_of(page) -> str:
    """The last diff of a page."""
    return DIFF.findall(page.read_text("utf-8"))[-1]


def copy_tree(target):
    """What the diffs change and the tests need, without what git ignores."""
    for folder in ("smz_jax", "experiments", "tests", "docs"):
        ignore = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    shutil.copy(ROOT / "setup.cfg", target)


def apply(diff: str, target, *options: str) -> None:
    """Applies a diff as git does outside of a repository."""
    done = subprocess.run(
        ["git", "apply", *options],
        input=diff,
        text=True,
        cwd=target,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(target.parent)},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    target = tmp_path_factory.mktemp("tree")
    copy_tree(target)
    return target


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_diff_applies_and_brings_a_test(page, tree):
    diff = diff_of(page)
    assert ADDED_TEST.search(diff)
    apply(diff, tree, "--check")


def test_the_environment_of_the_guide_is_one():
    import gymnasium
    from gymnasium.utils.env_checker import check_env

    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGES[0].read_text("utf-8"), re.DOTALL | re.M)
    exec(code, {})
    check_env(gymnasium.make("MyEnv-v0").unwrapped, skip_render_check=True)


def test_the_diffs_together_pass_their_tests(tmp_path):
    """One process for all of them, since starting JAX takes longer than the tests."""
    copy_tree(tmp_path)
    for page in PAGES:
        apply(diff_of(page), tmp_path)
    added = sorted({name for page in PAGES for name in ADDED_TEST.findall(diff_of(page))})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *added],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
