"""What a figure of the report is made of, as data, and the one function that draws it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smz_jax.report.data import RunData
from smz_jax.report.style import (
    GREEN,
    SCALES,
    SOURCE_LABELS,
    Group,
    add_legend,
    draw_curve,
    draw_curves,
    make_groups,
    mean_curve,
    new_figure,
    note_empty,
    note_line,
    plot_text,
    steps_axis,
)

Draw = Callable[[Axes, Sequence[RunData]], bool]
"""Draws into a plot what no metric over environment steps is; says whether there was anything."""


class Line(NamedTuple):
    """A metric of metrics.jsonl over environment steps.

    Of several runs the first line of a plot has a colour for each group and the seeds behind their
    mean; the others are means alone, dashed and dotted.
    """

    key: str
    label: str = ""
    """In the legend of a single run."""
    colour: str = GREEN
    """Of a single run; runs side by side have colours of their own."""
    dash: str = "-"
    dots: str = ""
    """A metric of the checks of the model, drawn as dots."""


class Mark(NamedTuple):
    """A horizontal line that a reader compares the curves with."""

    height: float | str
    """A number, or the setting that holds it, as `macro.play_threshold`."""
    text: str
    """Beside the line; `{:g}` stands for its height."""
    colour: str
    dash: str = "--"


@dataclass(frozen=True)
class Plot:
    """One pair of axes of a figure."""

    title: str = ""
    lines: Sequence[Line] = ()
    unit: str = ""
    """Label of the vertical axis."""
    scale: str = "free"
    """Of the vertical axis, one of `style.SCALES`."""
    marks: Sequence[Mark] = ()
    draw: Draw | None = None
    """Adds to the lines, or draws all where there are none; may set any label."""
    across: str | None = None
    """Label of the horizontal axis; None: environment steps."""
    title_colour: str = "black"


@dataclass(frozen=True)
class Panel:
    """A figure of the report: `figures/NAME.png` and its place on the page."""

    name: str
    title: str
    caption: str
    plots: Sequence[Plot]
    columns: int = 3
    """Plots in a row, at most."""
    legend: int = 3
    """Columns of the legend, at most."""
    empty: str = "nothing recorded yet"
    """Shown in a plot without data."""
    splits: bool = False
    """Whether several runs have a plot for each line but dotted ones (sums of the others)."""
    given: bool = False
    """Whether plots without data are left out."""
    each: Callable[[RunData], bool] | None = None
    """Whether a run has a plot of its own, at most `MOST_RUNS` of them below each other."""
    shown: Callable[[Sequence[RunData]], bool] = bool
    """Whether there is a figure for these runs."""
    of_one_batch: bool = False
    """Whether the caption says how large the batch of a check is."""


MOST_RUNS = 4


def draw_panel(panel: Panel, runs: Sequence[RunData]) -> Figure:
    """Draws a panel for one run, or for several over each other.

    Args:
        panel: what to draw.
        runs: at least one; seeds of one setting are thin, with their mean.
    """
    parts = list(_parts(panel, runs)) or [(replace(panel.plots[0], title=""), ())]
    columns = min(1 if panel.each else panel.columns, len(parts))
    rows = -(-len(parts) // columns)
    figure, axes = new_figure(panel.title, rows, columns)
    for place in axes[len(parts) :]:
        place.remove()
    small = len(parts) > 2 and not panel.each
    for number, (place, (plot, own)) in enumerate(zip(axes, parts, strict=False)):
        if plot.title:
            size = 11 if small else None
            place.set_title(plot_text(plot.title), fontsize=size, color=plot.title_colour)
        if not number or not (panel.splits or panel.each):
            place.set_ylabel(plot.unit)
        if small:
            place.tick_params(labelsize=9)
        drawn = _draw_plot(place, plot, own, len(runs) == 1)
        is_last = number >= len(parts) - columns
        if plot.across is None:
            steps_axis(place, label=is_last)
        elif is_last or not panel.each:
            place.set_xlabel(plot.across)
        if small and plot.across is None and columns > 2:
            place.locator_params(axis="x", nbins=4)
        if drawn:
            SCALES[plot.scale](place)
        else:
            note_empty(place, panel.empty)
    add_legend(figure, panel.legend)
    return figure


def _parts(panel: Panel, runs: Sequence[RunData]) -> Iterable[tuple[Plot, Sequence[RunData]]]:
    """Each plot of a panel with the runs that it shows."""
    if panel.each:
        for run in [run for run in runs if panel.each(run)][:MOST_RUNS]:
            title = run.label if len(runs) > 1 else ""
            yield replace(panel.plots[0], title=title), (run,)
        return
    for plot in panel.plots:
        if panel.splits and len(runs) > 1:
            for line in (line for line in plot.lines if line.dash == "-"):
                # As the sources are coloured everywhere; other colours are those of runs.
                colour = line.colour if line.label in SOURCE_LABELS.values() else "black"
                title = line.label
                yield replace(plot, lines=(line,), title=title, title_colour=colour), runs
        elif not panel.given or any(run.curve(x.key)[0] for run in runs for x in plot.lines):
            yield plot, runs


def _draw_plot(axes: Axes, plot: Plot, runs: Sequence[RunData], alone: bool) -> bool:
    """Draws lines, marks and what the plot adds; says whether it holds data."""
    if not runs:
        return False
    drawn = False
    groups = make_groups(runs)
    for group in groups:
        for number, line in enumerate(plot.lines):
            if alone:
                curve = runs[0].curve(line.key)
                drawn |= draw_curve(axes, curve, line.colour, line.label or None, line.dash)
            else:
                drawn |= _draw_line(axes, line, group, number, groups)
            drawn |= bool(line.dots) and _draw_dots(axes, line.dots, group)
    if plot.draw is not None:
        drawn |= plot.draw(axes, runs)
    for mark in plot.marks if drawn else ():
        for height in _heights(mark, runs):
            axes.axhline(height, color=mark.colour, linestyle=mark.dash, linewidth=1.4)
            if mark.text:
                note_line(axes, height, mark.text.format(height), mark.colour, above=True)
    return drawn


def _draw_line(axes: Axes, line: Line, group: Group, number: int, groups: Sequence[Group]) -> bool:
    curves = [run.curve(line.key) for run in group.runs]
    if not number:
        return draw_curves(axes, group, curves, label=True)
    mean = mean_curve(curves)
    colour = line.colour if len(groups) == 1 else group.colour
    label = line.label if group is groups[0] else None
    dash = ("--", ":")[number - 1]
    return any([draw_curve(axes, x, colour, label, dash) for x in ([mean] if mean[0] else curves)])


def _draw_dots(axes: Axes, key: str, group: Group) -> bool:
    for run in group.runs:
        x, y = run.curve(key)
        axes.plot(x, y, "o", color=group.colour, markersize=6, markeredgecolor="white", zorder=4)
    return any(run.curve(key)[0] for run in group.runs)


def _heights(mark: Mark, runs: Sequence[RunData]) -> list[float]:
    """Where a mark lies: one height, or the setting's of each run."""
    if not isinstance(mark.height, str):
        return [mark.height]
    section, name = mark.height.split(".")
    known = {run.setting(section, name) for run in runs}
    return sorted(x for x in known if isinstance(x, (int, float)))
