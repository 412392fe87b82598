"""A trained model at play, in the terminal or as a video: `python -m experiments.play FOLDER`.

examples:
  one game of a run's best model, and its score:
    python -m experiments.play runs/breakout/20260131-120000-seed0
  watched in the terminal:
    python -m experiments.play runs/gridworld/a --terminal --fps 2
  an export as a gif of the game's own screen, at first 300 steps of it:
    python -m experiments.play breakout-a --out game.gif --max_steps 300
  two games against it yourself, typing your moves:
    python -m experiments.play runs/backgammon/a --against me --games 2
  ten games under sticky actions:
    python -m experiments.play breakout-a --games 10 --sticky_prob 0.25

Play is greedy and searched, without noise, also where a run's evaluations have some (`eval.noise`).
Beside the screen stand the action, the macro whose first actions are the last ones played (filled
as far as it was followed), the searched value, and the transition entropy of the action: 0 where
the model is certain of what follows, 1 where it has no idea. Atari is played by ale-py and suite
gym by Gymnasium, which can draw; their draws at a game's start are not envpool's. Grid worlds and
boards are drawn from what the agent sees. Pictures of CartPole and its like need `pip install
pygame-ce`, an mp4 needs ffmpeg or `pip install imageio-ffmpeg`. Ctrl-C ends the play and keeps the
video.
"""  # noqa: D405

import contextlib
import sys

from smz_jax.analysis.requests import PlayRequest, check_folder
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


def play(request: PlayRequest) -> int:
    """Plays and prints the scores; gives 130 or 143 if a signal ended the play.

    Raises:
        ConfigError: in one line, if an argument or the folder cannot be used.
    """
    env = check_folder(request.folder, request.checkpoint).env
    from smz_jax.envs import check_two_players

    if request.against is not None:
        check_two_players(env, "against", request.against)
    if request.out is not None:
        from smz_jax.analysis.play.video import check_video

        check_video(request.out)
    from smz_jax.run.devices import prepare_jax

    prepare_jax()
    from smz_jax.analysis.load import load_model
    from smz_jax.analysis.play.showing import play_model
    from smz_jax.run.signals import StopSignal

    model = load_model(request.folder, request.checkpoint)
    if request.against is not None:
        from smz_jax.analysis.person.match import play_match

        with contextlib.suppress(KeyboardInterrupt):
            play_match(model, request)
        return 0
    with StopSignal() as stop:
        try:
            play_model(model, request, lambda: bool(stop))
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ConfigError(f"out = {str(request.out)!r} {reason}") from None
        except KeyboardInterrupt:  # a second signal
            print("interrupted: no video is kept", file=sys.stderr)
    return 128 + stop.number if stop.number is not None else 0


main = tool(play, PlayRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
