"""The figure of the most used macros along a game."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from smz_jax.analysis.view.watched_games import Game, Span, shown_macros, spans_of
from smz_jax.report.style import BLUE, DPI, GREEN, GREY, ORANGE, VERMILLION, note_empty, plot_text
from smz_jax.storage.documents.macro_form import fold

ROWS, STEPS = 10, 240
"""Macros and steps that are shown at most: a macro of two actions must stay a visible bar."""
FAINT = 0.3
"""Opacity of a bar."""
STATE_COLOURS = {"sound": GREEN, "candidate": GREY, "refuted": VERMILLION}


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
    used: Counter[tuple[int, ...]] = Counter()
    sure = 0
    for span in spans:
        if inside := range(max(span.start, start), min(span.stop, stop)):
            used[span.actions] += len(inside)
            sure += len(inside) * (span in certain)
    most = [macro for macro, _ in used.most_common(ROWS)]
    rows = {
        fold([names[action] for action in macro]): [x for x in spans if x.actions == macro]
        for macro in most
    }
    others = [x for x in spans if x.actions not in most and x.start < stop and start < x.stop]
    if others:
        rows["other macros"] = others
    height = max(len(rows), 3)
    figure = Figure(figsize=(11, 4.2 + 0.32 * height), dpi=DPI, layout="constrained")
    top, middle, below = figure.subplots(
        3, 1, sharex=True, height_ratios=[1, 1, 0.4 + 0.28 * height]
    )
    whole = "" if stop - start == len(game.actions) else f", steps {start:,} to {stop:,}"
    share, surely = (steps / max(stop - start, 1) for steps in (sum(used.values()), sure))
    title = f"Game {game.number}{whole}: {share:.0%} of the steps lie in {what}"
    figure.suptitle(plot_text(title), x=0.01, ha="left")
    words = (
        f"{surely:.0%} of the steps lie in macros whose transitions were all held certain (solid)"
    )
    top.set_title(words, loc="left", fontsize=10)
    top.step(np.arange(len(game.score)), game.score, where="post", color=BLUE)
    top.set_ylabel("score")
    for place in np.flatnonzero(game.ends[:-1]).tolist():
        top.axvline(place + 1, color=VERMILLION, linewidth=1, linestyle=":")
    _draw_entropy(middle, game, play_threshold)
    patches = _draw_rows(below, rows, certain, {tuple(x["actions"]): x["status"] for x in macros})
    if patches:
        figure.legend(handles=patches, loc="outside lower right", ncols=3, fontsize=9)
    below.set_xlim(start, stop)
    below.set_xlabel("step of the game")
    return figure


def _draw_entropy(axes: Axes, game: Game, threshold: float) -> None:
    axes.fill_between(
        np.arange(len(game.entropy) + 1),
        np.append(game.entropy, game.entropy[-1:]),
        step="post",
        color=ORANGE,
        alpha=0.75,
        linewidth=0,
    )
    axes.axhline(threshold, color=GREY, linewidth=1.2, linestyle="--")
    style: Any = {"ha": "left", "va": "center", "fontsize": 9, "color": "#555555"}
    place: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    label = f"certain\nbelow {threshold:g}"
    axes.annotate(label, (1, threshold), (4, 0), annotation_clip=False, **place, **style)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("transition\nentropy")


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
        axes.broken_barh(
            [(span.start, len(span.actions)) for span in followed],
            (place - 0.38, 0.76),
            facecolors=[
                to_rgba(STATE_COLOURS[states[span.actions]], 1 if span in certain else FAINT)
                for span in followed
            ],
            edgecolors="#FFFFFF",
            linewidth=0.8,
        )
    axes.set_yticks(range(len(rows)), [plot_text(label) for label in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    shown = [span for followed in rows.values() for span in followed]
    there = [state for state in STATE_COLOURS if state in {states[x.actions] for x in shown}]
    patches = [Patch(facecolor=STATE_COLOURS[state], label=state) for state in there]
    if any(span not in certain for span in shown):
        faint = to_rgba(STATE_COLOURS[there[0]], FAINT)
        patches.append(Patch(facecolor=faint, label="faint: not held certain there"))
    return patches
