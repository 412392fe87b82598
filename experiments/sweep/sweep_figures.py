"""The figures of a sweep: learning curves, scores with intervals, performance profiles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.sweep.aggregate import performance_profile
from experiments.sweep.sweep_report import Report, Row
from smz_jax.report import style
from smz_jax.storage.estimate import Estimate

COLOURS = (style.GREEN, style.PURPLE, style.SKY, style.BLUE, style.VERMILLION)
"""Of variants; the base is black, the random policy orange."""
MOST_CLEAR = 4
"""Variants whose seeds and bands are readable in one figure."""
CAPTIONS = {
    "curves": "Learning curves: the mean over seeds of each variant, on the stretch that all of "
    f"its seeds have reached; of up to {MOST_CLEAR} variants the seeds themselves too, thin. The "
    "base is black.",
    "scores": "Left: the interquartile mean of each variant with its 95 % interval, and its runs "
    "as faint dots. Middle: the probability that a run scores higher than one of the base; an "
    "interval that is clear of 50 % is a difference, but of a few runs that do not overlap it is "
    "empty and says nothing of further seeds. Right: what a run costs.",
    "profiles": "Performance profiles: the share of runs that score higher than each threshold, "
    f"with 95 % bands of up to {MOST_CLEAR} variants. A curve that lies above another everywhere "
    "is better in every respect.",
}


def draw_all(report: Report, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Draws every figure; gives name, caption and file of each."""
    drawings = {"curves": draw_curves, "scores": draw_scores, "profiles": draw_profiles}
    for name, draw in drawings.items():
        path = folder / f"{name}.png"
        with rc_context(style.RC):
            style.save_figure(draw(report), path)
        yield name, CAPTIONS[name], path


def looks(report: Report) -> list[tuple[Row, str, str]]:
    """Each variant with its colour and dash."""
    others = [row for row in report.rows if row is not report.base]
    place = {id(row): number for number, row in enumerate(others)}
    found = []
    for row in report.rows:
        turn, number = divmod(place.get(id(row), 0), len(COLOURS))
        colour = style.BLACK if row is report.base else COLOURS[number]
        found.append((row, colour, style.RUN_DASHES[turn % len(style.RUN_DASHES)]))
    return found


def draw_curves(report: Report) -> Figure:
    """A panel for each experiment: evaluations, or training games where those are few."""
    modules = list(dict.fromkeys(x["experiment"] for row in report.rows for x in row.trials))
    columns = min(len(modules), 3)
    title = "Scores while learning: mean of seeds"
    title += ", and each seed (thin)" * (len(report.rows) <= MOST_CLEAR)
    figure, panels = style.new_figure(title, -(-len(modules) // columns), columns)
    for axes, module in zip(panels, modules, strict=False):
        axes.set_title(style.plot_text(module) if len(modules) > 1 else "")
        _draw_experiment(axes, report, module)
    for axes in panels[len(modules) :]:
        axes.remove()
    style.add_legend(figure)
    return figure


def _draw_experiment(axes: Axes, report: Report, module: str) -> None:
    shown = [(x, x[0].runs.get(module, [])) for x in looks(report)]
    runs = [run for _, own in shown for run in own]
    evaluated = all(len(run.evaluations()[0]) > 2 for run in runs)
    drawn = False
    for (row, colour, dash), own in shown:
        curves = [run.evaluations() if evaluated else run.curve("score/mean") for run in own]
        look = (colour, style.plot_text(row.label), dash)
        drawn |= style.draw_curves(axes, curves, look, seeds=len(shown) <= MOST_CLEAR)
    if not drawn:
        style.note_empty(axes, "no run is finished yet")
        return
    if random := next((x for run in runs if (x := run.random())), None):
        line: Any = {"color": style.ORANGE, "linestyle": ":", "linewidth": 1.8}
        axes.axhline(random.mean, label="random policy", **line)
    axes.set_ylabel("score of evaluations" if evaluated else "score of recent training games")
    style.steps_axis(axes)


def draw_scores(report: Report) -> Figure:
    """A line for each variant: its score, the probability of improvement, the cost."""
    figure, (left, middle, right) = style.new_figure("Final scores and what they cost", 1, 3)
    rows = looks(report)
    longest = max(len(row.label) for row, *_ in rows)
    figure.set_size_inches(style.WIDTH + 0.06 * longest, 1.6 + 0.42 * len(rows))
    for height, (row, colour, _) in enumerate(rows):
        for value in np.concatenate(row.scores) if row.scores else ():
            left.plot(value, height, "o", color=colour, alpha=0.3, markersize=5)
        _draw_estimate(left, row.iqm, height, colour)
        _draw_estimate(middle, row.better, height, colour)
        if minutes := row.average("cpu_minutes") or row.average("wall_minutes"):
            right.barh(height, minutes, color=colour, height=0.5)
            text: Any = {"va": "center", "fontsize": 9, "xytext": (3, 0)}
            text |= {"textcoords": "offset points"}
            right.annotate(f"{minutes:.3g}", (minutes, height), **text)
    middle.axvline(0.5, color=style.GREY, linewidth=1.2, linestyle="--")
    middle.set_xlim(-0.03, 1.03)
    middle.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.margins(x=0.18)
    titles = ("interquartile mean", "probability to beat the base", "CPU minutes a run")
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set_title(style.plot_text(title), fontsize=11)
        names = [style.plot_text(row.label) for row, *_ in rows] if axes is left else []
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=5)
    return figure


def _draw_estimate(axes: Axes, found: Estimate | None, height: float, colour: str) -> None:
    """A point with its interval."""
    if found is not None:
        look: Any = {"linewidth": 2.4, "capstyle": "projecting"}
        axes.hlines(height, found.floor, found.ceiling, color=colour, **look)
        axes.plot(found.mean, height, "D", color=colour, markersize=7)


def draw_profiles(report: Report) -> Figure:
    """The share of runs above each score."""
    figure, (axes,) = style.new_figure("Share of runs that score higher")
    shown = [x for x in looks(report) if x[0].scores]
    if not shown:
        style.note_empty(axes, "no run is finished yet")
        return figure
    thresholds = _thresholds([x for row, *_ in shown for x in row.scores])
    for row, colour, dash in shown:
        found = performance_profile(row.scores, thresholds)
        label = style.plot_text(row.label)
        look: Any = {"color": colour, "linestyle": dash, "drawstyle": "steps-post"}
        axes.plot(thresholds, found.share, label=label, **look)
        band: Any = {"color": colour, "alpha": 0.12, "linewidth": 0, "step": "post"}
        if len(shown) <= MOST_CLEAR:
            axes.fill_between(thresholds, found.low, found.high, **band)
    scale = "normalised score" if report.sweep.normalise else "score"
    axes.set_xlabel(f"{scale} of a run, above which the share is counted")
    axes.set_xlim(thresholds[0], thresholds[-1])
    style.scale_axis(axes, "percent")
    style.add_legend(figure)
    return figure


def _thresholds(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Every score, where a share may change, and a little room at both ends, `[T]`."""
    values = np.unique(np.concatenate(scores))
    room = 0.05 * float(values[-1] - values[0]) or 0.5
    return np.array([values[0] - room, *values, values[-1] + room])
