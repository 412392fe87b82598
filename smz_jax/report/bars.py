"""Bars, histograms and points: macros, seconds, entropies, libraries beside controls."""

from collections.abc import Mapping, Sequence
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

PHASE_COLOURS = {
    "environment": style.GREEN,
    "search": style.BLUE,
    "macros": style.VERMILLION,
    "replay": style.SKY,
    "reanalyse": "#F0E442",
    "learning": style.ORANGE,
    "evaluation": style.PURPLE,
    "compilation": style.BLACK,
}


def pair_errors(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """|H(model) - H(true)| in nats of each visited pair, and whether it is random by the rules."""
    parts = [run.grid.get(name) for name in ("entropy_errors", "true_entropy", "visits")]
    if not all(parts):
        return np.zeros(0, np.float64), np.zeros(0, np.bool_)
    errors, truth, visits = (np.array(part, np.float64) for part in parts)
    return errors[visits > 0], truth[visits > 0] > 1e-9


def draw_histogram(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """Bars stacked by kind for one run, outlines for several.

    `key` is `length` or `mean_entropy`, of macros by source, or `pairs`, for the errors of those.
    """
    of_pairs, width, labels = key == "pairs", 0.95, [*style.SOURCE_LABELS.values()]
    found = [(group, _by_kind(run, key)) for group in make_groups(runs) for run in group.runs]
    values = [value for _, kinds in found for kind in kinds for value in kind]
    if not values:
        return False
    if key == "length":
        edges, width = np.arange(min(values), max(values) + 2) - 0.5, 0.8
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif of_pairs:
        edges, width, labels = np.linspace(0.0, max(0.1, *values), 25), None, None
    else:
        edges = np.linspace(0.0, 1.02 * max(0.05, *values), 31)
    colours = [*((style.VERMILLION, style.BLUE) if of_pairs else style.SOURCE_COLOURS.values())]
    for group, kinds in found:
        if len(runs) == 1:
            look: Any = {"stacked": True, "rwidth": width, "color": colours, "label": labels}
            axes.hist(kinds, list(edges), **look)
        elif kinds:
            label = group.label.replace("mean of ", "") if labels else None
            look = {"color": group.colour, "linestyle": group.dash, "label": label}
            axes.hist(np.concatenate(kinds), list(edges), histtype="step", linewidth=1.8, **look)
    if key == "mean_entropy":
        _draw_limit(axes, runs[0], "deterministic_threshold", "deterministic", edges[-1])
    return True


def _by_kind(run: RunData, key: str) -> list[Any]:
    """Random and certain pairs, or macros of play and of trees; nothing where no pair is known."""
    if key != "pairs":
        return [
            [m[key] for m in run.macros if (m["source"] in ("tree", "given")) == (source == "tree")]
            for source in style.SOURCE_LABELS
        ]
    errors, random = pair_errors(run)
    return [errors[random], errors[~random]] if len(errors) else []


def _draw_limit(axes: Axes, run: RunData, key: str, name: str, highest: float) -> None:
    """The threshold of the settings, where it is known and lies within the histogram."""
    limit = run.setting("macro", key)
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
    _draw_limit(axes, runs[0], "play_threshold", "certain for macros:", np.inf)
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
    table = [[run.seconds.get(name, 0.0) for run in runs] for name in phases]
    seconds = np.array(table, np.float64)
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
    axes: Axes, names: Sequence[str], parts: Mapping[str, tuple[np.ndarray, Any]], size: float = 11
) -> BarContainer:
    """Horizontal bars, the first name on top, of parts by label; gives those of the last part."""
    places, left = np.arange(len(names))[::-1], np.zeros(len(names), np.float64)
    bars = BarContainer([])
    for label, (values, colour) in parts.items():
        bars = axes.barh(places, values, left=left, color=colour, label=plot_text(label))
        left = left + values
    # The middle of a long name, which would squeeze the bars, is cut out.
    short = [name if len(name) <= 46 else f"{name[:21]} … {name[-21:]}" for name in names]
    axes.set_yticks(places, [plot_text(name) for name in short], fontsize=size)
    axes.grid(axis="y", visible=False)
    return bars


def draw_libraries(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """A point with its interval for each library, of a share or of `verification.SAVED`.

    Several seeds are pooled, and each of them is a faint dot.
    """
    groups = make_groups([run for run in runs if run.verification])
    rows: dict[str, int] = {}
    drawn = False
    for number, group in enumerate(groups):
        documents = [run.verification for run in group.runs]
        seeds = [verification.entries(document) for document in documents]
        pooled = seeds.pop() if len(seeds) == 1 else verification.pool(documents)
        shift = 0.5 * ((number + 1) / (len(groups) + 1) - 0.5)
        heights = {name: rows.setdefault(name, len(rows)) + shift for name in pooled}
        for libraries in (pooled, *seeds):
            found = [(x[key], heights[name]) for name, x in libraries.items()]
            known = [(value, height) for value, height in found if value is not None]
            means, up = [value.mean for value, _ in known], [height for _, height in known]
            if known and libraries is pooled:
                ends = zip(*((value.floor, value.ceiling) for value, _ in known), strict=True)
                look: Any = {"linewidth": 2.2, "capstyle": "projecting"}
                axes.hlines(up, *ends, color=group.colour, **look)
                label = group.label if len(runs) > 1 else None
                axes.plot(means, up, "o", color=group.colour, label=label)
                drawn = True
            elif known:
                axes.plot(means, up, ".", color=group.colour, alpha=0.4)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if key != verification.SAVED:
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.axvline(0.0, color=style.GREY, linewidth=0.8)
    return drawn
