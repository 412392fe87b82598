"""What a figure of the report is made of, as data, and the one function that draws it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smz_jax.report import style
from smz_jax.report.data import RunData


class Line(NamedTuple):
    """A metric of metrics.jsonl over environment steps.

    Of several runs the first line of a plot has a colour for each group and the seeds behind their
    mean; the others are means alone, dashed and dotted.
    """

    key: str
    label: str = ""  # in the legend of a single run
    colour: str = style.GREEN  # of a single run; runs side by side have colours of their own
    dash: str = "-"
    dots: bool = False  # whether its like of the checks of the model, `check/...`, is drawn as dots


class Mark(NamedTuple):
    """A horizontal line that a reader compares the curves with."""

    height: float | str  # a number, or the setting that holds it, as `macro.play_threshold`
    text: str  # beside the line; `{:g}` stands for its height
    colour: str
    dash: str = "--"


@dataclass(frozen=True)
class Plot:
    """One pair of axes of a figure."""

    title: str = ""
    lines: Sequence[Line] = ()
    unit: str = ""  # label of the vertical axis
    scale: str = ""  # of it, as `style.scale_axis` has them; unset: from zero if there are lines
    marks: Sequence[Mark] = ()
    draw: Callable[[Axes, Sequence[RunData]], bool] | None = None
    """Adds to the lines, or draws all; may set any label; says whether there was anything."""
    across: str | None = None  # label of the horizontal axis; None: environment steps
    title_colour: str = "black"
    needs: str = ""  # a metric without which a `given` panel leaves this plot out; unset: its lines


@dataclass(frozen=True)
class Panel:
    """A figure of the report: `figures/NAME.png` and its place on the page."""

    name: str
    title: str
    caption: str
    plots: Sequence[Plot]
    columns: int = 3  # plots in a row, at most
    legend: int = 3  # columns of the legend, at most
    empty: str = "nothing recorded yet"  # shown in a plot without data
    splits: bool = False  # several runs have a plot for each line but dotted ones (sums of others)
    given: bool = False  # plots without data are left out
    each: Callable[[RunData], bool] | None = None  # whether a run has a plot of its own
    shown: Callable[[Sequence[RunData]], bool] = bool  # whether there is a figure for these runs
    of_one_batch: bool = False  # the caption says how large the batch of a check is


def add_panel(
    panels: dict[str, Panel], name: str, title: str, caption: str, *plots: Plot, **options: Any
) -> None:
    """Adds a figure; `options` are those of the panel, and of its plot where none is given."""
    own = {} if plots else {key: options.pop(key) for key in Plot.__match_args__ if key in options}
    panels[name] = Panel(name, title, caption, plots or [Plot(**own)], **options)


MOST_RUNS = 4  # that have a plot of their own, below each other


def draw_panel(panel: Panel, runs: Sequence[RunData]) -> Figure:
    """Draws a panel for one run, or several over each other; seeds are thin, with their mean."""
    parts = list(_parts(panel, runs)) or [(replace(panel.plots[0], title=""), ())]
    columns = min(1 if panel.each else panel.columns, len(parts))
    figure, axes = style.new_figure(panel.title, -(-len(parts) // columns), columns)
    for place in axes[len(parts) :]:
        place.remove()
    small = len(parts) > 2 and not panel.each
    for number, (place, (plot, own)) in enumerate(zip(axes, parts, strict=False)):
        size = 11 if small else None
        place.set_title(style.plot_text(plot.title), fontsize=size, color=plot.title_colour)
        if not number or not (panel.splits or panel.each):
            place.set_ylabel(plot.unit)
        if small:
            place.tick_params(labelsize=9)
        drawn = bool(own) and _draw_plot(place, plot, own)
        is_last = number >= len(parts) - columns
        if plot.across is None:
            unit = " or ".join(sorted({run.unit for run in runs}))
            style.steps_axis(place, unit if is_last else None)
            if small and columns > 2:
                place.locator_params(axis="x", nbins=4)
        elif is_last or not panel.each:
            place.set_xlabel(plot.across)
        if drawn:
            style.scale_axis(place, plot.scale or ("zero" if plot.lines else "free"))
        else:
            style.note_empty(place, panel.empty)
    style.add_legend(figure, panel.legend)
    return figure


def _parts(panel: Panel, runs: Sequence[RunData]) -> Iterable[tuple[Plot, Sequence[RunData]]]:
    """Each plot of a panel with the runs that it shows."""
    if panel.each:
        for run in [run for run in runs if panel.each(run)][:MOST_RUNS]:
            yield replace(panel.plots[0], title=run.label if len(runs) > 1 else ""), (run,)
        return
    for plot in panel.plots:
        if panel.splits and len(runs) > 1:
            for line in (line for line in plot.lines if line.dash == "-"):
                # As the sources are coloured everywhere; other colours are those of runs.
                of_source = line.label in style.SOURCE_LABELS.values()
                colour = line.colour if of_source else "black"
                yield replace(plot, lines=(line,), title=line.label, title_colour=colour), runs
            continue
        needed = [plot.needs] if plot.needs else [line.key for line in plot.lines]
        if not panel.given or any(run.curve(key)[0] for run in runs for key in needed):
            yield plot, runs


def _draw_plot(axes: Axes, plot: Plot, runs: Sequence[RunData]) -> bool:
    """Draws lines, marks and what the plot adds; says whether it holds data."""
    drawn = False
    groups = style.make_groups(runs)
    for group in groups:
        for number, line in enumerate(plot.lines):
            look = (line.colour, line.label or None, line.dash)
            if len(runs) > 1 and not number:
                look = (group.colour, group.label, group.dash)
            elif len(runs) > 1:
                colour = line.colour if len(groups) == 1 else group.colour
                label = line.label if group is groups[0] else None
                look = (colour, label, style.RUN_DASHES[number])
            curves = [run.curve(line.key) for run in group.runs]
            drawn |= style.draw_curves(axes, curves, look, seeds=not number)
            checks = line.key.replace("model/", "check/")
            for x, y in [run.curve(checks) for run in group.runs] if line.dots else ():
                dots: Any = {"color": group.colour, "markeredgecolor": "white"}
                axes.plot(x, y, "o", markersize=6, zorder=4, **dots)
                drawn |= bool(x)
    if plot.draw is not None:
        drawn |= plot.draw(axes, runs)
    for mark in plot.marks if drawn else ():
        heights = {mark.height}
        if isinstance(mark.height, str):
            heights = {run.setting(*mark.height.split(".")) for run in runs}
        for height in sorted(x for x in heights if isinstance(x, (int, float))):
            axes.axhline(height, color=mark.colour, linestyle=mark.dash, linewidth=1.4)
            words: Any = {"ha": "right", "va": "bottom", "fontsize": 9, "color": mark.colour}
            words |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(mark.text.format(height), (0.99, height), (0, 4), **words)
    return drawn
