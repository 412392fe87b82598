"""Runs variants of an experiment over seeds: `python -m experiments.sweep --help`."""

if not __package__:
    raise SystemExit("error: type `python -m experiments.sweep` in the project's root")

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from experiments.sweep.jobs import Job, check_all, make_plan, show_plan
from experiments.sweep.variants import Sweep, choose, make_sweep, read_sweep
from smz_jax.config.check import Between, Checked, ConfigError, Several, require
from smz_jax.config.cli import tool
from smz_jax.config.experiment import experiment_names
from smz_jax.config.process import run_main
from smz_jax.config.sources import SETTINGS, coerce, require_known
from smz_jax.storage.run_dir import CONFIG_NAME, RUNS_ROOT, WRITABLE, can_write
from smz_jax.storage.wandb_sink import require_wandb

HELP = """\
`python -m experiments.sweep` runs variants of an experiment over seeds and compares them.

examples:
  every combination of two settings, three seeds each:
    python -m experiments.sweep gridworld --vary search.num_simulations=8,16,32 \\
        --vary loss.consistency=0,2 --seeds 0 1 2 --preset smoke
  the settings of the preset, and one change at a time:
    python -m experiments.sweep cartpole --vary network.codebook_size=1,8 \\
        --vary search.root=puct --mode one_at_a_time
  named variants from a file; what would run, and for how long:
    python -m experiments.sweep sweep.yaml --list

Each run is an ordinary one, a process of its own on a core of its own, in
RUN_DIR/<variant>/seed<seed>, with what it prints in seed<seed>.log beside it. The same line
continues a sweep that was stopped: what is finished is not run again, what was stopped continues
from its checkpoint. Ctrl-C and SIGTERM are passed on: the runs save a checkpoint. A run that fails
is tried once more and holds up no other. A wrong setting is answered before anything runs.

RUN_DIR gets sweep.json, sweep.csv, figures/ and report.html. Exit code: 0; 1 if a run failed; 2
for a wrong argument; 130 and 143 when stopped. docs/sweep.md has the keys of a file.
"""


@dataclass(frozen=True)
class SweepRequest(Checked):
    """What the command line takes; flags win over the keys of a file."""

    sweep: str
    """An experiment, or the file of a sweep"""
    vary: Annotated[tuple[str, ...] | None, Several] = None
    """Settings with their values: search.num_simulations=8,16 learner.gamma=0.9,0.99."""
    mode: Literal["grid", "paired", "one_at_a_time"] | None = None
    """grid: every combination. paired: the first values of all settings, then the second ones.
    one_at_a_time: the base, and each value alone. Unset: as the file says, else grid."""
    base: str | None = None
    """Variant that the others are compared with. Unset: as the file says, else the first."""
    variants: Annotated[tuple[str, ...] | None, Several] = None
    """Run these alone. Unset: all."""
    seeds: Annotated[tuple[int, ...] | None, Between(0, 2**31 - 1), Several] = None
    """Of every variant. Unset: as the file says, else 0 1 2."""
    preset: Literal["tiny", "smoke", "laptop", "gpu"] | None = None
    """Of every run. Unset: as the file says, else laptop."""
    run_dir: Path | None = None
    """Unset: runs/sweeps/<name>."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """local: on cores of this machine. ray: as tasks of a Ray cluster. slurm: as an array job
    that is submitted and not waited for; --report shows what is finished."""
    address: str | None = None
    """Of the Ray cluster: auto (the one that this machine is part of), HOST:PORT, or local (one of
    this machine's cores, for a try). Unset: auto."""
    jobs: Annotated[int | None, Between(1)] = None
    """Runs at a time. Unset: as many as cores; one at presets tiny and gpu on this machine."""
    track: Literal["none", "wandb"] | None = None
    """wandb: mirror each run to Weights & Biases, in a group (docs/tracking.md). Unset: none."""
    list: bool = False
    """Print what would run, run nothing."""
    report: bool = False
    """Run nothing that is not finished, write the report."""


def inline_axes(words: tuple[str, ...]) -> dict[str, Any]:
    """Settings and their values, as typed; raises ConfigError in one line."""
    axes: dict[str, Any] = {}
    for word in words:
        name, equals, values = word.partition("=")
        require(bool(equals and name and values), "vary", word, "SETTING=VALUE,VALUE,...")
        require(name not in axes, "vary", name, "given once")
        axes[name] = [coerce(SETTINGS.get(name, str), one) for one in values.split(",")]
    return axes


def find_sweep(request: SweepRequest) -> Sweep:
    """The sweep of a request, with the variants chosen; raises ConfigError in one line."""
    given: dict[str, Any] = {"mode": request.mode, "base": request.base, "preset": request.preset}
    given["vary"] = inline_axes(request.vary) if request.vary else None
    given = {name: x for name, x in given.items() if x is not None}
    if Path(request.sweep).suffix in (".yaml", ".yml", ".json"):
        sweep = read_sweep(Path(request.sweep), given)
    else:
        require_known("experiment", request.sweep, experiment_names())
        leaves = [name.rpartition(".")[2] for name in given.get("vary", {})]
        given |= {"name": "-".join([request.sweep, *leaves])[:100], "experiment": request.sweep}
        sweep = make_sweep(given, "--vary")
    chosen = choose(sweep.variants, request.variants, request.seeds, "variant")
    labels = [x.label for x, _ in chosen]
    base = sweep.base if request.base or sweep.base in labels else labels[0]
    require(base in labels, "base", base, "one of --variants")
    return sweep._replace(variants=[replace(x, seeds=own) for x, own in chosen], base=base)


def plan_sweep(request: SweepRequest, sweep: Sweep, folder: Path) -> list[Job]:
    """The runs of a sweep, seed by seed; raises ConfigError in one line if one cannot be.

    All variants of a seed come before the next seed: they are compared early, and the programs of
    a variant are compiled once instead of by two runs at a time.
    """
    for variant in sweep.variants:
        require(variant.is_run, "variant", variant.name, "one of an experiment, or left out")
        require_known("experiment", variant.module, experiment_names())
    free = not (folder / CONFIG_NAME).exists()
    require(free, "run_dir", str(folder), "a folder of sweeps: this one holds a run")
    require(can_write(folder), "run_dir", str(folder), WRITABLE)
    preset = request.preset or sweep.preset or "laptop"
    pairs = [(x, x.seeds) for x in sweep.variants]
    jobs = make_plan(pairs, preset, folder, to_list=request.list or request.report)
    check_all(jobs)
    if request.track == "wandb":
        require_wandb("track = 'wandb'")
    flags = ("--track", request.track) if request.track else ()
    jobs = [replace(job, flags=flags) for job in jobs]
    return sorted(jobs, key=lambda job: job.seed)


def check_folder(sweep: Sweep, folder: Path) -> None:
    """Raises ConfigError in one line if the folder holds another sweep."""
    from smz_jax.storage.documents.results_json import SWEEP

    if (folder / SWEEP.file).exists():
        name = SWEEP.read(folder)["name"]
        if name != sweep.name:
            raise ConfigError(
                f"{folder} holds the sweep {name}, not {sweep.name}: give another --run_dir"
            )


def hand_over(request: SweepRequest, sweep: Sweep, jobs: list[Job], folder: Path) -> int:
    """Gives what is left of a sweep to Slurm; gives the exit code."""
    from experiments.sweep.slurm import submit, write_script

    require(request.address is None, "address", request.address, "left out but with --engine ray")
    left = sum(job.command() is not None for job in jobs)
    if not left:
        print("all runs are finished: --report shows them")
        return 0
    number = submit(write_script(jobs, folder, sweep.name, request.jobs))
    again = shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]])
    print(f"submitted {left} runs as job {number}. What is finished:\n  {again} --report")
    return 0


def run_sweep(request: SweepRequest) -> int:
    """Plans, runs and reports; gives the exit code."""
    sweep = find_sweep(request)
    folder = request.run_dir or RUNS_ROOT / "sweeps" / sweep.name
    if request.engine != "local":  # another node has other relative paths
        folder = folder.absolute()
    check_folder(sweep, folder)
    jobs = plan_sweep(request, sweep, folder)
    from experiments.sweep import sweep_report as shown
    from experiments.sweep.open_engine import open_engine
    from experiments.sweep.runner import Result, carry_out

    if request.list:
        slots = request.jobs if request.engine != "local" else None
        show_plan(jobs, slots or open_engine("local", None, request.jobs, jobs[0].preset).slots)
        return 0

    def write(results: list[Result]) -> None:
        failed = [x.job.name for x in results if x.kind == "failed"]
        command = shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]])
        report = shown.make_report(sweep, jobs, failed)
        from experiments.sweep.sweep_figures import draw_all

        paths = shown.write_report(report, folder, command, draw_all(report, folder / "figures"))
        table = replace(shown.variant_table(report), note="")
        print(f"\n{table.to_text()}\n\n{shown.headline(report)}")
        print("wrote " + ", ".join(map(str, paths)))

    if request.report:
        write([])
        return 0
    if request.engine == "slurm":
        return hand_over(request, sweep, jobs, folder)
    engine = open_engine(request.engine, request.address, request.jobs, jobs[0].preset)
    shown.write_document(shown.make_report(sweep, jobs), folder)
    return carry_out(jobs, engine, "sweep", write, retries=1)


main = tool(run_sweep, SweepRequest, HELP)

if __name__ == "__main__":
    run_main(main)
