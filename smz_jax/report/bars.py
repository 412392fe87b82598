"""Bars, histograms and points: macros, seconds, entropies, libraries beside controls."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smz_jax.macros.library.listing import rank
from smz_jax.report import verification
from smz_jax.report.curves import last_vectors
from smz_jax.report.data import RunData, macro_name
from smz_jax.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SOURCE_COLOURS,
    SOURCE_LABELS,
    SOURCES,
    TICK_STEPS,
    VERMILLION,
    make_groups,
    plot_text,
    short_count,
)
from smz_jax.storage.estimate import Estimate

PHASE_COLOURS = {
    "environment": GREEN,
    "search": BLUE,
    "macros": VERMILLION,
    "replay": SKY,
    "learning": ORANGE,
    "evaluation": PURPLE,
    "compilation": BLACK,
    "other": GREY,
}


def draw_entropies(axes: Axes, runs: Sequence[RunData]) -> bool:
    """How certain the macros are: histogram of their mean entropy."""
    high = max([0.05, *(m["mean_entropy"] for run in runs for m in run.macros)]) * 1.02
    drawn = _histogram(axes, runs, "mean_entropy", np.linspace(0.0, high, 31))
    limit = runs[0].setting("macro", "deterministic_threshold")
    if drawn and isinstance(limit, (int, float)) and limit <= high:
        label = f"deterministic below {limit:g}"
        axes.axvline(limit, color=BLACK, linestyle="--", linewidth=1.4, label=label)
    return drawn


def draw_lengths(axes: Axes, runs: Sequence[RunData]) -> bool:
    """How long the macros are, in environment actions."""
    lengths = [m["length"] for run in runs for m in run.macros] or [2]
    edges = np.arange(min(lengths), max(lengths) + 2) - 0.5
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _histogram(axes, runs, "length", edges, width=0.8)


def _histogram(
    axes: Axes, runs: Sequence[RunData], key: str, edges: np.ndarray, width: float = 0.95
) -> bool:
    """Bars stacked by source for one run, outlines for several."""
    if not any(run.macros for run in runs):
        return False
    if len(runs) == 1:
        by_source = [[m[key] for m in runs[0].macros if m["source"] == s] for s in SOURCES]
        axes.hist(
            by_source,
            bins=list(edges),
            stacked=True,
            rwidth=width,
            color=[SOURCE_COLOURS[s] for s in SOURCES],
            label=[SOURCE_LABELS[s] for s in SOURCES],
        )
    else:
        for group in make_groups(runs):
            for number, run in enumerate(group.runs):
                axes.hist(
                    [m[key] for m in run.macros],
                    bins=list(edges),
                    histtype="step",
                    linewidth=1.8,
                    color=group.colour,
                    linestyle=group.dash,
                    label=group.label.replace("mean of ", "") if number == 0 else None,
                )
    return True


def draw_top_macros(axes: Axes, runs: Sequence[RunData]) -> bool:
    """The most frequent macros of a run, with their decoded actions."""
    (run,) = runs
    size = 15 if len(axes.figure.axes) == 1 else 8
    best = rank(run.macros, "count")[:size][::-1]
    places = np.arange(len(best))
    played = np.array([m["play_count"] for m in best], np.float64)
    count = np.array([m["count"] for m in best], np.float64)
    colours = SOURCE_COLOURS
    axes.barh(places, played, color=colours["play"], label="seen in played games")
    rest = np.maximum(count - played, 0.0)
    axes.barh(places, rest, left=played, color=colours["tree"], label="seen in search trees")
    axes.set_yticks(places, [plot_text(shorten(macro_name(m))) for m in best], fontsize=9)
    for place, total in zip(places, count, strict=True):
        axes.annotate(
            f"{total:,.0f}",
            (total, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    # Room for a number beside the longest bar.
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=TICK_STEPS, integer=True))
    axes.margins(x=0.09, y=0.02)
    axes.grid(axis="y", visible=False)
    return True


def shorten(text: str, longest: int = 46) -> str:
    """Cuts the middle out of a text that would squeeze the bars beside it."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def draw_seconds(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Seconds of each phase: a bar per phase, or for several runs a stacked bar per run."""
    axes.grid(axis="y", visible=False)
    if not any(sum(run.seconds.values()) > 0 for run in runs):
        return False
    if len(runs) == 1:
        _time_bars(axes, runs[0])
    else:
        _time_stacks(axes, runs)
    return True


def _time_bars(axes: Axes, run: RunData) -> None:
    ranked = sorted(run.seconds.items(), key=lambda item: item[1])
    total = sum(run.seconds.values())
    names = [plot_text(name) for name, _ in ranked]
    bars = axes.barh(
        names, [s for _, s in ranked], color=[PHASE_COLOURS.get(n, GREY) for n, _ in ranked]
    )
    axes.bar_label(bars, [f"{s:,.1f} s   {s / total:.1%}" for _, s in ranked], padding=4)
    axes.margins(x=0.25)


def _time_stacks(axes: Axes, runs: Sequence[RunData]) -> None:
    left = np.zeros(len(runs), np.float64)
    places = np.arange(len(runs))[::-1]
    for phase in {name: None for run in runs for name in run.seconds}:
        seconds = np.array([run.seconds.get(phase, 0.0) for run in runs], np.float64)
        colour = PHASE_COLOURS.get(phase, GREY)
        axes.barh(places, seconds, left=left, color=colour, label=plot_text(phase))
        left += seconds
    axes.set_yticks(places, [plot_text(shorten(run.label)) for run in runs])


def draw_checked_entropies(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Histogram of the normalised transition entropy at the last check."""
    alone, key = len(runs) == 1, "check/entropy_histogram"
    for group in make_groups(runs):
        vectors = last_vectors(group, key)
        if not len(vectors):
            continue
        shares = vectors.mean(axis=0)
        edges = np.linspace(0.0, 1.0, len(shares) + 1)
        if alone:
            middles, width = (edges[:-1] + edges[1:]) / 2, 0.9 / len(shares)
            axes.bar(middles, shares, width=width, color=group.colour, label="last check")
            before = runs[0].vectors(key)
            if len(before) > 1 and len(before[0][1]) == len(shares):
                axes.stairs(before[0][1], edges, color=GREY, linewidth=1.4, label="first check")
        else:
            axes.stairs(
                shares,
                edges,
                color=group.colour,
                linestyle=group.dash,
                linewidth=1.8,
                label=group.label,
            )
    if not axes.has_data():
        return False
    limit = runs[0].setting("macro", "play_threshold")
    if isinstance(limit, (int, float)):
        label = f"certain for macros: below {limit:g}"
        axes.axvline(limit, color=BLACK, linestyle="--", linewidth=1.4, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(0, 1)
    return True


def pair_errors(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """|H(model) - H(true)| in nats of each visited pair, and whether it is random by the rules."""
    parts = [run.grid.get(name) for name in ("entropy_errors", "true_entropy", "visits")]
    if not all(parts):
        return np.zeros(0, np.float64), np.zeros(0, np.bool_)
    errors, truth, visits = (np.array(part, np.float64) for part in parts)
    return errors[visits > 0], truth[visits > 0] > 1e-9


def draw_pairs(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Histogram over the visited pairs: stacked by kind for one run, outlines for several."""
    found = [(group, *pair_errors(run)) for group in make_groups(runs) for run in group.runs]
    found = [part for part in found if len(part[1])]
    if not found:
        return False
    edges = np.linspace(0.0, max(0.1, *(float(errors.max()) for _, errors, _ in found)), 25)
    for group, errors, random in found:
        if len(runs) == 1:
            axes.hist(
                [errors[random], errors[~random]],
                bins=list(edges),
                stacked=True,
                color=[VERMILLION, BLUE],
            )
        else:
            axes.hist(errors, bins=list(edges), histtype="step", color=group.colour, linewidth=1.8)
    return True


def draw_libraries(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """A point with its interval for each library; seeds as faint dots.

    Args:
        axes: where to.
        runs: the runs, verified or not.
        key: of a share, or `verification.SAVED`.
    """
    groups = make_groups([run for run in runs if run.verification])
    each = [[verification.entries(run.verification) for run in group.runs] for group in groups]
    found = [
        own[0] if len(own) == 1 else verification.pool([run.verification for run in group.runs])
        for own, group in zip(each, groups, strict=True)
    ]
    names = list(dict.fromkeys(name for libraries in found for name in libraries))
    drawn = False
    for number, (group, libraries) in enumerate(zip(groups, found, strict=True)):
        shift = 0.5 * ((number + 1) / (len(groups) + 1) - 0.5)
        heights = {name: row + shift for row, name in enumerate(names)}
        label = group.label if len(runs) > 1 else None
        values = {name: entry.values[key] for name, entry in libraries.items()}
        drawn |= _draw_points(axes, values, heights, group.colour, label)
        for own in each[number] if len(group.runs) > 1 else ():
            points = [(x.values[key], heights[name]) for name, x in own.items()]
            known = [(x.mean, y) for x, y in points if x is not None]
            across, up = [x for x, _ in known], [y for _, y in known]
            axes.plot(across, up, ".", color=group.colour, alpha=0.4)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    if key != verification.SAVED:
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.axvline(0.0, color=GREY, linewidth=0.8)
    return drawn


def _draw_points(
    axes: Axes,
    values: Mapping[str, Estimate | None],
    heights: Mapping[str, float],
    colour: str,
    label: str | None,
) -> bool:
    """Draws means with their intervals; says whether there was one."""
    known = [(name, value) for name, value in values.items() if value is not None]
    for number, (name, value) in enumerate(known):
        axes.plot([value.floor, value.ceiling], [heights[name]] * 2, color=colour, linewidth=2.2)
        axes.plot(value.mean, heights[name], "o", color=colour, label=None if number else label)
    return bool(known)
