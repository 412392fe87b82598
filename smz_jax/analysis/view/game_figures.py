"""Figures of games: the most used macros along one, and strips of real frames around a macro."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from smz_jax.analysis.view.watched_games import Game, Span, occurrences, shown_macros, spans_of
from smz_jax.report.style import BLUE, DPI, GREEN, GREY, ORANGE, VERMILLION, note_empty, plot_text
from smz_jax.storage.documents.macro_form import fold

ROWS, STEPS = 10, 240
"""Macros and steps that are shown at most: a macro of two actions must stay a visible bar."""
FAINT = 0.3
"""Opacity of a bar."""
STATE_COLOURS = {"sound": GREEN, "candidate": GREY, "refuted": VERMILLION}
STRIPS = 4
"""Macros that are shown at most."""
PICTURE, GAP, HEAD, TOP = 1.7, 0.1, 0.68, 0.45
"""Inches: width of a picture, between pictures, above a row for its words, above all rows."""
CHANGED = 24
"""A pixel has changed if a colour channel differs by more than this of 255."""


def stretch(length: int, spans: Sequence[Span], size: int = STEPS) -> tuple[int, int]:
    """The `size` steps of a game in which macros cover the most: first step, step after the last.

    A short game is shown whole.
    """
    if length <= size:
        return 0, length
    covered = np.zeros(length, np.int64)
    for span in spans:
        covered[span.start : span.stop] = 1
    start = int(np.argmax(np.convolve(covered, np.ones(size, np.int64), "valid")))
    return start, start + size


def timeline_figure(
    games: Sequence[Game], library: Mapping[str, Any], *, play_threshold: float
) -> Figure:
    """Score, transition entropy, and a row of bars for each of the most used macros of one game.

    Of several games that of the most steps in macros is drawn.
    """
    (macros, what), names = shown_macros(library), library["action_names"]
    actions = [tuple(macro["actions"]) for macro in macros]
    every = [(game, spans_of(game, actions, len(names))) for game in games]
    game, spans = max(every, key=lambda each: sum(len(span.actions) for span in each[1]))
    start, stop = stretch(len(game.actions), spans)
    certain = {x for x in spans if game.is_certain(x.start, x.stop, play_threshold)}
    inside = {x: min(x.stop, stop) - max(x.start, start) for x in spans}
    shown = [span for span in spans if inside[span] > 0]
    used: Counter[tuple[int, ...]] = Counter()
    for span in shown:
        used[span.actions] += inside[span]
    most = [macro for macro, _ in used.most_common(ROWS)]
    rows = {
        fold([names[action] for action in macro]): [x for x in spans if x.actions == macro]
        for macro in most
    }
    if others := [x for x in shown if x.actions not in most]:
        rows["other macros"] = others
    height = max(len(rows), 3)
    figure = Figure(figsize=(11, 4.2 + 0.32 * height), dpi=DPI, layout="constrained")
    top, middle, below = figure.subplots(
        3, 1, sharex=True, height_ratios=[1, 1, 0.4 + 0.28 * height]
    )
    whole = "" if stop - start == len(game.actions) else f", steps {start:,} to {stop:,}"
    sure = sum(inside[span] for span in shown if span in certain)
    share, surely = (steps / max(stop - start, 1) for steps in (sum(used.values()), sure))
    title = f"Game {game.number}{whole}: {share:.0%} of the steps lie in {what}"
    figure.suptitle(plot_text(title), x=0.01, ha="left")
    words = f"{surely:.0%} of the steps lie in macros whose transitions were all certain (solid)"
    top.set_title(words, loc="left", fontsize=10)
    top.step(np.arange(len(game.score)), game.score, where="post", color=BLUE)
    top.set_ylabel("score")
    for place in np.flatnonzero(game.ends[:-1]).tolist():
        top.axvline(place + 1, color=VERMILLION, linewidth=1, linestyle=":")
    steps, entropy = np.arange(len(game.entropy) + 1), np.append(game.entropy, game.entropy[-1:])
    middle.fill_between(steps, entropy, step="post", color=ORANGE, alpha=0.75, linewidth=0)
    middle.axhline(play_threshold, color=GREY, linewidth=1.2, linestyle="--")
    style: Any = {"ha": "left", "va": "center", "fontsize": 9, "color": "#555555"}
    style |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    label = f"certain\nbelow {play_threshold:g}"
    middle.annotate(label, (1, play_threshold), (4, 0), annotation_clip=False, **style)
    middle.set_ylim(0, 1.05)
    middle.set_ylabel("transition\nentropy")
    patches = _draw_rows(below, rows, certain, {tuple(x["actions"]): x["status"] for x in macros})
    if patches:
        figure.legend(handles=patches, loc="outside lower right", ncols=3, fontsize=9)
    below.set_xlim(start, stop)
    below.set_xlabel("step of the game")
    return figure


def _draw_rows(
    axes: Axes,
    rows: Mapping[str, Sequence[Span]],
    certain: set[Span],
    states: Mapping[tuple[int, ...], str],
) -> list[Patch]:
    """Bars for each row of a label and spans; gives the entries of the legend."""
    if not rows:
        note_empty(axes, "no macro of the library is followed here")
        return []
    for place, followed in enumerate(rows.values()):
        bars = [(span.start, len(span.actions)) for span in followed]
        colours = [STATE_COLOURS[states[span.actions]] for span in followed]
        opacity = [1 if span in certain else FAINT for span in followed]
        style: Any = {"facecolors": list(map(to_rgba, colours, opacity)), "edgecolors": "#FFFFFF"}
        axes.broken_barh(bars, (place - 0.38, 0.76), linewidth=0.8, **style)
    axes.set_yticks(range(len(rows)), [plot_text(label) for label in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    shown = [span for followed in rows.values() for span in followed]
    there = [state for state in STATE_COLOURS if state in {states[x.actions] for x in shown}]
    patches = [Patch(facecolor=STATE_COLOURS[state], label=state) for state in there]
    if any(span not in certain for span in shown):
        faint = to_rgba(STATE_COLOURS[there[0]], FAINT)
        patches.append(Patch(facecolor=faint, label="faint: not certain there"))
    return patches


class Strip(NamedTuple):
    """One occurrence of a macro."""

    macro: dict[str, Any]
    game: Game
    start: int  # step of its first action
    certain: bool  # every transition was certain by the model

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

    def is_near(self, other: "Strip") -> bool:
        """Whether fewer steps than the longer of two macros has lie between them, or none."""
        apart = max(self.macro["length"], other.macro["length"])
        return self.start < other.stop + apart and other.start < self.stop + apart


def choose_strips(
    games: Sequence[Game], library: Mapping[str, Any], play_threshold: float, most: int = STRIPS
) -> list[Strip]:
    """The best macros that occur in the games, each where it shows the most.

    An occurrence that was certain by the model is preferred, then one with a reward that the
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
        strips = [
            Strip(macro, game, start, game.is_certain(start, start + length, play_threshold))
            for game in games
            for start in occurrences(game, tuple(actions))
        ]
        far = [strip for strip in strips if not any(map(strip.is_near, chosen))]
        chosen += [max(far, key=lambda strip: strip.worth)] if far else []
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
    patches, number = cast(Any, ndimage.label(differs, np.ones((3, 3), np.int32)))
    votes = ndimage.sum_labels(np.where(now <= was, 1, -1), patches, np.arange(number + 1))
    has_come = votes[patches] >= 0
    image = (255 - (255 - new) * 0.35).astype(np.uint8)
    # With a margin in pictures as large as a console's: a ball is a few pixels.
    side = np.ones((2 * (differs.shape[1] // 160) + 1,) * 2, np.bool_)
    for mask, colour in ((differs & ~has_come, BLUE), (differs & has_come, VERMILLION)):
        shown: np.ndarray = ndimage.binary_dilation(mask, side)
        image[shown] = np.rint(np.multiply(to_rgb(colour), 255)).astype(np.uint8)
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
    wide, high = columns * (PICTURE + GAP) + GAP, TOP + max(len(strips), 1) * (HEAD + tall)
    figure = Figure(figsize=(wide, high), dpi=DPI)
    title = plot_text(f"What macros do: {shown_macros(library)[1]}")
    figure.text(GAP / wide, 1 - 0.3 / high, title, fontsize=14, fontweight="bold")
    words = {"gone since the start": BLUE, "come since the start": VERMILLION}
    handles = [Patch(facecolor=colour, label=label) for label, colour in words.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, fontsize=9, frameon=False)
    if not strips:
        note_empty(figure.subplots(), "no macro of the library occurred in the games played")
    for number, strip in enumerate(strips):
        base = high - TOP - (number + 1) * (HEAD + tall) + 0.1
        actions = [str(library["action_names"][action]) for action in strip.macro["actions"]]
        titles = ["before", *(f"after {name}" for name in actions), "what changed"]
        pictures = [picture_of(step) for step in strip.steps]
        shown = [*map(np.asarray, pictures), changed(pictures[0], pictures[-1])]
        row: list[Axes] = []
        for title, picture in zip(titles, shown, strict=True):
            place = np.array([GAP + len(row) * (PICTURE + GAP), base, PICTURE, tall])
            row.append(figure.add_axes(tuple(place / (wide, high, wide, high))))
            row[-1].imshow(picture, interpolation="antialiased", aspect="auto")
            row[-1].set_title(plot_text(title), fontsize=9)
            row[-1].set_axis_off()
        row[-1].title.set_color(VERMILLION)
        certain = "certain" if strip.certain else "not certain here"
        text = (
            f"{fold(actions)}   ({strip.macro['status']}; {certain}; game {strip.game.number}, "
            f"step {strip.start:,}; reward {strip.gain:g}{'; screen a step late' * strip.late})"
        )
        style: Any = {"fontsize": 11 if len(text) < 70 else 8.5, "fontweight": "bold"}
        style |= {"color": "#00694D" if strip.certain else "#666666", "annotation_clip": False}
        where: Any = {"xycoords": "axes fraction", "xytext": (0, 20), "textcoords": "offset points"}
        row[0].annotate(plot_text(text), (0, 1), **where, **style)
    return figure
