"""The macros of a run or an export, and what they do: `python -m experiments.macros RUN_DIR`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smz_jax.analysis.requests import MacrosRequest
from smz_jax.config.cli import OneLineParser, run_main
from smz_jax.config.settings import ConfigError, require
from smz_jax.macros.library.listing import (
    SORTS,
    Wanted,
    closed_gate,
    format_selection,
    format_table,
    listed,
    prefix_line,
)
from smz_jax.storage.documents.macros import STATUS_NAMES, read_macros_json

EXAMPLES = """\
examples:
  everything: the table, the library by compression, three figures:
    python -m experiments.macros runs/breakout/20260131-120000-seed0
  the table alone, at once (no model is loaded):
    python -m experiments.macros runs/breakout/a --table --status sound --sort held --top 20
  macros that press RIGHT and something else, three to five actions long:
    python -m experiments.macros runs/breakout/a --table --contains RIGHT --no_repeats \\
        --min_length 3 --max_length 5
  the same for a program; - is the standard output:
    python -m experiments.macros runs/breakout/a --status sound --json -

Without --table and --json the macros of the fewest bits are chosen: among the sound ones (among all
of the table, where none is sound, which is said), by the actions of the run's replay or, where
there is none, of games that the model plays. What is found goes into RUN_DIR/macros.json
(docs/macros_json.md) and RUN_DIR/figures: macro_timeline.png, macro_tree.png, macro_strips.png;
`python -m experiments.report RUN_DIR` then shows them in report.html. An export's macros.json stays
as it is, since its sum is kept: name another folder in --out to get one with the selection.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    parser = OneLineParser(
        prog="python -m experiments.macros",
        description="Shows the macros that a run has found, which of them are sound, what they "
        "save, and what they do.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", metavar="RUN_DIR", type=Path, help="folder of a run or of an export")
    table = parser.add_argument_group("which macros, in which order")
    add = table.add_argument
    add("--sort", choices=SORTS, default="count", help="the best first (default: %(default)s)")
    add("--status", choices=STATUS_NAMES, help="only those")
    add("--min_length", type=int, metavar="N", help="actions at least")
    add("--max_length", type=int, metavar="N", help="actions at most")
    add(
        "--contains",
        action="append",
        default=[],
        metavar="ACTION",
        help="only macros with this action, by its name; may be given several times",
    )
    add("--no_repeats", action="store_true", help="leave out macros of one repeated action")
    add("--top", type=int, metavar="N", help="lines at most (default: 20; of --json: all)")
    add("--table", action="store_true", help="only the table, of what macros.json holds; quick")
    add(
        "--json",
        nargs="?",
        const="-",
        metavar="PATH",
        help="write the macros as JSON instead, to PATH or (-, default) the standard output; quick",
    )
    add = parser.add_argument_group("what is played for the library and the figures").add_argument
    add(
        "--play",
        choices=("auto", "replay", "games"),
        default="auto",
        help="actions that are measured: the replay of the run's last checkpoint, or games of the "
        "model (default: the replay where there is one)",
    )
    add("--games", type=int, default=3, metavar="N", help="to play (default: %(default)s)")
    add(
        "--max_steps",
        type=int,
        default=500,
        metavar="N",
        help="cut each game after so many steps (default: %(default)s)",
    )
    add("--seed", type=int, help="of the games (default: that of the run's final evaluation)")
    add(
        "--checkpoint",
        choices=("last", "best"),
        help="of a run: its last model (default, where it has one), which macros.json is of, or "
        "its best one",
    )
    add("--out", type=Path, metavar="DIR", help="for figures/ and macros.json (default: RUN_DIR)")
    return parser


def read_arguments(argv: Sequence[str]) -> tuple[MacrosRequest, dict[str, Any], bool]:
    """The checked command line, the library, and whether the folder is an export; no JAX.

    Raises:
        ConfigError: in one line, for a wrong argument, or a folder or file that cannot be read.
    """
    arguments = MacrosRequest(**vars(make_parser().parse_args(argv)))
    from smz_jax.storage.export import MACROS, is_export, read_files
    from smz_jax.storage.run_dir import read_config

    folder: Path = arguments.folder
    exported = is_export(folder)
    if exported:
        kind = arguments.checkpoint
        require(kind is None, "checkpoint", kind, "left out for an export, which holds one")
        there = MACROS in read_files(folder)  # and its sum is right
    else:
        read_config(folder)
        there = (folder / MACROS).is_file()
    allowed = f"a folder with its {MACROS}: a run writes it at each checkpoint"
    require(there, "RUN_DIR", str(folder), allowed)
    out = arguments.out
    require(out is None or out.is_dir() or not out.exists(), "out", str(out), "a folder")
    return arguments, read_macros_json(folder / MACROS), exported


def wanted_of(arguments: MacrosRequest) -> Wanted:
    """The filters and the order of the command line."""
    values = {name: getattr(arguments, name) for name in Wanted._fields}
    values["contains"] = tuple(arguments.contains)
    if arguments.json is None and arguments.top is None:
        values["top"] = 20
    return Wanted(**values)


def print_library(library: dict[str, Any], wanted: Wanted) -> None:
    """The table, the library by compression, and what a reader must know of them."""
    print(format_table(library, listed(library, wanted)), flush=True)
    print("\n" + format_selection(library))
    gate = closed_gate(library)
    if gate is not None:
        print(f"no macro is sound; the gate that closed: {gate}")
    for line in filter(None, [prefix_line(library)]):
        print(f"take care: {line}")
    sys.stdout.flush()


def write_listing(library: dict[str, Any], wanted: Wanted, target: str) -> None:
    """The listed macros as JSON, a library like the file it is from.

    Raises:
        ConfigError: in one line, if the file cannot be written.
    """
    document = {**library, "macros": listed(library, wanted)}
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    if target == "-":
        print(text)
        return
    from smz_jax.storage.files import atomic_write_text

    path = Path(target)
    require(path.parent.is_dir(), "json", target, "a file in a folder that is there")
    try:
        atomic_write_text(path, text + "\n")
    except OSError as error:
        raise ConfigError(f"json = {target!r} cannot be written: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; chooses the library and draws, unless told not to; gives the exit code.

    Args:
        argv: the arguments; unset: those of the process.

    Raises:
        ConfigError: in one line, if an argument, the folder or a file in it cannot be used.
    """
    arguments, library, exported = read_arguments(sys.argv[1:] if argv is None else argv)
    wanted = wanted_of(arguments)
    if arguments.json is not None:
        write_listing(library, wanted, arguments.json)
        return 0
    if arguments.table:
        print_library(library, wanted)
        return 0
    listed({**library, "selection": {}}, wanted)  # a wrong filter is answered before JAX loads
    return look(arguments, library, exported, wanted)


def look(arguments: MacrosRequest, library: dict[str, Any], exported: bool, wanted: Wanted) -> int:
    """The selection and the figures; gives the exit code."""
    folder: Path = arguments.folder
    out: Path = arguments.out or folder
    kinds = _kinds(folder)
    if not exported and not kinds:
        print_library(library, wanted)
        print(
            "nothing was played or drawn: the run has no checkpoint yet; what would work is a run "
            "that has saved one: training does so at its end, and now and then before"
        )
        return 0
    kind: Any = arguments.checkpoint or next(iter(kinds), "last")
    from smz_jax.run.devices import use_compile_cache

    use_compile_cache()
    from smz_jax.analysis.load import load_model
    from smz_jax.analysis.view.games import watch
    from smz_jax.analysis.view.session import draw, measure
    from smz_jax.report.build import require_writable
    from smz_jax.storage.documents.macros import check_fits, write_macros_json

    require_writable(out)
    model = load_model(folder, kind)
    check_fits(library, model.about["action_names"], model.config.macro.max_length)
    measured = measure(folder, model, library, arguments, is_run=not exported)
    print_library(measured.library, wanted)
    try:
        if out != folder or not exported:
            out.mkdir(parents=True, exist_ok=True)
            write_macros_json(out / "macros.json", measured.library)
            print(f"wrote {out / 'macros.json'}")
        watched = measured.watched or watch(model, measured.library, arguments)
        for name, path in draw(measured.library, watched, out):
            missing = {
                "macro_tree": "no tree of the games held a certain transition",
                "macro_strips": "no macro occurred in the games",
            }
            print(f"wrote {path}" if path else f"no {name}.png: {missing[name]}", flush=True)
        if not exported and out == folder:
            print(f"python -m experiments.report {folder} shows them in its report.html")
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r} cannot be written: {error.strerror}") from None
    return 0


def _kinds(folder: Path) -> list[str]:
    """Kinds of checkpoints that a run has, the one to look at first."""
    return [kind for kind in ("last", "best") if any((folder / "checkpoints" / kind).glob("*"))]


if __name__ == "__main__":
    run_main(main)
