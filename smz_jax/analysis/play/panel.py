"""The picture of a game with what the agent thinks beside it."""

from collections import deque
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from smz_jax.analysis.play.games import Moment
from smz_jax.analysis.play.scenes import ACCENT, BACKGROUND, FAINT, INK

WIDTH, MARGIN, LEAST_HEIGHT = 260, 14, 360
REMEMBERED = 120
"""Moments that the courses of value and entropy reach back."""
FOLLOWED, WARM = (0, 158, 115), (230, 159, 0)


class Panel:
    """Draws moments: the screen, and beside it action, macro, value and transition entropy."""

    def __init__(self, title: str, action_names: Sequence[str]) -> None:
        self._title, self._names = title, action_names
        self._values: deque[float] = deque(maxlen=REMEMBERED)
        self._entropies: deque[float] = deque(maxlen=REMEMBERED)
        self._small, self._large = ImageFont.load_default(12), ImageFont.load_default(20)

    def draw(self, moment: Moment, screen: Image.Image) -> Image.Image:
        """The moment as one picture, of even width and height."""
        if moment.step == 0:
            self._values.clear()
            self._entropies.clear()
        height = max(screen.height, LEAST_HEIGHT)
        size = (screen.width + WIDTH + screen.width % 2, height + height % 2)
        image = Image.new("RGB", size, BACKGROUND)
        image.paste(screen, (0, (height - screen.height) // 2))
        draw, left = ImageDraw.Draw(image), screen.width + MARGIN
        draw.text((left, 10), self._title, FAINT, self._small)
        draw.text((left, 28), f"game {moment.game}, step {moment.step:,}", FAINT, self._small)
        draw.text((left, 46), f"score {moment.score:g}", INK, self._large)
        self._decision(draw, left, moment)
        labels = ["value", "transition entropy"]
        if moment.action is not None:
            self._values.append(moment.value)
            self._entropies.append(moment.transition_entropy)
            labels = [f"value {moment.value:.3f}"]
            labels += [f"transition entropy {moment.transition_entropy:.3f}"]
        self._course(draw, left, 196, labels[0], self._values, None, ACCENT)
        self._course(draw, left, 276, labels[1], self._entropies, (0.0, 1.0), WARM)
        return image

    def _decision(self, draw: ImageDraw.ImageDraw, left: int, moment: Moment) -> None:
        """The action, and the macro as chips; the followed ones are filled."""
        draw.text((left, 84), "action", FAINT, self._small)
        name = "game over" if moment.action is None else self._names[moment.action]
        draw.text((left, 98), name, INK, self._large)
        draw.text((left, 132), "macro", FAINT, self._small)
        if moment.macro is None:
            draw.text((left, 148), "none", FAINT, self._small)
            return
        x, y, right = left, 148, left + WIDTH - 2 * MARGIN
        for i, action in enumerate(moment.macro.actions):
            width = int(draw.textlength(self._names[action], self._small)) + 8
            if x + width > right and x > left:
                x, y = left, y + 20
            is_done = i < moment.macro.done
            box, ink = (x, y, x + width, y + 16), BACKGROUND if is_done else FAINT
            draw.rectangle(box, FOLLOWED if is_done else None, FOLLOWED if is_done else FAINT)
            draw.text((x + 4, y + 8), self._names[action], ink, self._small, "lm")
            x += width + 4

    def _course(
        self,
        draw: ImageDraw.ImageDraw,
        left: int,
        top: int,
        label: str,
        numbers: Sequence[float],
        bounds: tuple[float, float] | None,
        colour: tuple[int, int, int],
    ) -> None:
        """A label and the course of a number; its bounds are those of what is shown, if unset."""
        draw.text((left, top), label, INK, self._small)
        width, height, base = WIDTH - 2 * MARGIN, 48, top + 68
        low, high = bounds or (min(numbers, default=0.0), max(numbers, default=0.0))
        scale = height / (high - low) if high > low else 0.0
        draw.line((left, base, left + width, base), FAINT)
        points = [
            (left + width * i / (REMEMBERED - 1), base - min(max(x - low, 0.0) * scale, height))
            for i, x in enumerate(numbers)
        ]
        if len(points) > 1:
            draw.line(points, colour, 2)
        if bounds is None and high > low:
            draw.text((left + width, top), f"{low:.3g} to {high:.3g}", FAINT, self._small, "ra")
