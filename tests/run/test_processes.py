"""Several processes: how they are joined, agree and end; a whole run in them is slow."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.gridworld import EXPERIMENT
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.run.from_python import train
from smz_jax.run.joining import Helper, joined, shares, yield_to_computation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start():
    """Starts a module as a process of its own, which ends with the test."""
    started = []

    def run(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()  # its helpers see that it is gone
        process.communicate()


def is_alive(number):
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_processes_know_together(start):
    process = start("tests.support.joined_processes", "agree")
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (0, "agreed\n"), err[-2000:]


def test_a_thread_that_waits_for_another_process_does_not_keep_one_that_fails(start):
    process = start("tests.support.joined_processes", "fail")
    _, err = process.communicate(timeout=50)
    # What JAX says then of the others' end comes after it.
    assert process.returncode and err.startswith("error: its games failed\n"), err[-2000:]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_ends_all_and_is_named(start, dies):
    process = start("tests.support.joined_processes", "wait")
    numbers = [int(x) for x in process.stdout.readline().split()]
    assert numbers[0] == process.pid and all(map(is_alive, numbers))
    os.kill(numbers[dies], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(is_alive, numbers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if dies:
        line = "error: process 1 was ended by SIGKILL, and the run with it; go on with --resume"
        assert process.returncode == 1 and err.startswith(line) and err.count("\n") == 1, err


def test_a_signal_to_the_first_process_stops_all(start):
    process = start("tests.support.joined_processes", "stop")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "stopped\n"), err[-2000:]


@pytest.mark.skipif(not Path("/proc/self/wchan").is_file(), reason="needs /proc")
def test_threads_that_wait_for_sockets_yield_to_computation():
    """Gloo's spins; a thread that waits for anything else keeps its priority."""
    numbers, is_over = {}, threading.Event()

    def wait_for_a_socket():
        numbers["socket"] = threading.get_native_id()
        with select.epoll() as sockets:
            while not is_over.is_set():
                sockets.poll(0.2)

    def wait_for_another():
        numbers["other"] = threading.get_native_id()
        is_over.wait()

    def tells():
        number = numbers.get("socket")
        return number and Path(f"/proc/self/task/{number}/wchan").read_text() != "0"

    threads = [threading.Thread(target=x) for x in (wait_for_a_socket, wait_for_another)]
    for thread in threads:
        thread.start()
    told = False
    for _ in range(200):  # a thread that has just begun does not wait yet
        if told := len(numbers) == len(threads) and tells():
            break
        time.sleep(0.01)
    yield_to_computation()
    found = {name: os.getpriority(os.PRIO_PROCESS, number) for name, number in numbers.items()}
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    is_over.set()
    for thread in threads:
        thread.join()
    if not told:
        pytest.skip("the system does not tell what threads wait for")
    assert found == {"socket": 19, "other": own} and own < 19


def test_shares_of_the_cores():
    assert shares([2, 3, 5, 7, 8], 2) == [[2, 3], [5, 7, 8]]
    assert shares([2, 3, 5, 7], 4) == [[2], [3], [5], [7]]
    assert shares([4, 6], 3) == [[4], [6], [4]]


def test_how_a_process_ended():
    def fate(code):
        helper = Helper(3, [sys.executable, "-c", code], [])
        helper.process.wait()
        return helper.fate()

    assert fate("pass") is None
    line = "process 3 ended with 2: no such game"
    assert fate(
        "import sys; sys.stderr.write('warning\\nerror: no such game\\n'); sys.exit(2)"
    ) == (line)
    killed = "import os; os.kill(os.getpid(), 9)"
    assert fate(killed) == "process 3 was ended by SIGKILL"


def refusal(*flags, **environment):
    with (
        pytest.raises(ConfigError) as error,
        joined(parse(["--preset", "tiny", *flags], EXPERIMENT)),
    ):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_does_not_fit_is_refused_before_jax_starts(monkeypatch, tmp_path):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    of_16 = ("--env.num_envs", "16", "--learner.batch_size", "16")
    for flags, says in (
        (("--processes", "0"), "processes = 0 is not allowed"),
        (("--processes", "3", *of_16), "a multiple of processes x rollout.pools = 3"),
        (
            ("--processes", "2", "--devices", "2", *of_16, "--learner.batch_size", "6"),
            "batch_size = 6 is not allowed: it must be a multiple of processes x devices = 4",
        ),
        (("--processes", "2", "--search.engine", "mctx"), "search.engine = 'mctx'"),
        (("--processes", "2", "--dataset", "x"), "processes = 2 is not allowed: it must be 1 with"),
        (("--processes", "2", "--macros_from", "x"), "macros_from = 'x' is not allowed"),
        (("--coordinator", "a:1"), "coordinator = 'a:1' is not allowed: it must be left out"),
        (("--process_id", "0"), "process_id = 0 is not allowed: it must be left out"),
        (("--processes", "2", "--coordinator", "a:1"), "process_id = None is not allowed"),
        (("--processes", "2", "--coordinator", "a:1", "--process_id", "2"), "0 to 1 with"),
        (("--processes", "2", "--coordinator", "a", "--process_id", "1"), "HOST:PORT"),
    ):
        assert says in refusal(*flags), flags
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert "it must be 4, as many as were launched" in refusal("--processes", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "x")
    assert "process_id = None" in refusal("--processes", "2", "--coordinator", "a:1")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    with pytest.raises(ConfigError, match=r"processes = 2 is .* 1 where a run is called from Pyth"):
        train("gridworld", preset="tiny", run_dir=tmp_path / "run", processes=2)
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken_is_refused():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        says = refusal("--processes", "2", "--coordinator", address, "--process_id", "0")
    assert "it must be HOST:PORT with a free port of the first process" in says


def test_processes_that_do_not_come_are_not_waited_for_forever():
    script = (
        "from smz_jax.run import joining\n"
        "joining.JOIN_SECONDS = 1\n"
        "joining._join('127.0.0.1:9', 2, 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    line = "error: 2 processes did not come together at 127.0.0.1:9 within 1 seconds\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "steps"), [("2", "1152"), ("4", "128")])
def test_a_run_in_processes_is_that_in_one_and_goes_on_in_others(start, tmp_path, processes, steps):
    """After 108 updates of two processes, and 12 of four: minutes."""
    words = ("tests.support.several_processes", processes, str(tmp_path), steps)
    process = start(*words)
    out, err = process.communicate(timeout=3000)
    assert process.returncode == 0 and out.endswith("the same\n"), err[-2000:]


@pytest.mark.slow
def test_a_run_that_loses_a_process_keeps_its_checkpoint_and_a_signal_saves(start, tmp_path):
    words = ["experiments.gridworld", "--run_dir", str(tmp_path / "run"), "--processes", "2"]
    flags = ("--preset", "tiny", "--checkpoint_every_env_steps", "32", "--eval.no_baselines")
    folder = tmp_path / "run" / "checkpoints" / "last"

    def wait_for_a_step(process, known):
        while not (
            new := [x for x in folder.glob("*") if x.name not in known and x.name.isdigit()]
        ):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        return {x.name for x in new} | known

    process = start(*words, *flags, "--total_env_steps", "64000")
    known = wait_for_a_step(process, set())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (helper,) = [int(x) for x in children]
    os.kill(helper, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: process 1 was ended by SIGKILL" in err, err
    assert "Traceback" not in err and any(folder.iterdir())

    process = start(*words, "--resume")
    known = wait_for_a_step(process, known)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "a checkpoint is saved. Go on with:" in out, err
    assert "resumed at" in out and "--processes" in (tmp_path / "run/config.yaml").read_text()
    steps = [x for x in folder.iterdir() if x.name.isdigit()]
    assert max(steps).joinpath("manifest.json").is_file()
