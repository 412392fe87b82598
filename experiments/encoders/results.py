"""What all finished jobs of a folder say: results.json, table.md, encoders.png."""

import json
from pathlib import Path
from typing import Any

import jax
from matplotlib import rc_context

from experiments.encoders.figures import figure, markdown_table
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.files import atomic_write_text, write_json
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.run_dir import git_commit, hardware, versions


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
    """Writes results.json, table.md and encoders.png of all that is finished.

    Args:
        run_dir: the folder of the comparison.
        command: what was typed, for the records.

    Returns:
        The table.
    """
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
