"""The HTML page of a report: one file, no scripts, nothing loaded from elsewhere."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from smz_jax.report import verification
from smz_jax.report.data import RunData, group_seeds
from smz_jax.report.library import MACRO_NOTE, macro_lines, macro_tables
from smz_jax.report.preconditions import precondition_lines
from smz_jax.report.rules import rules_rows
from smz_jax.report.text import short_count
from smz_jax.report.verdict import find_warnings, meaning, number_text, progress_text, score_text
from smz_jax.storage.estimate import Estimate, read_estimate

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; font-size: 1.25rem; }
.lead { font-size: 1.15rem; } .quiet { color: #595959; font-size: .92rem; }
.big { font-size: 2rem; font-weight: 700; margin: .6rem 0 0; }
.big small { font-size: 1rem; font-weight: 400; }
.warnings { border-left: 5px solid #D55E00; background: #FFF4EC; padding: .6rem 1rem; }
.warnings ul { margin: .3rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
figure { margin: 1.6rem 0; } figure img { width: 100%; height: auto; }
figcaption { color: #595959; font-size: .92rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem; }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; }
  .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } }
"""


@dataclass(frozen=True)
class FigureBlock:
    """A figure of the page: its name, one line below it, and the PNG."""

    name: str
    caption: str
    png: bytes


def render_page(runs: Sequence[RunData], figures: Sequence[FigureBlock]) -> str:
    """Renders the whole page; everything that came from a run is escaped.

    Args:
        runs: at least one run; the headline is about the first, or compares all.
        figures: in the order shown.

    Returns:
        The page's HTML.
    """
    parts = [_headline(runs), _warnings(runs)]
    if len(runs) > 1:
        parts.append(_comparison(runs))
    parts += ["<h2>Evaluation</h2>", *(_evaluation(run, len(runs) > 1) for run in runs)]
    if any(run.grid for run in runs):
        parts.append(_rules(runs))
    parts += ["<h2>Figures</h2>", *map(_figure, figures)]
    parts += ["<h2>Macros</h2>", *(_macros(run, len(runs) > 1) for run in runs)]
    if any(run.verification for run in runs):
        parts += ["<h2>Macros in the real game</h2>", *_verifications(runs)]
    parts += ["<h2>Time</h2>", *(_time(run, len(runs) > 1) for run in runs)]
    parts += ["<h2>Settings and versions</h2>", *(_settings(run) for run in runs)]
    title = escape(", ".join(dict.fromkeys(run.experiment for run in runs)))
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Report: {title}</title>\n<style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; head and cells are escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n{body}</table></div>'


def _headline(runs: Sequence[RunData]) -> str:
    first = runs[0]
    if len(runs) > 1:
        names = ", ".join(dict.fromkeys(run.experiment for run in runs))
        return f"<h1>{escape(names)}: {len(runs)} runs</h1>" + "".join(
            f"<p><b>{escape(run.label)}.</b> {escape(meaning(run))} "
            f'<span class="quiet">{escape(progress_text(run))}</span></p>'
            for run in runs
        )
    text = f"<h1>{escape(first.experiment)}, seed {escape(str(first.seed))}</h1>"
    text += f'<p class="quiet">{escape(progress_text(first))} Run {escape(first.label)}.</p>'
    best = first.best_constant()
    if score := first.evaluation():
        beside = [f"random {score_text(first.random())}"] if first.random() else []
        beside += [f"best constant action ({best[0]}) {score_text(best[1])}"] if best else []
        text += f'<p class="big">{number_text(score.mean)} '
        text += f"<small>points a game{escape(_interval(score))}</small></p>"
        text += f"<p>{escape(' · '.join(beside))}</p>"
    return text + f'<p class="lead">{escape(meaning(first))}</p>'


def _interval(score: Estimate) -> str:
    if score.low is None or score.high is None:
        return ""
    return f" ({number_text(score.low)} to {number_text(score.high)}, 95 %)"


def _warnings(runs: Sequence[RunData]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in find_warnings(runs))
    return f'<div class="warnings"><b>Take care</b><ul>{items}</ul></div>' if items else ""


def _comparison(runs: Sequence[RunData]) -> str:
    """All runs side by side, and the mean over the seeds of one setting."""
    rows = [
        (
            run.label,
            str(run.seed),
            short_count(run.summary.get("env_steps") or run.last("env_steps") or 0),
            score_text(run.evaluation()),
            score_text(run.random()),
            _whole(run.last("macros/total")),
            "yes" if run.finished else "no",
        )
        for run in runs
    ]
    for group in group_seeds(runs):
        means = [score.mean for run in group if (score := run.evaluation())]
        if len(group) > 1 and means:
            spread = f"{number_text(min(means))} to {number_text(max(means))}"
            text = f"{number_text(sum(means) / len(means))} (extremes {spread})"
            unfinished = sum(not run.finished for run in group)
            name = f"mean of {len(means)} seeds, {group[0].experiment}"
            name += f" ({unfinished} unfinished)" if unfinished else ""
            rows.append((name, "", "", text, "", "", ""))
    head = ("run", "seed", "environment steps", "score", "random", "macros", "finished")
    return "<h2>Runs</h2>" + table(head, rows)


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _name(run: RunData, several: bool) -> str:
    return f"<h3>{escape(run.label)}</h3>" if several else ""


def _evaluation(run: RunData, several: bool) -> str:
    """The agent, random play and each constant action, by the same evaluator."""
    rows = []
    if run.summary.get("evaluation"):
        rows.append(_evaluation_row("agent, final", run.summary["evaluation"]))
    elif score := run.evaluation():
        steps, _ = run.curve("eval/mean")
        rows.append((f"agent at {short_count(steps[-1])} steps", "-", score_text(score), *"-----"))
    if run.summary.get("evaluation_sticky"):
        rows.append(_evaluation_row("agent, sticky actions", run.summary["evaluation_sticky"]))
    baselines = run.baselines()
    if baselines.get("random"):
        rows.append(_evaluation_row("random", baselines["random"]))
    elif random := run.random():
        rows.append(("random", "-", score_text(random), *"-----"))
    for name, score in run.constants().items():
        full = (baselines.get("constant") or {}).get(name)
        label = f"always {name}"
        short = (label, "-", score_text(score), *"-----")
        rows.append(_evaluation_row(label, full) if full else short)
    if not rows:
        return _name(run, several) + "<p>Nothing has been evaluated yet.</p>"
    head = ("policy", "games", "mean (95 %)", "median", "IQM (95 %)", "range", "steps", "cut off")
    note = (
        '<p class="quiet">Raw scores of whole games. IQM: mean of the middle half of the games. '
        "Steps: mean length of a game. Cut off: share of games ended by the step limit.</p>"
    )
    return _name(run, several) + table(head, rows) + note


def _evaluation_row(label: str, values: dict[str, Any]) -> tuple[str, ...]:
    def number(key: str, form: str) -> str:
        return form.format(values[key]) if isinstance(values.get(key), (int, float)) else "-"

    def text(key: str) -> str:
        return "-" if values.get(key) is None else f"{values[key]:,.6g}"

    return (
        label,
        number("games", "{:.0f}"),
        score_text(read_estimate(values)),
        text("median"),
        score_text(read_estimate(values, "iqm")),
        f"{text('min')} to {text('max')}",
        number("length_mean", "{:,.0f}"),
        number("cut_share", "{:.0%}"),
    )


def _rules(runs: Sequence[RunData]) -> str:
    note = "Pairs: of a state and an action. H: entropy of what follows, 0 where it is certain."
    return f'<h2>Known rules</h2>{table(*rules_rows(runs))}<p class="quiet">{note}</p>'


def _figure(block: FigureBlock) -> str:
    data = base64.b64encode(block.png).decode("ascii")
    caption = escape(block.caption)
    return (
        f'<figure id="{escape(block.name)}"><img alt="{caption}" '
        f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _macros(run: RunData, several: bool) -> str:
    """Rankings of the macros found, and the library by compression."""
    if not run.macros:
        return _name(run, several) + "<p>No macros have been written yet, or none was found.</p>"
    said = [*macro_lines(run), *precondition_lines(run)]
    lines = "".join(f"<p>{escape(line)}</p>" for line in said)
    tables = (f"<h3>{escape(name)}</h3>{table(*rows)}" for name, rows in macro_tables(run))
    note = f'<p class="quiet">{escape(MACRO_NOTE)}</p>'
    return _name(run, several) + lines + "".join(tables) + note


def _verifications(runs: Sequence[RunData]) -> list[str]:
    """Macros and controls side by side, of several seeds pooled and each by itself."""
    parts = []
    for group in verification.tried_groups(runs):
        documents = [run.verification for run in group]
        if len(group) > 1:
            seeds = ", ".join(str(run.seed) for run in group)
            parts.append(f"<h3>{escape(group[0].experiment)}, mean of seeds {escape(seeds)}</h3>")
            parts.append(table(*verification.rows_of(verification.pool(documents))))
        for run in group:
            lines = "".join(
                f"<li>{escape(x)}</li>" for x in verification.lines_of(run.verification)
            )
            rows = verification.rows_of(verification.entries(run.verification))
            parts.append(f"{_name(run, len(runs) > 1)}<ul>{lines}</ul>{table(*rows)}")
    return [*parts, f'<p class="quiet">{escape(verification.NOTE)}</p>']


def _time(run: RunData, several: bool) -> str:
    total = sum(run.seconds.values())
    if total <= 0:
        return _name(run, several) + "<p>No times recorded yet.</p>"
    ranked = sorted(run.seconds.items(), key=lambda item: -item[1])
    rows = [(name, f"{s:,.1f}", f"{s / total:.1%}") for name, s in ranked]
    rows.append(("all phases", f"{total:,.1f}", "100.0%"))
    return _name(run, several) + table(("phase", "seconds", "share"), rows)


def _settings(run: RunData) -> str:
    """Where it ran, with what versions, and the resolved config, folded in."""
    facts = [
        (key, run.summary[key]) for key in ("preset", "commit", "platform") if key in run.summary
    ]
    facts += list((run.summary.get("versions") or {}).items())
    text = table(("what", "value"), [(str(k), str(v)) for k, v in facts]) if facts else ""
    config = escape(run.config_text) or "config.yaml is missing"
    name = escape(run.label)
    return text + f"<details><summary>Settings of {name}</summary><pre>{config}</pre></details>"
