"""What all finished jobs of a folder say: results.json, table.md, encoders.png."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.encoders.variants import VARIANTS
from smz_jax.report.data import Curve
from smz_jax.report.style import (
    GREY,
    RC,
    RUN_COLOURS,
    add_legend,
    draw_curve,
    mean_curve,
    new_figure,
    note_empty,
    save_figure,
    steps_axis,
)
from smz_jax.report.tables import Table
from smz_jax.storage.estimate import bootstrap
from smz_jax.storage.files import atomic_write_text, write_json
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.run_dir import git_commit, hardware, versions

Rows = Sequence[Mapping[str, Any]]
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))
"""One for each round through the colours."""
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
    """ROC areas, H(sigma) by kind, perplexity and gain of the code over updates."""
    worlds = _worlds(rows)
    about = f", sticky {worlds[0]:g}" if worlds else ""
    about += "".join(f" (one panel: also {sticky:g})" for sticky in worlds[1:][-1:])
    title = f"Encoders on Breakout's frames{about}; H is normalised"
    drawing, panels = new_figure(title, rows=3, columns=2)
    if not worlds:
        note_empty(panels[0])
        return drawing
    random, plain = worlds[0], worlds[-1]
    strong, faint = 1.0, 0.35
    kinds = [("entropy_open_differs", random, strong), ("entropy_open_same", random, faint)]
    both = [("entropy", random, strong), ("entropy", plain, faint)][: len(worlds)]
    also = f", {plain:g} (faint)" if len(worlds) > 1 else ""
    drawings = {
        "ROC area of H": [("roc", random, strong)],
        "ROC area of H, paddle away from walls": [("roc_open", random, strong)],
        "H: effects differ (strong), not (faint)": kinds,
        f"mean H: sticky {random:g} (strong){also}": both,
        "code perplexity": [("code_perplexity", random, strong)],
        "share of error saved by the right code": [("code_gain", random, strong)],
    }
    for axes, (title, keys) in zip(panels, drawings.items(), strict=True):
        _panel(axes, rows, keys, title)
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


def _cell(members: Rows, key: str, form: str) -> str:
    """Mean over seeds with its interval: over seeds where there are three, else over lanes."""
    good = [x[key] for x in members if x.get(key) is not None]
    if not good:
        return "-"
    mean = form.format(np.mean(good))
    low, high = (members[0].get(f"{key}_{end}") for end in ("low", "high"))
    if len(good) >= 3:
        values = np.array(good, np.float64)
        low, high = bootstrap(lambda drawn: values[drawn].mean(axis=1), len(values), seed=0)
    elif len(good) == 2 or low is None or high is None:
        return mean
    return f"{mean} ({form.format(low)} to {form.format(high)})"


def markdown_table(results: Rows) -> str:
    """The comparison as a markdown table, a line for each variant and stickiness.

    Returns:
        Lines that end with a newline; a mean over seeds, with a 95 % interval over seeds (three or
        more of them) or over lanes (one).
    """
    lines = []
    for name, sticky in itertools.product(_names(results), _worlds(results)):
        members = [x for x in results if (x["variant"], x["sticky"]) == (name, sticky)]
        if not members:
            continue
        cell = functools.partial(_cell, members)
        parts = [cell(f"entropy_open_{kind}", "{:.2f}") for kind in ("differs", "same")]
        about = VARIANTS[name].about if name in VARIANTS else ""
        line = [name, about, f"{sticky:g}", str(len(members))]
        line += [f"{max(x['updates'] for x in members):,}", cell("roc", "{:.3f}")]
        line += [cell("roc_open", "{:.3f}"), " / ".join(parts), cell("entropy", "{:.3f}")]
        line += [cell("code_perplexity", "{:.1f}"), cell("code_gain", "{:.2f}")]
        lines.append([*line, cell("ms_per_update", "{:.0f}")])
    return (Table(HEAD, lines).to_markdown() or "Nothing is finished yet.") + "\n"


def collect_results(run_dir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results of the finished jobs, and the rows of all, in the order of their folders' names."""
    results, rows = [], []
    for folder in sorted((run_dir / "jobs").glob("*")):
        if (folder / "rows.jsonl").exists():
            rows += read_metrics(folder / "rows.jsonl")
        if (folder / "result.json").exists():
            results.append(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    return results, rows


def write_report(run_dir: Path, command: str) -> str:
    """Writes results.json, table.md and encoders.png of all that is finished. Gives the table."""
    results, rows = collect_results(run_dir)
    table = markdown_table(results)
    about = {"command": command, "commit": git_commit(), "versions": versions()}
    about |= {"platform": hardware(jax.devices()[0])}
    write_json(run_dir / "results.json", {**about, "results": results})
    atomic_write_text(run_dir / "table.md", table)
    with rc_context(RC):
        drawing = figure(rows)
    save_figure(drawing, run_dir / "encoders.png")
    return table
