"""Runs jobs as processes of their own, each on its cores; stops them so that they can continue."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from experiments.results.advance import overview
from experiments.results.plan import Job, Result, busy_folders
from smz_jax.report.text import short_duration
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.files import write_json

POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""Between two readings of how far the runs are."""
LINE_SECONDS = 30.0
"""Least time between two plain lines of it, where there is no terminal."""
TAIL_LINES = 12
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a run that was stopped; the last two before it could say so itself."""


@dataclass(frozen=True)
class Machine:
    """What jobs may use."""

    cores: tuple[int, ...]
    """Numbers of the cores; jobs are pinned to theirs."""
    pins: bool = True
    """Whether the platform can pin, and jobs should be."""
    processor: str = "unknown"


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    cores: tuple[int, ...]
    began: float


def this_machine(jobs: int | None, preset: str) -> Machine:
    """The cores for `jobs` single-core jobs at a time; None: one for each core.

    Jobs run alone and unpinned at the preset `gpu`, at `tiny` (programs that the experiment itself
    compiled before are then found again), and where cores cannot be pinned.
    """
    processor = "unknown processor"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    if preset in ("gpu", "tiny") or not hasattr(os, "sched_setaffinity"):
        return Machine((0,), False, processor)
    cores = sorted(os.sched_getaffinity(0))
    return Machine(tuple(cores[: jobs or len(cores)]), True, processor)


@contextlib.contextmanager
def _pinned(cores: Sequence[int]) -> Iterator[None]:
    """Inside, processes start on these cores alone: they inherit them from this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment(cores: int, pins: bool) -> dict[str, str]:
    """A run's environment: CPU unless the user says otherwise, one thread on one core."""
    found = dict(os.environ)
    if pins:
        found.setdefault("JAX_PLATFORMS", "cpu")  # several runs cannot share an accelerator
    if pins and cores == 1:
        found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    return found


def log_tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


class Runner:
    """Runs jobs, as many at a time as there are cores for.

    A child is a session of its own, so that Ctrl-C in a terminal reaches it once, from here: a
    second signal would interrupt it before its checkpoint is saved.
    """

    def __init__(self, jobs: Sequence[Job], machine: Machine, progress: Progress) -> None:
        self._machine, self._progress = machine, progress
        self._due = 0.0
        self._free = list(machine.cores)
        self._waiting = [job for job in jobs if job.command() is not None]
        self._running: list[_Running] = []
        done = [Result(job, "finished", 0) for job in jobs if job not in self._waiting]
        self.results: list[Result] = done

    def run(self, stop: StopSignal) -> list[Result]:
        """Runs all jobs to their end, or stops them at a signal; gives how each ended.

        Args:
            stop: the first signal is passed on to the jobs, which save and end; a second one too,
                which interrupts them at once.
        """
        try:
            while (self._waiting or self._running) and not stop:
                self._start_what_fits()
                self._pause()
            if self._running:
                self._progress.message(
                    f"stopping {len(self._running)} runs: they save a checkpoint"
                )
                self._signal(stop.number or signal.SIGTERM)
            while self._running:
                self._pause()
        except KeyboardInterrupt:
            self._signal(signal.SIGINT)
            while self._running:
                self._pause()
        finally:
            self._signal(signal.SIGKILL)  # none is left but after an error here, or a third signal
        self.results += [Result(job, "stopped") for job in self._waiting]
        return self.results

    def _pause(self) -> None:
        """Sees who has ended, tells the user, and rests."""
        for one in list(self._running):
            if one.process.poll() is not None:
                self._end(one)
        if self._running and time.monotonic() >= self._due:
            self._due = time.monotonic() + LOOK_SECONDS
            running = [x.job for x in self._running]
            text = overview(self._waiting, running, self.results, len(self._machine.cores))
            self._progress.step(text, len(self.results))
        time.sleep(POLL_SECONDS)

    def _start_what_fits(self) -> None:
        """Starts jobs in order; one that wants more cores than are free holds up the others."""
        while self._waiting:
            wanted = min(self._waiting[0].cores, len(self._machine.cores))
            if wanted > len(self._free):
                return
            job = self._waiting.pop(0)
            cores, self._free = tuple(self._free[:wanted]), self._free[wanted:]
            self._start(job, cores)

    def _start(self, job: Job, cores: tuple[int, ...]) -> None:
        """Starts the next process of a job."""
        command = job.command()
        assert command is not None
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if job.run_dir.resolve() in busy_folders():  # begun since the plan was made
            self._free += cores
            self.results.append(Result(job, "failed", None, "another process runs it"))
            return
        log = open(job.log, "ab")  # noqa: SIM115 - closed when the process has ended
        machine = self._machine
        with _pinned(cores) if machine.pins else contextlib.nullcontext():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(len(cores), machine.pins),
                start_new_session=True,
            )
        self._running.append(_Running(job, process, log, cores, time.monotonic()))
        verb = "reports on its model"
        if not job.is_finished():
            verb = "continues" if "--resume" in command else "begins"
            count = len(cores) if machine.pins else os.cpu_count()
            record = {"cores": count, "processor": machine.processor, "preset": job.preset}
            write_json(job.record, {**record, "command": command})
        where = f" on core {' and '.join(map(str, cores))}" if machine.pins else ""
        self._progress.message(f"{job.name} {verb}{where}, log {job.log}")

    def _end(self, one: _Running) -> None:
        """Counts a process that has ended, and starts what its job needs after it."""
        self._running.remove(one)
        self._free = sorted([*self._free, *one.cores])
        one.log.close()
        job, code = one.job, one.process.returncode
        took = short_duration(time.monotonic() - one.began)
        if code in STOPPED:
            self.results.append(Result(job, "stopped", code))
            self._progress.message(f"{job.name} stopped after {took}")
            return
        reason = ""
        if code != 0 or not job.is_finished():
            reason = f"exit code {code}" if code else "it ended without a finished result"
        elif one.process.args == job.command():
            reason = "its report was not written"
        if reason:
            self.results.append(Result(job, "failed", code, reason))
            self._progress.message(f"{job.name} failed after {took}: {reason}\n{log_tail(job.log)}")
        elif job.command() is None:
            self.results.append(Result(job, "finished", code))
            self._progress.message(f"{job.name} finished in {took}")
        else:
            self._waiting.insert(0, dataclasses.replace(job, state="finished", cores=1))

    def _signal(self, number: int) -> None:
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(number)
