"""The results at a glance: a panel for each world, the evaluations of its seeds while learning."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes

from experiments.results.finished import Finished
from experiments.results.results_table import Report, Row
from experiments.results.worlds import WORLDS
from smz_jax.report import style

SEED_COLOURS = (style.BLUE, style.VERMILLION, style.PURPLE, style.SKY, style.BLACK)
MOST_COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.1  # inches


def results_figure(report: Report, path: Path) -> None:
    """Writes the figure as a PNG; says so where nothing is finished."""
    with rc_context(style.RC):
        shown = [row for row in report.rows if report.runs[row.world]]
        count = max(len(shown), 1)
        columns = min(MOST_COLUMNS, count)
        lines = -(-count // columns)
        figure, panels = style.new_figure("Scores of whole games while learning", lines, columns)
        if shown:
            size = (max(PANEL_WIDTH * columns, 6.5), 1.1 + PANEL_HEIGHT * lines)
            figure.set_size_inches(*size)
        else:
            style.note_empty(panels[0], "no run is finished yet")
        for axes, row in zip(panels, shown, strict=False):
            draw_world(axes, row, report.runs[row.world])
        for axes in panels[count:]:
            axes.remove()
        style.add_legend(figure, 4)
        style.save_figure(figure, path)


def draw_world(axes: Axes, row: Row, runs: Sequence[Finished]) -> None:
    """One panel: the seeds, and what they are to be compared with."""
    for one in runs:
        seed = one.job.seed
        colour = SEED_COLOURS[seed % len(SEED_COLOURS)]
        steps, scores = one.curve()
        # A final evaluation of the very parameters of the one before is no progress: no line.
        end = -1 if steps[-2:-1] == steps[-1:] else None
        axes.plot(steps[:end], scores[:end], "o-", color=colour, label=f"seed {seed}", markersize=4)
        axes.plot(steps[-1:], scores[-1:], "D", color=colour, markersize=7)
    for height, colour, dash, width, label in (
        (row.random and row.random.mean, style.GREY, "-", 1.4, "random policy"),
        (row.constant and row.constant[1].mean, style.ORANGE, "--", 1.6, "best constant"),
        (row.optimum, style.BLACK, ":", 1.6, "optimum"),
        (required_score(row), style.GREEN, "-.", 1.4, "required"),
    ):
        if height is not None:
            axes.axhline(height, color=colour, linestyle=dash, linewidth=width, label=label)
    verdict = "" if row.reached is None else f" (required: {'not ' * (not row.reached)}reached)"
    axes.set_title(style.plot_text(row.world + verdict))
    style.steps_axis(axes)
    if not WORLDS[row.world].is_run:
        axes.set_ylabel("ROC area, sticky 0.25")
        axes.set_xlabel("updates")
    axes.locator_params(axis="x", nbins=4)


def required_score(row: Row) -> float | None:
    """The score that is required, from a bound on it or on its ratio to optimum or random."""
    scales = {
        "return": 1.0,
        "ROC area, sticky 0.25": 1.0,
        "return / optimum": row.optimum,
        "score / random": row.random and row.random.mean,
    }
    for figure in row.figures:
        scale = scales.get(figure.name)
        if scale is not None and figure.required.startswith("at least"):
            return float(figure.required.removeprefix("at least")) * scale
    return None
