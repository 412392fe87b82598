"""What came of a sweep: sweep.json, sweep.csv, the table of variants, and report.html."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.sweep.aggregate import (
    Scores,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from experiments.sweep.jobs import STATES, Job
from experiments.sweep.variants import BASE, Sweep
from smz_jax.config.check import ConfigError
from smz_jax.report.data import RunData, load_run
from smz_jax.report.page import figure_html, warnings_html, whole_page
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import number_text, score_text
from smz_jax.storage.documents.results_json import SWEEP
from smz_jax.storage.estimate import Estimate, mean_estimate, read_estimate
from smz_jax.storage.files import atomic_write_text, write_json

NOTE = (
    "Score: mean of the final evaluation of a run{scale}. IQM: mean of the middle half of all "
    "runs, of fewer than 4 their mean, with the stratified bootstrap (Agarwal et al. 2021). Better "
    "than the base: the probability that a run scores higher than one of the base, ties as half. "
    "Difference: to the base's run of the same seed, by Student's t. Intervals are 95 %. Time: of "
    "a run, mean over runs; on shared cores the CPU minutes compare better."
)
LUCK = (
    "The best of {count} variants is partly the luckiest: before it is called better, it should be "
    "run on fresh seeds beside the base."
)
COLUMNS = ("variant", "runs", "IQM (95 %)", "mean", "better than the base", "difference", "steps")
COSTS = {"cpu_minutes": "CPU min", "wall_minutes": "wall min"}


class Row(NamedTuple):
    """A variant over its runs; what is not known is None."""

    label: str
    settings: Mapping[str, Any]  # that it sets
    trials: Sequence[dict[str, Any]]  # its lines of sweep.csv
    runs: Mapping[str, list[RunData]]  # finished, by experiment
    scores: Scores = ()  # normalised, by experiment
    iqm: Estimate | None = None
    mean: Estimate | None = None
    better: Estimate | None = None  # than the base
    difference: Estimate | None = None  # to the base

    @property
    def finished(self) -> int:
        """Number of its runs."""
        return sum(map(len, self.runs.values()))

    def average(self, name: str) -> float | None:
        """Mean of a column of sweep.csv over the runs."""
        found = mean_estimate([x[name] for x in self.trials if x[name] is not None])
        return found and found.mean


class Report(NamedTuple):
    """All variants in their order."""

    sweep: Sweep
    preset: str
    rows: Sequence[Row]
    problems: Sequence[str]

    @property
    def base(self) -> Row:
        """What the others are compared with."""
        return next(row for row in self.rows if row.label == self.sweep.base)


def make_report(sweep: Sweep, jobs: Sequence[Job], failed: Sequence[str] = ()) -> Report:
    """Reads what is finished of a sweep; `failed` are the names of runs that did."""
    rows, problems = [], []
    for label, settings in {x.label: x.settings for x in sweep.variants}.items():
        trials, runs = [], {}
        for job in (job for job in jobs if job.variant.label == label):
            run, state = None, "failed" if job.name in failed else STATES[job.state]
            try:
                run = load_run(job.run_dir) if job.is_finished() else None
            except ConfigError as error:
                problems.append(str(error))
                state = "unreadable"
            trials.append(_trial(job, run, state))
            if run and trials[-1]["score"] is None:
                problems.append(f"{job.name} has no final score")
            if run:
                runs.setdefault(job.variant.module, []).append(run)
        rows.append(Row(label, settings, trials, runs))
    base = next(row for row in rows if row.label == sweep.base)
    lines = [x for row in rows for x in row.trials if x["state"] != "finished"]
    if undone := [f"{x['variant']} seed {x['seed']}" for x in lines]:
        more = f" and {len(undone) - 3} more" if len(undone) > 3 else ""
        problems.append(f"not finished: {', '.join(undone[:3])}{more}")
    few = [f"{x.label} has {x.finished}" for x in rows if 0 < x.finished < 3]
    problems += [f"{text} finished run(s): an interval says little" for text in few]
    return Report(sweep, jobs[0].preset, [_compared(sweep, x, base) for x in rows], problems)


def _trial(job: Job, run: RunData | None, state: str) -> dict[str, Any]:
    """A line of sweep.csv."""
    summary = run.summary if run else {}
    score = read_estimate(summary.get("evaluation"))  # an opponent may have left it out
    cpu, wall = run and run.last("cpu_seconds"), summary.get("seconds_total")
    return {
        "variant": job.variant.label,
        "experiment": job.variant.module,
        "seed": job.seed,
        "state": "finished" if run else state,
        "score": score and score.mean,
        "score_low": score and score.low,
        "score_high": score and score.high,
        "env_steps": summary.get("env_steps"),
        "cpu_minutes": cpu and cpu / 60,
        "wall_minutes": wall and wall / 60,
        "folder": str(job.run_dir),
    }


def _compared(sweep: Sweep, row: Row, base: Row) -> Row:
    """A row with its statistics, beside the base where that has run on the same experiments."""
    values, others = {}, {}  # normalised scores by experiment and seed
    for found, trials in ((values, row.trials), (others, base.trials)):
        for x in (x for x in trials if x["score"] is not None):
            low, high = sweep.normalise.get(x["experiment"], (0.0, 1.0))
            found[x["experiment"], x["seed"]] = (x["score"] - low) / (high - low)
    if not values:
        return row
    ours, theirs = (
        {name: np.array([y for (x, _), y in found.items() if x == name]) for name, _ in found}
        for found in (values, others)
    )
    scores = [*ours.values()]
    row = row._replace(
        scores=scores, iqm=interquartile_mean(scores), mean=mean_estimate([*values.values()])
    )
    if row.label == base.label or set(ours) != set(theirs):
        return row
    better = probability_of_improvement(scores, [theirs[name] for name in ours])
    return row._replace(better=better, difference=paired_difference(values, others))


def variant_table(report: Report) -> Table:
    """The variants side by side."""
    rows = []
    for row in report.rows:
        better = "base" if row.label == report.sweep.base else "-"
        if row.better:
            better = row.better.text(lambda x: f"{100 * x:.0f}", " %")
        mean = number_text(row.mean.mean) if row.mean else "-"
        texts = score_text(row.iqm), mean, better, score_text(row.difference)
        steps, cost = row.average("env_steps"), map(_minutes, map(row.average, COSTS))
        runs = f"{row.finished} of {len(row.trials)}"
        rows.append((row.label, runs, *texts, short_count(steps or 0), *cost))
    ends = [f"{name} {x:g} and {y:g}" for name, (x, y) in report.sweep.normalise.items()]
    scale = f", on a scale whose 0 and 1 are {', '.join(ends)}" if ends else ""
    return Table((*COLUMNS, *COSTS.values()), rows, note=NOTE.format(scale=scale))


def _minutes(found: float | None) -> str:
    return "-" if found is None else f"{found:.1f}"


def write_document(report: Report, out: Path) -> Path:
    """Writes sweep.json."""
    variants = []
    for row in report.rows:
        entry = {"variant": row.label, "settings": row.settings, "runs": row.finished}
        for name in ("iqm", "mean", "better", "difference"):
            mean, low, high, *_ = getattr(row, name) or (None, None, None)
            entry |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        variants.append(entry | {name: row.average(name) for name in COSTS})
    found = {
        "name": report.sweep.name,
        "base": report.sweep.base,
        "preset": report.preset,
        "normalise": report.sweep.normalise,
        "variants": variants,
        "trials": [trial for row in report.rows for trial in row.trials],
        "problems": report.problems,
    }
    write_json(out / SWEEP.file, found)
    return out / SWEEP.file


def write_report(
    report: Report, out: Path, command: str, figures: Iterable[tuple[str, str, Path]]
) -> list[Path]:
    """Writes sweep.json, sweep.csv and report.html; gives their paths.

    Args:
        report: what is known.
        out: folder of the sweep.
        command: what was typed.
        figures: name, caption and file of each.
    """
    text, lines = io.StringIO(), [x for row in report.rows for x in row.trials]
    writer = csv.DictWriter(text, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write_text(out / "sweep.csv", text.getvalue())
    problems = [*report.problems]
    if len(report.rows) > 2 and best_row(report) is not report.base:
        problems.append(LUCK.format(count=len(report.rows)))
    settings = [(x.label, json.dumps(x.settings) if x.settings else "-") for x in report.rows]
    note = f"Over those of the experiment at preset {report.preset}."
    parts = [
        f"<h1>{escape(report.sweep.name)}</h1>",
        f'<p class="lead">{escape(headline(report))}</p>',
        f'<p class="quiet">{escape(command)}</p>',
        warnings_html(problems) if problems else "",
        f"<h2>Variants</h2>{variant_table(report).to_html()}<h2>Figures</h2>",
        *(figure_html(name, caption, path.read_bytes()) for name, caption, path in figures),
        f"<h2>Runs</h2>{_trials_html(lines, out)}<h2>Settings</h2>",
        Table(("variant", "sets"), settings, note=note).to_html(),
    ]
    atomic_write_text(out / "report.html", whole_page(report.sweep.name, parts))
    return [write_document(report, out), out / "sweep.csv", out / "report.html"]


def best_row(report: Report) -> Row | None:
    """The variant with the highest interquartile mean."""
    known = [(row.iqm.mean, row) for row in report.rows if row.iqm]
    return max(known, key=lambda x: x[0])[1] if known else None


def headline(report: Report) -> str:
    """What the sweep says, in two sentences."""
    best, base = best_row(report), report.base
    if best is None:
        return "No run is finished yet."
    text = f"{best.label} has the highest interquartile mean, {score_text(best.iqm)}"
    if best is base:
        return f"{text}: no variant beats the base."
    text += f"; the base{f', {base.label},' * (base.label != BASE)} has {score_text(base.iqm)}."
    gain = best.difference
    if gain is None or gain.low is None:
        return text
    apart = "is above zero" if gain.low > 0 else "may be zero"
    return f"{text} The difference, paired by seed, {apart}: {score_text(gain)}."


def _trials_html(trials: Sequence[dict[str, Any]], out: Path) -> str:
    """The runs, each with a link to its own report."""
    names = ("variant", "experiment", "seed", "state")
    lines = []
    for x in trials:
        page = Path(x["folder"]) / "report.html"
        cells = [*(str(x[name]) for name in names), score_text(read_estimate(x, "score"))]
        cells = [escape(text) for text in (*cells, *(_minutes(x[name]) for name in COSTS))]
        link = f'<a href="{escape(os.path.relpath(page, out))}">report</a>'
        cells.append(link if page.exists() else "-")
        lines.append(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>")
    head = "</th><th>".join((*names, "score", *COSTS.values(), "report"))
    return f'<div class="wide"><table><tr><th>{head}</th></tr>{"".join(lines)}</table></div>'
