"""What came of a sweep: sweep.json, sweep.csv, the table of variants, and report.html."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
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
from experiments.sweep.variants import Sweep
from smz_jax.config.check import ConfigError
from smz_jax.report.data import RunData, load_run
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import number_text, score_text
from smz_jax.storage.documents.results_json import SWEEP
from smz_jax.storage.estimate import Estimate, mean_estimate
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
FEW = "{name} has {count} finished run{s}: its interval says little"


class Trial(NamedTuple):
    """One run of the sweep, as far as it is."""

    job: Job
    state: str
    run: RunData | None = None  # of a finished one

    @property
    def score(self) -> Estimate | None:
        """Of the final evaluation."""
        return self.run and self.run.evaluation()

    @property
    def minutes(self) -> tuple[float | None, float | None]:
        """Of CPU and of the clock."""
        if self.run is None:
            return None, None
        cpu, wall = self.run.last("cpu_seconds"), self.run.summary.get("seconds_total")
        return cpu and cpu / 60, wall and wall / 60

    def entries(self) -> dict[str, Any]:
        """Its line of sweep.csv."""
        score, (cpu, wall) = self.score, self.minutes
        return {
            "variant": self.job.variant.label,
            "experiment": self.job.variant.module,
            "seed": self.job.seed,
            "state": self.state,
            "score": score and score.mean,
            "score_low": score and score.low,
            "score_high": score and score.high,
            "env_steps": self.run and self.run.summary.get("env_steps"),
            "cpu_minutes": cpu,
            "wall_minutes": wall,
            "folder": str(self.job.run_dir),
        }


class Row(NamedTuple):
    """A variant over its finished runs; nothing is known without one."""

    label: str
    settings: dict[str, Any]  # that it sets
    trials: Sequence[Trial]
    scores: Scores = ()  # normalised, by experiment
    iqm: Estimate | None = None
    mean: Estimate | None = None
    better: Estimate | None = None  # than the base
    difference: Estimate | None = None  # to the base

    @property
    def finished(self) -> list[Trial]:
        """Its runs with a score."""
        return [x for x in self.trials if x.score]

    def minutes(self, which: int) -> float | None:
        """Mean over runs: 0 of CPU, 1 of the clock."""
        known = [x for trial in self.finished if (x := trial.minutes[which]) is not None]
        return float(np.mean(known)) if known else None


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
    problems, trials = [], []
    for job in jobs:
        run, state = None, "failed" if job.name in failed else STATES[job.state]
        if job.is_finished():
            state = "finished"
            try:
                run = load_run(job.run_dir)
            except ConfigError as error:
                problems.append(str(error))
        trials.append(Trial(job, state, run))
    base = _values(sweep, [x for x in trials if x.job.variant.label == sweep.base])
    rows = []
    for label in dict.fromkeys(x.label for x in sweep.variants):
        own = [x for x in trials if x.job.variant.label == label]
        if own:
            rows.append(_row(sweep, label, own, base))
    undone = [x.job.name for x in trials if x.state != "finished"]
    if undone:
        more = f" and {len(undone) - 3} more" if len(undone) > 3 else ""
        problems.append(f"not finished: {', '.join(undone[:3])}{more}")
    few = [row for row in rows if 0 < len(row.finished) < 3]
    problems += [
        FEW.format(name=x.label, count=len(x.finished), s="s" * (len(x.finished) > 1)) for x in few
    ]
    return Report(sweep, jobs[0].preset if jobs else "", rows, problems)


def _values(sweep: Sweep, trials: Sequence[Trial]) -> dict[tuple[str, int], float]:
    """Normalised scores by experiment and seed."""
    found = {}
    for trial in trials:
        module = trial.job.variant.module
        low, high = sweep.normalise.get(module, (0.0, 1.0))
        if trial.score:
            found[module, trial.job.seed] = (trial.score.mean - low) / (high - low)
    return found


def _scores(values: Mapping[tuple[str, int], float]) -> dict[str, np.ndarray]:
    """Of each experiment the scores of its runs."""
    modules = dict.fromkeys(module for module, _ in values)
    return {x: np.array([y for (module, _), y in values.items() if module == x]) for x in modules}


def _row(sweep: Sweep, label: str, trials: Sequence[Trial], base: Mapping[Any, float]) -> Row:
    values = _values(sweep, trials)
    settings = dict(trials[0].job.variant.settings)
    ours, theirs = _scores(values), _scores(base)
    if not values:
        return Row(label, settings, trials)
    scores = [*ours.values()]
    better = difference = None
    if label != sweep.base and set(ours) == set(theirs):
        better = probability_of_improvement(scores, [theirs[module] for module in ours])
        difference = paired_difference(values, base)
    mean = mean_estimate([*values.values()])
    return Row(
        label, settings, trials, scores, interquartile_mean(scores), mean, better, difference
    )


def variant_table(report: Report) -> Table:
    """The variants side by side."""
    columns = ("variant", "runs", "IQM (95 %)", "mean", "better than the base", "difference")
    rows = []
    for row in report.rows:
        runs = f"{len(row.finished)} of {len(row.trials)}"
        better = "base" if row.label == report.sweep.base else "-"
        if row.better:
            better = row.better.text(lambda x: f"{100 * x:.0f}", " %")
        mean = number_text(row.mean.mean) if row.mean else "-"
        steps = [x.run.summary.get("env_steps") or 0 for x in row.finished if x.run]
        cost = ("-" if x is None else f"{x:.1f}" for x in map(row.minutes, (0, 1)))
        texts = score_text(row.iqm), mean, better, score_text(row.difference)
        rows.append((row.label, runs, *texts, short_count(max(steps, default=0)), *cost))
    scale = ""
    if report.sweep.normalise:
        ends = (f"{name} {x:g} and {y:g}" for name, (x, y) in report.sweep.normalise.items())
        scale = f", on a scale whose 0 and 1 are {', '.join(ends)}"
    note = NOTE.format(scale=scale)
    return Table((*columns, "steps", "CPU min", "wall min"), rows, note=note)


def document(report: Report) -> dict[str, Any]:
    """The content of sweep.json."""
    variants = []
    for row in report.rows:
        entry = {"variant": row.label, "settings": row.settings, "runs": len(row.finished)}
        for name in ("iqm", "mean", "better", "difference"):
            found: Estimate | None = getattr(row, name)
            ends = found and {"": found.mean, "_low": found.low, "_high": found.high}
            entry |= {f"{name}{end}": x for end, x in (ends or {"": None}).items()}
        cost = {"cpu_minutes": row.minutes(0), "wall_minutes": row.minutes(1)}
        variants.append(entry | cost)
    return {
        "name": report.sweep.name,
        "base": report.sweep.base,
        "preset": report.preset,
        "normalise": report.sweep.normalise,
        "variants": variants,
        "trials": [trial.entries() for row in report.rows for trial in row.trials],
        "problems": report.problems,
    }


def write_document(report: Report, out: Path) -> Path:
    """Writes sweep.json."""
    write_json(out / SWEEP.file, document(report))
    return out / SWEEP.file


def write_report(report: Report, out: Path, command: str) -> list[Path]:
    """Writes sweep.json, sweep.csv, figures/ and report.html; gives their paths."""
    from experiments.sweep.sweep_figures import draw_all
    from smz_jax.report.page import figure_html, warnings_html, whole_page

    lines = document(report)["trials"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write_text(out / "sweep.csv", text.getvalue())
    name, best = escape(report.sweep.name), best_row(report)
    parts = [f"<h1>{name}</h1>", f'<p class="lead">{escape(headline(report))}</p>']
    parts.append(f'<p class="quiet">{escape(command)}</p>')
    problems = [*report.problems]
    if len(report.rows) > 2 and best is not report.base:
        problems.append(LUCK.format(count=len(report.rows)))
    parts += [warnings_html(problems)] if problems else []
    parts += ["<h2>Variants</h2>", variant_table(report).to_html(), "<h2>Figures</h2>"]
    for figure, caption, path in draw_all(report, out / "figures"):
        parts.append(figure_html(figure, caption, path.read_bytes()))
    parts += ["<h2>Runs</h2>", _trials_html(report, out), "<h2>Settings</h2>"]
    settings = [(x.label, json.dumps(x.settings) if x.settings else "-") for x in report.rows]
    note = f"Over those of the experiment at preset {report.preset}."
    parts.append(Table(("variant", "sets"), settings, note=note, left=(0, 1)).to_html())
    atomic_write_text(out / "report.html", whole_page(report.sweep.name, parts))
    return [write_document(report, out), out / "sweep.csv", out / "report.html"]


def best_row(report: Report) -> Row | None:
    """The variant with the highest interquartile mean."""
    known = [row for row in report.rows if row.iqm]
    return max(known, key=lambda row: row.iqm.mean if row.iqm else 0.0, default=None)


def headline(report: Report) -> str:
    """What the sweep says, in two sentences."""
    best, base = best_row(report), report.base
    if best is None:
        return "No run is finished yet."
    text = f"{best.label} has the highest interquartile mean, {score_text(best.iqm)}"
    if best is base:
        return f"{text}: no variant beats the base."
    text += f"; the base, {base.label}, has {score_text(base.iqm)}." if base.iqm else "."
    gain = best.difference
    if gain is None or gain.low is None:
        return text
    apart = "is above zero" if gain.low > 0 else "may be zero"
    return f"{text} The difference, paired by seed, {apart}: {score_text(gain)}."


def _trials_html(report: Report, out: Path) -> str:
    """The runs, each with a link to its own report."""
    names = ("variant", "seed", "state", "score", "steps", "CPU min", "wall min", "report")
    rows = []
    for trial in (trial for row in report.rows for trial in row.trials):
        page = trial.job.run_dir / "report.html"
        steps = trial.run and trial.run.summary.get("env_steps")
        cells = [trial.job.variant.name, str(trial.job.seed), trial.state, score_text(trial.score)]
        cells += [short_count(steps) if steps else "-"]
        cells += ["-" if x is None else f"{x:.1f}" for x in trial.minutes]
        link = escape(os.path.relpath(page, out), quote=True)
        shown = f'<a href="{link}">report</a>' if page.exists() else "-"
        rows.append("".join(f"<td>{x}</td>" for x in [*map(escape, cells), shown]))
    head = "".join(f"<th>{x}</th>" for x in names)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n{body}</table></div>'
