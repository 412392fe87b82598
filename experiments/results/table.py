"""The table of results as JSON and as Markdown, from what is finished."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.results import criteria, twins
from experiments.results.criteria import ALL, Figure
from experiments.results.finished import (
    Finished,
    Seeds,
    best_constant,
    distinct,
    finished_runs,
    over_evaluations,
    over_seeds,
    unlike,
)
from experiments.results.worlds import ONE_CODE, WORLDS, World
from smz_jax.report.tables import Table
from smz_jax.report.verdict import number_text
from smz_jax.storage.files import atomic_write_text, write_json

TWIN_SETTINGS = tuple(word.removeprefix("--") for word in ONE_CODE[::2])
YES_NO = {True: "yes", False: "no", None: "-"}
COLUMNS = (
    "experiment",
    "command",
    "commit",
    "seeds",
    "hardware",
    "time",
    "score: mean (95 % interval) of seeds",
    "random",
    "best constant action",
    "optimum or published",
    "required: measured",
    "reached",
)
HOW = (
    "Scores are raw and of whole games: greedy, without noise, every lane the same number of "
    "games, seeds that never chose a checkpoint, the last parameters. Intervals are 95 %, by "
    "Student's t over the means of the seeds. \N{DAGGER}: a single seed; the interval of its score "
    'is the bootstrap interval over its own games, which says nothing of other seeds. After "of" '
    "stand the seeds themselves. A figure is reached when its mean over seeds is, and how many "
    "seeds reach it alone is said where not all do. Time is the mean over seeds, with compilation "
    "and all evaluations."
)


@dataclass(frozen=True)
class Row:
    """One world of the table."""

    world: str
    title: str
    command: str
    commits: list[str]
    seeds: list[int]
    seeds_required: list[int]
    hardware: list[str]
    minutes: Seeds | None
    score: Seeds | None
    random: Seeds | None
    constant: tuple[str, Seeds] | None
    optimum: float | None
    known: str
    required: str
    figures: list[Figure]
    reached: bool | None


@dataclass(frozen=True)
class Report:
    """All that is finished."""

    rows: list[Row]
    comparisons: list[twins.Comparison]
    problems: list[str]
    runs: Mapping[str, Sequence[Finished]] = field(default_factory=dict)
    """Finished runs by the name of their world."""


def make_report(out: Path) -> Report:
    """Reads every finished run below a folder of results."""
    runs, problems = {}, []
    for world in WORLDS.values():
        runs[world.name], wrong = finished_runs(out, world)
        problems += wrong
    for world in WORLDS.values():
        both = [*runs.get(world.twin_of or "", [])[:1], *runs[world.name][:1]]
        problems += unlike(both, ("seed", *TWIN_SETTINGS)) if world.twin_of else []
    comparisons = twins.compare(runs["grid-slippery"], runs["grid-twin"])
    rows = [make_row(WORLDS[name], found, comparisons) for name, found in runs.items() if found]
    return Report(rows, comparisons, problems, runs)


def make_row(
    world: World, runs: Sequence[Finished], comparisons: Sequence[twins.Comparison]
) -> Row:
    """A world's row. The comparisons, of the grid with its twin, count for the twin's row."""
    figures = criteria.figures_of(world, runs)
    reached = criteria.verdict(figures) if len(runs) >= len(world.seeds) else None
    if world.name == "grid-twin" and comparisons:
        required = [x for x in comparisons if x.key in twins.REQUIRED]
        count = sum(x.worse is True for x in required)
        name = f"errors worse, intervals apart, in {count} of {len(required)}"
        reached = twins.verdict(comparisons)
        figures.append(Figure(name, None, ALL, reached))
    presets = distinct(runs, lambda one: one.preset)
    extra = "".join(f" --preset {preset}" for preset in presets if preset != "laptop")
    return Row(
        world=world.name,
        title=world.title,
        command=shlex.join(world.command) + extra,
        commits=distinct(runs, lambda one: one.commit),
        seeds=[one.seed for one in runs],
        seeds_required=list(world.seeds),
        hardware=distinct(runs, lambda one: one.hardware),
        minutes=over_seeds([one.minutes for one in runs]),
        score=over_evaluations([one.part("evaluation") for one in runs]),
        random=over_evaluations([one.baselines.get("random") for one in runs]),
        constant=best_constant(runs),
        optimum=next((best for one in runs if (best := one.optimum) is not None), None),
        known=world.known,
        required=world.required,
        figures=figures,
        reached=reached,
    )


def short(value: float) -> str:
    """Three digits that count, no exponent: 0.00312, 0.0617, 12.5, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def mean_text(seeds: Seeds | None, number=short, *, each: bool = False) -> str:
    """`12.3 (11.0 to 13.6)`, a dagger where it is of one seed alone; `-` for none.

    With `each` the values of several seeds follow: `12.3 (11.0 to 13.6) of 12, 12.6, 12.3`.
    """
    if seeds is None:
        return "-"
    mean, low, high, _ = seeds.estimate
    text = number(mean)
    if low is not None and high is not None:
        text += f" ({number(low)} to {number(high)})"
    if seeds.is_single:
        return text + "\N{DAGGER}"
    return text + (" of " + ", ".join(map(number, seeds.values)) if each else "")


def figure_text(figure: Figure) -> str:
    """`ROC area at least 0.99: 0.995 (0.992 to 0.998)`."""
    known = mean_text(figure.estimate)
    if not all(figure.seeds_reached):
        known = f"{mean_text(figure.estimate, each=True)}, {seeds_text(figure)}"
    if figure.estimate is None:
        known = "not known" if figure.reached is None else YES_NO[figure.reached]
    bound = f" {figure.required}" if figure.required not in ("", ALL) else ""
    return f"{figure.name}{bound}: {known}"


def seeds_text(figure: Figure) -> str:
    """`2 of 3 seeds`: how many reach the figure by themselves."""
    return f"{sum(figure.seeds_reached)} of {len(figure.seeds_reached)} seeds"


def _reached_text(row: Row) -> str:
    """`yes`, `no` or `-`, and by how many seeds where not all reach everything."""
    if len(row.seeds) < len(row.seeds_required):
        return "not all seeds yet" if any(x.required for x in row.figures) else YES_NO[None]
    each = [x for x in row.figures if x.seeds_reached]
    fewest = min(each, key=lambda x: sum(x.seeds_reached), default=None)
    some = fewest is not None and not all(fewest.seeds_reached)
    return YES_NO[row.reached] + (f" ({seeds_text(fewest)})" if some and fewest else "")


def results_markdown(report: Report) -> str:
    """The table of results, header included, one line for each world that has a run."""
    return Table(COLUMNS, [_cells(row) for row in report.rows]).to_markdown()


def _cells(row: Row) -> list[str]:
    count = f"{len(row.seeds)} of {len(row.seeds_required)}"
    seeds = ", ".join(map(str, row.seeds))
    constant = "-"
    if row.constant is not None:
        constant = f"{row.constant[0]} {mean_text(row.constant[1], number_text)}"
    return [
        row.title,
        f"`{row.command}`",
        ", ".join(row.commits) or "not recorded",
        seeds if len(row.seeds) >= len(row.seeds_required) else f"{seeds} ({count})",
        "; ".join(row.hardware) or "not recorded",
        "-" if row.minutes is None else f"{row.minutes.estimate.mean:.1f} min",
        mean_text(row.score, number_text, each=True),
        mean_text(row.random, number_text),
        constant,
        row.known or ("-" if row.optimum is None else f"optimum {number_text(row.optimum)}"),
        "; ".join(figure_text(x) for x in row.figures if x.required) or row.required,
        _reached_text(row),
    ]


def figures_markdown(report: Report) -> str:
    """Every figure of every world, also those that are only shown."""
    lines = [
        [
            row.title,
            x.name,
            mean_text(x.estimate, each=True),
            x.required or "-",
            YES_NO[x.reached],
        ]
        for row in report.rows
        for x in row.figures
    ]
    header = ("experiment", "figure", "mean (95 % interval) of seeds", "required", "reached")
    return Table(header, lines).to_markdown()


def twins_markdown(report: Report) -> str:
    """The errors of both models along action sequences, and the scores of both."""
    lines = []
    for x in report.comparisons:
        ours, theirs = mean_text(x.stochastic), mean_text(x.twin)
        lines.append(["grid", x.about, str(x.step), ours, theirs, YES_NO[x.worse]])
    by_name = {row.world: row for row in report.rows}
    for row in report.rows:
        other = by_name.get(WORLDS[row.world].twin_of or "")
        if other is not None:
            scores = [mean_text(one.score, number_text) for one in (other, row)]
            lines.append([other.title, "score", "-", *scores, "-"])
    header = ("world", "what", "unroll step", "with chance codes", "twin", "twin worse, apart")
    return Table(header, lines).to_markdown()


def markdown(report: Report) -> str:
    """The whole of table.md."""
    if not report.rows:
        return "# Results\n\nNothing is finished yet.\n" + _problems(report)
    parts = ["# Results", results_markdown(report), HOW, "## Figures", figures_markdown(report)]
    if table := twins_markdown(report):
        about = (twins.__doc__ or "").split("\n\n", 1)[1].strip()
        parts += ["## Deterministic twins", table, about]
    return "\n\n".join(part.strip() for part in parts) + "\n" + _problems(report)


def _problems(report: Report) -> str:
    if not report.problems:
        return ""
    return "\n## Left out or doubtful\n\n" + "".join(f"- {text}\n" for text in report.problems)


def write_table(report: Report, out: Path) -> tuple[Path, Path]:
    """Writes table.md and table.json; gives their paths."""
    table = {"rows": report.rows, "twins": report.comparisons, "problems": report.problems}
    write_json(out / "table.json", _plain(table))
    atomic_write_text(out / "table.md", markdown(report))
    return out / "table.md", out / "table.json"


def _plain(value: Any) -> Any:
    """Dataclasses and seeds as mappings, at any depth."""
    if isinstance(value, Seeds):
        return value.plain()
    if isinstance(value, Row | Figure | twins.Comparison):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
