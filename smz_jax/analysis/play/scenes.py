"""The looks of a game, as picture and as text, and the panel of what the agent thinks beside it."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smz_jax.analysis.play.boards import Layout, board_text, layout_of, read_position
from smz_jax.analysis.play.moments import MacroProgress, Moment
from smz_jax.config.settings import EnvConfig
from smz_jax.types import EnvSpec, Space, Timestep

HEIGHT = 420
"""Pixels of a picture at most, unless the game's own screen is larger."""
BACKGROUND, INK, FAINT, ACCENT = (24, 26, 32), (235, 235, 235), (130, 134, 142), (86, 180, 233)
EDGE = (58, 62, 72)
"""Of a board's cells."""
BASE_COLOURS = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66)),
    *((213, 94, 0), (0, 114, 178), (160, 160, 160), (120, 220, 160), (255, 150, 150)),
)
"""Okabe and Ito's colours and a few more, for the planes of a board."""

NOTE = 320
"""Pixels of the width of a board with a line below it, at least."""
WIDTH, MARGIN, LEAST_HEIGHT = 260, 14, 360
"""Pixels of the panel."""
REMEMBERED = 120
"""Moments that the courses of value and entropy reach back."""
FOLLOWED, WARM = (0, 158, 115), (230, 159, 0)
MOST_BARS = 40
"""Numbers of a vector that are shown."""

Tell = Callable[[Timestep], str | Image.Image]


class Scene(NamedTuple):
    """The two views of a game."""

    picture: Callable[[Timestep], Image.Image]
    text: Tell
    """Text for the terminal, or an image that the terminal is to show in its own way."""


def make_scene(config: EnvConfig, spec: EnvSpec, screen: Callable[[], np.ndarray] | None) -> Scene:
    """The views of a game: a drawing of what the agent sees, and text of it.

    Its own screen is shown where `open_game` gives one.
    """
    axes = len(spec.frame_shape)
    if config.suite == "grid":
        drawn = _grid_scene(config)
    elif layout := layout_of(config):
        drawn = _board_scene(layout)
    elif axes == 3:
        drawn = Scene(_tiles, _tiles_text) if config.id == "2048" else Scene(_planes, _planes_text)
    else:
        drawn = Scene(_grey, _grey) if axes == 2 else Scene(_bars, _bars_text)
    if screen is None:
        return drawn

    def picture(_: Timestep) -> Image.Image:  # the screen stands where the game stands
        return _enlarged(Image.fromarray(screen()))

    return Scene(picture, picture if axes == 2 else drawn.text)


def _enlarged(image: Image.Image) -> Image.Image:
    """As many times as large as `HEIGHT` allows, without blurring a pixel."""
    times = max(1, HEIGHT // image.height)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _newest(timestep: Timestep) -> np.ndarray:
    """The newest frame of the lane."""
    return timestep.observation[0, -1]


def _grey(timestep: Timestep) -> Image.Image:
    return _enlarged(Image.fromarray(_newest(timestep)).convert("RGB"))


def _grid_scene(config: EnvConfig) -> Scene:
    """The map with the agent on it; `@`, or `+` where a coin has just paid."""
    from smz_jax.analysis.rules.grid_figure import COLOURS
    from smz_jax.envs.grid.grid_env import states_of, world_of

    rules, observations = world_of(config)
    grid, (height, width) = rules.grid, rules.grid.size
    side = max(8, HEIGHT // max(height, width))
    font = ImageFont.load_default(side * 0.45)
    empty = Image.new("RGB", (width * side, height * side), "#BBBBBB")
    draw = ImageDraw.Draw(empty)
    for (row, column), cell in np.ndenumerate([list(row) for row in grid.rows]):
        left, top = column * side, row * side
        draw.rectangle((left, top, left + side - 2, top + side - 2), COLOURS[cell])
        if cell in "S$OG~":
            ink = "#FFFFFF" if cell == "O" else "#777777"
            draw.text((left + side / 2, top + side / 2), str(cell), ink, font, "mm")

    def state(timestep: Timestep) -> tuple[int, int, bool]:
        now = states_of(_newest(timestep)[None], observations)[0]
        return *rules.place[now].tolist(), bool(rules.paid[now])

    def picture(timestep: Timestep) -> Image.Image:
        image, (y, x, paid), edge = empty.copy(), state(timestep), side // 6
        box = x * side + edge, y * side + edge, (x + 1) * side - edge, (y + 1) * side - edge
        ImageDraw.Draw(image).ellipse(box, "#E69F00" if paid else "#0072B2", "#FFFFFF")
        return image

    def text(timestep: Timestep) -> str:
        lines, (y, x, paid) = [list(row) for row in grid.rows], state(timestep)
        lines[y][x] = "+" if paid else "@"
        return "\n".join(map("".join, lines))

    return Scene(picture, text)


def _exponents(timestep: Timestep) -> np.ndarray:
    """2048's board `[4, 4]`: the tile 2^i is plane i, an empty cell plane 0."""
    return _newest(timestep).argmax(axis=-1)


def _tiles(timestep: Timestep) -> Image.Image:
    """2048's board, warmer the larger the tile."""
    side = HEIGHT // 4
    image = Image.new("RGB", (4 * side, 4 * side), (60, 58, 56))
    draw = ImageDraw.Draw(image)
    for (y, x), power in np.ndenumerate(_exponents(timestep)):
        left, top, heat = x * side, y * side, min(power, 11) / 11
        colour = (238, int(228 - 130 * heat), int(218 - 200 * heat)) if power else (84, 82, 80)
        draw.rounded_rectangle((left + 5, top + 5, left + side - 6, top + side - 6), 6, colour)
        if power:
            number = str(2 ** int(power))
            font = ImageFont.load_default(side * (0.42 if len(number) < 4 else 0.3))
            ink = "#3C3A38" if power < 5 else "#FFFFFF"
            draw.text((left + side / 2, top + side / 2), number, ink, font, "mm")
    return image


def _tiles_text(timestep: Timestep) -> str:
    """2048's board as numbers."""
    return "\n".join(
        "".join(f"{2 ** int(power) if power else '.':>6}" for power in row)
        for row in _exponents(timestep)
    )


def _board_scene(layout: Layout) -> Scene:
    """A board of two players: each piece in its owner's colour."""

    def picture(timestep: Timestep) -> Image.Image:
        names, owners, note = read_position(layout, timestep)
        image = _cells(owners)
        draw, side = ImageDraw.Draw(image), image.width / owners.shape[1]
        font = ImageFont.load_default(side * 0.5)
        for (row, column), name in np.ndenumerate(names):
            if len(layout.pieces) > 1:  # else the colour tells all
                place = side * (column + 0.5), side * (row + 0.5)
                draw.text(place, str(name), BACKGROUND, font, "mm")
        if not note:
            return image
        noted = Image.new("RGB", (max(image.width, NOTE), image.height + 24), BACKGROUND)
        noted.paste(image)
        ImageDraw.Draw(noted).text((4, image.height + 4), note, INK, ImageFont.load_default(13))
        return noted

    return Scene(picture, partial(board_text, layout))


def _last_planes(timestep: Timestep) -> np.ndarray:
    """Of each cell `[H, W]`: the last plane that is set there, -1 where none is.

    A plane with the same number everywhere says nothing of a cell, and is left out.
    """
    planes = _newest(timestep)
    is_set = (planes > 0) & (planes != planes[:1, :1]).any(axis=(0, 1))
    return np.where(is_set, np.arange(planes.shape[-1]), -1).max(axis=-1)


def _cells(kinds: np.ndarray) -> Image.Image:
    """Cells `[H, W]` in the colours of their kinds, -1 as the background."""
    colours = np.array([*BASE_COLOURS, BACKGROUND], np.uint8)
    image = _enlarged(Image.fromarray(colours[np.where(kinds < 0, -1, kinds % len(BASE_COLOURS))]))
    draw, (height, width) = ImageDraw.Draw(image), kinds.shape
    for row, column in np.ndindex(height, width):
        left, top = column * image.width // width, row * image.height // height
        draw.rectangle(
            (left, top, left + image.width // width, top + image.height // height), None, EDGE
        )
    return image


def _planes(timestep: Timestep) -> Image.Image:
    """A frame of planes: each cell in the colour of its last plane that is set."""
    return _cells(_last_planes(timestep))


def _planes_text(timestep: Timestep) -> str:
    """The same as letters, `.` where no plane is set."""
    letters = np.array([*"ABCDEFGHIJKLMNOPQRSTUVWXYZ."])
    last = _last_planes(timestep)
    return "\n".join(map("".join, letters[np.where(last < 0, -1, last % 26)]))


def _bars(timestep: Timestep) -> Image.Image:
    """A vector as bars from the middle, each number squashed by x / (1 + |x|)."""
    vector = _newest(timestep).astype(np.float64)[:MOST_BARS]
    row = min(40, HEIGHT // max(len(vector), 1))
    font = ImageFont.load_default(min(14, max(row - 3, 6)))
    image = Image.new("RGB", (320, max(row * len(vector), 160)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, x in enumerate(vector):
        top, end = i * row, 200 + 110 * x / (1 + abs(x))
        draw.rectangle((min(200, end), top + 2, max(200, end), top + row - 3), ACCENT)
        draw.text((8, top + row / 2), f"{i}: {x:.3g}", INK, font, "lm")
    return image


def _bars_text(timestep: Timestep) -> str:
    """A vector as numbers, eight in a line."""
    numbers = [f"{float(x):>9.3g}" for x in _newest(timestep)[:MOST_BARS]]
    return "\n".join("".join(numbers[i : i + 8]) for i in range(0, len(numbers), 8))


class Panel:
    """Draws moments: the screen, and beside it action, macro, value and transition entropy."""

    def __init__(self, title: str, space: Space) -> None:
        self._title, self._name = title, space.name
        self._thoughts: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._small, self._large = ImageFont.load_default(12), ImageFont.load_default(20)

    def draw(self, moment: Moment, screen: Image.Image) -> Image.Image:
        """The moment as one picture, of even width and height."""
        if moment.step == 0:
            self._thoughts.clear()
        height = max(screen.height, LEAST_HEIGHT)
        size = (screen.width + WIDTH + screen.width % 2, height + height % 2)
        image = Image.new("RGB", size, BACKGROUND)
        image.paste(screen, (0, (height - screen.height) // 2))
        draw, left = ImageDraw.Draw(image), screen.width + MARGIN
        name, said = "game over", ("", "")
        if moment.action is not None:
            name, now = self._name(moment.action), (moment.value, moment.transition_entropy)
            self._thoughts.append(now)
            said = tuple(f" {x:.3f}" for x in now)
        for top, text, ink, font in (
            (10, self._title, FAINT, self._small),
            (28, f"game {moment.game}, step {moment.step:,}", FAINT, self._small),
            (46, f"score {moment.score:g}", INK, self._large),
            (84, "action", FAINT, self._small),
            (98, name, INK, self._large),
            (132, "macro", FAINT, self._small),
        ):
            draw.text((left, top), text, ink, font)
        self._macro(draw, left, moment.macro)
        values, entropies = ([x[i] for x in self._thoughts] for i in (0, 1))
        self._course(draw, (left, 196), f"value{said[0]}", values, None)
        self._course(draw, (left, 276), f"transition entropy{said[1]}", entropies, (0.0, 1.0))
        return image

    def _macro(self, draw: ImageDraw.ImageDraw, left: int, macro: MacroProgress | None) -> None:
        """The macro as chips; the followed ones are filled."""
        if macro is None:
            draw.text((left, 148), "none", FAINT, self._small)
            return
        x, y, right = left, 148, left + WIDTH - 2 * MARGIN
        for i, action in enumerate(macro.actions):
            width = int(draw.textlength(self._name(action), self._small)) + 8
            if x + width > right and x > left:
                x, y = left, y + 20
            is_done = i < macro.done
            box, ink = (x, y, x + width, y + 16), BACKGROUND if is_done else FAINT
            draw.rectangle(box, FOLLOWED if is_done else None, FOLLOWED if is_done else FAINT)
            draw.text((x + 4, y + 8), self._name(action), ink, self._small, "lm")
            x += width + 4

    def _course(
        self,
        draw: ImageDraw.ImageDraw,
        corner: tuple[int, int],
        label: str,
        numbers: Sequence[float],
        bounds: tuple[float, float] | None,
    ) -> None:
        """A label and the course of a number; its bounds are those of what is shown, if unset."""
        (left, top), width, height = corner, WIDTH - 2 * MARGIN, 48
        draw.text(corner, label, INK, self._small)
        low, high = bounds or (min(numbers, default=0.0), max(numbers, default=0.0))
        scale = height / (high - low) if high > low else 0.0
        base = top + 68
        draw.line((left, base, left + width, base), FAINT)
        points = [
            (left + width * i / (REMEMBERED - 1), base - min(max(x - low, 0.0) * scale, height))
            for i, x in enumerate(numbers)
        ]
        if len(points) > 1:
            draw.line(points, WARM if bounds else ACCENT, 2)
        if bounds is None and high > low:
            draw.text((left + width, top), f"{low:.3g} to {high:.3g}", FAINT, self._small, "ra")
