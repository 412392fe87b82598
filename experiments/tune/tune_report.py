"""What came of a study: best.yaml, trials.csv and report.html."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.sweep.jobs import Job
from experiments.sweep.sweep_report import Report, Row, make_report, variant_table
from experiments.sweep.variants import Sweep
from experiments.tune.space import BEST, Axis, Space
from experiments.tune.study import Trial
from experiments.tune.trials import trial_jobs
from smz_jax.report.page import figure_html, warnings_html, whole_page
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import number_text, score_text
from smz_jax.storage.files import atomic_write_text

LUCK = (
    "The score of the best trial is partly luck, as it is the best of {count}. The comparison on "
    "fresh seeds says what the settings are worth."
)
STATES = {"complete": "complete", "pruned": "given up", "failed": "failed", "running": "running"}


class Found(NamedTuple):
    """All that a report shows."""

    space: Space
    trials: Sequence[Trial]
    best: Trial
    default: Mapping[str, Any]  # of the tuned settings
    importances: Mapping[str, float]  # of each setting; empty: too few trials
    folder: Path
    sweep: Sweep  # of the default and the best
    fresh: Sequence[Job]  # its runs; empty where the default is the best


class Cost(NamedTuple):
    """Environment steps of the trials."""

    taken: int
    spared: int  # that the seeds left out would have taken

    @property
    def share(self) -> float:
        """What was spared of what all seeds would have taken."""
        return self.spared / max(self.taken + self.spared, 1)


def by_importance(found: Found) -> list[Axis]:
    """Settings, the most important one first."""
    return sorted(found.space.axes, key=lambda axis: -found.importances.get(axis.name, 0.0))


def trial_rows(found: Found) -> list[dict[str, Any]]:
    """The lines of trials.csv."""
    rows = []
    for trial in found.trials:
        jobs = trial_jobs(found.space, trial, found.folder / "trials")
        steps = [x.result().get("env_steps") or 0 for x in jobs if x.is_finished()]
        row = {"trial": trial.number, "state": STATES.get(trial.state, trial.state)}
        row |= {"score": trial.value, "seeds": len(trial.means), "env_steps": sum(steps)}
        row |= {axis.name: trial.chosen.get(axis.name) for axis in found.space.axes}
        rows.append({**row, "fault": trial.fault, "folder": str(jobs[0].run_dir.parent)})
    return rows


def cost_of(found: Found, rows: Sequence[Mapping[str, Any]]) -> Cost:
    """What the trials took, and what giving some up spared at the length of their own runs."""
    taken = sum(row["env_steps"] for row in rows)
    pruned = [x for x in rows if x["state"] == STATES["pruned"]]
    left = [(len(found.space.seeds) - x["seeds"], x["env_steps"] / x["seeds"]) for x in pruned]
    return Cost(taken, round(sum(count * steps for count, steps in left)))


def best_yaml(found: Found) -> str:
    """The best settings as a file for `--config`."""
    space, best = found.space, found.best
    lines = [
        f"# The best of {len(found.trials)} trials of {space.module}: {best.name}, mean score "
        f"{number_text(best.means[-1])} over seeds {', '.join(map(str, space.seeds))}",
        "# (partly luck; report.html compares it with the default on fresh seeds).",
        f"# python -m experiments.{space.module} --config best.yaml",
    ]
    settings = {"preset": space.preset, **space.settings, **best.chosen}
    return "\n".join(lines) + "\n" + yaml.safe_dump(settings, sort_keys=False)


def compared(found: Found) -> Report | None:
    """Best and default on fresh seeds; None where no run of both is finished."""
    if not found.fresh:
        return None
    report = make_report(found.sweep, found.fresh)
    return report if all(row.finished for row in report.rows) else None


def headline(found: Found) -> str:
    """What the study says, in a few sentences."""
    best, count = found.best, sum(x.state in ("complete", "pruned") for x in found.trials)
    text = f"{best.name} has the highest mean score of {count} trials, "
    text += f"{number_text(best.means[-1])} over {len(best.means)} seeds"
    if best.chosen == found.default:
        return f"{text}: it is the default, and nothing better was found."
    if (report := compared(found)) is None:
        return f"{text}; it has not been compared with the default on fresh seeds yet."
    tuned, base = _row(report, BEST), report.base
    seeds = f"{tuned.finished} fresh seed{'s' * (tuned.finished > 1)}"
    text += f". On {seeds} its settings have {score_text(tuned.iqm)}, "
    text += f"the default {score_text(base.iqm)}"
    if (gain := tuned.difference) is None or gain.low is None:
        return f"{text}."
    apart = "is above zero" if gain.low > 0 else "may be zero"
    return f"{text}. The difference, paired by seed, {apart}: {score_text(gain)}."


def write_all(found: Found, command: str, figures: Sequence[tuple[str, str, Path]]) -> list[Path]:
    """Writes best.yaml, trials.csv and report.html; gives their paths.

    Args:
        found: what is known.
        command: what was typed.
        figures: name, caption and file of each.
    """
    rows, out = trial_rows(found), found.folder
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    title, parts = f"{found.space.module}, tuned", _page(found, rows, figures, command)
    files = {"best.yaml": best_yaml(found), "trials.csv": text.getvalue()}
    files["report.html"] = whole_page(title, parts)
    for name, content in files.items():
        atomic_write_text(out / name, content)
    return [out / name for name in files]


def _page(
    found: Found,
    rows: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, str, Path]],
    command: str,
) -> list[str]:
    """The parts of the page."""
    report = compared(found)
    problems = [*(report.problems if report else ()), LUCK.format(count=len(rows))]
    parts = [
        f"<h1>{escape(found.space.module)}, tuned</h1>",
        f'<p class="lead">{escape(headline(found))}</p>',
        f'<p class="quiet">{escape(command)}</p>',
        warnings_html(problems),
        "<h2>On fresh seeds</h2>",
    ]
    if report:
        parts += [variant_table(report).to_html()]
        if (found.folder / "fresh" / "report.html").exists():
            parts += ['<p><a href="fresh/report.html">The report of these runs</a></p>']
    else:
        parts += ["<p>Nothing has been run yet.</p>"]
    parts += [f"<h2>The best settings</h2>{_settings_table(found).to_html()}<h2>Figures</h2>"]
    parts += [figure_html(name, caption, path.read_bytes()) for name, caption, path in figures]
    return [*parts, f"<h2>Trials</h2>{_cost_html(found, rows)}{_trials_html(found, rows)}"]


def _settings_table(found: Found) -> Table:
    """Best and default, setting by setting."""
    rows = []
    for axis in by_importance(found):
        share = found.importances.get(axis.name)
        values = (value_text(found.best.chosen[axis.name]), value_text(found.default[axis.name]))
        part = "-" if share is None else f"{share:.0%}"
        rows.append((axis.name, *values, axis.text(), part))
    fixed = ", ".join(f"{name} {x}" for name, x in found.space.settings.items())
    note = f"Beside them, in every run: {fixed}. " * bool(fixed)
    columns = ("setting", "best", "default", "tried", "importance")
    return Table(columns, rows, note=f"{note}best.yaml holds them all, for --config.")


def _cost_html(found: Found, rows: Sequence[Mapping[str, Any]]) -> str:
    cost, states = cost_of(found, rows), [row["state"] for row in rows]
    shown = {name: states.count(STATES[name]) for name in ("complete", "pruned", "failed")}
    text = f"{shown['complete']} complete, {shown['pruned']} given up between seeds, "
    text += f"{shown['failed']} failed; {short_count(cost.taken)} environment steps. "
    text += f"Giving up spared {short_count(cost.spared)} more, {cost.share:.0%} of what all "
    return f"<p>{escape(text)}seeds of these trials would have taken.</p>"


def _trials_html(found: Found, rows: Sequence[Mapping[str, Any]]) -> str:
    """The trials, the best first, each with links to the reports of its runs."""
    axes = by_importance(found)
    lines = []
    for row in sorted(rows, key=lambda row: (-row["seeds"], -(row["score"] or 0.0))):
        score = "-" if row["score"] is None else number_text(row["score"])
        cells = [str(row["trial"]), row["state"], score, str(row["seeds"])]
        cells += [value_text(row[axis.name]) for axis in axes]
        links = [
            f'<a href="{escape(os.path.relpath(page, found.folder))}">{page.parent.name}</a>'
            for page in sorted(Path(row["folder"]).glob("seed*/report.html"))
        ]
        body = "</td><td>".join([*map(escape, cells), " ".join(links) or escape(row["fault"])])
        lines.append(f"<tr><td>{body}</td></tr>")
    names = ("trial", "state", "mean", "seeds", *(axis.name for axis in axes), "reports")
    head = "</th><th>".join(map(escape, names))
    return f'<div class="wide"><table><tr><th>{head}</th></tr>{"".join(lines)}</table></div>'


def value_text(found: Any) -> str:
    """A setting's value, a real number with four digits."""
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def _row(report: Report, label: str) -> Row:
    return next(row for row in report.rows if row.label == label)
