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
from experiments.sweep.variants import Sweep, experiment_names
from experiments.tune.space import BEST, DEFAULT, Space, check_space, read_space
from smz_jax.config.check import Between, Checked, ConfigError, Several, require
from smz_jax.config.cli import tool
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
a trial is given up if its mean so far is below the median of the complete ones. The same line
continues a study that was stopped, and several workers may share one. At the end the best settings
and the default are run on fresh seeds: the best of many trials is partly the luckiest.

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
    pruner: Literal["median", "none"] = "median"
    """none: every trial runs on all seeds."""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    """Of what is proposed."""
    run_dir: Path | None = None
    """Unset: runs/tune/<experiment>."""
    jobs: Annotated[int | None, Between(1)] = None
    """Cores to use. Unset: all; one run at presets tiny and gpu."""
    report: bool = False
    """Run nothing, write the report."""


def fresh_sweep(space: Space, best: dict[str, object], seeds: Sequence[int]) -> Sweep:
    """The default beside the best settings, on seeds that no trial has seen."""
    pair = [space.variant(DEFAULT), space.variant(BEST, best)]
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
    check_space(space)
    folder = request.run_dir or RUNS_ROOT / "tune" / request.experiment
    free = not (folder / CONFIG_NAME).exists()
    require(free, "run_dir", str(folder), "a folder of studies: this one holds a run")
    require(can_write(folder), "run_dir", str(folder), WRITABLE)
    return space, folder, fresh


def run_trials(study: "Study", request: TuneRequest, space: Space, folder: Path) -> int:
    """Runs trials until there are enough of them; gives the exit code."""
    from experiments.sweep.runner import LINE_SECONDS, Runner
    from experiments.tune.trials import Tuner
    from smz_jax.run.progress import Progress
    from smz_jax.run.signals import StopSignal

    engine = open_pool(request, space)
    most = request.trials * len(space.seeds)
    progress = Progress(most, "tune", line_seconds=LINE_SECONDS)
    with StopSignal() as stop, progress:
        tuner = Tuner(study, space, folder / "trials", request.trials, progress.message)
        jobs = tuner.begin(engine.slots)
        results = Runner(jobs, engine, progress, retries=1, follow=tuner.follow).run(stop)
    for x in (x for x in results if x.kind == "failed"):
        print(f"failed: {x.job.name}, {x.reason}, log {x.job.log}", file=sys.stderr)
    if stop:
        again = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
        print(f"stopped at {len(study.own())} trials. Continue with:\n  {again}")
        return 128 + (stop.number or 0)
    return 0


def open_pool(request: TuneRequest, space: Space) -> "Engine":
    """Where the runs of a study go."""
    from experiments.sweep.engines import LocalPool, this_machine

    return LocalPool(this_machine(request.jobs, space.preset))


def compare(
    request: TuneRequest, space: Space, folder: Path, best: "Trial", seeds: Sequence[int]
) -> int:
    """Runs best and default on fresh seeds; gives the exit code."""
    from experiments.sweep import sweep_report
    from experiments.sweep.runner import carry_out
    from experiments.sweep.sweep_figures import draw_all

    sweep, out = fresh_sweep(space, best.chosen, seeds), folder / "fresh"
    jobs = make_plan([(x, seeds) for x in sweep.variants], space.preset, out)
    check_all(jobs)
    jobs.sort(key=lambda job: job.seed)

    def write(results: list[Result]) -> None:
        failed = [x.job.name for x in results if x.kind == "failed"]
        report = sweep_report.make_report(sweep, jobs, failed)
        command = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
        sweep_report.write_report(report, out, command, draw_all(report, out / "figures"))

    print(f"{best.name} is the best: it and the default are run on {len(seeds)} fresh seeds")
    return carry_out(jobs, open_pool(request, space), "tune", write, retries=1)


def fresh_jobs(sweep: Sweep, folder: Path, preset: str) -> list[Job]:
    """What is there of the comparison."""
    pairs = [(x, x.seeds) for x in sweep.variants]
    return make_plan(pairs, preset, folder / "fresh", to_list=True)


def run_tune(request: TuneRequest) -> int:
    """Tunes, compares and reports; gives the exit code."""
    space, folder, seeds = check_request(request)
    from experiments.tune.study import JOURNAL, Study, best_of, held

    if request.report:
        there = (folder / JOURNAL).is_file()
        require(there, "run_dir", str(folder), "the folder of a study, to report on it")
    default = space.default()
    study = Study(folder, space, request.seed, request.pruner == "median")
    if missing := study.missing(default):
        shown = ", ".join(f"{name} = {default[name]}" for name in missing)
        print(f"note: the default is no trial, as it is outside of its range: {shown}")
    code = 0
    if not request.report:
        with study:
            code = run_trials(study, request, space, folder)
            others = len(study.others())
        if code:
            return code
        if others:
            print(f"other workers are still at {others} trials: the last one compares and reports")
            return 0
    best = best_of(study.trials())
    if best is None:
        raise ConfigError("no trial has run on all of its seeds: nothing can be said yet")
    from experiments.tune import tune_report
    from experiments.tune.tune_figures import draw_all

    sweep = fresh_sweep(space, best.chosen, seeds)
    is_new = best.chosen != default
    if not request.report and is_new:
        with held(folder / ".fresh.lock", wait=False) as is_mine:
            if not is_mine:
                print("another worker compares the best with the default, and reports")
                return 0
            code = compare(request, space, folder, best, seeds)
    if code > 1:  # stopped
        return code
    found = tune_report.Found(
        space, study.trials(), best, default, study.importances(), folder, sweep,
        fresh_jobs(sweep, folder, space.preset) if is_new else [],
    )  # fmt: skip
    command = shlex.join(["python", "-m", "experiments.tune", *sys.argv[1:]])
    paths = tune_report.write_all(found, command, [*draw_all(found, folder / "figures")])
    print(f"\n{tune_report.headline(found)}\nwrote " + ", ".join(map(str, paths)))
    return code


main = tool(run_tune, TuneRequest, HELP)

if __name__ == "__main__":
    run_main(main)
