"""How every figure looks: sizes, colours, axes, and the drawing of a curve."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from smz_jax.report.data import Curve, RunData, group_seeds
from smz_jax.report.text import short_count
from smz_jax.storage.files import atomic_write_bytes

# Okabe and Ito's palette: distinct with every common kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#222222", "#8A8A8A"

SOURCE_COLOURS = {"play": BLUE, "tree": VERMILLION}
SOURCES = ("play", "tree")
SOURCE_LABELS = {"play": "played games", "tree": "search trees"}
RUN_COLOURS = (GREEN, PURPLE, ORANGE, SKY, BLACK, BLUE, VERMILLION)
RUN_DASHES = ("-", "--", ":", "-.")

WIDTH, HEIGHT, DPI = 9.0, 5.0, 110
"""Inches, and dots per inch, of a figure with one panel."""

TICK_STEPS = (1, 2, 2.5, 5, 10)

RC: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
}


@dataclass(frozen=True)
class Group:
    """Runs drawn in one colour: one run, or the seeds of one setting."""

    label: str
    colour: str
    dash: str
    runs: Sequence[RunData]


def plot_text(text: str) -> str:
    """Text that matplotlib shows as it is: no maths, no hidden legend entry."""
    safe = str(text).replace("$", r"\$")
    return f" {safe}" if safe.startswith("_") else safe


def make_groups(runs: Sequence[RunData]) -> list[Group]:
    """Groups seeds, and gives each group its label, colour and dash."""
    groups = []
    for number, members in enumerate(group_seeds(runs)):
        label = members[0].label
        if len(members) > 1:
            seeds = ", ".join(str(run.seed) for run in members)
            label = f"{members[0].experiment}, mean of seeds {seeds}"
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        dash = RUN_DASHES[number // len(RUN_COLOURS) % len(RUN_DASHES)]
        groups.append(Group(plot_text(label), colour, dash, members))
    return groups


def new_figure(title: str, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of one size per panel row, with its panels in reading order."""
    height = HEIGHT if rows == 1 else 0.6 + 2.7 * rows
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plot_text(title), x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def steps_axis(axes: Axes, label: bool = True) -> None:
    """Makes the horizontal axis one of environment steps, as 20k or 1.5M."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=TICK_STEPS))
    axes.set_xlim(left=0)
    if label:
        axes.set_xlabel("environment steps")


def counts_axis(axes: Axes) -> None:
    """Makes the vertical axis one of counts from 0: whole numbers, as 20k or 1.5M."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=TICK_STEPS, integer=True))
    # Below one whole step the locator would fall back to fractions.
    axes.set_ylim(0, max(axes.get_ylim()[1] * 1.03, 1.05))


def from_zero(axes: Axes) -> None:
    """Makes the vertical axis begin at 0, with some air above what is drawn."""
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1] or 1.0)


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _parts_axis(axes: Axes) -> None:
    _percent_axis(axes)
    axes.set_ylim(0, 1)


def _cosine_axis(axes: Axes) -> None:
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)


def _roc_axis(axes: Axes) -> None:
    axes.set_ylim(min(0.45, axes.get_ylim()[0] - 0.03), 1.02)


SCALES: dict[str, Callable[[Axes], None]] = {
    "free": lambda axes: None,
    "counts": counts_axis,
    "zero": from_zero,
    "share": _share_axis,
    "percent": _percent_axis,
    "parts": _parts_axis,
    "cosine": _cosine_axis,
    "roc": _roc_axis,
}
"""Kinds of vertical axes."""


def note_line(axes: Axes, height: float, text: str, colour: str, *, above: bool) -> None:
    """A word beside a horizontal line, at its right end."""
    axes.annotate(
        text,
        (0.99, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4 if above else -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=colour,
        fontsize=9,
    )


def note_empty(axes: Axes, text: str = "nothing recorded yet") -> None:
    """Says so in the middle of a panel that holds no data; a figure of nothing else is low."""
    figure = axes.figure
    if isinstance(figure, Figure) and len(figure.axes) == 1:
        figure.set_size_inches(WIDTH, 1.5)
    axes.text(
        0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, fontsize=12
    )
    axes.set_axis_off()


def draw_curve(
    axes: Axes, curve: Curve, colour: str, label: str | None = None, dash: str = "-"
) -> bool:
    """Draws one curve, a long noisy one as its running mean over the faint raw values.

    Returns:
        Whether there was anything to draw.
    """
    x, y = np.asarray(curve[0], np.float64), np.asarray(curve[1], np.float64)
    if not len(x):
        return False
    marker = "o" if len(x) <= 3 else None
    if is_noisy(y):
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        y = running_mean(y)
    axes.plot(x, y, color=colour, label=label, linestyle=dash, marker=marker, markersize=5)
    return True


def is_noisy(values: np.ndarray) -> bool:
    """Whether a long curve turns back so often that its raw line would hide its course."""
    if len(values) < 40:
        return False
    steps = np.diff(values)
    return bool(np.mean(steps[1:] * steps[:-1] < 0) > 0.3)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value's neighbours, over about a twentieth of the curve, less at its ends."""
    window = np.ones(2 * max(len(values) // 40, 2) + 1, np.float64)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, on the stretch of environment steps that all of them have reached."""
    usable = [curve for curve in curves if len(curve[0])]
    if len(usable) < 2:
        return ([], [])
    low, high = max(c[0][0] for c in usable), min(c[0][-1] for c in usable)
    if high < low:
        return ([], [])
    grid = np.unique([x for c in usable for x in c[0] if low <= x <= high])
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, 400).astype(np.int64))]
    return list(grid), list(np.mean([np.interp(grid, *c) for c in usable], axis=0))


def draw_curves(axes: Axes, group: Group, curves: Sequence[Curve], label: bool) -> bool:
    """Draws one curve of each run of a group; several are thin, with their mean."""
    name = group.label if label else None
    mean = mean_curve(curves)
    if not mean[0]:
        drawn = [draw_curve(axes, c, group.colour, name, group.dash) for c in curves if c[0]]
        return bool(drawn)
    for x, y in curves:
        axes.plot(x, y, color=group.colour, alpha=0.35, linewidth=0.9)
    return draw_curve(axes, mean, group.colour, name, group.dash)


def add_legend(figure: Figure, columns: int = 3) -> None:
    """One legend below all panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        longest = max(map(len, entries))
        columns = min(columns, max(1, 110 // (longest + 6)))
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG, atomically."""
    buffer = io.BytesIO()
    with rc_context(RC):
        figure.savefig(buffer, format="png")
    atomic_write_bytes(path, buffer.getvalue())
