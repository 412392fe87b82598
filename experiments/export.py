"""A trained model as one small folder: `python -m experiments.export RUN_DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from smz_jax.config.cli import OneLineParser, run_main
from smz_jax.config.settings import ConfigError

EXAMPLES = """\
examples:
  the best model of a run by its own evaluations, into RUN_DIR/export:
    python -m experiments.export runs/breakout/20260131-120000-seed0
  the last one, elsewhere; then play with it, on any machine:
    python -m experiments.export runs/breakout/a --checkpoint last --out breakout-a
    python -m experiments.play breakout-a --out game.gif

The folder holds weights.npz (NumPy arrays, no pickle), config.yaml, evaluation.json (every
evaluation of the run, and the baselines), macros.json, export.json and SHA256SUMS. It needs no
other file of the run. Whoever reads it compares the sums first; `sha256sum -c SHA256SUMS` does so
without this project.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    parser = OneLineParser(
        prog="python -m experiments.export",
        description="Writes a trained model as one small folder that needs no run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", type=Path, help="folder of a run that has a checkpoint"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="new or empty folder (default: RUN_DIR/export)"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="best: of the evaluations during training. last: what the run ended with, and what "
        "its final score was measured of (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the export and prints what is in it; gives the exit code.

    Args:
        argv: the arguments; unset: those of the process.

    Raises:
        ConfigError: in one line, if an argument, the run or the folder cannot be used.
    """
    arguments = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    run_dir: Path = arguments.run_dir
    out: Path = arguments.out or run_dir / "export"
    from smz_jax.storage.export import check_new_folder
    from smz_jax.storage.run_dir import read_config

    read_config(run_dir)
    check_new_folder(out)
    from smz_jax.run.devices import use_compile_cache

    use_compile_cache()
    from smz_jax.analysis.load import export_run, format_scores

    try:
        model = export_run(run_dir, out, arguments.checkpoint)
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r} cannot be written: {error.strerror}") from None
    numbers = sum(array.size for array in model.weights.values())
    size = sum(path.stat().st_size for path in out.iterdir())
    steps = model.about["env_steps"]
    print(f"{model.about['experiment']}, seed {model.about['seed']}, {arguments.checkpoint} model")
    print(f"{numbers:,} parameters" + (f" after {steps:,} steps" if steps is not None else ""))
    if model.scores:
        print(f"scores of the run (* of this very model):\n{format_scores(model.scores)}")
    found = len(model.macros["macros"]) if model.macros else 0
    print(f"{found} macros\nwrote {out} ({size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    run_main(main)
