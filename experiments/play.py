"""A trained model at play, in the terminal or as a video: `python -m experiments.play FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.cli import OneLineParser, run_main
from smz_jax.config.settings import ConfigError, require

EXAMPLES = """\
examples:
  one game of a run's best model, and its score:
    python -m experiments.play runs/breakout/20260131-120000-seed0
  watched in the terminal:
    python -m experiments.play runs/gridworld/a --terminal --fps 2
  an export as a gif of the game's own screen, at first 300 steps of it:
    python -m experiments.play breakout-a --out game.gif --max_steps 300
  ten games under sticky actions:
    python -m experiments.play breakout-a --games 10 --sticky_prob 0.25

Play is greedy and searched, without noise, as in the evaluations of a run. Beside the screen stand
the action, the macro whose first actions are the last ones played (filled as far as it was
followed), the searched value, and the transition entropy of the action: 0 where the model holds
what follows to be certain, 1 where it has no idea. Atari is played by ale-py and suite gym by
Gymnasium, which can draw; their draws at a game's start are not envpool's. Grid worlds and boards
are drawn from what the agent sees. Pictures of CartPole and its like need `pip install pygame-ce`,
an mp4 needs ffmpeg or `pip install imageio-ffmpeg`. Ctrl-C ends the play and keeps the video.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line with its help."""
    parser = OneLineParser(
        prog="python -m experiments.play",
        description="Plays whole games with a trained model and prints their scores.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="folder of an export or of a run")
    add(
        "--checkpoint",
        choices=("best", "last"),
        help="of a run: its best model (default) or its last one; an export holds one",
    )
    add("--games", type=int, default=1, metavar="N", help="to play (default: %(default)s)")
    add("--seed", type=int, help="of the games (default: that of the run's final evaluation)")
    add(
        "--sticky_prob",
        type=float,
        metavar="P",
        help="Atari: chance that the last action is repeated (default: as in training)",
    )
    add(
        "--max_steps",
        type=int,
        metavar="N",
        help="cut each game after so many steps (default: as in the run's evaluations)",
    )
    add("--terminal", action="store_true", help="draw the game in the terminal")
    add("--out", type=Path, metavar="FILE", help="write a .gif or .mp4")
    add("--fps", type=float, help="steps shown in a second (default: as the game is natural)")
    return parser


def read_arguments(argv: Sequence[str]) -> PlayRequest:
    """The checked command line; light, and so quick.

    Raises:
        ConfigError: in one line, for a wrong argument or a damaged export.
    """
    arguments = PlayRequest(**vars(make_parser().parse_args(argv)))
    from smz_jax.storage.export import is_export, read_files
    from smz_jax.storage.run_dir import read_config

    if is_export(arguments.folder):
        kind = arguments.checkpoint
        require(kind is None, "checkpoint", kind, "left out for an export, which holds one")
        read_files(arguments.folder)
    else:
        read_config(arguments.folder)
    if arguments.out is not None:
        from smz_jax.analysis.play.video import check_video

        check_video(arguments.out)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Plays and prints the scores; gives the exit code, 130 or 143 if a signal ended the play.

    Args:
        argv: the arguments; unset: those of the process.

    Raises:
        ConfigError: in one line, if an argument or the folder cannot be used.
    """
    arguments = read_arguments(sys.argv[1:] if argv is None else argv)
    from smz_jax.run.devices import use_compile_cache

    use_compile_cache()
    from smz_jax.analysis.load import load_model
    from smz_jax.analysis.play.session import play_model
    from smz_jax.run.signals import StopSignal

    model = load_model(arguments.folder, arguments.checkpoint or "best")
    with StopSignal() as stop:
        try:
            play_model(model, arguments, lambda: bool(stop))
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ConfigError(f"out = {str(arguments.out)!r} {reason}") from None
        except KeyboardInterrupt:  # a second signal
            print("interrupted: no video is kept", file=sys.stderr)
    return 128 + stop.number if stop.number is not None else 0


if __name__ == "__main__":
    run_main(main)
