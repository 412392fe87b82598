"""A sweep as an array job: the script is what bash takes, and a made-up Slurm runs its tasks."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.sweep import __main__ as command_line
from experiments.sweep import slurm
from smz_jax.config.check import ConfigError
from tests.experiments.test_results import ROOT, made_up, wait_for  # noqa: F401

SBATCH = """#!/bin/bash
# Runs the tasks one after the other, as an array job would.
script=${@: -1}
echo "$@" >> calls
last=$(grep -oP -- '--array=0-\\K[0-9]+' "$script")
for ((i = 0; i <= last; i++)); do SLURM_ARRAY_TASK_ID=$i bash "$script" >> slurm.out 2>&1; done
echo 4711
"""


@pytest.fixture
def sweep(made_up, monkeypatch):  # noqa: F811
    """Runs the command on the script of `test_results`, beside a made-up Slurm."""
    folder = made_up.parent / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", '#!/bin/bash\necho "$@" >> calls\n')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(command_line, "experiment_names", lambda: ["made_up"])

    def call(*words):
        words = ["made_up", "--run_dir", str(made_up), "--engine", "slurm", *words]
        monkeypatch.setattr(sys, "argv", ["sweep", *words])
        return command_line.main(words)

    return call


def test_the_script_runs_what_is_left(sweep, made_up, capsys):  # noqa: F811
    words = ["--vary", "learner.gamma=0.5,0.9", "--preset", "smoke", "--jobs", "3"]
    assert sweep(*words, "--seeds", "0") == 0
    out = capsys.readouterr().out
    assert "submitted 2 runs as job 4711. What is finished:" in out and "--report" in out
    text = (made_up / "sweep.sbatch").read_text()
    assert subprocess.run(["bash", "-n", str(made_up / "sweep.sbatch")]).returncode == 0
    directives = re.findall(r"#SBATCH (.*)", text)
    for wanted in ("--array=0-1%3", "--cpus-per-task=1", "--requeue", "--signal=B:TERM@120"):
        assert wanted in directives
    # Each run had one thread, as on a core of this machine, and ended.
    for gamma in (0.5, 0.9):
        assert (made_up / f"gamma={gamma}" / "seed0" / "summary.json").exists()
        assert slurm.ONE_THREAD in (made_up / f"gamma={gamma}" / "seed0.log").read_text()
    # What is finished gets no task; a new seed does.
    assert sweep(*words, "--seeds", "0") == 0 and "all runs are finished" in capsys.readouterr().out
    assert sweep(*words, "--seeds", "0", "1") == 0
    text = (made_up / "sweep.sbatch").read_text()
    assert "--array=0-1%3" in text and "seed0 " not in text
    assert text.count("seed1 ") == 2 * text.count("--seed 1 ")


def test_a_task_whose_time_is_over_saves_and_is_queued_again(sweep, made_up, monkeypatch):  # noqa: F811
    (made_up.parent / "bin" / "sbatch").write_text("#!/bin/bash\necho 4711\n")
    assert sweep("--seeds", "8", "--preset", "tiny") == 0
    script = made_up / "sweep.sbatch"
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "12"}
    environment["SLURM_ARRAY_JOB_ID"] = "11"
    task = subprocess.Popen(["bash", str(script)], env=environment)
    wait_for(made_up / "base" / "seed8" / "metrics.jsonl")
    task.send_signal(signal.SIGTERM)
    assert task.wait(timeout=60) == 143 and (made_up / "base" / "seed8" / "saved").exists()
    assert Path("calls").read_text() == "requeue 11_0\n"
    assert sweep("--seeds", "8", "--preset", "tiny") == 0  # the script looks for itself
    assert script.read_text().count("--resume") == 1
    done = subprocess.run(["bash", str(script)], env=environment)
    assert done.returncode == 0 and (made_up / "base" / "seed8" / "summary.json").exists()
    environment["SLURM_ARRAY_TASK_ID"] = "5"
    assert subprocess.run(["bash", str(script)], env=environment).returncode == 2


def test_refusals_get_one_line(sweep, made_up, monkeypatch):  # noqa: F811
    with pytest.raises(ConfigError, match="address = 'auto' is not allowed"):
        sweep("--preset", "tiny", "--address", "auto")
    sbatch = made_up.parent / "bin" / "sbatch"
    sbatch.write_text("#!/bin/bash\necho 'invalid\npartition' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"sbatch refused .*sweep\.sbatch: invalid partition"):
        sweep("--preset", "tiny")
    sbatch.unlink()
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"no sbatch on this machine: .*sweep\.sbatch is written"):
        sweep("--preset", "tiny")
