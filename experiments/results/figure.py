"""The results at a glance: a panel for each world, the evaluations of its seeds while learning."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes

from experiments.results.finished import Finished
from experiments.results.table import Report, Row
from experiments.results.worlds import WORLDS
from smz_jax.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RC,
    SKY,
    VERMILLION,
    add_legend,
    new_figure,
    note_empty,
    plot_text,
    save_figure,
    steps_axis,
)

SEED_COLOURS = (BLUE, VERMILLION, PURPLE, SKY, BLACK)
MOST_COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.1
"""Inches."""


def results_figure(report: Report, path: Path) -> None:
    """Writes the figure as a PNG; says so where nothing is finished."""
    with rc_context(RC):
        shown = [row for row in report.rows if any(report.runs[row.world])]
        columns = min(MOST_COLUMNS, max(len(shown), 1))
        lines = -(-max(len(shown), 1) // columns)
        figure, panels = new_figure("Scores of whole games while learning", lines, columns)
        if not shown:
            note_empty(panels[0], "no run is finished yet")
        else:
            width = max(PANEL_WIDTH * columns, 6.5)
            figure.set_size_inches(width, 1.1 + PANEL_HEIGHT * lines)
        for number, axes in enumerate(panels if shown else []):
            if number < len(shown):
                draw_world(axes, shown[number], report.runs[shown[number].world])
            else:
                axes.remove()
        add_legend(figure, 4)
        save_figure(figure, path)


def draw_world(axes: Axes, row: Row, runs: Sequence[Finished]) -> None:
    """One panel: the seeds, and what they are to be compared with."""
    for one in runs:
        colour = SEED_COLOURS[one.seed % len(SEED_COLOURS)]
        steps, scores = one.curve()
        # A final evaluation of the very parameters of the one before is no progress: no line.
        end = -1 if steps[-2:-1] == steps[-1:] else None
        line = (steps[:end], scores[:end])
        axes.plot(*line, "o-", color=colour, label=f"seed {one.seed}", markersize=4)
        axes.plot(steps[-1:], scores[-1:], "D", color=colour, markersize=7)
    if row.random is not None:
        axes.axhline(row.random.estimate.mean, color=GREY, linewidth=1.4, label="random policy")
    if row.constant is not None:
        value = row.constant[1].estimate.mean
        axes.axhline(value, color=ORANGE, linestyle="--", linewidth=1.6, label="best constant")
    if row.optimum is not None:
        axes.axhline(row.optimum, color=BLACK, linestyle=":", linewidth=1.6, label="optimum")
    if (limit := required_score(row)) is not None:
        axes.axhline(limit, color=GREEN, linestyle="-.", linewidth=1.4, label="required")
    if not WORLDS[row.world].is_run:
        axes.set_ylabel("ROC area, sticky 0.25")
    verdict = "" if row.reached is None else f" (required: {'not ' * (not row.reached)}reached)"
    axes.set_title(plot_text(row.world + verdict))
    steps_axis(axes)
    if not WORLDS[row.world].is_run:
        axes.set_xlabel("updates")
    axes.locator_params(axis="x", nbins=4)


def required_score(row: Row) -> float | None:
    """The score that is required, from a bound on it or on its ratio to optimum or random."""
    scales = {
        "return": 1.0,
        "ROC area, sticky 0.25": 1.0,
        "return / optimum": row.optimum,
        "score / random": row.random.estimate.mean if row.random else None,
    }
    for figure in row.figures:
        scale = scales.get(figure.name)
        if scale is not None and figure.required.startswith("at least"):
            return float(figure.required.removeprefix("at least")) * scale
    return None
