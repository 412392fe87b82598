"""The package as it is installed: it hides nothing, and its commands run by one name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smz_jax.config.process import command_names

ROOT = Path(__file__).resolve().parents[1]


def python(*words, cwd, path=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel is unpacked to."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("smz_jax", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation")
    done = python(*words, "--target", target, source, cwd=source)
    assert done.returncode == 0, done.stderr
    return target


def test_no_top_level_name_but_its_own(installed):
    names = {path.name for path in installed.iterdir()}
    assert {x for x in names if not x.endswith(".dist-info")} == {"smz_jax", "share"}


def test_every_module_and_file_is_installed(installed):
    for folder, place in (("smz_jax", "smz_jax"), ("experiments", "share/smz_jax/experiments")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (installed / place / path.relative_to(ROOT / folder)).is_file(), path


def test_commands_run_by_the_package(installed, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("MINE = 1\n")
    hidden = python(
        "-c",
        "import smz_jax.types, experiments; print(experiments.MINE)",
        cwd=tmp_path,
        path=installed,
    )
    assert hidden.stdout == "1\n"
    done = python("-m", "smz_jax", "breakout", "--seed", "x", cwd=tmp_path, path=installed)
    assert done.returncode == 2 and done.stderr.startswith("error: seed = 'x'")
    done = python("-m", "smz_jax", "breakout", "--help", cwd=tmp_path, path=installed)
    assert done.returncode == 0 and "python -m smz_jax breakout --preset smoke" in done.stdout


@pytest.mark.parametrize("package", ["smz_jax", "experiments"])
@pytest.mark.parametrize("words", [(), ("--help",), ("breakouts",)])
def test_the_package_lists_its_commands(package, words):
    done = python("-m", package, *words, cwd=ROOT)
    out = done.stdout if "--help" in words else done.stderr
    assert done.returncode == (0 if "--help" in words else 2)
    listed = out.split("commands: ")[1].split()
    assert {"breakout", "benchmark", "report"} <= set(listed) and "smz_jax" not in listed


@pytest.mark.parametrize(
    "script", ["breakout.py", "benchmark", "encoders", "peer", "results", "sweep"]
)
@pytest.mark.parametrize("installed_too", [False, True])
def test_a_script_says_what_to_type(script, installed_too):
    done = python(f"experiments/{script}", cwd=ROOT, path=ROOT if installed_too else None)
    assert done.returncode == 1
    typed = f"python -m experiments.{script.removesuffix('.py')}`"
    assert typed in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("smz_jax", "experiments.space_invaders"),
        ("smz_jax", "experiments/space_invaders.py"),
        ("smz_jax", "space_invaders.py"),
        ("smz_jax", "Space-Invaders"),
        ("experiments", "space_invaders"),
    ],
)
def test_a_command_is_known_by_its_other_names(words):
    done = python("-m", *words, "--seed", "x", cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: seed = 'x'")


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (".", ["smz_jax"]),
        (".", ["smz_jax", "breakout"]),
        (".", ["smz_jax/__main__.py"]),
        ("experiments", ["-m", "smz_jax", "breakout"]),
        ("experiments", ["smz_jax.py"]),
    ],
)
def test_a_wrong_door_says_what_to_type(folder, words):
    done = python(*words, cwd=ROOT / folder)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: type `python -m smz_jax` in the folder above ")


def test_all_commands_are_listed_once():
    """Those of the package are those that a run may be resumed by."""
    named = command_names(ROOT / "experiments")
    assert {"breakout", "results", "macros"} <= set(named) and len(set(named)) == len(named)
    assert not {"smz_jax", "__main__", "__init__", "experiments"} & set(named)


@pytest.mark.slow
def test_an_sdist_becomes_a_wheel_that_runs_in_an_empty_environment(tmp_path):
    """`python -m pytest -m slow tests/test_package.py`: minutes, and a network for pip."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "runs", "site")
    shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    dist, elsewhere = tmp_path / "dist", tmp_path / "elsewhere"
    elsewhere.mkdir()
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(dist)!r})"
    assert python("-c", build, cwd=tmp_path / "source").returncode == 0
    (sdist,) = dist.glob("*.tar.gz")
    done = python("-m", "pip", "wheel", "-q", "--no-deps", "-w", dist, sdist, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    own = tmp_path / "empty/bin/python"
    subprocess.run([own, "-m", "pip", "install", "-q", *dist.glob("*.whl")], check=True)
    command = [own, "-m", "smz_jax", "breakout", "--preset", "tiny"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "report: runs/breakout/" in done.stdout, done.stderr
