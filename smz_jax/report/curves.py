"""Figures over environment steps: score, losses, search, macros and model."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from smz_jax.report.data import RunData
from smz_jax.report.style import (
    BLACK,
    GREEN,
    GREY,
    ORANGE,
    SOURCE_COLOURS,
    SOURCE_LABELS,
    Group,
    add_legend,
    counts_axis,
    draw_curve,
    draw_group,
    make_groups,
    new_figure,
    note_empty,
    plot_text,
    steps_axis,
)
from smz_jax.report.verdict import number_text
from smz_jax.storage.documents.checks import is_number
from smz_jax.storage.estimate import Estimate, read_estimate

SOURCES = ("play", "tree")


def one_game(runs: Sequence[RunData]) -> bool:
    """Whether all runs are of one game, so that their scores can be compared."""
    return len({run.game for run in runs}) == 1


def score_figure(runs: Sequence[RunData]) -> Figure:
    """Training scores and evaluations with the random and the best constant policy."""
    figure, (axes,) = new_figure("Score")
    alone = len(runs) == 1
    groups = make_groups(runs)
    drawn = False
    for group in groups:
        if alone:
            curve = runs[0].curve("score/mean")
            label = "training games, mean of the last 100"
            drawn |= draw_curve(axes, curve, GREEN, label)
        else:
            drawn |= draw_group(axes, group, "score/mean", label=True)
        colour = BLACK if alone else group.colour
        for run in group.runs:
            drawn |= draw_evaluations(axes, run, colour, labelled=alone)
    if one_game(runs):
        drawn |= draw_baselines(axes, runs)
    if not drawn:
        note_empty(axes)
    axes.set_ylabel("raw score per game")
    steps_axis(axes)
    # The baselines alone, before the first game has ended, say nothing of the axis.
    axes.set_xlim(0, 1.03 * max(1, *(run.last("env_steps") or 1 for run in runs)))
    add_legend(figure, 2)
    return figure


def draw_evaluations(axes: Axes, run: RunData, colour: str, labelled: bool) -> bool:
    """Draws the evaluations of a run with their intervals; the final one as a diamond."""
    interim = [
        (row["env_steps"], score)
        for row in run.rows
        if is_number(row.get("env_steps")) and (score := read_estimate(row, "eval/mean"))
    ]
    final = read_estimate(run.summary.get("evaluation"))
    if final and interim and abs(interim[-1][1].mean - final.mean) < 1e-9:
        interim.pop()
    if interim:
        label = "evaluation, 95 % interval" if labelled else None
        _error_bars(axes, interim, colour, "o", 6, label)
    if final:
        label = "final evaluation, 95 % interval" if labelled else None
        at = run.summary.get("env_steps") or (run.curve("env_steps")[0] or [0])[-1]
        _error_bars(axes, [(at, final)], colour, "D", 9, label)
    return bool(interim or final)


def _error_bars(
    axes: Axes,
    points: Sequence[tuple[float, Estimate]],
    colour: str,
    marker: str,
    size: float,
    label: str | None,
) -> None:
    below = [max(score.mean - score.floor, 0.0) for _, score in points]
    above = [max(score.ceiling - score.mean, 0.0) for _, score in points]
    axes.errorbar(
        [x for x, _ in points],
        [score.mean for _, score in points],
        yerr=[below, above],
        fmt=marker,
        color=colour,
        markersize=size,
        capsize=4,
        linewidth=1.4,
        label=label,
        zorder=4,
    )


def draw_baselines(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Draws the random policy's interval and the best constant action of the first run with one."""
    random = next((score for run in runs if (score := run.random())), None)
    constant = next((best for run in runs if (best := run.best_constant())), None)
    if random:
        label = f"random policy: {number_text(random.mean)}"
        axes.axhline(random.mean, color=GREY, linewidth=1.2, label=label)
        axes.axhspan(random.floor, random.ceiling, color=GREY, alpha=0.25, linewidth=0)
    if constant:
        label = plot_text(f"best constant action ({constant[0]}): {number_text(constant[1].mean)}")
        axes.axhline(constant[1].mean, color=ORANGE, linestyle="--", linewidth=1.6, label=label)
    return bool(random or constant)


def episode_length_figure(runs: Sequence[RunData]) -> Figure:
    """Mean length of the recent training games."""
    return _simple_figure(
        runs, "Game length", "episode/length_mean", "agent steps per game (mean of last 100)"
    )


def _simple_figure(runs: Sequence[RunData], title: str, key: str, unit: str) -> Figure:
    figure, (axes,) = new_figure(title)
    _panel(axes, make_groups(runs), key, len(runs) == 1)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    steps_axis(axes)
    add_legend(figure)
    return figure


def _panel(axes: Axes, groups: Sequence[Group], key: str, alone: bool, colour: str = GREEN) -> bool:
    """One metric of all runs in one panel; a single run without a legend entry."""
    if alone:
        drawn = draw_curve(axes, groups[0].runs[0].curve(key), colour)
    else:
        drawn = any([draw_group(axes, group, key, label=True) for group in groups])
    if not drawn:
        note_empty(axes)
    return drawn


LOSSES = (
    "total",
    "policy",
    "value",
    "reward",
    "afterstate_value",
    "chance",
    "commitment",
    "consistency",
    "code_entropy",
    "reconstruction",
)


def losses_figure(runs: Sequence[RunData]) -> Figure:
    """Each loss term in a small panel of its own, unweighted as logged."""
    names = [name for name in LOSSES if any(run.curve(f"loss/{name}")[0] for run in runs)]
    if not names:
        figure, (axes,) = new_figure("Losses")
        note_empty(axes, "no learner step yet")
        return figure
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure("Losses, as logged", rows, columns)
    groups = make_groups(runs)
    for number, axes in enumerate(panels):
        if number >= len(names):
            axes.remove()
            continue
        _panel(axes, groups, f"loss/{names[number]}", len(runs) == 1)
        axes.set_title(names[number].replace("_", " "))
        axes.tick_params(labelsize=9)
        steps_axis(axes, label=number >= len(names) - columns)
        axes.locator_params(axis="x", nbins=4)
    add_legend(figure)
    return figure


def by_source(
    runs: Sequence[RunData], title: str, keys: dict[str, str], unit: str
) -> tuple[Figure, list[Axes]]:
    """A metric by source: one panel with a line per source, or for several runs one per source.

    Args:
        runs: the runs.
        title: of the figure.
        keys: metric by source, `play` or `tree`.
        unit: label of the vertical axis.

    Returns:
        The figure, and the panels that hold data.
    """
    alone = len(runs) == 1
    figure, panels = new_figure(title, 1, 1 if alone else len(keys))
    groups = make_groups(runs)
    drawn = False
    for number, (source, key) in enumerate(keys.items()):
        if alone:
            axes, label = panels[0], SOURCE_LABELS[source]
            drawn |= draw_curve(axes, runs[0].curve(key), SOURCE_COLOURS[source], label)
        else:
            axes = panels[number]
            axes.set_title(SOURCE_LABELS[source], color=SOURCE_COLOURS[source])
            drawn |= _panel(axes, groups, key, alone=False)
    for axes in panels:
        steps_axis(axes)
    panels[0].set_ylabel(unit)
    if alone and not drawn:
        note_empty(panels[0])
    return figure, panels


def macros_found_figure(runs: Sequence[RunData]) -> Figure:
    """Macros in the table, by source."""
    keys = {source: f"macros/{source}" for source in SOURCES}
    figure, panels = by_source(runs, "Macros found, by source", keys, "macros in the table")
    if len(runs) == 1:
        draw_curve(panels[0], runs[0].curve("macros/total"), BLACK, "both together", ":")
    for axes in panels:
        counts_axis(axes)
    add_legend(figure)
    return figure


def transition_entropy_figure(runs: Sequence[RunData]) -> Figure:
    """Mean entropy of the played transitions, with the thresholds of both sources."""
    figure, (axes,) = new_figure("Transition entropy of played actions")
    _panel(axes, make_groups(runs), "search/transition_entropy", len(runs) == 1)
    for source in SOURCES:
        limits = {run.setting("macro", f"{source}_threshold") for run in runs}
        for limit in sorted(value for value in limits if isinstance(value, (int, float))):
            label = f"{SOURCE_LABELS[source]}: certain below {limit:g}"
            axes.axhline(limit, color=SOURCE_COLOURS[source], linestyle="--", linewidth=1.5)
            axes.annotate(
                label,
                (0.995, limit),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                color=SOURCE_COLOURS[source],
                fontsize=10,
            )
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("mean entropy / ln C   (0 certain, 1 uniform)")
    steps_axis(axes)
    add_legend(figure)
    return figure


def certain_rate_figure(runs: Sequence[RunData]) -> Figure:
    """Share of transitions whose entropy is below the threshold of their source."""
    keys = {source: f"macros/certain_rate_{source}" for source in SOURCES}
    figure, panels = by_source(runs, "Certain transitions, by source", keys, "certain transitions")
    for axes in panels:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    add_legend(figure)
    return figure


def trees_figure(runs: Sequence[RunData]) -> Figure:
    """Search trees looked at, and the sequences in the table that were seen too seldom so far."""
    figure, panels = new_figure("Trees processed and candidates", 1, 2)
    groups = make_groups(runs)
    for axes, key, title in zip(
        panels,
        ("macros/trees", "macros/candidates"),
        ("search trees processed, in all", "candidates now: seen too seldom yet"),
        strict=True,
    ):
        _panel(axes, groups, key, len(runs) == 1)
        axes.set_title(title)
        counts_axis(axes)
        steps_axis(axes)
    panels[0].set_ylabel("count since the start of the run")
    add_legend(figure)
    return figure
