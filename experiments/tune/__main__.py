"""Finds good settings of an experiment: `python -m experiments.tune --help`."""

if not __package__:
    raise SystemExit("error: type `python -m experiments.tune` in the project's root")

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from experiments.sweep.jobs import Job, Result, check_all, make_plan
from experiments.sweep.variants import Sweep
from experiments.tune.space import BEST, DEFAULT, Space, check_space, read_space
from smz_jax.config.check import Between, Checked, ConfigError, Several, require
from smz_jax.config.cli import tool
from smz_jax.config.experiment import experiment_names
from smz_jax.config.process import run_main
from smz_jax.config.sources import require_known
from smz_jax.storage.run_dir import CONFIG_NAME, RUNS_ROOT, WRITABLE, can_write

if TYPE_CHECKING:  # they load what only a run needs
    from experiments.sweep.engines import Engine
    from experiments.tune.study import Study, Trial

FRESH_SEEDS = 5
"""Seeds that best and default are compared on, which no trial has seen."""

HELP = """\
`python -m experiments.tune` looks for settings with which an experiment scores higher.

examples:
  50 choices from the ranges of a file, three seeds each:
    python -m experiments.tune cartpole --space space.yaml --trials 50 --preset smoke
  a second worker on the same study, with a core of its own:
    taskset -c 1 python -m experiments.tune cartpole --space space.yaml --trials 50 --preset smoke
  a run with what was found:
    python -m experiments.cartpole --config runs/tune/cartpole/best.yaml

Each trial is an ordinary run for each seed, in RUN_DIR/trials/<trial>/seed<seed>. Between two seeds
a trial is given up unless its mean so far is among the best third of the complete ones. The same
line continues a study that was stopped, and several workers may share one. At the end the best
settings and the default are run on fresh seeds: the best of many trials is partly the luckiest.

RUN_DIR gets study.log (Optuna's journal), best.yaml (for --config), report.html and fresh/, a sweep
of the two. Needs Optuna: pip install '.[tune]'. Exit code: 0; 1 if a run failed; 2 for a wrong
argument; 130 and 143 when stopped. docs/tune.md has the keys of a space.
"""


@dataclass(frozen=True)
class TuneRequest(Checked):
    """What the command line takes; flags win over the keys of a space."""

    experiment: str
    """A module of `experiments`"""
    space: Path | None = None
    """YAML or JSON file of what may be tried; needed."""
    trials: Annotated[int, Between(1, 100_000)] = 50
    """Of the whole study, those of other workers and of former calls included."""
    seeds: Annotated[tuple[int, ...] | None, Between(0, 2**31 - 1), Several] = None
    """Of every trial, in this order. Unset: as the file says, else 0 1 2."""
    fresh_seeds: Annotated[tuple[int, ...] | None, Between(0, 2**31 - 1), Several] = None
    """Of the comparison at the end. Unset: the five after the largest of the seeds."""
    preset: Literal["tiny", "smoke", "laptop", "gpu"] | None = None
    """Of every run. Unset: as the file says, else laptop."""
    pruner: Literal["third", "none"] = "third"
    """third: given up after a seed unless among the best third so far. none: all seeds are run."""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    """Of what is proposed."""
    run_dir: Path | None = None
    """Unset: runs/tune/<experiment>."""
    engine: Literal["local", "ray"] = "local"
    """local: on cores of this machine. ray: as tasks of a Ray cluster."""
    address: str | None = None
    """Of the Ray cluster: auto (the one that this machine is part of), HOST:PORT, or local (one of
    this machine's cores, for a try). Unset: auto."""
    jobs: Annotated[int | None, Between(1)] = None
    """Runs at a time. Unset: as many as cores; one at presets tiny and gpu on this machine."""
    report: bool = False
    """Run nothing, write the report."""


def fresh_sweep(space: Space, best: "Trial", seeds: Sequence[int]) -> Sweep:
    """The default beside the best settings, on seeds that no trial has seen.

    The folder of the best is named after its trial: a study that is continued may find another.
    """
    pair = [space.variant(DEFAULT), replace(space.variant(best.name, best.chosen), label=BEST)]
    variants = [replace(x, seeds=tuple(seeds)) for x in pair]
    return Sweep(f"{space.module}-tuned", variants, DEFAULT, space.preset)


def check_request(request: TuneRequest) -> tuple[Space, Path, tuple[int, ...]]:
    """Space, folder and fresh seeds of a request; raises ConfigError in one line."""
    require_known("experiment", request.experiment, experiment_names())
    require(request.space is not None, "space", None, "given: a file of what may be tried")
    assert request.space is not None
    space = read_space(request.space, request.experiment, request.preset, request.seeds)
    last = max(space.seeds)
    fresh = request.fresh_seeds or tuple(range(last + 1, last + 1 + FRESH_SEEDS))
    apart = not set(fresh) & set(space.seeds) and len(set(fresh)) == len(fresh)
    require(apart, "fresh_seeds", fresh, f"named once each, and none of {space.seeds}")
    check_space(space, fresh)
    folder = request.run_dir or RUNS_ROOT / "tune" / request.experiment
    if request.engine == "ray":  # another node has other relative paths
        folder = folder.absolute()
    free = not (folder / CONFIG_NAME).exists()
    require(free, "run_dir", str(folder), "a folder of studies: this one holds a run")
    require(can_write(folder), "run_dir", str(folder), WRITABLE)
    return space, folder, fresh


def run_trials(
    study: "Study", engine: "Engine", request: TuneRequest, space: Space, folder: Path
) -> int:
    """Runs trials until there are enough of them; gives the exit code."""
    from experiments.sweep.runner import LINE_SECONDS, Runner
    from experiments.tune.trials import Tuner
    from smz_jax.run.progress import Progress
    from smz_jax.run.signals import StopSignal

    most = request.trials * len(space.seeds)
    progress = Progress(most, "tune", line_seconds=LINE_SECONDS)
    with StopSignal() as stop, progress:
        tuner = Tuner(study, space, folder / "trials", request.trials, progress.message)
        jobs = [*tuner.finished(), *tuner.begin(engine.slots)]
        results = Runner(jobs, engine, progress, 1, tuner.follow, most).run(stop)
    for x in (x for x in results if x.kind == "failed"):
        print(f"failed: {x.job.name}, {x.reason}, log {x.job.log}", file=sys.stderr)
    if stop:
        again = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
        ended = sum(x.state not in ("waiting", "running") for x in study.trials())
        print(f"stopped after {ended} of {request.trials} trials. Continue with:\n  {again}")
        return 128 + (stop.number or 0)
    return 0


def open_engine_of(request: TuneRequest, space: Space) -> "Engine":
    """Where the runs of a study go."""
    from experiments.sweep.open_engine import open_engine

    return open_engine(request.engine, request.address, request.jobs, space.preset)


def compare(
    engine: "Engine", space: Space, folder: Path, best: "Trial", seeds: Sequence[int]
) -> int:
    """Runs best and default on fresh seeds; gives the exit code."""
    from experiments.sweep import sweep_report
    from experiments.sweep.runner import carry_out
    from experiments.sweep.sweep_figures import draw_all

    sweep, out = fresh_sweep(space, best, seeds), folder / "fresh"
    jobs = make_plan([(x, seeds) for x in sweep.variants], space.preset, out)
    check_all(jobs)
    jobs.sort(key=lambda job: job.seed)

    def write(results: list[Result]) -> None:
        failed = [x.job.name for x in results if x.kind == "failed"]
        report = sweep_report.make_report(sweep, jobs, failed)
        command = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
        sweep_report.write_report(report, out, command, draw_all(report, out / "figures"))

    print(f"{best.name} is the best: it and the default are run on {len(seeds)} fresh seeds")
    return carry_out(jobs, engine, "tune", write, retries=1)


def fresh_jobs(sweep: Sweep, folder: Path, preset: str) -> list[Job]:
    """What is there of the comparison."""
    pairs = [(x, x.seeds) for x in sweep.variants]
    return make_plan(pairs, preset, folder / "fresh", to_list=True)


def run_tune(request: TuneRequest) -> int:
    """Tunes, compares and reports; gives the exit code."""
    space, folder, seeds = check_request(request)
    from experiments.tune.study import JOURNAL, Study, held

    there = (folder / JOURNAL).is_file() or not request.report
    require(there, "run_dir", str(folder), "the folder of a study, to report on it")
    study = Study(folder, space, request.seed, request.pruner != "none")
    if request.report:
        return report(study, space, folder, seeds)
    default = space.default()
    if missing := study.missing(default):
        shown = ", ".join(f"{name} = {default[name]}" for name in missing)
        print(f"note: the default is no trial, as it is outside of its range: {shown}")
    engine = open_engine_of(request, space)
    with study:
        code = run_trials(study, engine, request, space, folder)
        others = len(study.others())
    if code:
        return code
    if others:
        print(f"other workers are still at {others} trials: the last one compares and reports")
        return 0
    best = find_best(study)
    if best.chosen != default:
        with held(folder / ".fresh.lock", wait=False) as is_mine:
            if not is_mine:
                print("another worker compares the best with the default, and reports")
                return 0
            code = compare(engine, space, folder, best, seeds)
    return code if code > 1 else report(study, space, folder, seeds) or code  # above 1: stopped


def find_best(study: "Study") -> "Trial":
    """The best trial; raises ConfigError in one line where there is none."""
    from experiments.tune.study import best_of

    best = best_of(study.trials())
    if best is None:
        raise ConfigError("no trial has run on all of its seeds: nothing can be said yet")
    return best


def report(study: "Study", space: Space, folder: Path, seeds: Sequence[int]) -> int:
    """Writes and prints what is known; gives the exit code."""
    from experiments.tune import tune_report
    from experiments.tune.tune_figures import draw_all

    best, default = find_best(study), space.default()
    sweep = fresh_sweep(space, best, seeds)
    jobs = fresh_jobs(sweep, folder, space.preset) if best.chosen != default else []
    parts = (space, study.trials(), best, default, study.importances(), folder, sweep, jobs)
    found = tune_report.Found(*parts)
    command = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
    paths = tune_report.write_all(found, command, [*draw_all(found, folder / "figures")])
    print(f"\n{tune_report.headline(found)}\nwrote " + ", ".join(map(str, paths)))
    return 0


main = tool(run_tune, TuneRequest, HELP)

if __name__ == "__main__":
    run_main(main)
