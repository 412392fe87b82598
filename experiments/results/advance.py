"""How far the jobs are, and how long they will still take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.results.plan import Job, Result, read_json
from smz_jax.config.check import ConfigError
from smz_jax.report.text import short_duration
from smz_jax.storage.metrics import METRICS_FILE
from smz_jax.storage.run_dir import read_config

TAIL_BYTES = 65_536


class Advance(NamedTuple):
    """How far a run is, by what it wrote."""

    share: float  # of its environment steps
    seconds: float  # that it took until then
    score: float | None  # of its last evaluation, else of its recent games

    @property
    def remaining(self) -> float | None:
        """Seconds until its end at its own pace; None before its first sign."""
        return self.seconds * (1 - self.share) / self.share if self.share > 0 else None


def newest_row(path: Path) -> dict[str, Any]:
    """The last whole row of a metrics file that is being written, its scores from earlier ones."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the first line of the tail is rarely whole
            continue
        found |= row if isinstance(row, dict) else {}
    return found


def advance_of(job: Job) -> Advance:
    """How far a job's run is."""
    row = newest_row(job.run_dir / METRICS_FILE)
    try:
        total = read_config(job.run_dir).total_env_steps
    except ConfigError:
        return Advance(0.0, 0.0, None)
    share = min((row.get("env_steps") or 0) / total, 1.0)
    score = row.get("eval/mean", row.get("score/mean"))
    return Advance(share, row.get("wall_seconds") or 0.0, score)


def expected_seconds(job: Job, others: Sequence[tuple[Job, float]]) -> float:
    """What a job that has not begun will take.

    Args:
        job: the job.
        others: jobs whose whole time is known or foreseen, in seconds.
    """
    same = [seconds for other, seconds in others if other.world == job.world]
    if same:
        return sum(same) / len(same)
    return 60 * job.world.minutes if job.preset == "laptop" else 60.0


def time_left(
    waiting: Sequence[Job],
    running: Sequence[tuple[Job, Advance]],
    finished: Sequence[Job],
    slots: int,
) -> float:
    """Seconds until all jobs are done: the work that is left over all cores, or the longest run."""
    known = [(x, read_json(x.run_dir / x.world.result_file).get("seconds_total")) for x in finished]
    whole = [(job, float(seconds)) for job, seconds in known if seconds]
    left = []
    for job, advance in running:
        remaining = advance.remaining
        if remaining is None:
            remaining = expected_seconds(job, whole)
        else:
            whole.append((job, advance.seconds + remaining))
        left.append((remaining, job.cores))
    left += [(expected_seconds(job, whole), job.cores) for job in waiting]
    work = sum(seconds * min(cores, slots) for seconds, cores in left)
    return max([work / slots, *(seconds for seconds, _ in left)], default=0.0)


def describe(job: Job, advance: Advance) -> str:
    """A running job at a glance."""
    score = "" if advance.score is None else f", score {advance.score:.4g}"
    left = short_duration(advance.remaining)
    return f"{job.name} {advance.share:.0%}, {left} left{score}"


def overview(
    waiting: Sequence[Job], running: Sequence[Job], ended: Sequence[Result], slots: int
) -> str:
    """How far all jobs are: a line for all, and one for each that runs."""
    finished = [x.job for x in ended if x.kind == "finished"]
    failed = sum(x.kind == "failed" for x in ended)
    advances = [(job, advance_of(job)) for job in running]
    left = short_duration(time_left(waiting, advances, finished, slots))
    head = f"{len(finished)} finished, {len(waiting)} waiting, ETA {left}"
    head += f", {failed} FAILED" if failed else ""
    return "\n".join([head, *(describe(job, advance) for job, advance in advances)])
