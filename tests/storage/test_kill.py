"""A run is killed at any moment, also in the middle of a save, and a second process stays out.

python -m pytest tests/storage/test_kill.py -m slow      20 kills, about 20 minutes on 2 cores
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
EVERY, STEPS = 64, 64_000  # more than any of these runs comes to
FLAGS = (
    *("--preset", "tiny", "--total_env_steps", str(STEPS)),
    *("--checkpoint_every_env_steps", str(EVERY), "--env.rebuild_every", "50"),
    *("--eval.no_baselines", "--eval.no_check_model"),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One compile cache for all runs of this file."""
    cache = os.environ.get("SMZ_COMPILE_CACHE", str(tmp_path_factory.mktemp("xla")))
    return {**os.environ, "SMZ_COMPILE_CACHE": cache, "PYTHONPATH": str(ROOT)}


def start(environment, folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder.parent,
    )


def begin(environment, folder):
    return start(environment, folder, "experiments.gridworld", *FLAGS, "--run_dir", str(folder))


def played(folder):
    """Environment steps of the newest row of metrics."""
    path = folder / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return max((row.get("env_steps") or 0 for row in rows), default=0)


def wait_for_steps(process, folder, steps):
    end = time.monotonic() + SECONDS
    while played(folder) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running(environment, tmp_path_factory):
    """A run that trains, and its folder."""
    folder = tmp_path_factory.mktemp("running") / "run"
    process = begin(environment, folder)
    wait_for_steps(process, folder, 1)
    yield process, folder
    process.kill()


def kill_and_resume(environment, process, folder, generator, kills):
    """Kills at random moments; each restart goes on from a whole step, at most one save back.

    Gives the last process, which has only begun.
    """
    wait_for_steps(process, folder, 3 * EVERY)  # before its first save a run starts over
    for _ in range(kills):
        before = played(folder)
        wait_for_steps(process, folder, before + EVERY)
        time.sleep(generator.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached = played(folder)
        step, _, damaged = CheckpointStore(folder).newest_good("last")
        assert damaged == []
        # A save goes on in the background: it may not have been complete, the one before it was.
        assert step >= reached - 2 * EVERY - 32
        process = start(environment, folder, "experiments.resume", str(folder))
    return process


def test_a_second_process_is_kept_out(environment, running):
    first, folder = running
    settings = (folder / "config.yaml").read_bytes()
    longer = ("--total_env_steps", str(2 * STEPS))
    second = start(environment, folder, "experiments.resume", str(folder), *longer)
    _, err = second.communicate(timeout=SECONDS)
    assert (folder / "config.yaml").read_bytes() == settings
    assert second.returncode == 2 and err.count("\n") == 1
    assert re.search(rf"no other process uses: process {first.pid} does", err)
    assert first.poll() is None


def test_two_kills(environment, running):
    last = kill_and_resume(environment, *running, np.random.default_rng(0), 2)
    _, folder = running
    wait_for_steps(last, folder, played(folder) + 32)  # the lock went with the process
    last.send_signal(signal.SIGTERM)
    assert last.communicate(timeout=SECONDS) and last.returncode == 143


@pytest.mark.slow
def test_twenty_kills(environment, tmp_path):
    first = begin(environment, tmp_path / "run")
    last = kill_and_resume(environment, first, tmp_path / "run", np.random.default_rng(1), 20)
    last.send_signal(signal.SIGTERM)
    _, err = last.communicate(timeout=SECONDS)
    assert last.returncode in (143, -signal.SIGTERM), err
