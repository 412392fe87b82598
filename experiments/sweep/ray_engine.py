"""Runs as tasks of a Ray cluster: where each goes, and again after its node is lost, is Ray's.

A node starts an ordinary process in the folder of the sweep, which must lie on storage that all
nodes see. Ray sends jobs as pickles of its own; what lies in the folders is free of them.
"""

import contextlib
import ctypes
import fcntl
import importlib
import importlib.util
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from experiments.sweep.engines import is_pinned, process_settings, processor_name, write_record
from experiments.sweep.jobs import Job
from experiments.sweep.variants import read_json
from smz_jax.config.check import ConfigError
from smz_jax.storage.run_dir import LOCK_NAME

ANSWER_SECONDS = 10.0
"""That a cluster has to answer in."""
LOST_TRIES = 5
"""How often a run is begun again elsewhere after its node is lost."""
LOCK_SECONDS = 120.0
"""That a run waits for the one before it, which may be saving on a node that is being lost."""
POLL_SECONDS = 0.2
UNSEEN = 70
"""Exit code where a node does not see the folder of a run."""
LOST = 71
"""Exit code where Ray gave a run up."""
TOKEN = "set RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token"
_PROBE = (
    "import sys\nfrom ray._raylet import GcsClient\nprint('ready', flush=True)\n"
    "try:\n    GcsClient(address=sys.argv[1])\n    print('there', flush=True)\n"
    "except Exception as error:\n    print(type(error).__name__, flush=True)\n"
)
_PR_SET_PDEATHSIG = 1


class RayProcess:
    """A task of a cluster, as a process."""

    def __init__(self, job: Job, words: list[str], task: Any) -> None:
        self.words: Sequence[str] = words
        self._job, self._task, self._sent = job, task, time.time()
        self._code: int | None = None
        self._asked: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None before the end."""
        ray = _ray()
        if self._code is None and ray.wait([self._task], timeout=0)[0]:
            fault = ""
            try:
                self._code = ray.get(self._task)
            except ray.exceptions.TaskCancelledError:
                self._code = -(self._asked or signal.SIGTERM)
            except ray.exceptions.RayError as error:
                self._code = -self._asked if self._asked else LOST
                fault = f"Ray gave the run up: {_first_line(error)}"
            if self._code == UNSEEN:
                where = self._job.run_dir.parent
                fault = f"a node does not see {where}: it must lie on storage that all nodes share"
            if fault:
                with open(self._job.log, "a", encoding="utf-8") as log:
                    log.write(f"{fault}\n")
        return self._code

    def signal(self, number: int) -> None:
        """Lets the node end the run with SIGTERM; the second time it is killed."""
        if self._code is None:
            with contextlib.suppress(_ray().exceptions.RayError):
                _ray().cancel(self._task, force=self._asked is not None)
            self._asked = number

    def memory(self) -> int:
        """Not known."""
        return 0

    def where(self) -> str:
        """The node; empty before it has begun."""
        record = read_json(self._job.record)
        return str(record.get("node", "")) if record.get("begun", 0) >= self._sent else ""


class RayCluster:
    """Processes on the nodes of a Ray cluster.

    Args:
        address: `auto` (the cluster of this machine), HOST:PORT, or `local`: one of this machine's
            own cores.
        jobs: runs at a time; None: as many as the cluster has cores.
        preset: of the runs.

    Raises:
        ConfigError: in one line, if Ray is not installed or the cluster does not answer.
    """

    lack = ""

    def __init__(self, address: str, jobs: int | None, preset: str) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--engine ray needs Ray: pip install '.[ray]'")
        self._ray = connect(address, jobs)
        found = self._ray.cluster_resources()
        gpus = int(found.get("GPU", 0))
        self._gpus = 1 if preset == "gpu" and gpus else 0
        self.slots = jobs or max(gpus if self._gpus else int(found.get("CPU", 1)), 1)
        self._running: list[RayProcess] = []

    def fits(self, job: Job) -> bool:
        """Whether fewer runs are with the cluster than may be."""
        self._running = [x for x in self._running if x.poll() is None]
        return len(self._running) < self.slots

    def book(self, peak: int) -> None:
        """Memory is what Ray looks after."""

    def start(self, job: Job, words: list[str]) -> RayProcess:
        """Sends a job to the cluster."""
        job.run_dir.parent.mkdir(parents=True, exist_ok=True)
        keep = ("SMZ_COMPILE_CACHE", "PYTHONPATH", "XLA_FLAGS", "JAX_PLATFORMS")
        given = {name: os.environ[name] for name in keep if name in os.environ}
        if is_pinned(job.preset):
            given |= process_settings(job.cores, given)
        options = {"num_cpus": job.cores, "num_gpus": self._gpus, "max_retries": LOST_TRIES}
        remote = self._ray.remote(run_job).options(name=job.name, **options)
        process = RayProcess(job, words, remote.remote(job, given, os.getcwd()))
        self._running.append(process)
        return process

    def close(self) -> None:
        """Kills what is left."""
        for process in self._running:
            if process.poll() is None:
                process.signal(signal.SIGKILL)
                process.signal(signal.SIGKILL)


def run_job(job: Job, given: Mapping[str, str], root: str) -> int:
    """On a node: runs the command that a job needs now; gives its exit code.

    Ray calls it again elsewhere when a node is lost, and the command then continues the run. A
    cancelled task's process gets SIGTERM, and saves.
    """
    if not job.run_dir.parent.is_dir():
        return UNSEEN
    _wait_for(job.run_dir)
    if (words := job.command()) is None:  # it ended as its node was lost
        return 0
    write_record(job, words, job.cores, processor_name())
    _note_node(job)
    with open(job.log, "ab") as log:
        # A node's process goes with its task, after saving.
        return run_command(words, given, root, log, preexec_fn=_end_with_parent)


def run_command(
    words: Sequence[str], given: Mapping[str, str], root: str, log: IO[bytes], **how: Any
) -> int:
    """On a node: runs a command in `root`, if that is there, to its end; gives its exit code.

    A cancelled task's process gets SIGTERM. `how` goes to `subprocess.Popen`.
    """
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **given},
        cwd=root if Path(root).is_dir() else os.getcwd(),  # of `ray job submit --working-dir`
        start_new_session=True,
        **how,
    )
    try:
        # Not `wait`: Ray interrupts between two instructions of Python, not a system call.
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
    return process.wait()


def _ray() -> Any:
    return importlib.import_module("ray")


def connect(address: str, jobs: int | None) -> Any:
    """Ray, connected; raises ConfigError in one line."""
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_DEDUP_LOGS", "0")):
        os.environ.setdefault(name, value)
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        cores = len(os.sched_getaffinity(0))
        given |= {"num_cpus": min(jobs or cores, cores), "include_dashboard": False}
    elif address != "auto":
        _probe(address)
    ray = _ray()
    try:
        ray.init(address=address, **given)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if "InvalidAuthToken" in str(error):
            message = f"the Ray cluster at address {address} wants its token: {TOKEN}"
            raise ConfigError(message) from None
        message = f"no Ray cluster at address {address}: {_first_line(error)}"
        raise ConfigError(message) from None
    return ray


def _probe(address: str) -> None:
    """Raises ConfigError in one line unless a cluster answers within `ANSWER_SECONDS`.

    In a process of its own: Ray itself would try for 40 seconds, and print meanwhile.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"address = {address!r} is not allowed: it must be auto, local, HOST:PORT"
        )
    command = [sys.executable, "-c", _PROBE, address]
    quiet: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as probe:
        assert probe.stdout is not None
        probe.stdout.readline()  # Ray is loaded
        select.select([probe.stdout], [], [], ANSWER_SECONDS)
        os.set_blocking(probe.stdout.fileno(), False)
        answer = probe.stdout.read() or b""
        probe.kill()
    if b"AuthenticationError" in answer:
        raise ConfigError(f"the Ray cluster at address {address} wants its token: {TOKEN}")
    if b"there" not in answer:
        seconds = f"{ANSWER_SECONDS:.0f} seconds"
        raise ConfigError(f"no Ray cluster at address {address} answered within {seconds}")


def _wait_for(run_dir: Path) -> None:
    """Waits until no process holds a run's folder, for a while: the run itself refuses then."""
    until = time.monotonic() + LOCK_SECONDS
    while (run_dir / LOCK_NAME).exists() and time.monotonic() < until:
        with open(run_dir / LOCK_NAME, "a") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.2)


def _note_node(job: Job) -> None:
    """Says in the job's record where it runs, for the table."""
    from smz_jax.storage.files import write_json

    ray = _ray()
    node = f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"
    record = {**read_json(job.record), "node": node, "begun": time.time()}
    write_json(job.record, record)


def _end_with_parent() -> None:
    """Lets a process get SIGTERM when the one that started it ends, however that ends (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
