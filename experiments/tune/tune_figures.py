"""The figures of a study: scores by trial, importances, a slice of each setting, pairs of them."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.tri import Triangulation

from experiments.tune.space import Axis
from experiments.tune.study import Trial
from experiments.tune.tune_report import Found, by_importance
from smz_jax.report import style

MOST_SLICES, MOST_PAIRED = 6, 3
"""Settings with a slice, and settings whose pairs are drawn: the most important ones."""
LEVELS = 9
CAPTIONS = {
    "history": "The mean score of each trial over the seeds that it ran: complete, or given up "
    "after fewer of them. The line is the best complete mean so far, which rises by luck too.",
    "importances": "How much each setting matters for being among the best quarter of the trials "
    "(PED-ANOVA, Watanabe et al. 2023); shares add up to 1. With few trials they are rough.",
    "slices": "Every trial by one setting at a time. The diamond is the best, the dashed line the "
    "default. What the other settings were differs from point to point.",
    "contours": "Pairs of the most important settings. Each dot is a trial, each cross one that "
    "was given up; colours between them are interpolated, and mean little where these are few.",
}


def draw_all(found: Found, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Draws every figure; gives name, caption and file of each."""
    drawings = {"history": draw_history, "importances": draw_importances, "slices": draw_slices}
    if len(found.space.axes) > 1:
        drawings["contours"] = draw_contours
    for name, draw in drawings.items():
        path = folder / f"{name}.png"
        with rc_context(style.RC):
            style.save_figure(draw(found), path)
        yield name, CAPTIONS[name], path


def scored(found: Found, state: str) -> list[Trial]:
    """Trials of a state that have a score."""
    return [trial for trial in found.trials if trial.state == state and trial.means]


def draw_history(found: Found) -> Figure:
    """Scores in the order of the trials."""
    figure, (axes,) = style.new_figure("Scores of the trials")
    for state, look in _looks().items():
        trials = scored(found, state)
        axes.plot([x.number for x in trials], [x.means[-1] for x in trials], **look)
    complete = scored(found, "complete")
    best = np.maximum.accumulate([x.means[-1] for x in complete])
    line: Any = {"color": style.BLACK, "linewidth": 1.4, "drawstyle": "steps-post"}
    axes.plot([x.number for x in complete], best, label="best so far", **line)
    axes.set_xlabel("trial")
    axes.set_ylabel("mean score over seeds")
    style.count_ticks(axes.xaxis, whole=True)
    style.add_legend(figure)
    return figure


def draw_importances(found: Found) -> Figure:
    """A bar for each setting."""
    figure, (axes,) = style.new_figure("What matters")
    if not found.importances:
        style.note_empty(axes, "too few trials to tell")
        return figure
    names = [axis.name for axis in by_importance(found)]
    shares = [found.importances.get(name, 0.0) for name in names]
    figure.set_size_inches(style.WIDTH, 1.4 + 0.4 * len(names))
    axes.barh(range(len(names)), shares, color=style.GREEN, height=0.6)
    axes.set_yticks(range(len(names)), [style.plot_text(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("importance")
    return figure


def draw_slices(found: Found) -> Figure:
    """A panel for each setting: the scores by its value."""
    shown = by_importance(found)[:MOST_SLICES]
    columns = min(len(shown), 3)
    figure, panels = style.new_figure("Scores by setting", -(-len(shown) // columns), columns)
    for axes, axis in zip(panels, shown, strict=False):
        for state, look in _looks().items():
            trials = scored(found, state)
            axes.plot(_places(axis, trials), [x.means[-1] for x in trials], **look)
        axes.axvline(_place(axis, found.default[axis.name]), **_default_line())
        _mark_best(axes, [_place(axis, found.best.chosen[axis.name])], [found.best.means[-1]])
        axes.set_xlabel(style.plot_text(axis.name))
        _scale(axes, axis, "x")
    for axes in panels[:: max(columns, 1)]:
        axes.set_ylabel("mean score")
    for axes in panels[len(shown) :]:
        axes.remove()
    style.add_legend(figure)
    return figure


def draw_contours(found: Found) -> Figure:
    """A panel for each pair of the most important settings."""
    pairs = list(itertools.combinations(by_importance(found)[:MOST_PAIRED], 2))
    figure, panels = style.new_figure("Scores by pairs of settings", 1, len(pairs))
    figure.set_size_inches(max(style.WIDTH, 4.2 * len(pairs)), 4.4)
    trials = [x for state in _looks() for x in scored(found, state)]
    scores = np.array([x.means[-1] for x in trials])
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    levels = np.linspace(low, high if high > low else low + 1, LEVELS)
    colours: Any = {"cmap": "cividis", "vmin": levels[0], "vmax": levels[-1]}
    shown = None
    for axes, (one, other) in zip(panels, pairs, strict=True):
        x, y = _places(one, trials), _places(other, trials)
        if (mesh := _mesh(one, other, x, y)) is not None:
            axes.tricontourf(mesh, scores, levels=levels, alpha=0.75, **colours)
        for marker, state in (("o", "complete"), ("X", "pruned")):
            own = np.array([trial.state == state for trial in trials], bool)
            look: Any = {"marker": marker, "s": 34, "edgecolors": "white", "linewidths": 0.7}
            shown = axes.scatter(x[own], y[own], c=scores[own], zorder=3, **look, **colours)
        best = found.best.chosen
        _mark_best(axes, [_place(one, best[one.name])], [_place(other, best[other.name])])
        for of, which, label in ((one, "x", axes.set_xlabel), (other, "y", axes.set_ylabel)):
            label(style.plot_text(of.name))
            _scale(axes, of, which)
        axes.grid(visible=False)
        axes.use_sticky_edges = False  # points at the ends of a range are seen whole
        axes.margins(0.05)
    if shown is not None:
        figure.colorbar(shown, ax=panels, label="mean score", shrink=0.9)
    return figure


def _looks() -> dict[str, dict[str, Any]]:
    """Of points, by the state of their trial."""
    point: Any = {"linestyle": "", "markersize": 6}
    return {
        "pruned": {**point, "marker": "x", "color": style.GREY, "label": "given up"},
        "complete": {**point, "marker": "o", "color": style.GREEN, "label": "complete"},
    }


def _default_line() -> dict[str, Any]:
    return {"color": style.ORANGE, "linestyle": "--", "linewidth": 1.4, "label": "default"}


def _mark_best(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    look: Any = {"marker": "D", "markersize": 8, "color": style.VERMILLION, "linestyle": ""}
    axes.plot(x, y, label="best", zorder=4, markeredgecolor="white", **look)


def _place(axis: Axis, found: Any) -> float:
    """Where a value is drawn: itself, or the place of a choice; not a number outside of both."""
    if not axis.choices:
        return float(found)
    return float(axis.choices.index(found)) if axis.holds(found) else float("nan")


def _places(axis: Axis, trials: Sequence[Trial]) -> np.ndarray:
    """Where trials are drawn, `[N]`."""
    return np.array([_place(axis, trial.chosen[axis.name]) for trial in trials], np.float64)


def _scale(axes: Axes, axis: Axis, which: str) -> None:
    """Makes an axis that of a setting."""
    if axis.choices:
        ticks = axes.set_xticks if which == "x" else axes.set_yticks
        ticks(range(len(axis.choices)), [style.plot_text(str(x)) for x in axis.choices])
        limits = axes.set_xlim if which == "x" else axes.set_ylim
        limits(-0.5, len(axis.choices) - 0.5)
    elif axis.log:
        scale = axes.set_xscale if which == "x" else axes.set_yscale
        scale("log")
    elif which == "x":
        axes.locator_params(axis="x", nbins=5)


def _mesh(one: Axis, other: Axis, x: np.ndarray, y: np.ndarray) -> Triangulation | None:
    """Triangles between points that are near on the scales drawn; None where there are none."""
    plane = []
    for axis, places in ((one, x), (other, y)):
        scaled = np.log(places) if axis.log else places
        width = float(np.ptp(scaled)) if len(scaled) else 0.0
        if not width:
            return None
        plane.append((scaled - scaled.min()) / width)
    try:
        return Triangulation(x, y, Triangulation(*plane).triangles)
    except (ValueError, RuntimeError):  # fewer than three points, or all on one line
        return None
