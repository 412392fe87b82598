"""The HTML page of a report: one file, no scripts, nothing loaded from elsewhere."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from smz_jax.report import verification
from smz_jax.report.data import RunData, group_seeds
from smz_jax.report.macro_tables import MACRO_NOTE, macro_lines, macro_tables, precondition_lines
from smz_jax.report.matches import has_matches, match_tables
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import find_warnings, meaning, number_text, progress_text, score_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import Estimate, read_estimate

RUNS = ("run", "seed", "{}", "score", "random", "macros", "finished")
POLICIES = (
    *("policy", "games", "different", "mean (95 %)", "median", "IQM (95 %)", "range", "steps"),
    "cut off",
)
POLICY_FORMS = {"games": ".0f", "distinct": ".0f"} | dict.fromkeys(("median", "min", "max"), ",.6g")
POLICY_FORMS |= {"length_mean": ",.0f", "cut_share": ".0%"}
POLICY_NOTE = (
    "Raw scores of whole games. Different: games that differ in score or length. "
    "IQM: mean of the middle half of the games. "
    "Steps: mean length of a game. Cut off: share of games ended by the step limit."
)

RULES = (
    ("ROC area of random against certain pairs", "roc_area"),
    ("mean |H(model) - H(true)|, nats", "entropy_error"),
    ("mean H of random pairs, nats", "entropy_random"),
    ("mean H of certain pairs, nats", "entropy_certain"),
    ("mean H of played pairs / ln C", "transition_entropy"),
    ("agreement of encoder and prior", "agreement"),
    ("code perplexity", "code_perplexity"),
    ("share of pairs that were played", "pairs_visited"),
    ("optimal mean return", "optimum"),
    ("mean return of random play", "random"),
)
"""What the table of a run's `grid.json` shows, and under which name it is there."""


def render_page(runs: Sequence[RunData], figures: Sequence[str]) -> str:
    """Renders the whole page; everything that came from a run is escaped.

    Of several runs the headline compares all. `figures` are as `figure_html` gives them.
    """
    parts = [_headline(runs)]
    if found := find_warnings(runs):
        parts.append(warnings_html(found))
    parts += [_comparison(runs)] if len(runs) > 1 else []
    parts += _section("Evaluation", runs, _evaluation)
    if any(map(has_matches, runs)):
        parts += _section("Matches", runs, match_tables)
    if any(run.grid for run in runs):
        parts += ["<h2>Known rules</h2>", _rules(runs)]
    parts += ["<h2>Figures</h2>", *figures]
    parts += _section("Macros", runs, _macros)
    if any(run.verification for run in runs):
        parts += ["<h2>Macros in the real game</h2>", *_verifications(runs)]
    parts += _section("Time", runs, _time)
    parts += ["<h2>Settings and versions</h2>", *map(_settings, runs)]
    return whole_page(", ".join(dict.fromkeys(run.experiment for run in runs)), parts)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """A page of parts in HTML, under its style; the title alone is escaped."""
    template = Template(files("smz_jax.report").joinpath("page.html").read_text("utf-8"))
    return template.substitute(title=escape(title), body="\n".join(parts))


def _section(title: str, runs: Sequence[RunData], of_run: Callable[[RunData], str]) -> list[str]:
    return [f"<h2>{title}</h2>", *(_name(run, len(runs) > 1) + of_run(run) for run in runs)]


def _name(run: RunData, several: bool) -> str:
    return f"<h3>{escape(run.label)}</h3>" if several else ""


def _paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def warnings_html(texts: Sequence[str]) -> str:
    """What a reader should take care of."""
    return f'<div class="warnings"><b>Take care</b>{_items(texts)}</div>'


def _items(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


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
    text += _paragraph(f"{progress_text(first)} Run {first.label}.", "quiet")
    if score := first.evaluation():
        random, best = first.random(), first.best_constant()
        beside = [f"random {score_text(random)}"] if random else []
        beside += [f"best constant action ({best[0]}) {score_text(best[1])}"] if best else []
        mean = number_text(score.mean)
        interval = escape(score_text(score).removeprefix(mean).replace(")", ", 95 %)"))
        text += f'<p class="big">{mean} <small>points a game{interval}</small></p>'
        text += _paragraph(" · ".join(beside))
    return text + _paragraph(meaning(first), "lead")


def _comparison(runs: Sequence[RunData]) -> str:
    """All runs side by side, and the mean over the seeds of one setting."""
    rows, unit = [], " or ".join(sorted({run.unit for run in runs}))
    for run in runs:
        steps = run.summary.get("env_steps") or run.last("env_steps") or 0
        scores = map(score_text, (run.evaluation(), run.random()))
        macros = run.last("macros/total")
        found = "-" if macros is None else f"{macros:,.0f}"
        done = "yes" if run.summary.get("finished") else "no"
        rows.append((run.label, str(run.seed), short_count(steps), *scores, found, done))
    for group in group_seeds(runs):
        means = [score.mean for run in group if (score := run.evaluation())]
        if len(group) > 1 and means:
            spread = f"{number_text(min(means))} to {number_text(max(means))}"
            text = f"{number_text(sum(means) / len(means))} (extremes {spread})"
            unfinished = sum(not run.summary.get("finished") for run in group)
            name = f"mean of {len(means)} seeds, {group[0].experiment}"
            name += f" ({unfinished} unfinished)" if unfinished else ""
            rows.append((name, "", "", text))
    return "<h2>Runs</h2>" + Table([x.format(unit) for x in RUNS], rows).to_html()


def _rules(runs: Sequence[RunData]) -> str:
    """The numbers of `grid.json`, with a column for each run that has one."""
    compared = [run for run in runs if run.grid]
    known = [{**run.grid, **(run.grid.get("returns") or {})} for run in compared]
    rows = [
        (title, *(f"{x[key]:.4g}" if is_number(x.get(key)) else "-" for x in known))
        for title, key in RULES
    ]
    note = "Pairs: of a state and an action. H: entropy of what follows, 0 where it is certain."
    return Table(("at the end", *(run.label for run in compared)), rows, note=note).to_html()


def _evaluation(run: RunData) -> str:
    """The agent, random play and each constant action, by the same evaluator."""
    given, baselines = run.summary.get("evaluation"), run.baselines()
    noise = run.setting("eval", "noise")
    noisy = f", noise {noise:g}" if noise else ""
    found: list[tuple[str, Any, Estimate | None]] = [(f"agent, final{noisy}", given, None)]
    if not given and (score := run.evaluation()):
        steps, _ = run.curve("eval/mean")
        found.append((f"agent at {short_count(steps[-1])} steps", None, score))
    found.append(("agent, greedy", run.summary.get("evaluation_greedy"), None))
    sticky = run.summary.get("evaluation_sticky")
    found.append((f"agent, sticky actions{noisy}", sticky, None))
    found.append(("random", baselines.get("random"), run.random()))
    constant = baselines.get("constant") or {}
    found += [(f"always {x}", constant.get(x), score) for x, score in run.constants().items()]
    rows = []
    for name, values, score in (entry for entry in found if entry[1] or entry[2]):
        known = values or {}
        games, distinct, median, low, high, length, cut = (
            format(known[key], form) if isinstance(known.get(key), (int, float)) else "-"
            for key, form in POLICY_FORMS.items()
        )
        span = "-" if low == high == "-" else f"{low} to {high}"
        mean, iqm = read_estimate(values) if values else score, read_estimate(values, "iqm")
        scores = score_text(mean), median, score_text(iqm)
        rows.append((name, games, distinct, *scores, span, length, cut))
    if not rows:
        return "<p>Nothing has been evaluated yet.</p>"
    return Table(POLICIES, rows, note=POLICY_NOTE).to_html()


def figure_html(name: str, caption: str, png: bytes) -> str:
    """A figure of the page, with its caption below it."""
    data, text = base64.b64encode(png).decode("ascii"), escape(caption)
    return (
        f'<figure id="{escape(name)}"><img alt="{text}" '
        f'src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
    )


def _macros(run: RunData) -> str:
    """Rankings of the macros found, and the library by compression."""
    if not run.can_have_macros:
        return "<p>There are no macros: actions have continuous parts, or there are too many.</p>"
    if not run.macros:
        return "<p>No macros have been written yet, or none was found.</p>"
    lines = map(_paragraph, [*macro_lines(run), *precondition_lines(run)])
    tables = (table.to_html() for table in macro_tables(run))
    return "".join([*lines, *tables, _paragraph(MACRO_NOTE, "quiet")])


def _verifications(runs: Sequence[RunData]) -> list[str]:
    """Macros and controls side by side, of several seeds pooled and each by itself."""
    parts = []
    for group in verification.tried_groups(runs):
        if len(group) > 1:
            seeds = ", ".join(str(run.seed) for run in group)
            pooled = verification.pool([run.verification for run in group])
            title = f"{group[0].experiment}, mean of seeds {seeds}"
            parts.append(verification.table_of(pooled, title).to_html())
        for run in group:
            lines = _items(verification.lines_of(run.verification))
            table = verification.table_of(verification.entries(run.verification))
            parts.append(f"{_name(run, len(runs) > 1)}{lines}{table.to_html()}")
    return [*parts, _paragraph(verification.NOTE, "quiet")]


def _time(run: RunData) -> str:
    total = sum(run.seconds.values())
    if total <= 0:
        return "<p>No times recorded yet.</p>"
    ranked = sorted(run.seconds.items(), key=lambda item: -item[1])
    rows = [(name, f"{s:,.1f}", f"{s / total:.1%}") for name, s in ranked]
    rows.append(("all phases", f"{total:,.1f}", "100.0%"))
    return Table(("phase", "seconds", "share"), rows).to_html()


def _settings(run: RunData) -> str:
    """Where it ran, with what versions, and the resolved config, folded in."""
    facts = {key: run.summary.get(key) for key in ("preset", "commit", "platform")}
    facts |= run.summary.get("versions") or {}
    rows = [(str(key), str(value)) for key, value in facts.items() if value is not None]
    text = Table(("what", "value"), rows).to_html() if rows else ""
    name, config = escape(run.label), "config.yaml is missing"
    if run.config:
        config = escape((run.path / "config.yaml").read_text("utf-8", errors="replace"))
    return text + f"<details><summary>Settings of {name}</summary><pre>{config}</pre></details>"
