"""Figures of the model: is it alive, where it errs, what its gradient consists of."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

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
    add_legend,
    draw_curve,
    draw_curves,
    draw_group,
    from_zero,
    make_groups,
    new_figure,
    note_empty,
    note_line,
    plot_text,
    steps_axis,
)

NO_CHECK = "the model has not been checked yet"
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
MOST_RUNS, MOST_STEPS = 4, 6
"""Runs that get a panel of their own, and unroll steps that get a line of their own."""


def model_figure(runs: Sequence[RunData]) -> Figure:
    """Whether the model is alive: codes in use, agreement, embedding variance, gradients."""
    figure, panels = new_figure("Health of the model", 2, 2)
    groups = make_groups(runs)
    parts = (
        ("model/code_perplexity", "codes in use (perplexity)"),
        ("model/agreement", "codes foreseen by the prior (agreement)"),
        ("model/embedding_variance", "variance of the embedding over a batch"),
        ("learner/grad_norm", "gradient norm, before clipping"),
    )
    for number, (axes, (key, title)) in enumerate(zip(panels, parts, strict=True)):
        drawn = [draw_group(axes, group, key, label=len(runs) > 1) for group in groups]
        for group in groups:
            drawn += [_draw_checks(axes, run, key, group) for run in group.runs]
        axes.set_title(title)
        axes.tick_params(labelsize=9)
        steps_axis(axes, label=number >= 2)
        if any(drawn):
            from_zero(axes)
        else:
            note_empty(axes)
    panels[1].set_ylim(0, 1.02)
    if panels[0].lines:
        panels[0].axhline(1.0, color=VERMILLION, linestyle="--", linewidth=1.3)
        note_line(panels[0], 1.0, "1 = collapsed", VERMILLION, above=True)
    if any(run.curve("check/code_perplexity")[0] for run in runs):
        panels[3].plot([], [], "o", color=GREY, label="check of one batch, without noise")
    add_legend(figure)
    return figure


def _draw_checks(axes: Axes, run: RunData, key: str, group: Group) -> bool:
    """Dots of the checks that belong to a metric of training."""
    x, y = run.curve(key.replace("model/", "check/")) if key.startswith("model/") else ([], [])
    axes.plot(x, y, "o", color=group.colour, markersize=6, markeredgecolor="white", zorder=4)
    return bool(x)


def unroll_errors_figure(runs: Sequence[RunData]) -> Figure:
    """Errors by unroll step: at the last check above, and their course below."""
    figure, panels = new_figure("How far ahead the model is right", 2, 3)
    groups, alone = make_groups(runs), len(runs) == 1
    parts = (
        ("check/value_error", "value: mean absolute error", 0),
        ("check/reward_error", "reward: mean absolute error", 1),
        ("check/consistency", "embedding: cosine with the real", 1),
    )
    for (key, title, first), now, course in zip(parts, panels[:3], panels[3:], strict=True):
        drawn = [_draw_last(now, group, key, first, label=not alone) for group in groups]
        now.set_title(title, fontsize=11)
        now.set_xlabel("unroll step")
        now.xaxis.set_major_locator(MaxNLocator(integer=True))
        if alone:
            _draw_courses(course, runs[0], key, first)
            course.set_title("its course, by unroll step", fontsize=10)
        else:
            for group in groups:
                curves = [_mean_course(run, key) for run in group.runs]
                draw_curves(course, group, curves, label=True)
            course.set_title("its course, mean over the steps", fontsize=10)
        steps_axis(course)
        course.locator_params(axis="x", nbins=4)
        for axes in (now, course):
            axes.tick_params(labelsize=9)
            if not any(drawn):
                note_empty(axes, "not checked yet")
            elif key == "check/consistency":
                axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
            else:
                from_zero(axes)
    add_legend(figure, 6)
    return figure


def last_vectors(group: Group, key: str) -> np.ndarray:
    """The newest vector of each run of a group that has the group's most frequent length."""
    newest = [found[-1][1] for run in group.runs if (found := run.vectors(key))]
    lengths = [len(values) for values in newest]
    length = max(set(lengths), key=lengths.count, default=0)
    same = [values for values in newest if len(values) == length]
    return np.array(same, np.float64).reshape(len(same), length)


def _draw_last(axes: Axes, group: Group, key: str, first: int, label: bool) -> bool:
    """The last check of each run by unroll step; of several seeds thin, with their mean."""
    vectors = last_vectors(group, key)
    if not len(vectors):
        return False
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
        label=group.label if label else None,
    )
    return True


def _draw_courses(axes: Axes, run: RunData, key: str, first: int) -> None:
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


def entropy_figure(runs: Sequence[RunData]) -> Figure:
    """Histogram of the normalised transition entropy at the last check."""
    figure, (axes,) = new_figure("Transition entropy, at the last check")
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
        note_empty(axes, NO_CHECK)
        return figure
    limit = runs[0].setting("macro", "play_threshold")
    if isinstance(limit, (int, float)):
        label = f"certain for macros: below {limit:g}"
        axes.axvline(limit, color=BLACK, linestyle="--", linewidth=1.4, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(0, 1)
    axes.set_xlabel("entropy of the transition's outcome / ln C   (0 certain, 1 uniform)")
    axes.set_ylabel("share of the transitions")
    add_legend(figure)
    return figure


def gradient_figure(runs: Sequence[RunData]) -> Figure:
    """Share of each loss in the gradient norm: a panel for each of the first runs."""
    prefix = "check/gradient_share/"
    found = {key for run in runs for row in run.rows for key in row if key.startswith(prefix)}
    order = [*LOSS_COLOURS, *sorted(name.removeprefix(prefix) for name in found)]
    names = [name for name in dict.fromkeys(order) if prefix + name in found]
    shown = [run for run in runs if any(run.curve(prefix + name)[0] for name in names)]
    shown = shown[:MOST_RUNS]
    figure, panels = new_figure("Share of each loss in the gradient", max(len(shown), 1))
    if not shown:
        note_empty(panels[0], NO_CHECK)
        return figure
    for number, (axes, run) in enumerate(zip(panels, shown, strict=True)):
        curves = {name: run.curve(prefix + name) for name in names}
        curves = {name: curve for name, curve in curves.items() if any(curve[1])}
        _stack(axes, curves)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if len(runs) > 1:
            axes.set_title(plot_text(run.label))
        steps_axis(axes, label=number == len(shown) - 1)
    panels[0].set_ylabel("share of the gradient norm")
    add_legend(figure, 5)
    return figure


def _stack(axes: Axes, curves: dict[str, Curve]) -> None:
    """Areas stacked over environment steps; bars where the model was checked once only."""
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
