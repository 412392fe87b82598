"""Figures of what a run has found or spent: macros, generality, seconds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    TICK_STEPS,
    VERMILLION,
    add_legend,
    counts_axis,
    draw_curve,
    draw_group,
    make_groups,
    new_figure,
    note_empty,
    plot_text,
    short_count,
    steps_axis,
)

SOURCES = ("play", "tree")
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
NO_MACROS = "no macros yet"


def generality_figure(runs: Sequence[RunData]) -> Figure:
    """Start-state buckets in which a macro was seen: mean over macros, and the greatest."""
    alone = len(runs) == 1
    figure, panels = new_figure("Generality of the macros", 1, 1 if alone else 2)
    groups = make_groups(runs)
    parts = (("mean", "mean over macros", GREEN), ("max", "most general macro", PURPLE))
    for number, (part, name, colour) in enumerate(parts):
        key = f"macros/generality_{part}"
        if alone:
            draw_curve(panels[0], runs[0].curve(key), colour, name)
        else:
            for group in groups:
                draw_group(panels[number], group, key, label=True)
            panels[number].set_title(name)
    for axes in panels:
        steps_axis(axes)
        if axes.lines:
            counts_axis(axes)
        else:
            note_empty(axes)
    buckets = runs[0].setting("macro", "num_buckets")
    panels[0].set_ylabel(f"start-state buckets{f' (of {buckets})' if buckets else ''}")
    add_legend(figure)
    return figure


def entropy_histogram(runs: Sequence[RunData]) -> Figure:
    """How certain the macros are: histogram of their mean entropy."""
    figure, (axes,) = new_figure("Mean entropy of the macros")
    values = [m["mean_entropy"] for run in runs for m in run.macros]
    high = max([0.05, *values]) * 1.02
    _histogram(axes, runs, "mean_entropy", np.linspace(0.0, high, 31))
    limit = runs[0].setting("macro", "deterministic_threshold")
    if values and isinstance(limit, (int, float)) and limit <= high:
        label = f"deterministic below {limit:g}"
        axes.axvline(limit, color=BLACK, linestyle="--", linewidth=1.4, label=label)
    axes.set_xlabel("mean entropy of the macro's transitions / ln C   (0 = certain)")
    add_legend(figure)
    return figure


def length_histogram(runs: Sequence[RunData]) -> Figure:
    """How long the macros are, in environment actions."""
    figure, (axes,) = new_figure("Length of the macros")
    lengths = [m["length"] for run in runs for m in run.macros] or [2]
    edges = np.arange(min(lengths), max(lengths) + 2) - 0.5
    _histogram(axes, runs, "length", edges, width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("actions in the macro")
    add_legend(figure)
    return figure


def _histogram(
    axes: Axes, runs: Sequence[RunData], key: str, edges: np.ndarray, width: float = 0.95
) -> None:
    """Bars stacked by source for one run, outlines for several."""
    if not any(run.macros for run in runs):
        note_empty(axes, NO_MACROS)
        return
    axes.set_ylabel("macros")
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
    counts_axis(axes)


def top_macros_figure(runs: Sequence[RunData]) -> Figure:
    """The most frequent macros with their decoded actions, and how often they were played."""
    shown = [run for run in runs if run.macros][:4]
    figure, panels = new_figure("Most frequent macros", max(len(shown), 1))
    if not shown:
        note_empty(panels[0], NO_MACROS)
        return figure
    size = 15 if len(shown) == 1 else 8
    for axes, run in zip(panels, shown, strict=True):
        best = sorted(run.macros, key=lambda m: -m["count"])[:size][::-1]
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
        counts_axis_x(axes)
        if len(runs) > 1:
            axes.set_title(plot_text(run.label))
    panels[-1].set_xlabel("times seen")
    add_legend(figure)
    return figure


def counts_axis_x(axes: Axes) -> None:
    """A horizontal axis of counts, with room for a number beside the longest bar."""
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=TICK_STEPS, integer=True))
    axes.margins(x=0.09, y=0.02)
    axes.grid(axis="y", visible=False)


def shorten(text: str, longest: int = 46) -> str:
    """Cuts the middle out of a text that would squeeze the bars beside it."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def time_figure(runs: Sequence[RunData]) -> Figure:
    """Seconds of each phase: a bar per phase, or for several runs a stacked bar per run."""
    figure, (axes,) = new_figure("Where the time went")
    if not any(sum(run.seconds.values()) > 0 for run in runs):
        note_empty(axes)
    elif len(runs) == 1:
        _time_bars(axes, runs[0])
    else:
        _time_stacks(axes, runs)
    axes.set_xlabel("seconds")
    axes.grid(axis="y", visible=False)
    add_legend(figure, 4)
    return figure


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
