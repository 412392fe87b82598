"""One run over a Ray cluster: its command line, a process on a node; slow: a cluster of its own.

python -m pytest -m slow -n 0 tests/experiments/test_cluster_run.py
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import cluster
from smz_jax.config.check import ConfigError
from tests.experiments.test_ray_engine import NEEDS_RAY, ROOT


def test_flags_before_the_experiment_are_those_of_the_cluster():
    words = ["--address", "head:6379", "--cores=4", "breakout", "--processes", "2", "--cores", "x"]
    request, name, flags = cluster.split(words)
    assert (request.address, request.cores, request.gpus) == ("head:6379", 4, 0)
    assert (name, flags) == ("breakout", ["--processes", "2", "--cores", "x"])
    for words, says in (
        ([], "EXPERIMENT = None is not allowed"),
        (["chess"], "EXPERIMENT = 'chess' is not allowed"),
        (["--processes", "2"], "unknown flag --processes"),
        (["--cores", "0", "breakout"], "cores = 0 is not allowed"),
    ):
        with pytest.raises(ConfigError) as error:
            cluster.split(words)
        assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report"], "EXPERIMENT = 'report' is not allowed: it must be one that trains"),
        (["breakout", "--processes", "3", "--preset", "tiny"], "a multiple of processes"),
        (
            ["--address", "here", "breakout", "--preset", "tiny"],
            "it must be auto, local, HOST:PORT",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(monkeypatch, words, says):
    monkeypatch.setattr(sys, "argv", ["cluster", *words])
    with pytest.raises(ConfigError, match=says):
        cluster.main()


def test_a_process_on_a_node(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    log, code = tmp_path / "log", "import os, sys; print(os.environ['JAX_PROCESS_ID']); sys.exit(3)"
    given = {"JAX_PROCESS_ID": "7"}
    assert cluster.run_process(["-c", code], given, str(tmp_path), log) == 3
    assert log.read_text() == "7\n"


def test_a_cancelled_task_ends_its_process(monkeypatch, tmp_path):
    """Ray interrupts between two instructions of Python, as `interrupt_main` does."""
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    log, code = tmp_path / "log", "import time; print('there', flush=True); time.sleep(60)"
    former = signal.signal(signal.SIGINT, signal.default_int_handler)

    def cancel():
        while not (log.is_file() and log.read_text()):
            time.sleep(0.05)
        import _thread

        _thread.interrupt_main()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        assert cluster.run_process(["-c", code], {}, str(tmp_path), log) == -signal.SIGTERM
    finally:
        thread.join()
        signal.signal(signal.SIGINT, former)


@NEEDS_RAY
@pytest.mark.slow
def test_a_run_of_two_processes_over_a_cluster(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] % 4000 + 6000  # below the range of Ray's own
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    ray = [str(Path(sys.executable).with_name("ray"))]
    subprocess.run([*ray, "get-auth-token", "--generate"], env=environment, check=True)
    head = ["start", "--head", "--block", "--num-cpus", "2", "--include-dashboard", "false"]
    with open(tmp_path / "ray.log", "wb") as log:
        cluster_of_two = subprocess.Popen(
            [*ray, *head, "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        time.sleep(20)
        words = ["--address", f"127.0.0.1:{port}", "--logs", str(tmp_path / "logs"), "gridworld"]
        flags = ["--preset", "tiny", "--processes", "2", "--run_dir", str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-m", "experiments.cluster", *words, *flags],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
        assert ", 2 processes" in done.stdout and (tmp_path / "run" / "report.html").is_file()
        assert (tmp_path / "logs" / "process-1.log").is_file()
    finally:
        cluster_of_two.terminate()
        cluster_of_two.wait(60)
