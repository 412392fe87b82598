"""Bars, histograms and points: macros, seconds, entropies, libraries beside controls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smz_jax.macros.library.listing import rank
from smz_jax.report import style, verification
from smz_jax.report.curves import last_vectors
from smz_jax.report.data import RunData, macro_name
from smz_jax.report.style import make_groups, plot_text
from smz_jax.storage.estimate import Estimate

PHASE_COLOURS = {
    "environment": style.GREEN,
    "search": style.BLUE,
    "macros": style.VERMILLION,
    "replay": style.SKY,
    "learning": style.ORANGE,
    "evaluation": style.PURPLE,
    "compilation": style.BLACK,
}
Parts = Sequence[Sequence[float] | np.ndarray]
"""Values by kind, as those of macros by source."""


def draw_macros(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """Histogram of the macros by `length` or `mean_entropy`, stacked by source for one run."""
    values = [macro[key] for run in runs for macro in run.macros]
    if not values:
        return False
    if key == "length":
        edges, width = np.arange(min(values), max(values) + 2) - 0.5, 0.8
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        edges, width = np.linspace(0.0, 1.02 * max(0.05, *values), 31), 0.95

    def parts(run: RunData) -> Parts:
        return [[m[key] for m in run.macros if m["source"] == source] for source in style.SOURCES]

    colours, labels = style.SOURCE_COLOURS.values(), style.SOURCE_LABELS.values()
    _histogram(axes, runs, parts, edges, rwidth=width, color=[*colours], label=[*labels])
    if key == "mean_entropy":
        limit = runs[0].setting("macro", "deterministic_threshold")
        _draw_limit(axes, limit, "deterministic", edges[-1])
    return True


def pair_errors(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """|H(model) - H(true)| in nats of each visited pair, and whether it is random by the rules."""
    parts = [run.grid.get(name) for name in ("entropy_errors", "true_entropy", "visits")]
    if not all(parts):
        return np.zeros(0, np.float64), np.zeros(0, np.bool_)
    errors, truth, visits = (np.array(part, np.float64) for part in parts)
    return errors[visits > 0], truth[visits > 0] > 1e-9


def draw_pairs(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Histogram over the visited pairs, stacked by kind for one run."""
    highest = [float(errors.max()) for run in runs if len(errors := pair_errors(run)[0])]

    def parts(run: RunData) -> Parts:
        errors, random = pair_errors(run)
        return [errors[random], errors[~random]] if len(errors) else []

    edges = np.linspace(0.0, max([0.1, *highest]), 25)
    _histogram(axes, runs, parts, edges, color=[style.VERMILLION, style.BLUE])
    return bool(highest)


def _histogram(
    axes: Axes,
    runs: Sequence[RunData],
    parts: Callable[[RunData], Parts],
    edges: np.ndarray,
    **look: Any,
) -> None:
    """Bars stacked by kind for one run, outlines for several.

    Args:
        axes: where to.
        runs: the runs.
        parts: values of each kind of a run; nothing of one that is left out.
        edges: of the bins.
        **look: of the bars; the outlines are labelled if these are.
    """
    for group in make_groups(runs):
        for values in filter(None, map(parts, group.runs)):
            if len(runs) == 1:
                axes.hist(values, list(edges), stacked=True, **look)
                return
            label = group.label.replace("mean of ", "") if "label" in look else None
            outline: Any = {"color": group.colour, "linestyle": group.dash, "label": label}
            axes.hist(np.concatenate(values), list(edges), histtype="step", lw=1.8, **outline)


def _draw_limit(axes: Axes, limit: Any, name: str, highest: float) -> None:
    """The threshold of the settings, where it is known and lies within the histogram."""
    if isinstance(limit, (int, float)) and limit <= highest:
        look: Any = {"linestyle": "--", "linewidth": 1.4, "label": f"{name} below {limit:g}"}
        axes.axvline(limit, color=style.BLACK, **look)


def draw_checked_entropies(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Histogram of the normalised transition entropy at the last check."""
    key = "check/entropy_histogram"
    for group in make_groups(runs):
        vectors = last_vectors(group, key)
        if not len(vectors):
            continue
        shares = vectors.mean(axis=0)
        edges = np.linspace(0.0, 1.0, len(shares) + 1)
        if len(runs) > 1:
            look: Any = {"color": group.colour, "linestyle": group.dash, "label": group.label}
            axes.stairs(shares, edges, linewidth=1.8, **look)
            continue
        middles, width = (edges[:-1] + edges[1:]) / 2, 0.9 / len(shares)
        axes.bar(middles, shares, width=width, color=group.colour, label="last check")
        first, *later = [values for _, values in runs[0].vectors(key)]
        if later and len(first) == len(shares):
            axes.stairs(first, edges, color=style.GREY, linewidth=1.4, label="first check")
    if not axes.has_data():
        return False
    limit = runs[0].setting("macro", "play_threshold")
    _draw_limit(axes, limit, "certain for macros:", np.inf)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(0, 1)
    return True


def draw_top_macros(axes: Axes, runs: Sequence[RunData]) -> bool:
    """The most frequent macros of a run, with their decoded actions."""
    best = rank(runs[0].macros, "count")[: 15 if len(axes.figure.axes) == 1 else 8]
    counts = np.array([(m["play_count"], m["count"]) for m in best], np.float64)
    played, total = counts[:, 0], counts[:, 1]
    parts = {
        "seen in played games": (played, style.SOURCE_COLOURS["play"]),
        "seen in search trees": (np.maximum(total - played, 0.0), style.SOURCE_COLOURS["tree"]),
    }
    bars = _stack(axes, [macro_name(m) for m in best], parts, size=9)
    axes.bar_label(bars, [f"{count:,.0f}" for count in total], padding=3, fontsize=9)
    style.count_ticks(axes.xaxis, whole=True)
    # Room for a number beside the longest bar.
    axes.margins(x=0.09, y=0.02)
    return True


def draw_seconds(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Seconds of each phase: a bar per phase, or for several runs a stacked bar per run."""
    phases = [*dict.fromkeys(name for run in runs for name in run.seconds)]
    seconds = np.array(
        [[run.seconds.get(name, 0.0) for run in runs] for name in phases], np.float64
    )
    total = seconds.sum()
    if total <= 0:
        return False
    colours = [PHASE_COLOURS.get(name, style.GREY) for name in phases]
    if len(runs) > 1:
        parts = zip(seconds, colours, strict=True)
        _stack(axes, [run.label for run in runs], dict(zip(phases, parts, strict=True)))
        return True
    order = np.argsort(-seconds[:, 0], kind="stable")
    ranked = seconds[order, 0]
    names, looks = [phases[i] for i in order], [colours[i] for i in order]
    bars = _stack(axes, names, {"": (ranked, looks)})
    axes.bar_label(bars, [f"{s:,.1f} s   {s / total:.1%}" for s in ranked], padding=4)
    axes.margins(x=0.25)
    return True


def _stack(
    axes: Axes,
    names: Sequence[str],
    parts: Mapping[str, tuple[np.ndarray, Any]],
    size: float | None = None,
) -> BarContainer:
    """Horizontal bars, the first name on top; gives the last part's.

    Args:
        axes: where to.
        names: of the bars; the middle of a long one, which would squeeze them, is cut out.
        parts: their lengths and colour by the part's label.
        size: of the names, in points.
    """
    places, left = np.arange(len(names))[::-1], np.zeros(len(names), np.float64)
    bars = BarContainer([])
    for label, (values, colour) in parts.items():
        bars = axes.barh(places, values, left=left, color=colour, label=plot_text(label))
        left = left + values
    short = [name if len(name) <= 46 else f"{name[:21]} … {name[-21:]}" for name in names]
    axes.set_yticks(places, [plot_text(name) for name in short], fontsize=size)
    axes.grid(axis="y", visible=False)
    return bars


def draw_libraries(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """A point with its interval for each library; seeds as faint dots.

    Args:
        axes: where to.
        runs: the runs, verified or not.
        key: of a share, or `verification.SAVED`.
    """
    groups = make_groups([run for run in runs if run.verification])
    rows: dict[str, int] = {}
    for number, group in enumerate(groups):
        documents = [run.verification for run in group.runs]
        each = [verification.entries(document) for document in documents]
        several = len(each) > 1
        found = verification.pool(documents) if several else each[0]
        shift = 0.5 * ((number + 1) / (len(groups) + 1) - 0.5)
        heights = {name: rows.setdefault(name, len(rows)) + shift for name in found}
        label = group.label if len(runs) > 1 else None
        for value, height in _known(found, key, heights):
            ends = [value.floor, value.ceiling]
            axes.plot(ends, [height] * 2, color=group.colour, linewidth=2.2)
            axes.plot(value.mean, height, "o", color=group.colour, label=label)
        for own in each if several else ():
            known = _known(own, key, heights)
            points = [x.mean for x, _ in known], [y for _, y in known]
            axes.plot(*points, ".", color=group.colour, alpha=0.4)
    drawn = axes.has_data()
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if key != verification.SAVED:
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.axvline(0.0, color=style.GREY, linewidth=0.8)
    return drawn


def _known(
    found: Mapping[str, verification.Entry], key: str, heights: Mapping[str, float]
) -> list[tuple[Estimate, float]]:
    """The values of libraries with their heights."""
    pairs = [(entry.values[key], heights[name]) for name, entry in found.items()]
    return [(value, height) for value, height in pairs if value is not None]
