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
from experiments.sweep.variants import Sweep
from smz_jax.config.check import ConfigError
from smz_jax.report.data import RunData, load_run
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


class Row(NamedTuple):
    """A variant over its runs; what is not known is None."""

    label: str
    settings: Mapping[str, Any]  # that it sets
    trials: Sequence[dict[str, Any]]  # its lines of sweep.csv
    runs: Mapping[str, list[RunData]]  # finished, by experiment
    scores: Scores  # normalised, by experiment
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
    problems: list[str] = []
    base = _values(sweep, [_trial(x)[0] for x in jobs if x.variant.label == sweep.base])
    rows = []
    for label in dict.fromkeys(x.label for x in sweep.variants):
        trials, runs = [], {}
        for job in (job for job in jobs if job.variant.label == label):
            try:
                trial, run = _trial(job, "failed" if job.name in failed else STATES[job.state])
            except ConfigError as error:
                problems.append(str(error))
                continue
            trials.append(trial)
            if run:
                runs.setdefault(job.variant.module, []).append(run)
        rows.append(_row(sweep, (label, trials, runs), base))
    trials = [x for row in rows for x in row.trials if x["state"] != "finished"]
    undone = [f"{x['variant']} seed {x['seed']}" for x in trials]
    if undone:
        more = f" and {len(undone) - 3} more" if len(undone) > 3 else ""
        problems.append(f"not finished: {', '.join(undone[:3])}{more}")
    few = [f"{x.label} has {x.finished}" for x in rows if 0 < x.finished < 3]
    problems += [f"{text} finished run(s): an interval says little" for text in few]
    return Report(sweep, jobs[0].preset, rows, problems)


def _trial(job: Job, state: str = "") -> tuple[dict[str, Any], RunData | None]:
    """A line of sweep.csv, and the run if it is finished."""
    run = load_run(job.run_dir) if job.is_finished() else None
    score = run and run.evaluation()
    seconds = (run.last("cpu_seconds"), run.summary.get("seconds_total")) if run else (None, None)
    trial = {
        "variant": job.variant.label,
        "experiment": job.variant.module,
        "seed": job.seed,
        "state": "finished" if run else state,
        "score": score and score.mean,
        "score_low": score and score.low,
        "score_high": score and score.high,
        "env_steps": run and run.summary.get("env_steps"),
        "cpu_minutes": seconds[0] and seconds[0] / 60,
        "wall_minutes": seconds[1] and seconds[1] / 60,
        "folder": str(job.run_dir),
    }
    return trial, run


def _values(sweep: Sweep, trials: Sequence[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Normalised scores by experiment and seed."""
    found = {}
    for x in (x for x in trials if x["score"] is not None):
        low, high = sweep.normalise.get(x["experiment"], (0.0, 1.0))
        found[x["experiment"], x["seed"]] = (x["score"] - low) / (high - low)
    return found


def _scores(values: Mapping[tuple[str, int], float]) -> dict[str, np.ndarray]:
    """Of each experiment the scores of its runs."""
    modules = sorted({module for module, _ in values})
    return {x: np.array([y for (module, _), y in values.items() if module == x]) for x in modules}


def _row(
    sweep: Sweep,
    known: tuple[str, list[dict[str, Any]], dict[str, list[RunData]]],
    base: Mapping[Any, float],
) -> Row:
    """A variant's row, of its label, lines and runs, beside the values of the base."""
    label, values = known[0], _values(sweep, known[1])
    settings = next(x.settings for x in sweep.variants if x.label == label)
    ours, theirs = _scores(values), _scores(base)
    scores = [*ours.values()]
    row = Row(label, settings, *known[1:], scores)
    if not values:
        return row
    row = row._replace(iqm=interquartile_mean(scores), mean=mean_estimate([*values.values()]))
    if label == sweep.base or set(ours) != set(theirs):
        return row
    better = probability_of_improvement(scores, [*theirs.values()])
    return row._replace(better=better, difference=paired_difference(values, base))


def variant_table(report: Report) -> Table:
    """The variants side by side."""
    columns = ("variant", "runs", "IQM (95 %)", "mean", "better than the base", "difference")
    rows = []
    for row in report.rows:
        better = "base" if row.label == report.sweep.base else "-"
        if row.better:
            better = row.better.text(lambda x: f"{100 * x:.0f}", " %")
        mean = number_text(row.mean.mean) if row.mean else "-"
        texts = score_text(row.iqm), mean, better, score_text(row.difference)
        steps = short_count(row.average("env_steps") or 0)
        cost = (_minutes(row.average(f"{x}_minutes")) for x in ("cpu", "wall"))
        rows.append((row.label, f"{row.finished} of {len(row.trials)}", *texts, steps, *cost))
    scale = ""
    if report.sweep.normalise:
        ends = (f"{name} {x:g} and {y:g}" for name, (x, y) in report.sweep.normalise.items())
        scale = f", on a scale whose 0 and 1 are {', '.join(ends)}"
    note = NOTE.format(scale=scale)
    return Table((*columns, "steps", "CPU min", "wall min"), rows, note=note)


def _minutes(found: float | None) -> str:
    return "-" if found is None else f"{found:.1f}"


def document(report: Report) -> dict[str, Any]:
    """The content of sweep.json."""
    variants = []
    for row in report.rows:
        entry = {"variant": row.label, "settings": row.settings, "runs": row.finished}
        for name in ("iqm", "mean", "better", "difference"):
            found: Estimate | None = getattr(row, name)
            ends = found and {"": found.mean, "_low": found.low, "_high": found.high}
            entry |= {f"{name}{end}": x for end, x in (ends or {"": None}).items()}
        cost = {name: row.average(name) for name in ("cpu_minutes", "wall_minutes")}
        variants.append(entry | cost)
    return {
        "name": report.sweep.name,
        "base": report.sweep.base,
        "preset": report.preset,
        "normalise": report.sweep.normalise,
        "variants": variants,
        "trials": [trial for row in report.rows for trial in row.trials],
        "problems": report.problems,
    }


def write_document(report: Report, out: Path) -> Path:
    """Writes sweep.json."""
    write_json(out / SWEEP.file, document(report))
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
    for figure, caption, path in figures:
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
    names = ("variant", "experiment", "seed", "state", "score", "CPU min", "wall min", "report")
    rows = []
    for trial in (trial for row in report.rows for trial in row.trials):
        page = Path(trial["folder"]) / "report.html"
        score = score_text(read_estimate(trial, "score"))
        cells = [*(str(trial[name]) for name in names[:4]), score]
        cells += [_minutes(trial[f"{x}_minutes"]) for x in ("cpu", "wall")]
        link = f'<a href="{escape(os.path.relpath(page, out))}">report</a>'
        rows.append([*map(escape, cells), link if page.exists() else "-"])
    lines = [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows]
    head = f"<tr><th>{'</th><th>'.join(names)}</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'
