"""A trained model plays as a request says: scores, the terminal, a video."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from smz_jax.analysis.load import Functions
from smz_jax.analysis.play.moments import Moment, open_player, play
from smz_jax.analysis.play.scenes import Panel, Tell, make_scene
from smz_jax.analysis.play.video import write_video
from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.check import require
from smz_jax.storage.export import Exported
from smz_jax.types import Space

HOME, CLEAR_LINE, CLEAR_BELOW, CLEAR_ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
ROOM = 5
"""Lines of the terminal that are left for the words."""


def play_model(
    model: Exported,
    request: PlayRequest,
    should_stop: Callable[[], bool] = lambda: False,
    functions: Functions | None = None,
) -> list[float]:
    """Plays whole games, greedily and with search; prints what is played and each score.

    The request's folder is not read; `should_stop` is called before every action, and a video then
    ends there. The model's functions are made where they are not given.

    Returns:
        The scores of the games that ended.

    Raises:
        ConfigError: in one line, if the model does not fit the game, or the request.
        OSError: if the video cannot be written.
    """
    sticky, suite = request.sticky_prob, model.config.env.suite
    allowed = f"left out in suite {suite}: only Atari has sticky actions"
    require(sticky is None or suite == "atari", "sticky_prob", sticky, allowed)
    draws = request.terminal or request.out is not None
    scores: list[float] = []
    options: Any = {"screen": draws, "functions": functions}
    with open_player(model, request.seed, request.max_steps, sticky, **options) as player:
        game, spec, name = player.game, player.game.env.spec, player.config.experiment
        about = f"{model.about['checkpoint']} model, {game.note}, seed {player.seed}"
        print(f"{name}, {about}", flush=True)
        scene = make_scene(player.config.env, spec, game.screen) if draws else None
        rate, tell = request.fps or game.steps_per_second, scene and request.terminal and scene.text
        moments = play(player, request.games, model.macros, should_stop)
        moments = _told(moments, scores, tell or None, spec.action_space, rate)
        if scene and request.out is not None:
            panel = Panel(f"{name}: {spec.name}", spec.action_space)
            pictures = (panel.draw(x, scene.picture(x.timestep)) for x in moments)
            print(f"wrote {request.out}, {write_video(request.out, pictures, rate):,} pictures")
        else:
            deque(moments, 0)
    if len(scores) > 1:
        low, high = min(scores), max(scores)
        print(f"{len(scores)} games: mean score {np.mean(scores):.2f}, from {low:g} to {high:g}")
    return scores


def _told(
    moments: Iterator[Moment],
    scores: list[float],
    tell: Tell | None,
    space: Space,
    rate: float,
) -> Iterator[Moment]:
    """Hands moments on; prints each game's end, notes its score, and draws in the terminal.

    At most `rate` are drawn in a second. Where the output is no terminal, the pictures follow one
    another without any haste lost.
    """
    columns, lines = shutil.get_terminal_size((80, 40))
    due, start = time.monotonic(), CLEAR_ALL + HOME
    for moment in moments:
        if tell is not None:
            seen = tell(moment.timestep)
            if isinstance(seen, Image.Image):
                seen = picture_text(seen, min(columns, 80), max(min(lines - ROOM, 40), 4))
            text = f"{seen}\n{words(moment, space)}"
            if sys.stdout.isatty():
                time.sleep(max(due - time.monotonic(), 0.0))
                due = max(due, time.monotonic() - 1 / rate) + 1 / rate
                text = start + text.replace("\n", CLEAR_LINE + "\n") + CLEAR_LINE + CLEAR_BELOW
                start = HOME
            print(text, flush=True)
        if moment.action is None:
            scores.append(moment.score)
            end = f"game {moment.game}: score {moment.score:g}, {moment.step:,} steps"
            print(end + ", cut off by the time limit" * moment.cut, flush=True)
        yield moment


def picture_text(image: Image.Image, columns: int, lines: int) -> str:
    """A picture as text: each character is an upper half block, two pixels above one another."""
    scale = min(columns / image.width, 2 * lines / image.height)
    size = (max(1, round(image.width * scale)), 2 * max(1, round(image.height * scale / 2)))
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
    rows = (
        "".join(
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m\u2580"
            for a, b in zip(upper, lower, strict=True)
        )
        for upper, lower in zip(pixels[::2], pixels[1::2], strict=True)
    )
    return "\n".join(f"{row}\x1b[0m" for row in rows)


def words(moment: Moment, space: Space) -> str:
    """What the panel of a video says, in two lines."""
    line = f"game {moment.game}  step {moment.step}  score {moment.score:g}  "
    if moment.action is None:
        return line + "game over\n"
    thoughts = f"value {moment.value:.3f}  entropy {moment.transition_entropy:.3f}"
    macro = "none"
    if moment.macro is not None:
        names, done = list(map(space.name, moment.macro.actions)), moment.macro.done
        macro = " ".join([*(f"[{name}]" for name in names[:done]), *names[done:]])
    return f"{line}action {space.name(moment.action)}  {thoughts}\nmacro {macro}"
