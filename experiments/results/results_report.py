"""What is finished as a table, in JSON and Markdown, and as a figure of a panel for each world."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes

from experiments.results import finished, twins
from experiments.results.finished import ALL, Figure, Finished, Seeds
from experiments.results.worlds import WORLDS, World
from experiments.sweep.jobs import finished_jobs
from smz_jax.report import style
from smz_jax.report.tables import Table
from smz_jax.report.verdict import number_text
from smz_jax.storage.estimate import Estimate
from smz_jax.storage.files import atomic_write_text, write_json

TWIN_SETTINGS = tuple(WORLDS["grid-twin"].settings)
SEED_COLOURS = (style.BLUE, style.VERMILLION, style.PURPLE, style.SKY, style.BLACK)
MOST_COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.1  # inches
YES_NO = {True: "yes", False: "no", None: "-"}
HOW = (
    "Scores are raw and of whole games: greedy, in Atari with the noise of eval.noise, every lane "
    "the same number of games, seeds that never chose a checkpoint, the last parameters. "
    "Intervals are 95 %, by Student's t over the means of the seeds. \N{DAGGER}: a single seed; "
    "the interval of its score is the bootstrap interval over its own games, which says nothing of "
    'other seeds. After "of" stand the seeds themselves. A figure is reached when its mean over '
    "seeds is, and how many seeds reach it alone is said where not all do. Time is the mean over "
    "seeds, with compilation and all evaluations."
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
    jobs, runs, problems = finished_jobs(WORLDS.values(), out), {}, []
    for name in WORLDS:
        runs[name], wrong = finished.read_finished(
            [job for job in jobs if job.variant.name == name]
        )
        problems += wrong
    for name, world in WORLDS.items():
        if world.twin_of:
            problems += finished.unlike([*runs[world.twin_of][:1], *runs[name][:1]], TWIN_SETTINGS)
    comparisons = twins.compare(runs["grid-slippery"], runs["grid-twin"])
    rows = [make_row(WORLDS[name], found, comparisons) for name, found in runs.items() if found]
    return Report(rows, comparisons, problems, runs)


def make_row(
    world: World, runs: Sequence[Finished], comparisons: Sequence[twins.Comparison]
) -> Row:
    """A world's row. The comparisons, of the grid with its twin, count for the twin's row."""
    figures = finished.figures_of(world, runs)
    reached = finished.all_reached([x.reached for x in figures if x.required])
    reached = reached if len(runs) >= len(world.seeds) else None
    if world.name == "grid-twin" and comparisons:
        required = [x for x in comparisons if x.key in twins.REQUIRED]
        count = sum(x.worse is True for x in required)
        name = f"errors worse, intervals apart, in {count} of {len(required)}"
        reached = twins.verdict(comparisons)
        figures.append(Figure(name, None, ALL, reached))
    # What the runs say of themselves, each thing once.
    about = {
        name: list(dict.fromkeys(text for one in runs if (text := one.about()[name])))
        for name in ("preset", "hardware", "commit")
    }
    extra = "".join(f" --preset {preset}" for preset in about["preset"] if preset != "laptop")
    return Row(
        world=world.name,
        title=world.title,
        command=shlex.join(world.command) + extra,
        commits=about["commit"],
        seeds=[one.job.seed for one in runs],
        seeds_required=list(world.seeds),
        hardware=about["hardware"],
        minutes=finished.over_seeds([one.value("minutes") for one in runs]),
        score=finished.over_evaluations([one.part("evaluation") for one in runs]),
        random=finished.over_evaluations([one.part("baselines").get("random") for one in runs]),
        constant=finished.best_constant(runs),
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
    text = Estimate(seeds.mean, seeds.low, seeds.high).text(number)
    if len(seeds.values) == 1:
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


def _cells(row: Row) -> dict[str, str]:
    """A row of the table of results, by its columns."""
    seeds, reached = ", ".join(map(str, row.seeds)), YES_NO[row.reached]
    # How many seeds reach everything, where not all do.
    each = [x for x in row.figures if x.seeds_reached]
    fewest = min(each, key=lambda x: sum(x.seeds_reached), default=None)
    if fewest and not all(fewest.seeds_reached):
        reached += f" ({seeds_text(fewest)})"
    if len(row.seeds) < len(row.seeds_required):
        seeds += f" ({len(row.seeds)} of {len(row.seeds_required)})"
        is_judged = any(x.required for x in row.figures)
        reached = "not all seeds yet" if is_judged else YES_NO[None]
    constant = row.constant and f"{row.constant[0]} {mean_text(row.constant[1], number_text)}"
    optimum = "-" if row.optimum is None else f"optimum {number_text(row.optimum)}"
    measured = "; ".join(figure_text(x) for x in row.figures if x.required)
    return {
        "experiment": row.title,
        "command": f"`{row.command}`",
        "commit": ", ".join(row.commits) or "not recorded",
        "seeds": seeds,
        "hardware": "; ".join(row.hardware) or "not recorded",
        "time": "-" if row.minutes is None else f"{row.minutes.mean:.1f} min",
        "score: mean (95 % interval) of seeds": mean_text(row.score, number_text, each=True),
        "random": mean_text(row.random, number_text),
        "best constant action": constant or "-",
        "optimum or published": row.known or optimum,
        "required: measured": measured or row.required,
        "reached": reached,
    }


def results_markdown(report: Report) -> str:
    """The table of results, header included, one line for each world that has a run."""
    return _table([_cells(row) for row in report.rows])


def _table(lines: Sequence[Mapping[str, str]]) -> str:
    """Markdown of lines that name their cells."""
    return Table([*lines[0]] if lines else [], [[*line.values()] for line in lines]).to_markdown()


def markdown(report: Report) -> str:
    """The whole of table.md: results, every figure, errors and scores of twins, problems."""
    figures = [
        {
            "experiment": row.title,
            "figure": x.name,
            "mean (95 % interval) of seeds": mean_text(x.estimate, each=True),
            "required": x.required or "-",
            "reached": YES_NO[x.reached],
        }
        for row in report.rows
        for x in row.figures
    ]
    twin_lines = [
        ["grid", x.about, str(x.step), mean_text(x.stochastic), mean_text(x.twin), YES_NO[x.worse]]
        for x in report.comparisons
    ]
    by_name = {row.world: row for row in report.rows}
    for row in report.rows:
        if other := by_name.get(WORLDS[row.world].twin_of or ""):
            scores = [mean_text(one.score, number_text) for one in (other, row)]
            twin_lines.append([other.title, "score", "-", *scores, "-"])
    header = ("world", "what", "unroll step", "with chance codes", "twin", "twin worse, apart")
    parts = ["# Results", results_markdown(report) or "Nothing is finished yet."]
    if report.rows:
        parts += [HOW, "## Figures", _table(figures)]
    if twin_lines:
        about = (twins.__doc__ or "").split("\n\n", 1)[1].strip()
        parts += ["## Deterministic twins", Table(header, twin_lines).to_markdown(), about]
    if report.problems:
        parts += ["## Left out or doubtful", "\n".join(f"- {x}" for x in report.problems)]
    return "\n\n".join(parts) + "\n"


def write_table(report: Report, out: Path) -> tuple[Path, Path]:
    """Writes table.md and table.json; gives their paths."""
    rows, pairs = ([asdict(x) for x in found] for found in (report.rows, report.comparisons))
    write_json(out / "table.json", {"rows": rows, "twins": pairs, "problems": report.problems})
    atomic_write_text(out / "table.md", markdown(report))
    return out / "table.md", out / "table.json"


def results_figure(report: Report, path: Path) -> None:
    """Draws the evaluations of each world's seeds while learning; says if there are none."""
    with rc_context(style.RC):
        shown = [row for row in report.rows if report.runs[row.world]]
        count = max(len(shown), 1)
        columns = min(MOST_COLUMNS, count)
        lines = -(-count // columns)
        figure, panels = style.new_figure("Scores of whole games while learning", lines, columns)
        if shown:
            size = (max(PANEL_WIDTH * columns, 6.5), 1.1 + PANEL_HEIGHT * lines)
            figure.set_size_inches(*size)
        else:
            style.note_empty(panels[0], "no run is finished yet")
        for axes, row in zip(panels, shown, strict=False):
            draw_world(axes, row, report.runs[row.world])
        for axes in panels[count:]:
            axes.remove()
        style.add_legend(figure, 4)
        style.save_figure(figure, path)


def draw_world(axes: Axes, row: Row, runs: Sequence[Finished]) -> None:
    """One panel: the seeds, and what they are to be compared with."""
    for one in runs:
        seed = one.job.seed
        colour = SEED_COLOURS[seed % len(SEED_COLOURS)]
        steps, scores = one.curve()
        # A final evaluation of the very parameters of the one before is no progress: no line.
        end = -1 if steps[-2:-1] == steps[-1:] else None
        axes.plot(steps[:end], scores[:end], "o-", color=colour, label=f"seed {seed}", markersize=4)
        axes.plot(steps[-1:], scores[-1:], "D", color=colour, markersize=7)
    for height, colour, dash, width, label in (
        (row.random and row.random.mean, style.GREY, "-", 1.4, "random policy"),
        (row.constant and row.constant[1].mean, style.ORANGE, "--", 1.6, "best constant"),
        (row.optimum, style.BLACK, ":", 1.6, "optimum"),
        (required_score(row), style.GREEN, "-.", 1.4, "required"),
    ):
        if height is not None:
            axes.axhline(height, color=colour, linestyle=dash, linewidth=width, label=label)
    verdict = "" if row.reached is None else f" (required: {'not ' * (not row.reached)}reached)"
    axes.set_title(style.plot_text(row.world + verdict))
    style.steps_axis(axes)
    if not WORLDS[row.world].is_run:
        axes.set_ylabel("ROC area, sticky 0.25")
        axes.set_xlabel("updates")
    axes.locator_params(axis="x", nbins=4)


def required_score(row: Row) -> float | None:
    """The score that is required, from a bound on it or on its ratio to optimum or random."""
    scales = {
        "return": 1.0,
        "ROC area, sticky 0.25": 1.0,
        "return / optimum": row.optimum,
        "score / random": row.random and row.random.mean,
    }
    for figure in row.figures:
        scale = scales.get(figure.name)
        if scale is not None and figure.required.startswith("at least"):
            return float(figure.required.removeprefix("at least")) * scale
    return None
