"""What finished runs say: each by itself, and over seeds with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.results.plan import is_finished, read_json, seed_folders
from experiments.results.worlds import ENCODER_VARIANT, STICKY, World
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.report.data import Curve, RunData, load_run
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import Estimate, mean_estimate, read_estimate
from smz_jax.storage.metrics import read_metrics


class Seeds(NamedTuple):
    """A number of several seeds."""

    estimate: Estimate
    """Their mean; of a single seed with the interval of its own games, where that is known."""
    values: tuple[float, ...]

    @property
    def is_single(self) -> bool:
        """Whether there is one seed."""
        return len(self.values) == 1

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        mean, low, high, _ = self.estimate
        over = "games" if self.is_single and low is not None else "seeds"
        return {"mean": mean, "low": low, "high": high, "over": over, "values": self.values}


@dataclass(frozen=True)
class Finished:
    """One finished run."""

    world: World
    seed: int
    path: Path
    summary: dict[str, Any]
    extra: dict[str, Any]
    """grid.json, where the world has one."""
    record: dict[str, Any]
    """What the runner noted; empty for a run that it did not start."""
    run: RunData | None
    """Rows and settings; None for a world whose results are not those of a run."""

    def part(self, name: str) -> dict[str, Any]:
        """A part of what is known by name, possibly empty: grid, evaluation, `sticky 0.25`, ..."""
        return (self.extra if name == "grid" else self.summary.get(name)) or {}

    @property
    def baselines(self) -> dict[str, Any]:
        """Evaluations of other policies: `random`, and `constant` by action."""
        return self.part("baselines")

    @property
    def optimum(self) -> float | None:
        """The best possible score of a world with known rules, or the highest that there is."""
        value: Any = (self.part("grid").get("returns") or {}).get("optimum")
        return float(value) if is_number(value) else self.world.highest

    @property
    def minutes(self) -> float | None:
        """Minutes of the run, all included."""
        seconds = self.summary.get("seconds_total")
        return seconds / 60 if seconds else None

    @property
    def preset(self) -> str | None:
        """The preset of the run."""
        return self.summary.get("preset") or self.record.get("preset")

    @property
    def hardware(self) -> str | None:
        """`1 core of an AMD EPYC`, by what the runner noted; else the platform of the summary."""
        cores, processor = self.record.get("cores"), self.record.get("processor")
        if cores and processor:
            return f"{cores} core{'s' if cores > 1 else ''} of {processor}"
        return self.summary.get("platform")

    @property
    def commit(self) -> str | None:
        """The commit, short, `-dirty` kept."""
        known = self.summary.get("commit")
        return known and known[:7] + ("-dirty" if known.endswith("-dirty") else "")

    def curve(self) -> Curve:
        """Evaluations over environment steps, the final one last; of encoders ROC over updates."""
        if self.run is None:
            return roc_curve(self.path)
        steps, scores = (list(x) for x in self.run.curve("eval/mean"))
        final = self.run.evaluation()
        if final is not None and (not scores or scores[-1] != final.mean):
            steps.append(self.summary.get("env_steps") or (steps or [0])[-1])
            scores.append(final.mean)
        return steps, scores


def encoder_summary(raw: dict[str, Any]) -> dict[str, Any]:
    """A summary like a run's: `commit`, `platform`, `seconds_total`, and `sticky 0.25` and so on.

    Args:
        raw: results.json of one seed: `results` holds a mapping for each variant and stickiness.
    """
    jobs = [x for x in raw["results"] if x["variant"] == ENCODER_VARIANT]
    seconds = [x.get("seconds") for x in jobs]
    return {
        "commit": raw.get("commit"),
        "platform": raw.get("platform"),
        "seconds_total": sum(x for x in seconds if is_number(x)),
        **{f"sticky {x['sticky']:g}": x for x in jobs},
    }


def roc_curve(path: Path) -> Curve:
    """ROC area over updates, with sticky actions, of one run of the encoders."""
    pattern = f"jobs/{ENCODER_VARIANT}-sticky{STICKY[0]:g}-*/rows.jsonl"
    rows = [row for name in sorted(path.glob(pattern)) for row in read_metrics(name)]
    known = [(row["updates"], row["roc"]) for row in rows if is_number(row.get("roc"))]
    return [updates for updates, _ in known], [area for _, area in known]


def over_seeds(values: Sequence[float | None]) -> Seeds | None:
    """Mean and 95 % interval by Student's t over seeds.

    Args:
        values: one for each seed; what is missing is left out.

    Returns:
        No interval for one value; None for none.
    """
    known = tuple(float(x) for x in values if x is not None and is_number(x))
    estimate = mean_estimate(known)
    return estimate and Seeds(estimate, known)


def over_evaluations(evaluations: Sequence[Mapping[str, Any] | None]) -> Seeds | None:
    """Mean score over seeds; of one seed, the interval of its own games."""
    scores = [score for x in evaluations if (score := read_estimate(x)) is not None]
    if len(scores) == 1:
        return Seeds(scores[0], (scores[0].mean,))
    return over_seeds([score.mean for score in scores])


def best_constant(runs: Sequence[Finished]) -> tuple[str, Seeds] | None:
    """The constant action whose mean over seeds is highest."""
    tables = [one.baselines.get("constant") or {} for one in runs]
    names = {name for table in tables for name in table}
    scores = {name: over_evaluations([table.get(name) for table in tables]) for name in names}
    known = [(name, score) for name, score in sorted(scores.items()) if score]
    return max(known, key=lambda item: item[1].estimate.mean, default=None)


def distinct(runs: Sequence[Finished], read: Callable[[Finished], str | None]) -> list[str]:
    """What the runs say, each thing once, in order."""
    return list(dict.fromkeys(text for one in runs if (text := read(one))))


def finished_runs(out: Path, world: World) -> tuple[list[Finished], list[str]]:
    """The finished runs of a world in order of their seeds, and what was wrong with others."""
    found, problems = [], []
    for seed, path in seed_folders(out, world):
        if not is_finished(path, world):
            continue
        try:
            run = load_run(path) if world.is_run else None
            summary = run.summary if run else encoder_summary(read_json(path / world.result_file))
        except ConfigError as error:
            problems.append(str(error))
            continue
        extra = read_json(path / world.extra[0]) if world.extra else {}
        if world.extra and not extra:
            problems.append(f"{path}: {world.extra[0]} is missing: its figures are left out")
        record = read_json(path.with_name(f"{path.name}.json"))
        found.append(Finished(world, seed, path, summary, extra, record, run))
    return found, problems + unlike(found)


def unlike(runs: Sequence[Finished], but: Sequence[str] = ("seed",)) -> list[str]:
    """Says where runs that are compared do not share their settings.

    Args:
        runs: each is compared with the first.
        but: settings that may differ.
    """
    configs = [(one.path, _flat(one.run.config)) for one in runs if one.run is not None]
    problems = []
    for path, theirs in configs[1:]:
        first, ours = configs[0]
        names = [x for x in {**theirs, **ours} if theirs.get(x) != ours.get(x) and x not in but]
        if names:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{path}: settings unlike those of {first}: {listed}")
    return problems


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, also of another version: one that it lacked is at its default."""
    flat = flat_dict(Config())
    for name, value in config.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{name}.{leaf}".rstrip("."): x for leaf, x in inner}
    return flat
