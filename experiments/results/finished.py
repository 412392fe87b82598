"""What finished runs say: each by itself, over seeds with intervals, and against what is required.

worlds.yaml gives each figure of a world as a name, a value (see `Finished.value`) and a bound.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.results.worlds import ENCODER_VARIANT, STICKY, World
from experiments.sweep.jobs import Job
from experiments.sweep.variants import read_json
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.report.data import Curve, RunData, load_run
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import Estimate, mean_estimate, read_estimate
from smz_jax.storage.metrics import read_metrics

BOUNDS = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}
ALL = "all"  # what is required of a figure that is no number


@dataclass(frozen=True)
class Seeds:
    """A number of several seeds: their mean with a 95 % interval, as table.json holds it."""

    mean: float
    low: float | None
    high: float | None
    over: str  # `seeds`, or `games`: of a single seed, over its own games
    values: tuple[float, ...]


@dataclass(frozen=True)
class Figure:
    """A measure of a world's finished runs."""

    name: str
    estimate: Seeds | None
    required: str
    reached: bool | None  # by the mean; None: nothing is required, or nothing is known
    seeds_reached: tuple[bool, ...] = ()  # of each seed; empty where none is judged by itself


@dataclass(frozen=True)
class Finished:
    """One finished run."""

    job: Job
    summary: dict[str, Any]
    """Of the run; with `grid`, its grid.json, and `record`, what the runner noted."""
    run: RunData | None  # rows and settings; None for a world whose results are not those of a run

    def part(self, name: str) -> dict[str, Any]:
        """A part of the summary, possibly empty: grid, evaluation, `sticky 0.25`, ..."""
        return self.summary.get(name) or {}

    @property
    def optimum(self) -> float | None:
        """The best possible score of a world with known rules, or the highest that there is."""
        found: Any = (self.part("grid").get("returns") or {}).get("optimum")
        world = self.job.variant
        highest = world.highest if isinstance(world, World) else None
        return float(found) if is_number(found) else highest

    def about(self) -> dict[str, str | None]:
        """Preset, hardware and commit (short, `-dirty` kept), as far as they are known."""
        hardware, commit = self.summary.get("platform"), self.summary.get("commit")
        record = self.part("record")
        cores, processor = record.get("cores"), record.get("processor")
        if cores and processor:
            hardware = f"{cores} core{'s' if cores > 1 else ''} of {processor}"
        return {
            "preset": self.summary.get("preset") or record.get("preset"),
            "hardware": hardware,
            "commit": commit and commit[:7] + ("-dirty" if commit.endswith("-dirty") else ""),
        }

    def value(self, name: str) -> float:
        """A value that is worked out here, or `part/key`, as `grid/roc_area`; NaN if unknown."""
        score = _number(self.part("evaluation"), "mean")
        random = _number(self.part("baselines").get("random") or {}, "mean")
        constant = best_constant([self])
        chance, plain = (self.part(f"sticky {sticky:g}") for sticky in STICKY)
        entropies = [_number(part, "entropy") for part in (plain, chance)]
        norms = self.run.curve("check/encoder_gradient")[1] if self.run else []
        known = {
            "return": score,
            "return / optimum": _ratio(score, self.optimum),
            "score / random": _ratio(score, max(random, 0.0)),
            "above random": score - random,
            "above best constant": score - (constant[1].mean if constant else math.nan),
            "minutes": _number(self.summary, "seconds_total") / 60 or math.nan,
            "first encoder gradient": norms[0] if norms else math.nan,
            "sticky 0.25/minutes": _number(chance, "seconds") / 60,
            "sticky 0 over 0.25/entropy": _ratio(*entropies),
        }
        part, _, key = name.rpartition("/")
        return known[name] if name in known else _number(self.part(part), key)

    def curve(self) -> Curve:
        """Evaluations over environment steps, the final one last; of encoders ROC over updates."""
        if self.run is None:
            pattern = f"jobs/{ENCODER_VARIANT}-sticky{STICKY[0]:g}-*/rows.jsonl"
            paths = sorted(self.job.run_dir.glob(pattern))
            rows = [row for x in paths for row in read_metrics(x) if is_number(row.get("roc"))]
            return [row["updates"] for row in rows], [row["roc"] for row in rows]
        return self.run.evaluations()


def _number(values: Mapping[str, Any], name: str) -> float:
    """A number of a document; NaN if it holds none."""
    found: Any = values.get(name)
    return found if is_number(found) else math.nan


def _ratio(above: float, below: float | None) -> float:
    return above / below if below else math.nan


def over_seeds(values: Sequence[float | None]) -> Seeds | None:
    """Mean and 95 % interval by Student's t over the finite values of seeds; of one no interval."""
    known = tuple(float(x) for x in values if x is not None and is_number(x))
    found = mean_estimate(known)
    return found and Seeds(found.mean, found.low, found.high, "seeds", known)


def over_evaluations(evaluations: Sequence[Mapping[str, Any] | None]) -> Seeds | None:
    """Mean score over seeds; of one seed, the interval of its own games."""
    scores = [score for x in evaluations if (score := read_estimate(x)) is not None]
    if len(scores) != 1:
        return over_seeds([score.mean for score in scores])
    mean, low, high, _ = scores[0]
    return Seeds(mean, low, high, "seeds" if low is None else "games", (mean,))


def best_constant(runs: Sequence[Finished]) -> tuple[str, Seeds] | None:
    """The constant action whose mean over seeds is highest."""
    tables = [one.part("baselines").get("constant") or {} for one in runs]
    names = sorted({name for table in tables for name in table})
    scores = [(name, over_evaluations([table.get(name) for table in tables])) for name in names]
    known = [(name, score) for name, score in scores if score]
    return max(known, key=lambda item: item[1].mean, default=None)


def figures_of(world: World, runs: Sequence[Finished]) -> list[Figure]:
    """Each figure of a world over its seeds; the mean is what has to keep to the bound."""
    figures = []
    for name, value, *bounds in world.measures:
        seeds = over_seeds([one.value(value) for one in runs])
        required, reached, each = "", None, ()
        for bound in bounds:
            kind, _, text = bound.rpartition(" ")
            keeps, limit = BOUNDS[kind], float(text)
            required = f"{kind} {limit:.3g}"
            if seeds is not None:
                reached = keeps(seeds.mean, limit)
                each = tuple(keeps(x, limit) for x in seeds.values)
        figures.append(Figure(name, seeds, required, reached, each))
    if not world.is_run:
        parts = [[one.part(f"sticky {sticky:g}") for one in runs] for sticky in STICKY]
        if len(runs) == 1:  # of one seed, the interval over the held-out games
            chance, plain = (read_estimate(part, "entropy") for (part,) in parts)
        else:
            chance, plain = (over_seeds([x.get("entropy") for x in part]) for part in parts)
        name = "intervals of the two entropies apart"
        figures.append(Figure(name, None, ALL, is_above(chance, plain)))
    return figures


def is_above(one: Seeds | Estimate | None, other: Seeds | Estimate | None) -> bool | None:
    """Whether the first interval lies above the other, wholly; None where one is not known."""
    if one is None or other is None or one.low is None or other.high is None:
        return None
    return one.low > other.high


def all_reached(verdicts: Sequence[bool | None]) -> bool | None:
    """Whether all are true; None where there is none, or none is false and one is not known."""
    if not verdicts or (None in verdicts and False not in verdicts):
        return None
    return all(verdicts)


def read_finished(jobs: Sequence[Job]) -> tuple[list[Finished], list[str]]:
    """Finished runs of a world, and what was wrong with some."""
    found, problems = [], []
    for job in jobs:
        try:
            run = load_run(job.run_dir) if job.variant.is_run else None
        except ConfigError as error:
            problems.append(str(error))
            continue
        summary = run.summary if run else encoder_summary(job.result())
        summary = {**summary, "record": read_json(job.record)}
        if job.variant.extra:
            name = job.variant.extra[0]
            summary["grid"] = read_json(job.run_dir / name)
            if not summary["grid"]:
                problems.append(f"{job.run_dir}: {name} is missing: its figures are left out")
        found.append(Finished(job, summary, run))
    return found, problems + unlike(found)


def encoder_summary(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A summary like a run's, with `sticky 0.25` and so on, from results.json of one seed."""
    jobs = [x for x in raw["results"] if x["variant"] == ENCODER_VARIANT]
    return {
        "commit": raw.get("commit"),
        "platform": raw.get("platform"),
        "seconds_total": sum(x["seconds"] for x in jobs if is_number(x.get("seconds"))),
        **{f"sticky {x['sticky']:g}": x for x in jobs},
    }


def unlike(runs: Sequence[Finished], but: Sequence[str] = ()) -> list[str]:
    """Says where runs have other settings than the first; the seed and `but` may differ."""
    problems, seen = [], []
    for folder, config in [(one.job.run_dir, one.run.config) for one in runs if one.run]:
        theirs = flat_dict(Config())  # a setting that another version lacked is at its default
        for name, value in config.items():
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            theirs |= {f"{name}.{leaf}".rstrip("."): x for leaf, x in inner}
        seen.append((folder, theirs))
        first, ours = seen[0]
        names = [x for x in {**theirs, **ours} if theirs.get(x) != ours.get(x)]
        names = [x for x in names if x not in ("seed", *but)]
        if names:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{folder}: settings unlike those of {first}: {listed}")
    return problems
