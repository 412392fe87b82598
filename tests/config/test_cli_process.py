"""The command line as a process: one line, exit code 2, and nothing heavy imported."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
from smz_jax.config.cli import parse
from smz_jax.config.process import run_main
from smz_jax.config.experiment import Experiment
from smz_jax.storage.run_dir import prepare_run_dir
def main():
    prepare_run_dir(parse(None, Experiment("pong", base={"env.id": "Pong"})))
    return 3
run_main(main)
"""


@pytest.fixture
def poisoned(tmp_path):
    """Environment in which an import of anything heavy ends the process with code 99."""
    for name in ("jax", "flax", "optax", "mctx", "envpool", "numpy", "orbax"):
        (tmp_path / f"{name}.py").write_text(f"import os; print({name!r}); os._exit(99)")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path}


def run_process(command, env, cwd):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=env, cwd=cwd, timeout=30
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    "argv", [["--sede", "1"], ["--env.num_envs", "0"], ["--config", "no.yaml"]]
)
def test_a_mistake_ends_with_one_line_and_code_2(poisoned, tmp_path, argv):
    done, seconds = run_process(["-c", SCRIPT, *argv], poisoned, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert seconds < 5  # about 0.1 s when nothing else runs; JAX alone takes 2.5 s


def test_good_flags_return_the_code_of_main(poisoned, tmp_path):
    done, _ = run_process(["-c", SCRIPT, "--preset", "tiny"], poisoned, tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert len(list((tmp_path / "runs" / "pong").iterdir())) == 1


def experiments():
    """Each experiment, and whether it reads the settings of a run (`launch`, `parse`)."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        modules = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        names = {x.name for n in nodes if isinstance(n, ast.ImportFrom) for x in n.names}
        if modules & {"smz_jax.run.launch", "smz_jax.config.cli"}:
            has_command = path.stem == "dataset"  # its first word, before any setting
            yield path.stem, bool(names & {"launch", "parse"}) and not has_command


@pytest.mark.parametrize(("name", "has_settings"), list(experiments()))
def test_experiments_answer_a_wrong_flag_before_anything_heavy(poisoned, name, has_settings):
    done, _ = run_process(["-m", f"experiments.{name}", "--no_such_flag", "1"], poisoned, ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    if has_settings:
        assert done.stderr == "error: unknown flag --no_such_flag; --help lists all settings\n"
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "--no_such_flag" in done.stderr
