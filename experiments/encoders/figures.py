"""The comparison as a figure and as a markdown table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.encoders.variants import VARIANTS
from smz_jax.report.data import Curve
from smz_jax.report.style import (
    GREY,
    RUN_COLOURS,
    add_legend,
    draw_curve,
    mean_curve,
    new_figure,
    note_empty,
    steps_axis,
)

Rows = Sequence[Mapping[str, Any]]
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
"""One for each round through the colours."""
ENDS = ("", "_low", "_high")
HEAD = (
    "variant",
    "what it is",
    "sticky",
    "seeds",
    "updates",
    "ROC",
    "ROC, open",
    "H differs / same, open",
    "mean H",
    "perplexity",
    "code gain",
    "ms",
)


def _worlds(rows: Rows) -> list[float]:
    return sorted({row["sticky"] for row in rows}, reverse=True)


def _names(rows: Rows) -> list[str]:
    """Variants in the table's order; those that it does not know come last."""
    found = {row["variant"] for row in rows}
    return [name for name in VARIANTS if name in found] + sorted(found - set(VARIANTS))


def curve(rows: Rows, variant: str, sticky: float, key: str) -> Curve:
    """A number over updates, averaged over seeds."""
    seeds = sorted({row["seed"] for row in rows})
    curves = []
    for seed in seeds:
        points = [
            (row["updates"], row[key])
            for row in rows
            if (row["variant"], row["sticky"], row["seed"]) == (variant, sticky, seed)
            and row.get(key) is not None
        ]
        if points:
            curves.append(([x for x, _ in points], [y for _, y in points]))
    if not curves:
        return [], []
    return mean_curve(curves) if len(curves) > 1 else curves[0]


def figure(rows: Rows) -> Figure:
    """ROC areas, H(sigma) by kind, perplexity and gain of the code over updates.

    Args:
        rows: of all jobs, as `collect_results` gives them.
    """
    worlds = _worlds(rows)
    about = f", sticky {worlds[0]:g}" if worlds else ""
    about += "".join(f" (one panel: also {sticky:g})" for sticky in worlds[1:][-1:])
    title = f"Encoders on Breakout's frames{about}; H is normalised"
    drawing, panels = new_figure(title, rows=3, columns=2)
    if not worlds:
        note_empty(panels[0])
        return drawing
    random, plain = worlds[0], worlds[-1]
    kinds = (("entropy_open_differs", random, 1.0), ("entropy_open_same", random, 0.35))
    both = (("entropy", random, 1.0), ("entropy", plain, 0.35))[: len(worlds)]
    _panel(panels[0], rows, (("roc", random, 1.0),), "ROC area of H")
    _panel(panels[1], rows, (("roc_open", random, 1.0),), "ROC area of H, paddle away from walls")
    _panel(panels[2], rows, kinds, "H: effects differ (strong), not (faint)")
    faint = f", {plain:g} (faint)" if len(worlds) > 1 else ""
    _panel(panels[3], rows, both, f"mean H: sticky {random:g} (strong){faint}")
    _panel(panels[4], rows, (("code_perplexity", random, 1.0),), "code perplexity")
    _panel(panels[5], rows, (("code_gain", random, 1.0),), "share of error saved by the right code")
    for axes in panels[2:4]:
        axes.set_ylim(0, 1.02)
    for axes in panels[:2]:
        axes.axhline(0.5, color=GREY, linewidth=0.8)
        axes.axhline(0.9, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_ylim(min(0.4, axes.get_ylim()[0]), 1.0)
    for number, axes in enumerate(panels):
        steps_axis(axes, label=False)
        if number >= 4:
            axes.set_xlabel("updates")
    add_legend(drawing, 3)
    return drawing


def _panel(axes: Axes, rows: Rows, keys: Sequence[tuple[str, float, float]], title: str) -> None:
    """Draws every variant's curves of `(key, sticky, strength)`."""
    known = list(VARIANTS)  # a variant looks the same in every figure
    for name in _names(rows):
        known += [] if name in known else [name]
        number = known.index(name)
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        dash: Any = DASHES[number // len(RUN_COLOURS) % len(DASHES)]
        for key, sticky, strength in keys:
            line = curve(rows, name, sticky, key)
            before = len(axes.lines)
            label = name if strength == 1 else None
            draw_curve(axes, line, colour, label, dash)
            for drawn in axes.lines[before:]:
                drawn.set_alpha(strength * (drawn.get_alpha() or 1))
                drawn.set_linewidth(1.5)
    axes.set_title(title, loc="left")


def _cell(values: Sequence[Any], low: Sequence[Any], high: Sequence[Any], form: str) -> str:
    """Mean over seeds with its interval: over seeds where there are three, else over lanes."""
    good = [x for x in values if x is not None]
    if not good:
        return "-"
    mean = float(np.mean(good))
    if len(good) >= 3:
        generator = np.random.default_rng(0)
        draws = generator.choice(np.array(good, np.float64), (2000, len(good))).mean(axis=1)
        ends = np.percentile(draws, [2.5, 97.5])
    elif len(good) == 1 and low[0] is not None and high[0] is not None:
        ends = np.array([low[0], high[0]], np.float64)
    else:
        return form.format(mean)
    return f"{form.format(mean)} ({form.format(ends[0])} to {form.format(ends[1])})"


def markdown_table(results: Rows) -> str:
    """The comparison as a markdown table, a line for each variant and stickiness.

    Args:
        results: of the finished jobs, as `collect_results` gives them.

    Returns:
        Lines that end with a newline; a mean over seeds, with a 95 % interval over seeds (three or
        more of them) or over lanes (one).
    """
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for name in _names(results):
        for sticky in _worlds(results):
            members = [x for x in results if (x["variant"], x["sticky"]) == (name, sticky)]
            if not members:
                continue

            def cell(key: str, form: str, members: Rows = members) -> str:
                values, low, high = ([x.get(key + end) for x in members] for end in ENDS)
                return _cell(values, low, high, form)

            parts = [cell(f"entropy_open_{kind}", "{:.2f}") for kind in ("differs", "same")]
            line = (
                name,
                VARIANTS.get(name, ("", {}))[0],
                f"{sticky:g}",
                str(len(members)),
                f"{max(x['updates'] for x in members):,}",
                cell("roc", "{:.3f}"),
                cell("roc_open", "{:.3f}"),
                " / ".join(parts),
                cell("entropy", "{:.3f}"),
                cell("code_perplexity", "{:.1f}"),
                cell("code_gain", "{:.2f}"),
                cell("ms_per_update", "{:.0f}"),
            )
            lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"
