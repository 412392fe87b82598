"""Runs what the table of results names and writes it: `python -m experiments.results --help`."""

import argparse
import shlex
import sys
from pathlib import Path

from experiments.results.plan import STATES, Job, Result, finished_jobs, make_plan
from experiments.results.worlds import TINY_SEEDS, TINY_WORLDS, WORLDS, choose
from smz_jax.config.cli import OneLineParser, run_main
from smz_jax.config.experiment import PRESET_NAMES
from smz_jax.config.settings import ConfigError, require
from smz_jax.config.sources import suggest

RUN_DIR, OLD_RUN_DIR = Path("runs/results"), Path("runs/proof")
"""Where runs are unless a folder is named; where they were when the command was `proof`."""

EXAMPLES = f"""\
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

worlds, with their seeds and what is required of them:
{{worlds}}

--preset tiny only shows that every part works, in seconds: it runs {", ".join(TINY_WORLDS)}, seed \
{", ".join(map(str, TINY_SEEDS))},
unless worlds or seeds are named.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    worlds = "\n".join(
        f"  {world.name} ({', '.join(map(str, world.seeds))}): {world.required}"
        for world in WORLDS.values()
    )
    parser = OneLineParser(
        prog="python -m experiments.results",
        description="Runs what the table of results names, and writes the table.",
        epilog=EXAMPLES.replace("{worlds}", worlds),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--worlds", nargs="+", metavar="WORLD", help="which (default: all)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="of every world (default: its own)"
    )
    parser.add_argument(
        "--preset", choices=PRESET_NAMES, default="laptop", help="of every run (default: laptop)"
    )
    parser.add_argument(
        "--run_dir", type=Path, default=RUN_DIR, help=f"folder (default: {RUN_DIR})"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="cores to use (default: all; preset gpu: one run)"
    )
    parser.add_argument(
        "--single_core",
        action="store_true",
        help="every run on one core, the Atari games too: slower each, faster in all",
    )
    parser.add_argument("--list", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--table", action="store_true", help="run nothing that is not finished")
    return parser


def read_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments; raises ConfigError in one line for what cannot be."""
    parser = make_parser()
    flags = [x for action in parser._actions for x in action.option_strings]
    tokens = []
    for token in argv:
        name, equals, value = token.partition("=")
        if name.startswith("--"):
            typed, name = name, "--" + name[2:].replace("-", "_")
            if name not in flags:
                hint = suggest(name[2:], [flag[2:] for flag in flags], prefix="--")
                raise ConfigError(f"unknown flag {typed}{hint or '; --help lists all settings'}")
        tokens.append(name + equals + value)
    arguments = parser.parse_args(tokens)
    jobs = arguments.jobs
    require(jobs is None or jobs >= 1, "jobs", jobs, "at least 1")
    folder = arguments.run_dir
    require(folder.is_dir() or not folder.exists(), "run_dir", str(folder), "a folder, not a file")
    both = arguments.list and arguments.table
    require(not both, "table", True, "left out with --list")
    return arguments


def show_plan(jobs: list[Job], slots: int) -> None:
    """Prints what is to be run, and how long it will take."""
    from experiments.results.advance import time_left
    from smz_jax.report.text import short_duration

    for job in jobs:
        command = shlex.join([*job.world.command, "--seed", str(job.seed)])
        cores = f"{job.cores} core{'s' if job.cores > 1 else ''}"
        print(
            f"{job.name}: {STATES[job.state]}, {cores}, about {job.world.minutes:g} min: {command}"
        )
    waiting = [job for job in jobs if job.state != "finished"]
    print(
        f"{len(jobs) - len(waiting)} of {len(jobs)} finished; about "
        f"{short_duration(time_left(waiting, [], [], slots))} for the others on {slots} cores"
    )


def run_jobs(jobs: list[Job], machine) -> tuple[list[Result], int | None]:
    """Runs jobs; gives how each ended, and the signal that stopped them, if one did."""
    from experiments.results.runner import LINE_SECONDS, Runner
    from smz_jax.run.progress import Progress
    from smz_jax.run.signals import StopSignal

    progress = Progress(len(jobs), "results", line_seconds=LINE_SECONDS)
    with StopSignal() as stop, progress:
        results = Runner(jobs, machine, progress).run(stop)
    return results, stop.number


def write_results(folder: Path) -> None:
    """Writes table and figure from what is finished, and prints the table."""
    from experiments.results.figure import results_figure
    from experiments.results.table import make_report, results_markdown, write_table

    report = make_report(folder)
    paths = [*write_table(report, folder), folder / "results.png"]
    results_figure(report, paths[-1])
    print(f"\n{results_markdown(report) or 'nothing is finished yet'}\n")
    for problem in report.problems:
        print(f"note: {problem}")
    print("wrote " + ", ".join(map(str, paths)))


def main() -> int:
    """Plans, runs and writes; gives the exit code."""
    arguments = read_arguments(sys.argv[1:])
    preset, folder = arguments.preset, arguments.run_dir
    if folder == RUN_DIR and not folder.exists() and OLD_RUN_DIR.exists():
        print(f"note: {OLD_RUN_DIR} holds former runs: --run_dir {OLD_RUN_DIR} continues them")
    choice = choose(arguments.worlds, arguments.seeds, preset)
    if arguments.table:
        jobs = finished_jobs(folder)
    else:
        jobs = make_plan(
            choice, preset, folder, single_core=arguments.single_core, to_list=arguments.list
        )
    from experiments.results.runner import this_machine

    machine = this_machine(arguments.jobs, preset)
    if arguments.list:
        show_plan(jobs, len(machine.cores))
        return 0
    results, stopped_by = run_jobs(jobs, machine)
    write_results(folder)
    failed = [x for x in results if x.kind == "failed"]
    for result in failed:
        print(f"failed: {result.job.name}, {result.reason}, log {result.job.log}", file=sys.stderr)
    if stopped_by is not None:
        left = sum(x.kind == "stopped" for x in results)
        again = shlex.join(["python", "-m", "experiments.results", *sys.argv[1:]])
        print(f"stopped with {left} runs to do. Continue with:\n  {again}")
        return 128 + stopped_by
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
