"""What figures over environment steps show beside plain metrics: scores, unroll steps, losses."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from smz_jax.report import style
from smz_jax.report.data import Curve, RunData
from smz_jax.report.style import Group, make_groups, plot_text
from smz_jax.report.verdict import number_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import read_estimate

LOSS_COLOURS = {
    "policy": style.GREEN,
    "value": style.BLUE,
    "afterstate_value": style.SKY,
    "reward": style.ORANGE,
    "chance": style.VERMILLION,
    "commitment": style.PURPLE,
    "consistency": "#F0E442",
    "code_entropy": style.GREY,
    "reconstruction": style.BLACK,
    "continuation": "#882255",
    "representation": "#44AA99",
    "contrast": "#DDCC77",
}
MOST_STEPS = 6  # that get a line of their own
GRADIENT = "check/gradient_share/"


def draw_scores(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Evaluations with their intervals, the random policy and the best constant action."""
    alone, drawn = len(runs) == 1, False
    for group in make_groups(runs):
        for run in group.runs:
            colour = style.BLACK if alone else group.colour
            drawn |= _draw_evaluations(axes, run, colour, labelled=alone)
    # Runs of several games have no baselines in common.
    same = runs if len({run.game for run in runs}) == 1 else ()
    if random := next((score for run in same if (score := run.random())), None):
        label = f"random policy: {number_text(random.mean)}"
        axes.axhline(random.mean, color=style.GREY, linewidth=1.2, label=label)
        axes.axhspan(random.floor, random.ceiling, color=style.GREY, alpha=0.25, linewidth=0)
    if constant := next((best for run in same if (best := run.best_constant())), None):
        name, height = constant[0], constant[1].mean
        label = plot_text(f"best constant action ({name}): {number_text(height)}")
        axes.axhline(height, color=style.ORANGE, linestyle="--", linewidth=1.6, label=label)
    # The baselines alone, before the first game has ended, say nothing of the axis.
    axes.set_xlim(0, 1.03 * max(1, *(run.last("env_steps") or 1 for run in runs)))
    return drawn or bool(random or constant)


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
    at = run.summary.get("env_steps") or run.last("env_steps") or 0
    last = [(at, final)] if final else []
    kinds = (("evaluation", "o", 6, interim), ("final evaluation", "D", 9, last))
    for name, marker, size, points in (kind for kind in kinds if kind[-1]):
        label = f"{name}, 95 % interval" if labelled else None
        look: Any = {"fmt": marker, "markersize": size, "color": colour, "label": label}
        steps, scores = zip(*points, strict=True)
        means = np.array([score.mean for score in scores], np.float64)
        ends = np.array([(score.floor, score.ceiling) for score in scores], np.float64).T
        errors = np.maximum([means - ends[0], ends[1] - means], 0.0)
        axes.errorbar(steps, means, errors, capsize=4, linewidth=1.4, zorder=4, **look)
    return bool(interim or final)


def note_buckets(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Says how many start-state buckets there are; draws nothing."""
    buckets = runs[0].setting("macro", "num_buckets")
    axes.set_ylabel(f"start-state buckets{f' (of {buckets})' if buckets else ''}")
    return False


def note_checks(axes: Axes, runs: Sequence[RunData]) -> bool:
    """A legend entry for the dots of checks; draws nothing."""
    if any(run.curve("check/code_perplexity")[0] for run in runs):
        axes.plot([], [], "o", color=style.GREY, label="check of one batch, without noise")
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

    `key` is that of a vector, as `check/value_error`; its first entry is of unroll step `first`.
    """
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for group in make_groups(runs):
        vectors = last_vectors(group, key)
        curves: list[Curve] = [([*range(first, first + len(x))], list(x)) for x in vectors]
        label = group.label if len(runs) > 1 else None
        if style.draw_curves(axes, curves, (group.colour, label, group.dash)):
            axes.lines[-1].set_marker("o")
    return bool(axes.lines)


def draw_jump(axes: Axes, runs: Sequence[RunData], key: str) -> bool:
    """The last check of each run by length: of the jump, and dashed of the model's own steps."""
    alone = len(runs) == 1
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for group in make_groups(runs):
        for suffix, name, colour, dash in (
            ("", "jump", style.BLUE, "-"),
            ("_stepped", "the model's steps", style.ORANGE, "--"),
        ):
            vectors = last_vectors(group, key + suffix)
            found: list[Curve] = [([*range(1, 1 + len(x))], list(x)) for x in vectors]
            label = name if alone else group.label if not suffix else None
            style.draw_curves(axes, found, (colour if alone else group.colour, label, dash))
    return bool(axes.lines)


def draw_courses(axes: Axes, runs: Sequence[RunData], key: str, first: int) -> bool:
    """The checks over the run: a line for each of some unroll steps; of several runs the mean."""
    alone = len(runs) == 1
    name = "by unroll step" if alone else "mean over the steps"
    axes.set_title(f"over the run, {name}", fontsize=10)
    if alone:
        found = runs[0].vectors(key)
        size = min((len(values) for _, values in found), default=0)
        for i in np.unique(np.linspace(0, size - 1, min(size, MOST_STEPS)).astype(np.int64)):
            ahead = first + int(i)
            colour = to_hex(colormaps["viridis"](0.9 * ahead / max(first + size - 1, 1)))
            curve = ([x for x, _ in found], [values[i] for _, values in found])
            style.draw_curve(axes, curve, colour, f"step {ahead}" if ahead else "root")
    for group in () if alone else make_groups(runs):
        each = [run.vectors(key) for run in group.runs]
        means = [([x for x, _ in found], [float(np.mean(y)) for _, y in found]) for found in each]
        style.draw_curves(axes, means, (group.colour, group.label, group.dash))
    return bool(axes.lines)


def calibration(run: RunData, of: str = "", parts: int = 8) -> np.ndarray:
    """Stored values and real returns `[2, parts]` at the newest check; NaN where not known.

    `of` stands after their names: empty by age, `_by_spread` (4 parts).
    """
    kinds = (f"calibration/stored{of}", f"calibration/real{of}")
    pairs = [[f"{kind}_{i}" for kind in kinds] for i in range(parts)]
    rows = (row for row in reversed(run.rows) if pairs[0][0] in row)
    found = [[row.get(key) for key in pair] for row in itertools.islice(rows, 1) for pair in pairs]
    numbers = [[x if is_number(x) else np.nan for x in pair] for pair in found]
    return np.array(numbers, np.float64).reshape(-1, 2).T


def draw_calibration(axes: Axes, runs: Sequence[RunData], ratio: bool = False, **of: Any) -> bool:
    """Stored values and real returns by parts of their rows, as `calibration`; or their `ratio`."""
    alone = len(runs) == 1
    for group in make_groups(runs):
        for number, run in enumerate(group.runs):
            stored, real = calibration(run, **of)
            look: Any = {"color": group.colour, "marker": "o", "label": group.label}
            if number or (alone and ratio):
                look["label"] = None
            if ratio:
                stored = np.divide(stored, real, np.full_like(real, np.nan), where=real != 0)
            elif alone:
                look |= {"color": style.BLUE, "label": "stored value"}
            if not np.isfinite(stored).any():
                continue
            across = np.arange(1, len(stored) + 1)
            axes.plot(across, stored, **look)
            if not ratio:
                look |= {"linestyle": "--", "label": "real return" if alone else None}
                axes.plot(across, real, **look | ({"color": style.ORANGE} if alone else {}))
    return bool(axes.lines)


def gradient_curves(run: RunData) -> dict[str, Curve]:
    """Each loss that has a share in the gradient, in the order of their colours."""
    found = sorted({key for row in run.rows for key in row if key.startswith(GRADIENT)})
    keys = dict.fromkeys([*(GRADIENT + name for name in LOSS_COLOURS), *found])
    curves = {key.removeprefix(GRADIENT): run.curve(key) for key in keys}
    return {name: curve for name, curve in curves.items() if any(curve[1])}


def draw_gradients(axes: Axes, runs: Sequence[RunData]) -> bool:
    """Areas stacked over environment steps; bars where the model was checked once only."""
    curves = gradient_curves(runs[0])
    steps = sorted({x for curve in curves.values() for x in curve[0]})
    below = np.zeros(len(steps), np.float64)
    for name, curve in curves.items():
        known = dict(zip(*curve, strict=True))
        above = below + np.array([known.get(step, 0.0) for step in steps], np.float64)
        look: Any = {"color": LOSS_COLOURS.get(name, "#B0B0B0"), "linewidth": 0}
        look["label"] = plot_text(name.replace("_", " "))
        if len(steps) > 1:
            axes.fill_between(steps, below, above, **look)
        else:
            axes.bar(steps, above - below, max(0.1 * steps[0], 1.0), bottom=below, **look)
        below = above
    return bool(curves)
