"""What is left to do: the jobs of a table of results, from the folders that former calls left."""

import dataclasses
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.results.worlds import ENCODER_VARIANT, STICKY, WORLDS, Choice, World
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.settings import Config
from smz_jax.config.sources import diff
from smz_jax.storage import files
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

State = Literal["new", "resume", "running", "finished"]
STATES = {"new": "to run", "resume": "to continue", "running": "running", "finished": "finished"}


@dataclass(frozen=True)
class Job:
    """One run of a world, in a folder of its own."""

    world: World
    seed: int
    preset: str
    run_dir: Path
    state: State
    cores: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.world.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    @property
    def record(self) -> Path:
        """What the runner notes of it: cores, processor, preset, command."""
        return self.run_dir.with_name(f"{self.run_dir.name}.json")

    def arguments(self) -> list[str]:
        """Flags of a first start."""
        seed = ["--seed" if self.world.is_run else "--seeds", str(self.seed)]
        fixed = ["--preset", self.preset, *seed, "--run_dir", str(self.run_dir)]
        more = self.world.at_laptop if self.preset == "laptop" else ()
        return [*fixed, *self.world.arguments, *more]

    def is_finished(self) -> bool:
        """Whether the run's own result says so."""
        return is_finished(self.run_dir, self.world)

    def command(self) -> list[str] | None:
        """The next process that this job needs, by what is on disk now; None: nothing."""
        python = [sys.executable, "-m", f"experiments.{self.world.module}"]
        if not self.is_finished():
            resumes = self.world.is_run and (self.run_dir / CONFIG_NAME).exists()
            return [*python, *self.arguments(), *(["--resume"] if resumes else [])]
        if self.world.extra is None or (self.run_dir / self.world.extra[0]).exists():
            return None
        words = self.world.extra[1]
        return [*python, *(str(self.run_dir) if x == "RUN_DIR" else x for x in words)]


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    job: Job
    kind: Literal["finished", "stopped", "failed"]
    code: int | None = None
    reason: str = ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty where there is none, or a damaged one."""
    try:
        return files.read_json(path)
    except ConfigError:
        return {}


def is_finished(run_dir: Path, world: World) -> bool:
    """Whether a run of `world` in this folder has ended as it should."""
    result = read_json(run_dir / world.result_file)
    if world.is_run:
        return bool(result.get("finished"))
    found = {(x.get("variant"), x.get("sticky")) for x in result.get("results", [])}
    return found >= {(ENCODER_VARIANT, sticky) for sticky in STICKY}


def settings_of(job: Job) -> Config:
    """The settings that the job's command stands for, under the experiment of its module.

    Raises:
        ConfigError: in one line, if the command is refused.
    """
    experiment = importlib.import_module(f"experiments.{job.world.module}").EXPERIMENT
    try:
        return parse(job.arguments(), experiment).config
    except ConfigError as error:
        raise ConfigError(f"the settings of {job.name} cannot be known: {error}") from None


def check_same(job: Job, expected: Config) -> None:
    """Raises ConfigError in one line if the job's folder holds a run with other settings."""
    changes = diff(read_config(job.run_dir), expected)
    if changes:
        listed = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" * (len(changes) > 3))
        raise ConfigError(
            f"{job.run_dir} holds a run with other settings than would be run now: {listed}; "
            "move it away or give another --run_dir"
        )


def busy_folders() -> set[Path]:
    """Folders of all runs in progress: begun by hand, or left over from a killed call."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "--run_dir" in words[:-1]:
                folder = words[words.index("--run_dir") + 1]
                found.add(Path(os.readlink(process / "cwd"), folder).resolve())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def make_plan(
    choice: Choice, preset: str, out: Path, *, single_core: bool = False, to_list: bool = False
) -> list[Job]:
    """The jobs in the order of the worlds; writes nothing.

    Args:
        choice: worlds and seeds.
        preset: of every run.
        out: the folder of the results; a run is in `out/<world>/seed<seed>`.
        single_core: give every job one core, also where its world would take more.
        to_list: the plan is only shown: a run in progress is no fault, its state is `running`.

    Raises:
        ConfigError: in one line, if a folder holds a run with other settings, or one that is still
            running.
    """
    jobs, busy = [], busy_folders()
    for world in choice.worlds:
        expected: Config | None = None
        for seed in choice.seeds_of(world):
            folder = out / world.name / f"seed{seed}"
            cores = 1 if single_core else world.cores
            job = Job(world, seed, preset, folder, "new", cores)
            if folder.resolve() in busy:
                if to_list:
                    jobs.append(dataclasses.replace(job, state="running"))
                    continue
                raise ConfigError(f"{job.name} is still running in {folder}: wait, or stop it")
            if (folder / CONFIG_NAME).exists():
                expected = expected or settings_of(job)
                check_same(job, dataclasses.replace(expected, seed=seed))
            begun = folder / (CONFIG_NAME if world.is_run else "jobs")
            state: State = "resume" if begun.exists() else "new"
            state = "finished" if job.is_finished() else state
            jobs.append(dataclasses.replace(job, state=state))
    return jobs


def seed_folders(out: Path, world: World) -> list[tuple[int, Path]]:
    """The seeds of a world that have a folder below `out`, in order, with their folders."""
    found = []
    for folder in (out / world.name).glob("seed*"):
        number = folder.name.removeprefix("seed")
        if folder.is_dir() and number.isdecimal():
            found.append((int(number), folder))
    return sorted(found)


def finished_jobs(out: Path) -> list[Job]:
    """Every finished run below a folder of results, of any world and seed."""
    return [
        Job(world, seed, "unused", folder, "finished", 1)
        for world in WORLDS.values()
        for seed, folder in seed_folders(out, world)
        if is_finished(folder, world)
    ]
