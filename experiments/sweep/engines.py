"""Where the processes of jobs run: what the runner asks of an engine, and this machine's cores.

An engine starts a process and tells of it. States, tries, the table and results are the runner's.
Another engine is `ray_engine`.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from experiments.sweep.jobs import Job
from smz_jax.storage.files import write_json

USUAL_BYTES = 1_500_000_000
"""Memory of a run, before any has been seen."""
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a run that was stopped; the last two before it could say so itself."""


class Process(Protocol):
    """The process of a job, wherever it is."""

    words: Sequence[str]
    """Its command."""

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None before the end."""
        ...

    def signal(self, number: int) -> None:
        """Sends it a signal; one that has ended takes none."""
        ...

    def memory(self) -> int:
        """Bytes that it takes now; 0 where that is not known."""
        ...

    def where(self) -> str:
        """What it runs on, for people; empty while it waits for a place."""
        ...


class Engine(Protocol):
    """A place for processes."""

    slots: int
    """Single-core jobs that it runs at a time."""
    lack: str
    """Why a job did not fit although a slot is free; empty: it did, or none is."""

    def fits(self, job: Job) -> bool:
        """Whether a job may be started now."""
        ...

    def book(self, peak: int) -> None:
        """Takes note of the most memory, in bytes, that a run took."""
        ...

    def start(self, job: Job, words: list[str]) -> Process:
        """Starts the command of a job, and writes its record; raises OSError if it cannot."""
        ...

    def close(self) -> None:
        """Ends what is left running."""
        ...


class Machine(NamedTuple):
    """What jobs may use."""

    cores: tuple[int, ...]  # their numbers; jobs are pinned to theirs
    pins: bool = True  # whether the platform can pin, and jobs should be
    processor: str = "unknown"


def processor_name() -> str:
    """Of this machine."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    return "unknown processor"


def this_machine(jobs: int | None, preset: str) -> Machine:
    """The cores for `jobs` single-core jobs at a time; None: one for each core.

    Jobs run alone and unpinned at the preset `gpu`, at `tiny` (programs that the experiment itself
    compiled before are then found again), and where cores cannot be pinned.
    """
    if not is_pinned(preset) or not hasattr(os, "sched_setaffinity"):
        return Machine((0,), False, processor_name())
    cores = sorted(os.sched_getaffinity(0))
    return Machine(tuple(cores[: jobs or len(cores)]), True, processor_name())


def is_pinned(preset: str) -> bool:
    """Whether runs of a preset have cores of their own."""
    return preset not in ("gpu", "tiny")


def process_settings(cores: int, environment: dict[str, str]) -> dict[str, str]:
    """What a pinned run's environment must hold, so that its numbers are those of any engine.

    Args:
        cores: that it may use.
        environment: that it would get otherwise.
    """
    found = {"JAX_PLATFORMS": environment.get("JAX_PLATFORMS", "cpu")}  # none share an accelerator
    found["NPROC"] = str(cores)  # threads of XLA, which divide its sums, where nothing is pinned
    if cores == 1:
        found["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    return found


def write_record(job: Job, words: Sequence[str], cores: int | None, processor: str) -> None:
    """Notes what a run is begun, or continued, on; raises OSError if it cannot."""
    if not job.is_finished():
        record = {"cores": cores, "processor": processor, "preset": job.preset}
        write_json(job.record, {**record, "command": list(words)})


class LocalProcess:
    """A process on this machine, a session of its own.

    Ctrl-C in a terminal thus reaches it once, from the runner: a second signal would interrupt it
    before its checkpoint is saved.
    """

    def __init__(self, words: list[str], process: subprocess.Popen[Any], cores: Sequence[int]):
        self.words: Sequence[str] = words
        self.cores = cores
        self.most = 0
        """Bytes of memory that it was seen to take."""
        self._process = process

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None before the end."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Sends it a signal; one that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def memory(self) -> int:
        """Bytes that it takes now; 0 once it has ended."""
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self._process.pid).memory_info().rss
            self.most = max(self.most, found)
            return found
        return 0

    def where(self) -> str:
        """Its cores."""
        if not self.cores:
            return "all cores"
        return f"core{'s' * (len(self.cores) > 1)} {' and '.join(map(str, self.cores))}"


class LocalPool:
    """Processes on cores of this machine, as many at a time as there are cores and memory for.

    Args:
        machine: what they may use.
    """

    def __init__(self, machine: Machine) -> None:
        self.slots = len(machine.cores)
        self.lack = ""
        self._machine = machine
        self._running: list[tuple[LocalProcess, list[int]]] = []
        self._peak = 0

    def fits(self, job: Job) -> bool:
        """Whether enough cores are free, and memory for one more run."""
        self.lack = ""
        return self._free_cores(job) is not None and self._has_memory()

    def book(self, peak: int) -> None:
        """Takes note of the most memory, in bytes, that a run took."""
        self._peak = max(self._peak, peak)

    def start(self, job: Job, words: list[str]) -> LocalProcess:
        """Starts a command on cores of its own, its output at the end of the job's log."""
        cores = self._free_cores(job)
        assert cores is not None
        pins, environment = self._machine.pins, dict(os.environ)
        write_record(job, words, len(cores) if pins else os.cpu_count(), self._machine.processor)
        if pins:
            environment |= process_settings(len(cores), environment)
        own = os.sched_getaffinity(0) if pins else set()
        with open(job.log, "ab") as log:
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            streams |= {"env": environment, "start_new_session": True}
            try:
                if pins:
                    os.sched_setaffinity(0, cores)  # the process inherits them from this thread
                process = subprocess.Popen(words, **streams)
            finally:
                if pins:
                    os.sched_setaffinity(0, own)
        started = LocalProcess(words, process, cores if pins else ())
        self._running.append((started, cores))
        return started

    def close(self) -> None:
        """Kills what is left, which is nothing but after an error or a third signal."""
        for process, _ in self._alive():
            process.signal(signal.SIGKILL)

    def _alive(self) -> list[tuple[LocalProcess, list[int]]]:
        self._running = [x for x in self._running if x[0].poll() is None]
        return self._running

    def _free_cores(self, job: Job) -> list[int] | None:
        """Cores for a job; None where too few are free."""
        used = {core for _, cores in self._alive() for core in cores}
        free = [core for core in self._machine.cores if core not in used]
        wanted = min(job.cores, self.slots)
        return free[:wanted] if wanted <= len(free) else None

    def _has_memory(self) -> bool:
        """Whether another run fits, if each takes as much as the largest so far; one always may."""
        need = max([self._peak or USUAL_BYTES, *(x.most for x, _ in self._alive())])
        free = psutil.virtual_memory().available
        free -= sum(max(need - x.memory(), 0) for x, _ in self._alive())
        fits = free >= need or not self._running
        text = f"{max(free, 0) / 1e9:.1f} GB are free, a run takes up to {need / 1e9:.1f}"
        self.lack = "" if fits else f"fewer runs at a time than cores: {text}"
        return fits
