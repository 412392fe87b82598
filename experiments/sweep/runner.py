"""Runs jobs as processes of their own, each on its cores; stops them so that they can continue."""

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from experiments.sweep import jobs as plans
from experiments.sweep.jobs import Job, Kind, Result
from experiments.sweep.variants import read_json
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count, short_duration
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.estimate import read_estimate
from smz_jax.storage.files import write_json

POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0  # between two readings of how far the runs are
LINE_SECONDS = 30.0  # least time between two plain lines of it, where there is no terminal
TAIL_LINES = 12
MOST_LINES = 30  # of the table while runs go
USUAL_BYTES = 1_500_000_000  # of a run, before any has been seen
WRONG_SETTING = 2  # exit code of a run that a second try would not help
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

    def memory(self) -> int:
        """Bytes that it takes now; 0 once it has ended."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.process.pid).memory_info().rss
        return 0


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
    """Runs jobs, as many at a time as there are cores and memory for.

    A child is a session of its own, so that Ctrl-C in a terminal reaches it once, from here: a
    second signal would interrupt it before its checkpoint is saved.

    Args:
        jobs: in their order.
        machine: what they may use.
        progress: shows how far they are.
        retries: how often a run that fails is tried again, from its last checkpoint.
    """

    def __init__(
        self, jobs: Sequence[Job], machine: Machine, progress: Progress, retries: int = 0
    ) -> None:
        self._machine, self._progress, self._retries = machine, progress, retries
        self._due = 0.0
        self._tries: Counter[str] = Counter()
        self._scores = {job.name: _score(job) for job in jobs}
        self._took: Counter[str] = Counter()  # most bytes of memory, by name
        self._peak = max((read_json(x.record).get("peak_bytes") or 0 for x in jobs), default=0)
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
            self._show()
        time.sleep(POLL_SECONDS)

    def _show(self) -> None:
        """Tells the user how far all are, and sees how much memory they take."""
        finished = [x.job for x in self.results if x.kind == "finished"]
        failed = sum(x.kind == "failed" for x in self.results)
        running = [(x, plans.advance_of(x.job)) for x in self._running]
        for x in self._running:
            self._took[x.job.name] = max(self._took[x.job.name], x.memory())
        pairs = [(x.job, advance) for x, advance in running]
        left = plans.time_left(self._waiting, pairs, finished, len(self._machine.cores))
        head = f"{len(finished)} finished, {len(self._waiting)} waiting, "
        head += f"ETA {short_duration(left)}" + (f", {failed} FAILED" if failed else "")
        text = "\n".join([head, *(plans.describe(*x) for x in pairs)])
        self._progress.step(text, len(self.results), f"{head}\n{self._table(running).to_text()}")

    def _table(self, running: Sequence[tuple[_Running, plans.Advance]]) -> Table:
        """All runs at a glance, those that run first."""
        rows = []
        for one, x in running:
            state = "again" if self._tries[one.job.name] else "running"
            score = "" if x.score is None else f"{x.score:.4g}"
            steps = f"{short_count(x.steps)} ({x.share:.0%})"
            where = ",".join(map(str, one.cores)) if self._machine.pins else "all"
            rows.append((one.job.name, state, score, steps, short_duration(x.remaining), where))
        ended = sorted(self.results, key=lambda x: x.kind != "failed")
        for name, kind in [(x.job.name, x.kind) for x in ended]:
            rows.append((name, kind, self._scores[name]))
        rows += [(job.name, "waiting") for job in self._waiting]
        note = f"... and {len(rows) - MOST_LINES} more" if len(rows) > MOST_LINES else ""
        columns = ("run", "state", "score", "steps", "ETA", "cores")
        return Table(columns, rows[:MOST_LINES], note=note, left=(0, 1))

    def _start_what_fits(self) -> None:
        """Starts jobs in order; one that wants more cores than are free holds up the others."""
        while self._waiting:
            used = {core for one in self._running for core in one.cores}
            free = [core for core in self._machine.cores if core not in used]
            wanted = min(self._waiting[0].cores, len(self._machine.cores))
            if wanted > len(free) or not self._has_memory():
                return
            job = self._waiting.pop(0)
            if job.run_dir.resolve() in plans.busy_folders():  # begun since the plan was made
                self.results.append(Result(job, "failed", None, "another process runs it"))
                continue
            try:
                self._start(job, free[:wanted])
            except OSError as error:  # a full disk: what runs may still save
                self.results.append(Result(job, "failed", None, str(error)))

    def _has_memory(self) -> bool:
        """Whether another run fits, if each takes as much as the largest so far; one always may."""
        need = max([self._peak or USUAL_BYTES, *self._took.values()])
        free = psutil.virtual_memory().available
        free -= sum(max(need - x.memory(), 0) for x in self._running)
        fits = free >= need or not self._running
        if not fits:
            text = f"{max(free, 0) / 1e9:.1f} GB are free, a run takes up to {need / 1e9:.1f}"
            self._progress.message(f"fewer runs at a time than cores: {text}", topic="memory")
        return fits

    def _start(self, job: Job, cores: list[int]) -> None:
        """Starts the next process of a job."""
        command, machine, environment = job.command(), self._machine, dict(os.environ)
        assert command is not None
        verb = "reports on its model"
        if not job.is_finished():
            verb = "continues" if "--resume" in command else "begins"
            count = len(cores) if machine.pins else os.cpu_count()
            record = {"cores": count, "processor": machine.processor, "preset": job.preset}
            write_json(job.record, {**record, "command": command})
        own, where = os.sched_getaffinity(0) if machine.pins else set(), ""
        if machine.pins:
            where = f" on core {' and '.join(map(str, cores))}"
            environment.setdefault("JAX_PLATFORMS", "cpu")  # runs cannot share an accelerator
            if len(cores) == 1:
                flags = environment.get("XLA_FLAGS", "")
                environment["XLA_FLAGS"] = f"{flags} {ONE_THREAD}".strip()
        with open(job.log, "ab") as log:
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            streams |= {"env": environment, "start_new_session": True}
            try:
                if machine.pins:
                    os.sched_setaffinity(0, cores)  # the process inherits them from this thread
                process = subprocess.Popen(command, **streams)
            finally:
                if machine.pins:
                    os.sched_setaffinity(0, own)
        self._running.append(_Running(job, process, cores, time.monotonic()))
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
            self._tries[job.name] += 1
            again = self._tries[job.name] <= self._retries and code != WRONG_SETTING
            if again and not job.is_finished():
                self._waiting.insert(0, job)
                self._progress.message(f"{job.name} failed{tail}\n    it is tried once more")
                return
        if peak := self._took[job.name]:
            self._peak = max(self._peak, peak)
            with contextlib.suppress(OSError):
                write_json(job.record, {**read_json(job.record), "peak_bytes": peak})
        self._scores[job.name] = _score(job)
        self.results.append(Result(job, kind, code, reason))
        took = short_duration(time.monotonic() - one.began)
        after = "in" if kind == "finished" else "after"
        self._progress.message(f"{job.name} {kind} {after} {took}{tail}")

    def _signal(self, number: int) -> None:
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(number)


def _score(job: Job) -> str:
    """The final score of a run; empty before."""
    found = read_estimate(job.result().get("evaluation"))
    return f"{found.mean:.4g}" if found else ""


def carry_out(
    jobs: Sequence[Job],
    machine: Machine,
    command: str,
    write: Callable[[list[Result]], None],
    retries: int = 0,
) -> int:
    """Runs all jobs under a display, writes what came of them, says what is left to do.

    Args:
        jobs: as `make_plan` gives them.
        machine: what they may use.
        command: name of the module of `experiments` that was called.
        write: writes and prints what came of it, from how each job ended.
        retries: as for `Runner`.

    Returns:
        The exit code: 0; 1 if a run failed; 130 and 143 when stopped.
    """
    progress = Progress(len(jobs), command, line_seconds=LINE_SECONDS)
    with StopSignal() as stop, progress:
        results = Runner(jobs, machine, progress, retries).run(stop)
    write(results)
    failed = [x for x in results if x.kind == "failed"]
    for x in failed:
        print(f"failed: {x.job.name}, {x.reason}, log {x.job.log}", file=sys.stderr)
    if stop:
        left = sum(x.kind == "stopped" for x in results)
        again = shlex.join(["python", "-m", f"experiments.{command}", *sys.argv[1:]])
        print(f"stopped with {left} runs to do. Continue with:\n  {again}")
        return 128 + (stop.number or 0)
    return 1 if failed else 0
