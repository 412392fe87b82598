"""Runs jobs as processes of their own, each on its cores; stops them so that they can continue."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.results import jobs as plans
from experiments.results.jobs import Job, Kind, Result
from smz_jax.report.text import short_duration
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.files import write_json

POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0  # between two readings of how far the runs are
LINE_SECONDS = 30.0  # least time between two plain lines of it, where there is no terminal
TAIL_LINES = 12
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a run that was stopped; the last two before it could say so itself."""


class Machine(NamedTuple):
    """What jobs may use."""

    cores: tuple[int, ...]  # their numbers; jobs are pinned to theirs
    pins: bool = True  # whether the platform can pin, and jobs should be
    processor: str = "unknown"


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[Any]
    cores: list[int]
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


class Runner:
    """Runs jobs, as many at a time as there are cores for.

    A child is a session of its own, so that Ctrl-C in a terminal reaches it once, from here: a
    second signal would interrupt it before its checkpoint is saved.
    """

    def __init__(self, jobs: Sequence[Job], machine: Machine, progress: Progress) -> None:
        self._machine, self._progress = machine, progress
        self._due = 0.0
        self._waiting = [job for job in jobs if job.command() is not None]
        self._running: list[_Running] = []
        self.results = [Result(job, "finished", 0) for job in jobs if job not in self._waiting]

    def run(self, stop: StopSignal) -> list[Result]:
        """Runs all jobs to their end, or stops them at a signal; gives how each ended.

        The first signal is passed on to the jobs, which save and end; a second one too, which
        interrupts them at once.
        """
        try:
            while (self._waiting or self._running) and not stop:
                self._start_what_fits()
                self._pause()
            if count := len(self._running):
                self._progress.message(f"stopping {count} runs: they save a checkpoint")
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
        """Sees who has ended, tells the user how far all are, and rests."""
        for one in list(self._running):
            if one.process.poll() is not None:
                self._end(one)
        if self._running and time.monotonic() >= self._due:
            self._due = time.monotonic() + LOOK_SECONDS
            finished = [x.job for x in self.results if x.kind == "finished"]
            failed = sum(x.kind == "failed" for x in self.results)
            running = [(x.job, plans.advance_of(x.job)) for x in self._running]
            left = plans.time_left(self._waiting, running, finished, len(self._machine.cores))
            head = f"{len(finished)} finished, {len(self._waiting)} waiting, "
            head += f"ETA {short_duration(left)}" + (f", {failed} FAILED" if failed else "")
            text = "\n".join([head, *(plans.describe(*x) for x in running)])
            self._progress.step(text, len(self.results))
        time.sleep(POLL_SECONDS)

    def _start_what_fits(self) -> None:
        """Starts jobs in order; one that wants more cores than are free holds up the others."""
        while self._waiting:
            used = {core for one in self._running for core in one.cores}
            free = [core for core in self._machine.cores if core not in used]
            wanted = min(self._waiting[0].cores, len(self._machine.cores))
            if wanted > len(free):
                return
            job = self._waiting.pop(0)
            if job.run_dir.resolve() in plans.busy_folders():  # begun since the plan was made
                self.results.append(Result(job, "failed", None, "another process runs it"))
            else:
                self._start(job, free[:wanted])

    def _start(self, job: Job, cores: list[int]) -> None:
        """Starts the next process of a job."""
        command, machine, environment = job.command(), self._machine, dict(os.environ)
        assert command is not None
        own = os.sched_getaffinity(0) if machine.pins else set()
        if machine.pins:
            environment.setdefault("JAX_PLATFORMS", "cpu")  # runs cannot share an accelerator
            if len(cores) == 1:
                flags = environment.get("XLA_FLAGS", "")
                environment["XLA_FLAGS"] = f"{flags} {ONE_THREAD}".strip()
            os.sched_setaffinity(0, cores)  # the process inherits them from this thread
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log:
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        self._running.append(_Running(job, process, cores, time.monotonic()))
        where = ""
        if machine.pins:
            os.sched_setaffinity(0, own)
            where = f" on core {' and '.join(map(str, cores))}"
        verb = "reports on its model"
        if not job.is_finished():
            verb = "continues" if "--resume" in command else "begins"
            count = len(cores) if machine.pins else os.cpu_count()
            record = {"cores": count, "processor": machine.processor, "preset": job.preset}
            write_json(job.record, {**record, "command": command})
        self._progress.message(f"{job.name} {verb}{where}, log {job.log}")

    def _end(self, one: _Running) -> None:
        """Counts a process that has ended, and starts what its job needs after it."""
        self._running.remove(one)
        job, code = one.job, one.process.returncode
        kind: Kind = "finished"
        reason = tail = ""
        if code in STOPPED:
            kind = "stopped"
        elif code != 0 or not job.is_finished():
            reason = f"exit code {code}" if code else "it ended without a finished result"
        elif one.process.args == job.command():
            reason = "its report was not written"
        elif job.command() is not None:
            self._waiting.insert(0, dataclasses.replace(job, state="finished", cores=1))
            return
        if reason:
            kind = "failed"
            lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = f": {reason}\n" + "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
        self.results.append(Result(job, kind, code, reason))
        took = short_duration(time.monotonic() - one.began)
        after = "in" if kind == "finished" else "after"
        self._progress.message(f"{job.name} {kind} {after} {took}{tail}")

    def _signal(self, number: int) -> None:
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(number)
