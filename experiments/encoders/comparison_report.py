"""What all finished jobs of a folder say: results.json, table.md, encoders.png."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.encoders.variants import VARIANTS
from smz_jax.report import style
from smz_jax.report.data import Curve
from smz_jax.report.tables import Table
from smz_jax.storage.estimate import Estimate, bootstrap
from smz_jax.storage.files import atomic_write_text, read_json, write_json
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.run_dir import git_commit, hardware, versions

Rows = Sequence[Mapping[str, Any]]
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)))  # one for each round through the colours
FAINT = 0.35


def _worlds(rows: Rows) -> list[float]:
    return sorted({row["sticky"] for row in rows}, reverse=True)


def _names(rows: Rows) -> list[str]:
    """Variants in the table's order; those that it does not know come last."""
    found = {row["variant"] for row in rows}
    return [name for name in VARIANTS if name in found] + sorted(found - set(VARIANTS))


def curve(rows: Rows, variant: str, sticky: float, key: str) -> Curve:
    """A number over updates, averaged over seeds."""
    by_seed: dict[int, Curve] = {}
    for row in rows:
        if (row["variant"], row["sticky"]) == (variant, sticky) and row.get(key) is not None:
            updates, values = by_seed.setdefault(row["seed"], ([], []))
            updates.append(row["updates"])
            values.append(row[key])
    curves = [by_seed[seed] for seed in sorted(by_seed)] or [([], [])]
    return style.mean_curve(curves) if len(curves) > 1 else curves[0]


def figure(rows: Rows) -> Figure:
    """ROC areas, H(sigma) by kind, perplexity and gain of the code over updates."""
    worlds = _worlds(rows)
    about = f", sticky {worlds[0]:g}" if worlds else ""
    about += "".join(f" (one panel: also {sticky:g})" for sticky in worlds[1:][-1:])
    title = f"Encoders on Breakout's frames{about}; H is normalised"
    drawing, panels = style.new_figure(title, rows=3, columns=2)
    if not worlds:
        style.note_empty(panels[0])
        return drawing
    random, plain = worlds[0], worlds[-1]
    kinds = [("entropy_open_differs", random), ("entropy_open_same", random)]
    both = [("entropy", world) for world in (random, plain)][: len(worlds)]
    also = f", {plain:g} (faint)" if len(worlds) > 1 else ""
    drawings = {
        "ROC area of H": [("roc", random)],
        "ROC area of H, paddle away from walls": [("roc_open", random)],
        "H: effects differ (strong), not (faint)": kinds,
        f"mean H: sticky {random:g} (strong){also}": both,
        "code perplexity": [("code_perplexity", random)],
        "share of error saved by the right code": [("code_gain", random)],
    }
    for number, (title, axes) in enumerate(zip(drawings, panels, strict=True)):
        _draw_panel(axes, rows, drawings[title])
        axes.set_title(title, loc="left")
        if number < 2:
            axes.axhline(0.5, color=style.GREY, linewidth=0.8)
            axes.axhline(0.9, color=style.GREY, linewidth=0.8, linestyle=":")
            axes.set_ylim(min(0.4, axes.get_ylim()[0]), 1.0)
        elif number < 4:
            axes.set_ylim(0, 1.02)
        style.steps_axis(axes, label=None)
        axes.set_xlabel("updates" if number >= 4 else "")
    style.add_legend(drawing, 3)
    return drawing


def _draw_panel(axes: Axes, rows: Rows, keys: Sequence[tuple[str, float]]) -> None:
    """Draws every variant's curves of `(key, sticky)`, those after the first one faint."""
    known = list(dict.fromkeys([*VARIANTS, *_names(rows)]))  # it looks the same in every figure
    for name, (number, (key, sticky)) in itertools.product(_names(rows), enumerate(keys)):
        turn, colour = divmod(known.index(name), len(style.RUN_COLOURS))
        dash: Any = DASHES[turn % len(DASHES)]
        before, label = len(axes.lines), None if number else name
        line = curve(rows, name, sticky, key)
        style.draw_curve(axes, line, style.RUN_COLOURS[colour], label, dash)
        for drawn in axes.lines[before:]:
            drawn.set_alpha((FAINT if number else 1.0) * (drawn.get_alpha() or 1))
            drawn.set_linewidth(1.5)


def markdown_table(results: Rows) -> str:
    """The comparison in Markdown, a line for each variant and stickiness.

    Means are over seeds, with 95 % intervals over seeds (three or more of them) or lanes (one).
    """
    lines = []
    for name, sticky in itertools.product(_names(results), _worlds(results)):
        members = [x for x in results if (x["variant"], x["sticky"]) == (name, sticky)]

        def cell(key: str, digits: int, members: Rows = members) -> str:
            good = [x[key] for x in members if x.get(key) is not None]
            low, high = (members[0].get(f"{key}_{end}") for end in ("low", "high"))
            if len(good) >= 3:
                values = np.array(good, np.float64)
                low, high = bootstrap(lambda drawn: values[drawn].mean(axis=1), len(good), seed=0)
            if not good:
                return "-"
            ends: Any = (None, None) if len(good) == 2 else (low, high)
            return Estimate(float(np.mean(good)), *ends).text(f"{{:.{digits}f}}".format)

        if members:
            parts = [cell(f"entropy_open_{kind}", 2) for kind in ("differs", "same")]
            line = {
                "variant": name,
                "what it is": VARIANTS[name].about if name in VARIANTS else "",
                "sticky": f"{sticky:g}",
                "seeds": str(len(members)),
                "updates": f"{max(x['updates'] for x in members):,}",
                "ROC": cell("roc", 3),
                "ROC, open": cell("roc_open", 3),
                "H differs / same, open": " / ".join(parts),
                "mean H": cell("entropy", 3),
                "perplexity": cell("code_perplexity", 1),
                "code gain": cell("code_gain", 2),
                "ms": cell("ms_per_update", 0),
            }
            lines.append(line)
    if not lines:
        return "Nothing is finished yet.\n"
    return Table([*lines[0]], [[*line.values()] for line in lines]).to_markdown() + "\n"


def collect_results(run_dir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results of the finished jobs, and the rows of all, in the order of their folders' names."""
    jobs = run_dir / "jobs"
    rows = [row for path in sorted(jobs.glob("*/rows.jsonl")) for row in read_metrics(path)]
    return [read_json(path) for path in sorted(jobs.glob("*/result.json"))], rows


def write_report(run_dir: Path, command: str) -> str:
    """Writes results.json, table.md and encoders.png of all that is finished. Gives the table."""
    results, rows = collect_results(run_dir)
    table = markdown_table(results)
    about = {"command": command, "commit": git_commit(), "versions": versions()}
    about |= {"platform": hardware(jax.devices()[0]), "results": results}
    write_json(run_dir / "results.json", about)
    atomic_write_text(run_dir / "table.md", table)
    with rc_context(style.RC):
        drawing = figure(rows)
    style.save_figure(drawing, run_dir / "encoders.png")
    return table
