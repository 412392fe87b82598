"""Runs on a Ray cluster: what a node does, how a task ends, refusals; slow: a cluster of its own.

python -m pytest -m slow -n 0 tests/experiments/test_ray_engine.py
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.sweep import ray_engine
from experiments.sweep.open_engine import open_engine
from experiments.sweep.ray_engine import LOST, UNSEEN, RayCluster, RayProcess, run_job
from smz_jax.config.check import ConfigError
from tests.experiments.test_results import ROOT, made_up, plan, wait_for  # noqa: F401

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)
TIMES = ("wall_seconds", "cpu_seconds", "speed/", "time/")


@pytest.fixture
def node(monkeypatch):
    """A node without Ray: it says nothing of itself."""
    monkeypatch.setattr(ray_engine, "_note_node", lambda job: None)
    monkeypatch.setattr(ray_engine, "POLL_SECONDS", 0.01)


def test_a_node_runs_what_a_job_needs_now(made_up, node):  # noqa: F811
    (job,) = plan(made_up, (0,))
    job.run_dir.parent.mkdir(parents=True)
    given = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    assert run_job(job, given, os.getcwd()) == 0
    assert job.is_finished() and "multi_thread_eigen" in job.log.read_text()
    assert json.loads(job.record.read_text())["cores"] == 1
    # Called again, as after a node is lost that had just ended it: nothing is run.
    log = job.log.read_bytes()
    assert run_job(job, given, os.getcwd()) == 0 and job.log.read_bytes() == log


def test_a_node_that_does_not_see_the_folder_says_so(made_up):  # noqa: F811
    (job,) = plan(made_up, (0,))
    assert run_job(job, {}, os.getcwd()) == UNSEEN and not job.run_dir.exists()


def test_a_cancelled_task_saves_and_the_next_one_continues(made_up, node):  # noqa: F811
    """Ray interrupts between two instructions of Python, as `interrupt_main` does."""
    (job,) = plan(made_up, (8,))
    job.run_dir.parent.mkdir(parents=True)
    # As in a task: a shell ignores the signal for what it runs in the background.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)

    def cancel():
        wait_for(job.run_dir / "metrics.jsonl")
        time.sleep(0.1)
        import _thread

        _thread.interrupt_main()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        assert run_job(job, {}, os.getcwd()) == 128 + signal.SIGTERM
    finally:
        thread.join()
        signal.signal(signal.SIGINT, former)
    assert (job.run_dir / "saved").exists() and not job.is_finished()
    assert run_job(job, {}, os.getcwd()) == 0 and job.is_finished()
    assert json.loads(job.record.read_text())["command"][-1] == "--resume"


class CancelledError(Exception):
    """As Ray's, of a task that was taken back."""


class GivenUpError(Exception):
    """As Ray's, of a task whose nodes were lost too often."""


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (UNSEEN, UNSEEN, "must lie on storage that all nodes share"),
        (CancelledError(), -signal.SIGTERM, ""),
        (GivenUpError("the node died\nand more"), LOST, "Ray gave the run up: the node died\n"),
    ],
)
def test_how_a_task_ends(made_up, monkeypatch, outcome, code, line):  # noqa: F811
    (job,) = plan(made_up, (0,))
    job.run_dir.parent.mkdir(parents=True)
    job.log.touch()
    done = []

    def get(task):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    errors = SimpleNamespace(TaskCancelledError=CancelledError, RayError=GivenUpError)
    wait = lambda tasks, timeout: (done, tasks)  # noqa: E731
    fake = SimpleNamespace(exceptions=errors, wait=wait, get=get)
    monkeypatch.setattr(ray_engine, "_ray", lambda: fake)
    process = RayProcess(job, ["python"], "task")
    assert process.poll() is None and process.where() == ""
    done.append("task")
    assert process.poll() == code and process.poll() == code
    assert line in job.log.read_text() and bool(line) == bool(job.log.read_text())


def test_refusals_get_one_line(monkeypatch):
    with pytest.raises(ConfigError, match=r"address = 'auto' is not allowed: .*--engine ray"):
        open_engine("local", "auto", 1, "smoke")
    monkeypatch.setattr(ray_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--engine ray needs Ray: pip install '\.\[ray\]'"):
        open_engine("ray", None, 1, "smoke")
    monkeypatch.setattr(ray_engine.importlib.util, "find_spec", lambda name: "there")
    for address in ("here", "host:port", ":6379"):
        with pytest.raises(ConfigError, match="it must be auto, local, HOST:PORT"):
            RayCluster(address, 1, "smoke")


@NEEDS_RAY
@pytest.mark.slow
def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(ray_engine, "ANSWER_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"at address {address} answered within 1 seconds"):
            RayCluster(address, 1, "smoke")


@NEEDS_RAY
@pytest.mark.slow
def test_a_cluster_gives_the_same_numbers(tmp_path):
    """Two runs on this machine's cores and on a Ray cluster of two: equal bit for bit."""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = ["gridworld", "--vary", "learner.gamma=0.9,0.99", "--seeds", "0", "--preset", "tiny"]
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--address", "local"])):
        command = [sys.executable, "-m", "experiments.sweep", *words, *more]
        command += ["--run_dir", str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    rows = {}
    for path in sorted(tmp_path.glob("*/*/seed0/metrics.jsonl")):
        lines = map(json.loads, path.read_text().splitlines())
        rows[path.parts[-4], path.parts[-3]] = [
            {key: x for key, x in row.items() if not key.startswith(TIMES)} for row in lines
        ]
    for variant in ("gamma=0.9", "gamma=0.99"):
        assert rows["local", variant] == rows["ray", variant] and rows["ray", variant]
        record = json.loads(Path(tmp_path, "ray", variant, "seed0.json").read_text())
        assert record["node"].startswith("node ")
