"""Runs on a Ray cluster: what a node does, how a task ends, refusals; slow: a cluster of its own.

python -m pytest -m slow -n 0 tests/experiments/test_ray_engine.py
"""

import contextlib
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

import psutil
import pytest

from experiments.sweep import ray_engine
from experiments.sweep.engines import process_settings
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


def test_as_many_threads_as_cores_whatever_the_node_has():
    """XLA divides sums by its threads: on a node nothing pins a run, and numbers would differ."""
    code = "import jax; print(jax.devices()); import os; print(len(os.listdir('/proc/self/task')))"
    counts = []
    for cores in (1, 4):
        environment = {**os.environ, **process_settings(cores, {"JAX_PLATFORMS": "cpu"})}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        counts.append(int(done.stdout.split()[-1]))
    assert counts[0] < counts[1]


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
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--address", "local"])):
        command = sweep(tmp_path / name, "learner.gamma=0.9,0.99", *more)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for variant in ("gamma=0.9", "gamma=0.99"):
        rows = rows_of(tmp_path / "local" / variant)
        assert rows_of(tmp_path / "ray" / variant) == rows and rows
        record = json.loads(Path(tmp_path, "ray", variant, "seed0.json").read_text())
        assert record["node"].startswith("node ")


@NEEDS_RAY
@pytest.mark.slow
def test_a_run_whose_node_goes_continues_on_another(tmp_path):
    """The only node that has a core is killed amid a run, another joins: equal bit for bit."""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = []

    def add(*words):
        """A process that starts a node and ends with it."""
        command = [Path(sys.executable).with_name("ray"), "start", "--block", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        nodes.append(psutil.Popen(command, env=environment, **quiet))
        return nodes[-1]

    def kill(node):
        """All that is Ray's; the run itself is left to what its node's end does to it."""
        for x in [*node.children(recursive=True), node]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if "experiments.gridworld" not in x.cmdline():
                    x.kill()

    try:
        head = ("--num-cpus=0", "--include-dashboard=false")
        add("--head", f"--port={address.rpartition(':')[2]}", *head)
        wait_for_port(address)
        first = add("--num-cpus=1", f"--address={address}")
        folder = tmp_path / "lost" / "gamma=0.9"
        where = ("--engine", "ray", "--address", address, "--jobs", "1")
        command = sweep(tmp_path / "lost", "learner.gamma=0.9", *where)
        with subprocess.Popen(command, cwd=ROOT, env=environment) as running:
            wait_for(folder / "seed0" / "metrics.jsonl", 120)
            lost = json.loads((folder / "seed0.json").read_text())["node"]
            kill(first)
            add("--num-cpus=1", f"--address={address}")
        assert running.returncode == 0
    finally:
        for node in nodes[::-1]:
            kill(node)
    record = json.loads((folder / "seed0.json").read_text())
    assert record["command"][-1] == "--resume" and record["node"] != lost
    assert "\nresumed at " in (folder / "seed0.log").read_text()
    command = sweep(tmp_path / "local", "learner.gamma=0.9")
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0
    assert rows_of(folder) == rows_of(tmp_path / "local" / "gamma=0.9")


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="pip install '.[tune]'")
def test_a_study_on_a_cluster_finds_what_this_machine_finds(tmp_path):
    """Two trials and the fresh seed of the best: the same scores."""
    space = "preset: tiny\nseeds: [0]\nspace: {learner.gamma: [0.9, 0.99]}\n"
    (tmp_path / "space.yaml").write_text(space)
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = ["gridworld", "--space", str(tmp_path / "space.yaml"), "--trials", "2"]
    command = [sys.executable, "-m", "experiments.tune", *words, "--fresh_seeds", "5"]
    for name, more in (("local", []), ("ray", ["--engine", "ray", "--address", "local"])):
        at = ["--run_dir", str(tmp_path / name), "--jobs", "1"]
        done = subprocess.run([*command, *more, *at], cwd=ROOT, env=environment)
        assert done.returncode == 0
    trials = [(tmp_path / x / "trials.csv").read_text() for x in ("local", "ray")]
    trials = [
        text.replace(str(tmp_path / x), "")
        for text, x in zip(trials, ("local", "ray"), strict=True)
    ]
    assert trials[0] == trials[1] and trials[0].count("\n") == 3
    fresh = [json.loads((tmp_path / x / "fresh/sweep.json").read_text()) for x in ("local", "ray")]
    runs = [[(x["variant"], x["seed"], x["score"]) for x in found["trials"]] for found in fresh]
    assert runs[0] == runs[1] and runs[0]


def sweep(folder, vary, *more):
    """The command of a sweep over one seed of the grid."""
    words = ["gridworld", "--vary", vary, "--seeds", "0", "--preset", "tiny", *more]
    return [sys.executable, "-m", "experiments.sweep", *words, "--run_dir", str(folder)]


def rows_of(variant):
    """What a run of seed 0 measured, but for times; rows of evaluations may come later."""
    lines = map(json.loads, (variant / "seed0" / "metrics.jsonl").read_text().splitlines())
    rows = [{key: x for key, x in row.items() if not key.startswith(TIMES)} for row in lines]
    return sorted(rows, key=lambda row: (row["env_steps"], len(row)))


def wait_for_port(address):
    host, _, port = address.partition(":")
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)
