"""Games in the terminal: pictures of half blocks in colour, maps and boards as text."""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from smz_jax.analysis.play.games import Moment
from smz_jax.analysis.play.scenes import Tell

HOME, CLEAR_LINE, CLEAR_BELOW, CLEAR_ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
ROOM = 5
"""Lines of the terminal that are left for the words."""


def picture_text(image: Image.Image, columns: int, lines: int) -> str:
    """A picture as text: each character is an upper half block, two pixels above one another."""
    scale = min(columns / image.width, 2 * lines / image.height)
    size = (max(1, round(image.width * scale)), 2 * max(1, round(image.height * scale / 2)))
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
    rows = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = [
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m\u2580"
            for a, b in zip(upper, lower, strict=True)
        ]
        rows.append("".join(cells) + "\x1b[0m")
    return "\n".join(rows)


def words(moment: Moment, action_names: Sequence[str]) -> str:
    """What the panel of a video says, in two lines."""
    line = f"game {moment.game}  step {moment.step}  score {moment.score:g}  "
    if moment.action is None:
        return line + "game over\n"
    thoughts = f"value {moment.value:.3f}  entropy {moment.transition_entropy:.3f}"
    line += f"action {action_names[moment.action]}  {thoughts}"
    macro = "none"
    if moment.macro is not None:
        names = [action_names[action] for action in moment.macro.actions]
        done = moment.macro.done
        macro = " ".join([*(f"[{name}]" for name in names[:done]), *names[done:]])
    return f"{line}\nmacro {macro}"


def shown(
    moments: Iterator[Moment], tell: Tell, action_names: Sequence[str], rate: float
) -> Iterator[Moment]:
    """Draws each moment in the terminal, at most `rate` in a second, and hands it on.

    Where the output is no terminal, the pictures follow one another without any haste lost.
    """
    is_terminal = sys.stdout.isatty()
    columns, lines = shutil.get_terminal_size((80, 40))
    due, is_first = time.monotonic(), True
    for moment in moments:
        seen = tell(moment.timestep)
        if isinstance(seen, Image.Image):
            seen = picture_text(seen, min(columns, 80), max(min(lines - ROOM, 40), 4))
        text = f"{seen}\n{words(moment, action_names)}"
        if is_terminal:
            time.sleep(max(due - time.monotonic(), 0.0))
            due = max(due, time.monotonic() - 1 / rate) + 1 / rate
            start = CLEAR_ALL + HOME if is_first else HOME
            text = start + text.replace("\n", CLEAR_LINE + "\n") + CLEAR_LINE + CLEAR_BELOW
        print(text, flush=True)
        is_first = False
        yield moment
