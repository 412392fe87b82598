"""Runs what the table of results names and writes it: `python -m experiments.results --help`."""

if not __package__:
    raise SystemExit("error: type `python -m experiments.results` in the project's root")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from experiments.results.worlds import TINY_SEEDS, TINY_WORLDS, WORLDS, choose
from experiments.sweep.jobs import finished_jobs, make_plan, show_plan
from smz_jax.config.check import Between, Checked, require
from smz_jax.config.cli import read_request
from smz_jax.config.process import run_main

RUN_DIR, OLD_RUN_DIR = Path("runs/results"), Path("runs/proof")
"""Where runs are unless a folder is named; where they were when the command was `proof`."""

HELP = f"""\
`python -m experiments.results` runs what the table of results names, and writes the table.

examples:
  all of it, hours on 2 cores; the same line continues where it was stopped:
    python -m experiments.results
  two worlds, two seeds each; then the table and the figure again from what is finished:
    python -m experiments.results --worlds grid-slippery grid-twin --seeds 0 1
    python -m experiments.results --table
  what would be run, and what is finished:
    python -m experiments.results --list

Each run is a process of its own on its own cores, in RUN_DIR/<world>/seed<seed>, with what it
prints in seed<seed>.log beside it. Runs on one core go several at a time, as many as there are
cores. A finished run is not run again (but refused if its settings are not those that would be run
now), one that was stopped continues from its checkpoint, one that failed is reported with the end
of its log and holds up no other. Ctrl-C and SIGTERM are passed on: the runs save a checkpoint.

RUN_DIR gets table.md (its first table is that of docs/results/worlds.md), table.json and
results.png. Exit code: 0; 1 if a run failed; 2 for a wrong argument; 130 and 143 when stopped.

--preset tiny only shows that every part works, in seconds: it runs {", ".join(TINY_WORLDS)}, seed \
{", ".join(map(str, TINY_SEEDS))},
unless worlds or seeds are named.

worlds, with their seeds and what is required of them:
""" + "".join(
    f"  {world.name} ({', '.join(map(str, world.seeds))}): {world.required}\n"
    for world in WORLDS.values()
)


@dataclass(frozen=True)
class ResultsRequest(Checked):
    """What the command line takes."""

    worlds: tuple[str, ...] | None = None
    """Which worlds to run. Unset: all."""
    seeds: Annotated[tuple[int, ...] | None, Between(0, 2**31 - 1)] = None
    """Of every world. Unset: its own."""
    preset: Literal["tiny", "smoke", "laptop", "gpu"] = "laptop"
    """Of every run."""
    run_dir: Path = RUN_DIR
    """Folder of the runs and of the table."""
    jobs: Annotated[int | None, Between(1)] = None
    """Cores to use. Unset: all; one run at preset gpu."""
    single_core: bool = False
    """Every run on one core, the Atari games too: slower each, faster in all."""
    list: bool = False
    """Print the plan, run nothing."""
    table: bool = False
    """Run nothing that is not finished."""

    def __post_init__(self) -> None:
        """Checks what spans fields too; raises ConfigError in one line."""
        super().__post_init__()
        is_folder = self.run_dir.is_dir() or not self.run_dir.exists()
        require(is_folder, "run_dir", str(self.run_dir), "a folder, not a file")
        require(not (self.list and self.table), "table", True, "left out with --list")


def write_results(folder: Path) -> None:
    """Writes table and figure from what is finished, and prints the table."""
    from experiments.results import results_report as shown

    report = shown.make_report(folder)
    paths = [*shown.write_table(report, folder), folder / "results.png"]
    shown.results_figure(report, paths[-1])
    print(f"\n{shown.results_markdown(report) or 'nothing is finished yet'}\n")
    for problem in report.problems:
        print(f"note: {problem}")
    print("wrote " + ", ".join(map(str, paths)))


def main() -> int:
    """Plans, runs and writes; gives the exit code."""
    request = read_request(ResultsRequest, None, HELP)
    preset, folder = request.preset, request.run_dir
    if folder == RUN_DIR and not folder.exists() and OLD_RUN_DIR.exists():
        print(f"note: {OLD_RUN_DIR} holds former runs: --run_dir {OLD_RUN_DIR} continues them")
    chosen = choose(request.worlds, request.seeds, preset)
    options = {"single_core": request.single_core, "to_list": request.list}
    if request.table:
        jobs = finished_jobs(WORLDS.values(), folder)
    else:
        jobs = make_plan(chosen, preset, folder, **options)
    from experiments.sweep.engines import LocalPool, this_machine
    from experiments.sweep.runner import carry_out

    engine = LocalPool(this_machine(request.jobs, preset))
    if request.list:
        show_plan(jobs, engine.slots)
        return 0
    return carry_out(jobs, engine, "results", lambda _: write_results(folder))


if __name__ == "__main__":
    run_main(main)
