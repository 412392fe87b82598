"""Runs jobs as processes of their own, on an engine; stops them so that they can continue."""

import contextlib
import dataclasses
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.sweep import jobs as plans
from experiments.sweep.engines import STOPPED, Engine, Process
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
WRONG_SETTING = 2  # exit code of a run that a second try would not help
Follow = Callable[[Result], Sequence[Job]]


class _Running(NamedTuple):
    job: Job
    process: Process
    began: float


def _no_more(ended: Result) -> Sequence[Job]:
    return ()


class Runner:
    """Runs jobs, as many at a time as an engine has room for.

    Args:
        jobs: in their order.
        engine: where their processes run.
        progress: shows how far they are.
        retries: how often a run that fails is tried again, from its last checkpoint.
        follow: gives the jobs that come next, before those that wait, after one has ended.
        most: how many runs there may be with those that follow, for the time that is left.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        engine: Engine,
        progress: Progress,
        retries: int = 0,
        follow: Follow = _no_more,
        most: int = 0,
    ) -> None:
        self._engine, self._progress, self._retries = engine, progress, retries
        self._follow, self._most = follow, most
        self._due = 0.0
        self._stop: object = None  # true once all are to stop
        self._tries: Counter[str] = Counter()
        self._scores = {job.name: _score(job) for job in jobs}
        self._took: Counter[str] = Counter()  # most bytes of memory, by name
        engine.book(max((read_json(x.record).get("peak_bytes") or 0 for x in jobs), default=0))
        self._waiting = [job for job in jobs if job.command() is not None]
        self._running: list[_Running] = []
        self.results = [Result(job, "finished", 0) for job in jobs if job not in self._waiting]

    def run(self, stop: StopSignal) -> list[Result]:
        """Runs all jobs to their end, or stops them at a signal; gives how each ended.

        The first signal is passed on to the jobs, which save and end; a second one too, which
        interrupts them at once.
        """
        self._stop = stop
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
            self._stop = True
            self._signal(signal.SIGINT)
            while self._running:
                self._pause()
        finally:
            self._engine.close()  # none is left but after an error here, or a third signal
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
            self._took[x.job.name] = max(self._took[x.job.name], x.process.memory())
        pairs = [(x.job, advance) for x, advance in running]
        later = self._most - len(self.results) - len(self._running) - len(self._waiting)
        waiting = self._waiting + [running[-1][0].job] * later
        left = plans.time_left(waiting, pairs, finished, self._engine.slots)
        head = f"{len(finished)} finished, {len(self._waiting)} waiting, "
        head += "at most " * (later > 0)
        head += f"ETA {short_duration(left)}" + (f", {failed} FAILED" if failed else "")
        text = "\n".join([head, *(plans.describe(*x) for x in pairs)])
        self._progress.step(text, len(self.results), f"{head}\n{self._table(running).to_text()}")

    def _table(self, running: Sequence[tuple[_Running, plans.Advance]]) -> Table:
        """All runs at a glance, those that run first."""
        rows = []
        for one, x in running:
            where = one.process.where()
            state = "again" if self._tries[one.job.name] else "running" if where else "queued"
            score = "" if x.score is None else f"{x.score:.4g}"
            steps = f"{short_count(x.steps)} ({x.share:.0%})"
            rows.append((one.job.name, state, score, steps, short_duration(x.remaining), where))
        ended = sorted(self.results, key=lambda x: x.kind != "failed")
        for name, kind in [(x.job.name, x.kind) for x in ended]:
            rows.append((name, kind, self._scores[name]))
        rows += [(job.name, "waiting") for job in self._waiting]
        note = f"... and {len(rows) - MOST_LINES} more" if len(rows) > MOST_LINES else ""
        columns = ("run", "state", "score", "steps", "ETA", "where")
        return Table(columns, rows[:MOST_LINES], note=note, left=(0, 1))

    def _start_what_fits(self) -> None:
        """Starts jobs in order; one that wants more cores than are free holds up the others."""
        while self._waiting:
            if not self._engine.fits(self._waiting[0]):
                if self._engine.lack:
                    self._progress.message(self._engine.lack, topic="memory")
                return
            job = self._waiting.pop(0)
            if job.run_dir.resolve() in plans.busy_folders():  # begun since the plan was made
                self._close(Result(job, "failed", None, "another process runs it"))
                continue
            try:
                self._start(job)
            except OSError as error:  # a full disk: what runs may still save
                self._close(Result(job, "failed", None, str(error)))

    def _start(self, job: Job) -> None:
        """Starts the next process of a job."""
        command = job.command()
        assert command is not None
        verb = "reports on its model"
        if not job.is_finished():
            verb = "continues" if "--resume" in command else "begins"
        process = self._engine.start(job, command)
        self._running.append(_Running(job, process, time.monotonic()))
        where = process.where()
        where = f"{verb} on {where}" if where else f"waits for a node where it {verb}"
        self._progress.message(f"{job.name} {where}, log {job.log}")

    def _close(self, result: Result) -> None:
        """Keeps how a job ended, and takes what is to follow."""
        self.results.append(result)
        for place, job in enumerate(self._follow(result)):
            self._scores.setdefault(job.name, _score(job))
            self._waiting.insert(place, job)

    def _end(self, one: _Running) -> None:
        """Counts a process that has ended, and starts what its job needs after it."""
        self._running.remove(one)
        job, code = one.job, one.process.poll()
        kind: Kind = "finished"
        reason = tail = ""
        if code in STOPPED and self._stop:  # else somebody else ended it
            kind = "stopped"
        elif code != 0 or not job.is_finished():
            reason = f"exit code {code}" if code else "it ended without a finished result"
        elif list(one.process.words) == job.command():
            reason = "its report was not written"
        elif job.command() is not None:
            self._waiting.insert(0, dataclasses.replace(job, state="finished", cores=1))
            return
        if reason:
            kind = "failed"
            lines = []
            with contextlib.suppress(FileNotFoundError):  # it never began
                lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = f": {reason}\n" + "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
            self._tries[job.name] += 1
            again = self._tries[job.name] <= self._retries and code != WRONG_SETTING
            if again and not job.is_finished():
                self._waiting.insert(0, job)
                self._progress.message(f"{job.name} failed{tail}\n    it is tried once more")
                return
        if peak := self._took[job.name]:
            self._engine.book(peak)
            with contextlib.suppress(OSError):
                write_json(job.record, {**read_json(job.record), "peak_bytes": peak})
        self._scores[job.name] = _score(job)
        took = short_duration(time.monotonic() - one.began)
        after = "in" if kind == "finished" else "after"
        self._progress.message(f"{job.name} {kind} {after} {took}{tail}")
        self._close(Result(job, kind, code, reason))

    def _signal(self, number: int) -> None:
        for one in self._running:
            one.process.signal(number)


def _score(job: Job) -> str:
    """The final score of a run; empty before."""
    found = read_estimate(job.result().get("evaluation"))
    return f"{found.mean:.4g}" if found else ""


def carry_out(
    jobs: Sequence[Job],
    engine: Engine,
    command: str,
    write: Callable[[list[Result]], None],
    retries: int = 0,
) -> int:
    """Runs all jobs under a display, writes what came of them, says what is left to do.

    Args:
        jobs: as `make_plan` gives them.
        engine: where their processes run.
        command: name of the module of `experiments` that was called.
        write: writes and prints what came of it, from how each job ended.
        retries: as for `Runner`.

    Returns:
        The exit code: 0; 1 if a run failed; 130 and 143 when stopped.
    """
    progress = Progress(len(jobs), command, line_seconds=LINE_SECONDS)
    with StopSignal() as stop, progress:
        results = Runner(jobs, engine, progress, retries).run(stop)
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
