"""Strips of real frames before, during and after a macro."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from smz_jax.analysis.view.watched_games import Game, occurrences, shown_macros
from smz_jax.report.style import BLUE, DPI, VERMILLION, note_empty, plot_text
from smz_jax.storage.documents.macro_form import fold

STRIPS = 4
"""Macros that are shown at most."""
PICTURE, GAP, HEAD, TOP = 1.7, 0.1, 0.68, 0.45
"""Inches: width of a picture, between pictures, above a row for its words, above all rows."""
TITLE: Any = {"fontsize": 14, "fontweight": "bold"}
CHANGED = 24
"""A pixel has changed if a colour channel differs by more than this of 255."""


class Strip(NamedTuple):
    """One occurrence of a macro."""

    macro: dict[str, Any]
    game: Game
    start: int  # step of its first action
    certain: bool  # the model held every transition to be certain

    @property
    def stop(self) -> int:
        """The step after its last action."""
        return self.start + self.macro["length"]

    @property
    def steps(self) -> list[int]:
        """Steps of the environment before each action, and after the last."""
        return list(range(self.game.first + self.start, self.game.first + self.stop + 1))

    @property
    def gain(self) -> float:
        """The raw reward of its actions."""
        return float(self.game.score[self.stop] - self.game.score[self.start])

    @property
    def late(self) -> bool:
        """Whether the screen may tell of other rewards than the macro's own.

        A game may draw its score a frame after it has paid: then the reward of the action before
        appears within the strip, and that of the last action only after it.
        """
        score = self.game.score
        before = self.start > 0 and score[self.start] != score[self.start - 1]
        return bool(before or score[self.stop] != score[self.stop - 1])

    @property
    def worth(self) -> tuple[float, ...]:
        """How much it shows, see `choose_strips`: greater is better."""
        first, last = (self.game.frames[x].astype(np.float32) for x in (self.start, self.stop))
        shows = (self.certain, self.gain != 0 and not self.late, not self.late)
        return (*map(float, shows), float(np.mean(np.abs(first - last))))

    def is_near(self, start: int, stop: int) -> bool:
        """Whether fewer steps than the longer of two macros has lie between them, or none."""
        apart = max(self.macro["length"], stop - start)
        return self.start < stop + apart and start < self.stop + apart


def choose_strips(
    games: Sequence[Game], library: Mapping[str, Any], play_threshold: float, most: int = STRIPS
) -> list[Strip]:
    """The best macros that occur in the games, each where it shows the most.

    An occurrence that the model held certain is preferred, then one with a reward that the
    screen shows within the strip (`Strip.late`), one without a late reward, and the one whose frame
    changed the most. A macro that lies within a chosen one, or around one, is left out, and so is
    an occurrence less than a macro's length before or after a chosen one, in whichever game, since
    games that begin alike stay alike for long: it would show the same event.
    """
    chosen: list[Strip] = []
    for macro in shown_macros(library)[0]:
        actions, length = bytes(macro["actions"]), macro["length"]
        others = [bytes(strip.macro["actions"]) for strip in chosen]
        if len(chosen) == most or any(actions in other or other in actions for other in others):
            continue
        found = [
            Strip(macro, game, start, game.is_certain(start, start + length, play_threshold))
            for game in games
            for start in occurrences(game, tuple(actions))
            if not any(strip.is_near(start, start + length) for strip in chosen)
        ]
        if found:
            chosen.append(max(found, key=lambda strip: strip.worth))
    return chosen


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """The end, faded, with what has changed since the start in strong colours, `[H, W, 3]` uint8.

    Backgrounds are of common colours. So where the colours of a patch of changed pixels are rarer
    after, something has come there (vermillion); where they were rarer before, something is gone
    (blue).
    """
    old, new = (np.asarray(x.convert("RGB"), np.int32) for x in (before, after))
    differs = np.abs(old - new).max(axis=-1) > CHANGED
    codes = np.stack([old, new]) @ np.array([65536, 256, 1])
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    was, now = counts[inverse].reshape(codes.shape)
    found: Any = ndimage.label(differs, np.ones((3, 3), np.int32))
    patches, number = found
    votes = ndimage.sum_labels(np.where(now <= was, 1, -1), patches, np.arange(number + 1))
    has_come = votes[patches] >= 0
    image = (255 - (255 - new) * 0.35).astype(np.uint8)
    # With a margin in pictures as large as a console's: a ball is a few pixels.
    side = np.ones((2 * (differs.shape[1] // 160) + 1,) * 2, np.bool_)
    for mask, colour in ((differs & ~has_come, BLUE), (differs & has_come, VERMILLION)):
        grown: np.ndarray = ndimage.binary_dilation(mask, side)
        image[grown] = np.rint(np.multiply(to_rgb(colour), 255)).astype(np.uint8)
    return image


def strips_figure(
    strips: Sequence[Strip],
    picture_of: Callable[[int], Image.Image],
    library: Mapping[str, Any],
) -> Figure:
    """A row of pictures for each macro: before it, after each of its actions, and what changed."""
    columns = 2 + max((strip.macro["length"] for strip in strips), default=2)
    sample = picture_of(strips[0].steps[0]) if strips else None
    tall = PICTURE * sample.height / sample.width if sample else 1.0
    size = (columns * (PICTURE + GAP) + GAP, TOP + max(len(strips), 1) * (HEAD + tall))
    figure = Figure(figsize=size, dpi=DPI)
    _, what = shown_macros(library)
    figure.text(GAP / size[0], 1 - 0.3 / size[1], plot_text(f"What macros do: {what}"), **TITLE)
    words = {"gone since the start": BLUE, "come since the start": VERMILLION}
    handles = [Patch(facecolor=colour, label=label) for label, colour in words.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, fontsize=9, frameon=False)
    if not strips:
        note_empty(figure.subplots(), "no macro of the library occurred in the games played")
    for number, strip in enumerate(strips):
        base = size[1] - TOP - (number + 1) * (HEAD + tall) + 0.1
        actions = [str(library["action_names"][action]) for action in strip.macro["actions"]]
        titles = ["before", *(f"after {name}" for name in actions), "what changed"]
        pictures = [picture_of(step) for step in strip.steps]
        shown = [*map(np.asarray, pictures), changed(pictures[0], pictures[-1])]
        row: list[Axes] = []
        for title, picture in zip(titles, shown, strict=True):
            place = np.array([GAP + len(row) * (PICTURE + GAP), base, PICTURE, tall])
            row.append(figure.add_axes(tuple(place / (*size, *size))))
            row[-1].imshow(picture, interpolation="antialiased", aspect="auto")
            row[-1].set_title(plot_text(title), fontsize=9)
            row[-1].set_axis_off()
        row[-1].title.set_color(VERMILLION)
        held = "held certain" if strip.certain else "not held certain here"
        text = (
            f"{fold(actions)}   ({strip.macro['status']}; {held}; game {strip.game.number}, "
            f"step {strip.start:,}; reward {strip.gain:g}{'; screen a step late' * strip.late})"
        )
        row[0].annotate(
            plot_text(text),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 20),
            textcoords="offset points",
            fontsize=11 if len(text) < 70 else 8.5,
            fontweight="bold",
            color="#00694D" if strip.certain else "#666666",
            annotation_clip=False,
        )
    return figure
