"""The runs of a sweep: what is left to do, by the folders, and how far each is."""

import contextlib
import dataclasses
import importlib
import json
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from experiments.sweep.variants import Variant
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.settings import Config
from smz_jax.config.sources import diff
from smz_jax.envs import check_env_id
from smz_jax.report.text import short_duration
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

State = Literal["new", "resume", "running", "finished"]
Kind = Literal["finished", "stopped", "failed"]
STATES = {"new": "to run", "resume": "to continue", "running": "running", "finished": "finished"}
TAIL_BYTES = 65_536
GUESSED_MINUTES = {"tiny": 1.0, "smoke": 2.0, "laptop": 15.0, "gpu": 24 * 60.0}
"""Of a run by its preset, where nothing better is known."""


@dataclass(frozen=True)
class Job:
    """One run of a variant, in a folder of its own."""

    variant: Variant
    seed: int
    preset: str
    run_dir: Path
    state: State
    cores: int
    flags: tuple[str, ...] = ()  # of its process alone, beside the settings

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.variant.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.run_dir.with_suffix(".log")

    @property
    def record(self) -> Path:
        """What the runner notes of it: cores, processor, preset, command."""
        return self.run_dir.with_suffix(".json")

    def arguments(self) -> list[str]:
        """Flags of a first start."""
        fixed = ["--preset", self.preset, "--seed" if self.variant.is_run else "--seeds"]
        fixed += [str(self.seed), "--run_dir", str(self.run_dir)]
        return fixed + self.variant.words(self.preset)

    def result(self) -> dict[str, Any]:
        """What the run says of its end; empty before."""
        return self.variant.result(self.run_dir)

    def is_finished(self) -> bool:
        """Whether the run has ended as it should, by its own result."""
        return self.variant.is_finished(self.run_dir)

    def command(self) -> list[str] | None:
        """The next process that this job needs, by what is on disk now; None: nothing."""
        python = [sys.executable, "-m", f"experiments.{self.variant.module}"]
        if not self.is_finished():
            resumes = self.variant.is_run and (self.run_dir / CONFIG_NAME).exists()
            return [*python, *self.arguments(), *self.flags, *(["--resume"] if resumes else [])]
        if self.variant.extra is None or (self.run_dir / self.variant.extra[0]).exists():
            return None
        words = self.variant.extra[1]
        return [*python, *(str(self.run_dir) if x == "RUN_DIR" else x for x in words)]


class Result(NamedTuple):
    """How a job ended."""

    job: Job
    kind: Kind
    code: int | None = None
    reason: str = ""


def settings_of(job: Job) -> Config:
    """What the job's command stands for; raises ConfigError in one line if it is refused."""
    module, words = importlib.import_module(f"experiments.{job.variant.module}"), job.arguments()
    try:
        experiment_of = getattr(module, "experiment_of", lambda words: module.EXPERIMENT)
        return parse(words, experiment_of(words)).config
    except ConfigError as error:
        raise ConfigError(f"the settings of {job.name} cannot be known: {error}") from None


def check_same(job: Job) -> None:
    """Raises ConfigError in one line if the job's folder holds a run with other settings."""
    changes = diff(read_config(job.run_dir), settings_of(job))
    if changes:
        listed = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" * (len(changes) > 3))
        raise ConfigError(
            f"{job.run_dir} holds a run with other settings than would be run now: {listed}; "
            "move it away or give another --run_dir"
        )


def check_all(jobs: Sequence[Job]) -> None:
    """Raises ConfigError in one line, before anything runs, for the first run that cannot be.

    That is one whose settings are not allowed, or are those of another variant.
    """
    seen: dict[Config, Job] = {}
    for job in jobs:
        config = settings_of(job)
        try:
            check_env_id(config.env)
        except ConfigError as error:
            raise ConfigError(f"{job.name} cannot be run: {error}") from None
        if (other := seen.setdefault(config, job)) is not job:
            names = f"{other.name} and {job.name}"
            raise ConfigError(f"{names} would be the same run: leave one of them out")


def busy_folders() -> set[Path]:
    """Folders of all runs in progress: begun by hand, or left over from a killed call."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or is somebody else's
            words = process.cmdline()
            if "--run_dir" in words[:-1]:
                folder = words[words.index("--run_dir") + 1]
                found.add(Path(process.cwd(), folder).resolve())
    return found


def make_plan(
    chosen: Sequence[tuple[Variant, Sequence[int]]],
    preset: str,
    out: Path,
    *,
    single_core: bool = False,
    to_list: bool = False,
) -> list[Job]:
    """The jobs of chosen worlds and seeds, each in `out/<world>/seed<seed>`; writes nothing.

    With `single_core` a world that would take more cores gets one too. With `to_list` the plan is
    only shown: a run in progress is no fault, its state is `running`.

    Raises:
        ConfigError: in one line, if a folder holds a run with other settings, or one that is still
            running.
    """
    jobs, busy = [], busy_folders()
    for world, seed in [(world, seed) for world, seeds in chosen for seed in seeds]:
        folder = out / world.name / f"seed{seed}"
        job = Job(world, seed, preset, folder, "new", 1 if single_core else world.cores)
        begun = folder / (CONFIG_NAME if world.is_run else "jobs")
        state: State = "resume" if begun.exists() else "new"
        if folder.resolve() in busy:
            if not to_list:
                raise ConfigError(f"{job.name} is still running in {folder}: wait, or stop it")
            state = "running"
        elif (folder / CONFIG_NAME).exists():
            check_same(job)
        if state != "running" and job.is_finished():
            state = "finished"
        jobs.append(dataclasses.replace(job, state=state))
    return jobs


def finished_jobs(variants: Iterable[Variant], out: Path) -> list[Job]:
    """Every finished run of some variants below a folder, in order of its seeds."""
    found = []
    for variant in variants:
        folders = {x.name.removeprefix("seed"): x for x in (out / variant.name).glob("seed*/")}
        for number in sorted(filter(str.isdecimal, folders), key=int):
            found.append(Job(variant, int(number), "unused", folders[number], "finished", 1))
    return [job for job in found if job.is_finished()]


class Advance(NamedTuple):
    """How far a run is, by what it wrote."""

    share: float = 0.0  # of its environment steps
    seconds: float = 0.0  # that it took until then
    score: float | None = None  # of its last evaluation, else of its recent games
    steps: int = 0  # environment steps

    @property
    def remaining(self) -> float | None:
        """Seconds until its end at its own pace; None before its first sign."""
        return self.seconds * (1 - self.share) / self.share if self.share > 0 else None


def newest_row(path: Path) -> dict[str, Any]:
    """The last whole row of a metrics file that is being written, its scores from earlier ones."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
        for line in file.read().split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):  # the first line of the tail is rarely whole
                found |= json.loads(line)
    return found


def advance_of(job: Job) -> Advance:
    """How far a job's run is."""
    row = newest_row(job.run_dir / "metrics.jsonl")
    try:
        total = read_config(job.run_dir).total_env_steps
    except ConfigError:
        return Advance()
    steps, score = row.get("env_steps") or 0, row.get("eval/mean", row.get("score/mean"))
    return Advance(min(steps / total, 1.0), row.get("wall_seconds") or 0.0, score, steps)


def describe(job: Job, advance: Advance) -> str:
    """A running job at a glance."""
    score = "" if advance.score is None else f", score {advance.score:.4g}"
    return f"{job.name} {advance.share:.0%}, {short_duration(advance.remaining)} left{score}"


def time_left(
    waiting: Sequence[Job],
    running: Sequence[tuple[Job, Advance]],
    finished: Sequence[Job],
    slots: int,
) -> float:
    """Seconds until all jobs are done: the work that is left over all cores, or the longest run."""
    ended = [(x, Advance(1.0, x.result().get("seconds_total") or 0.0)) for x in finished]
    whole: dict[str, list[float]] = {}  # seconds of whole runs, known or foreseen, by variant
    for job, x in (*ended, *running):
        if x.seconds and x.remaining is not None:
            whole.setdefault(job.variant.name, []).append(x.seconds + x.remaining)
    left = []
    for job, x in (*running, *((job, Advance()) for job in waiting)):
        remaining = x.remaining
        if remaining is None:
            guess = [60 * guessed_minutes(job)]
            if job.variant.minutes is None:  # its like, where none of its own is known
                guess = [statistics.fmean(times) for times in whole.values()] or guess
            remaining = statistics.fmean(whole.get(job.variant.name, guess))
        left.append((remaining, remaining * min(job.cores, slots)))
    work = sum(seconds for _, seconds in left)
    return max([work / slots, *(seconds for seconds, _ in left)], default=0.0)


def guessed_minutes(job: Job) -> float:
    """How long a run takes, before any has been seen."""
    minutes = job.variant.minutes if job.preset == "laptop" else None
    return GUESSED_MINUTES[job.preset] if minutes is None else minutes


def show_plan(jobs: Sequence[Job], slots: int) -> None:
    """Prints what is to be run, and how long it will take."""
    for job in jobs:
        words = ["python", "-m", f"experiments.{job.variant.module}", *job.arguments()]
        cores = f"{job.cores} core{'s' if job.cores > 1 else ''}"
        minutes = f"about {guessed_minutes(job):g} min"
        print(f"{job.name}: {STATES[job.state]}, {cores}, {minutes}: {shlex.join(words)}")
    done = [job for job in jobs if job.state == "finished"]
    waiting = [job for job in jobs if job.state != "finished"]
    left = short_duration(time_left(waiting, [], done, slots))
    cores = f"{slots} core{'s' * (slots > 1)}"
    basis = "by those that are finished" if done else "a guess, as none is finished"
    print(f"{len(done)} of {len(jobs)} finished; about {left} for the others on {cores} ({basis})")
