"""How every figure looks: sizes, colours, axes, and the drawing of a curve."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smz_jax.report.data import Curve, RunData, group_seeds
from smz_jax.report.text import short_count
from smz_jax.storage.files import atomic_write_bytes

# Okabe and Ito's palette: distinct with every common kind of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#222222", "#8A8A8A"

SOURCE_COLOURS = {"play": BLUE, "tree": VERMILLION}
SOURCE_LABELS = {"play": "played games", "tree": "search trees"}
RUN_COLOURS = (GREEN, PURPLE, ORANGE, SKY, BLACK, BLUE, VERMILLION)
RUN_DASHES = ("-", "--", ":", "-.")

WIDTH, HEIGHT, DPI = 9.0, 5.0, 110
"""Inches, and dots per inch, of a figure with one panel."""

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


class Group(NamedTuple):
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
        turn, place = divmod(number, len(RUN_COLOURS))
        dash = RUN_DASHES[turn % len(RUN_DASHES)]
        groups.append(Group(plot_text(label), RUN_COLOURS[place], dash, members))
    return groups


def new_figure(title: str, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of one size per panel row, with its panels in reading order."""
    height = HEIGHT if rows == 1 else 0.6 + 2.7 * rows
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    figure.suptitle(plot_text(title), x=0.01, ha="left")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def count_ticks(axis: Axis, whole: bool = False) -> None:
    """Writes an axis's numbers as 20k or 1.5M; `whole`: no fractions."""
    axis.set_major_formatter(lambda value, _: short_count(value))
    axis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 2.5, 5, 10), integer=whole))


def steps_axis(axes: Axes, label: str | None = "environment steps") -> None:
    """Makes the horizontal axis one of steps, as 20k or 1.5M."""
    count_ticks(axes.xaxis)
    axes.set_xlim(left=0)
    if label:
        axes.set_xlabel(label)


def scale_axis(axes: Axes, scale: str) -> None:
    """Makes the vertical axis one of a kind of `limits` below, after all is drawn."""
    low, high = axes.get_ylim()
    limits = {
        # Below one whole step the locator would fall back to fractions.
        "counts": (0, max(1.03 * high, 1.05)),
        "zero": (0, 1.05 * high or 1.0),
        "share": (0, 1.02),
        "percent": (-0.02, 1.02),
        "parts": (0, 1),
        "cosine": (min(0.0, low), 1.02),
        "roc": (min(0.45, low - 0.03), 1.02),
        "free": (low, high),
    }
    axes.set_ylim(limits[scale])
    if scale == "counts":
        count_ticks(axes.yaxis, whole=True)
    if scale in ("percent", "parts"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def note_empty(axes: Axes, text: str = "nothing recorded yet") -> None:
    """Says so in the middle of a panel that holds no data; a figure of nothing else is low."""
    figure = axes.figure
    if isinstance(figure, Figure) and len(figure.axes) == 1:
        figure.set_size_inches(WIDTH, 1.5)
    look: Any = {"ha": "center", "va": "center", "color": GREY, "fontsize": 12}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, **look)
    axes.set_axis_off()


def draw_curve(
    axes: Axes, curve: Curve, colour: str, label: str | None = None, dash: str = "-"
) -> bool:
    """Draws a curve, a long noisy one as its running mean over the faint raw values.

    Says whether there was anything to draw.
    """
    x, y = np.asarray(curve[0], np.float64), np.asarray(curve[1], np.float64)
    if not len(x):
        return False
    marker = "o" if len(x) <= 3 else None
    steps = np.diff(y)
    # One that turns back so often that its raw line would hide its course.
    if len(y) >= 40 and np.mean(steps[1:] * steps[:-1] < 0) > 0.3:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        y = running_mean(y)
    axes.plot(x, y, color=colour, label=label, linestyle=dash, marker=marker, markersize=5)
    return True


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value's neighbours, over about a twentieth of the curve, less at its ends."""
    window = np.ones(2 * max(len(values) // 40, 2) + 1, np.float64)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, on the stretch of environment steps that all of them have reached."""
    usable = [curve for curve in curves if len(curve[0])]
    low = max((c[0][0] for c in usable), default=0)
    high = min((c[0][-1] for c in usable), default=0)
    if len(usable) < 2 or high < low:
        return ([], [])
    grid = np.unique([x for c in usable for x in c[0] if low <= x <= high])
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, 400).astype(np.int64))]
    return list(grid), list(np.mean([np.interp(grid, *c) for c in usable], axis=0))


def draw_curves(
    axes: Axes, curves: Sequence[Curve], look: tuple[str, str | None, str], seeds: bool = True
) -> bool:
    """Draws the curve of one run, or the mean of several; says whether there was anything to draw.

    `look` is colour, label and dash; `seeds` says whether those behind a mean are drawn, thin.
    """
    mean = mean_curve(curves)
    for x, y in curves if seeds and mean[0] else ():
        axes.plot(x, y, color=look[0], alpha=0.35, linewidth=0.9)
    return any([draw_curve(axes, curve, *look) for curve in ([mean] if mean[0] else curves)])


def add_legend(figure: Figure, columns: int = 3) -> None:
    """One legend below all panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = min(columns, max(1, 110 // (max(map(len, entries)) + 6)))
        place = "outside lower center"
        figure.legend([*entries.values()], [*entries], loc=place, ncols=columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG, atomically."""
    buffer = io.BytesIO()
    with rc_context(RC):
        FigureCanvasAgg(figure).print_png(buffer)  # `savefig` draws twice where there is a layout
    atomic_write_bytes(path, buffer.getvalue())
