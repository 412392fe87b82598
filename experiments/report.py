"""Rebuilds the report of one or several runs: `python -m experiments.report RUN_DIR...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from smz_jax.config.settings import ConfigError

EXAMPLES = """\
examples:
  one run, also while it is going on or after it was killed:
    python -m experiments.report runs/breakout/20260131-120000-seed0
  three seeds over each other, written to a folder of its own:
    python -m experiments.report runs/breakout/a runs/breakout/b runs/breakout/c --out compare

What is written: report.html (one file, opens anywhere) and figures/*.png. Runs whose settings
differ only in the seed are drawn as thin lines with their mean.
"""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong flag in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        self.exit(2, "error: " + " ".join(message.split()) + "\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    parser = _Parser(
        prog="python -m experiments.report",
        description="Draws the figures of one or several runs and writes report.html.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dirs",
        metavar="RUN_DIR",
        nargs="+",
        type=Path,
        help="folder of a run: runs/<experiment>/<name>, holding metrics.jsonl",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder for report.html and figures/ (default: the first run folder)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Builds the report.

    Args:
        argv: the arguments; unset: those of the process.

    Returns:
        Exit code: 0, or 2 with one line on stderr when a folder is missing, is no run folder,
        is damaged, or cannot be written.
    """
    arguments = make_parser().parse_args(argv)
    # Drawing takes long to import, so that a wrong flag is answered before it.
    from smz_jax.report.build import build_report

    try:
        page = build_report(arguments.run_dirs, arguments.out)
    except (ConfigError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"wrote {page} and {len(list((page.parent / 'figures').glob('*.png')))} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
