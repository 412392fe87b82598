"""What figures over environment steps show beside plain metrics: scores, unroll steps, losses."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from smz_jax.report.data import Curve, RunData
from smz_jax.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Group,
    draw_curve,
    draw_curves,
    make_groups,
    plot_text,
)
from smz_jax.report.verdict import number_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import read_estimate

LOSS_COLOURS = {
    "policy": GREEN,
    "value": BLUE,
    "afterstate_value": SKY,
    "reward": ORANGE,
    "chance": VERMILLION,
    "commitment": PURPLE,
    "consistency": "#F0E442",
    "code_entropy": GREY,
    "reconstruction": BLACK,
}
MOST_STEPS = 6
"""Unroll steps that get a line of their own."""
GRADIENT = "check/gradient_share/"


def draw_scores(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Evaluations with their intervals, the random policy and the best constant action."""
    alone, drawn = len(runs) == 1, False
    for group in make_groups(runs):
        for run in group.runs:
            drawn |= _draw_evaluations(axes, run, BLACK if alone else group.colour, labelled=alone)
    if len({run.game for run in runs}) == 1:
        drawn |= _draw_baselines(axes, runs)
    # The baselines alone, before the first game has ended, say nothing of the axis.
    axes.set_xlim(0, 1.03 * max(1, *(run.last("env_steps") or 1 for run in runs)))
    return drawn


def _draw_evaluations(axes: Axes, run: RunData, colour: str, labelled: bool) -> bool:
    """The evaluations of a run with their intervals; the final one as a diamond."""
    interim = [
        (row["env_steps"], score)
        for row in run.rows
        if is_number(row.get("env_steps")) and (score := read_estimate(row, "eval/mean"))
    ]
    final = read_estimate(run.summary.get("evaluation"))
    if final and interim and abs(interim[-1][1].mean - final.mean) < 1e-9:
        interim.pop()
    at = run.summary.get("env_steps") or (run.curve("env_steps")[0] or [0])[-1]
    kinds = (("evaluation", "o", 6, interim), ("final evaluation", "D", 9, [(at, final)]))
    for name, marker, size, points in kinds:
        known = [(x, score) for x, score in points if score]
        if not known:
            continue
        scores = [score for _, score in known]
        below = [max(score.mean - score.floor, 0.0) for score in scores]
        above = [max(score.ceiling - score.mean, 0.0) for score in scores]
        axes.errorbar(
            [x for x, _ in known],
            [score.mean for score in scores],
            yerr=[below, above],
            fmt=marker,
            color=colour,
            markersize=size,
            capsize=4,
            linewidth=1.4,
            label=f"{name}, 95 % interval" if labelled else None,
            zorder=4,
        )
    return bool(interim or final)


def _draw_baselines(axes: Axes, runs: Sequence[RunData]) -> bool:
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


def note_buckets(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Says how many start-state buckets there are; draws nothing."""
    buckets = runs[0].setting("macro", "num_buckets")
    axes.set_ylabel(f"start-state buckets{f' (of {buckets})' if buckets else ''}")
    return False


def note_checks(axes: Axes, runs: Sequence[RunData]) -> bool:
    """A legend entry for the dots of checks; draws nothing."""
    if any(run.curve("check/code_perplexity")[0] for run in runs):
        axes.plot([], [], "o", color=GREY, label="check of one batch, without noise")
    return False


def last_vectors(group: Group, key: str) -> np.ndarray:
    """The newest vector of each run of a group that has the group's most frequent length."""
    newest = [found[-1][1] for run in group.runs if (found := run.vectors(key))]
    lengths = [len(values) for values in newest]
    length = max(set(lengths), key=lengths.count, default=0)
    same = [values for values in newest if len(values) == length]
    return np.array(same, np.float64).reshape(len(same), length)


def draw_unrolled(axes: Axes, runs: Sequence[RunData], key: str, first: int) -> bool:
    """The last check of each run by unroll step; of several seeds thin, with their mean.

    Args:
        axes: where to.
        runs: the runs.
        key: of a vector, as `check/value_error`.
        first: unroll step of its first entry.
    """
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for group in make_groups(runs):
        vectors = last_vectors(group, key)
        if not len(vectors):
            continue
        steps = first + np.arange(vectors.shape[1])
        if len(vectors) > 1:
            axes.plot(steps, vectors.T, color=group.colour, alpha=0.35, linewidth=0.9)
        axes.plot(
            steps,
            vectors.mean(axis=0),
            color=group.colour,
            linestyle=group.dash,
            marker="o",
            markersize=5,
            label=group.label if len(runs) > 1 else None,
        )
    return bool(axes.lines)


def draw_courses(axes: Axes, runs: Sequence[RunData], key: str, first: int) -> bool:
    """The checks over the run: a line for each of some unroll steps; of several runs the mean."""
    alone = len(runs) == 1
    name = "by unroll step" if alone else "mean over the steps"
    axes.set_title(f"over the run, {name}", fontsize=10)
    if alone:
        _draw_steps(axes, runs[0], key, first)
    else:
        for group in make_groups(runs):
            draw_curves(axes, group, [_mean_course(run, key) for run in group.runs], label=True)
    return bool(axes.lines)


def _draw_steps(axes: Axes, run: RunData, key: str, first: int) -> None:
    """A line for each unroll step, or for some of them where there are many."""
    found = run.vectors(key)
    size = min((len(values) for _, values in found), default=0)
    shown = np.unique(np.linspace(0, size - 1, min(size, MOST_STEPS)).astype(np.int64))
    for i in shown:
        ahead = first + int(i)
        colour = to_hex(colormaps["viridis"](0.9 * ahead / max(first + size - 1, 1)))
        curve = ([x for x, _ in found], [values[i] for _, values in found])
        name = "root" if ahead == 0 else f"step {ahead}"
        draw_curve(axes, curve, colour, name)


def _mean_course(run: RunData, key: str) -> Curve:
    found = run.vectors(key)
    return [x for x, _ in found], [float(np.mean(values)) for _, values in found]


def _loss_names(runs: Sequence[RunData]) -> list[str]:
    """Losses whose share of the gradient was recorded, in the order of their colours."""
    found = {key for run in runs for row in run.rows for key in row if key.startswith(GRADIENT)}
    names = {key.removeprefix(GRADIENT) for key in found}
    return [name for name in dict.fromkeys([*LOSS_COLOURS, *sorted(names)]) if name in names]


def has_gradients(run: RunData) -> bool:
    """Whether the share of some loss in the gradient was recorded."""
    return any(run.curve(GRADIENT + name)[0] for name in _loss_names([run]))


def draw_gradients(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Areas stacked over environment steps; bars where the model was checked once only."""
    curves = {name: runs[0].curve(GRADIENT + name) for name in _loss_names(runs)}
    curves = {name: curve for name, curve in curves.items() if any(curve[1])}
    steps = sorted({x for curve in curves.values() for x in curve[0]})
    below = np.zeros(len(steps), np.float64)
    for name, (x, y) in curves.items():
        known = dict(zip(x, y, strict=True))
        above = below + np.array([known.get(step, 0.0) for step in steps], np.float64)
        look = {"color": LOSS_COLOURS.get(name, "#B0B0B0"), "linewidth": 0}
        label = plot_text(name.replace("_", " "))
        if len(steps) > 1:
            axes.fill_between(steps, below, above, label=label, **look)
        else:
            width = max(0.1 * steps[0], 1.0)
            axes.bar(steps, above - below, width, bottom=below, label=label, **look)
        below = above
    return bool(curves)
