"""What finished runs say: their numbers over seeds, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from experiments.results.encoders import encoder_summary
from experiments.results.plan import is_finished, read_json
from experiments.results.worlds import World
from smz_jax.config.settings import Config, ConfigError
from smz_jax.config.sources import flat_dict
from smz_jax.report.data import RunData, as_score, load_run
from smz_jax.storage.documents.checks import is_number

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float | None = None
    high: float | None = None
    over: Literal["seeds", "games"] = "seeds"
    values: tuple[float, ...] = ()  # one for each seed


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


def over_seeds(values: Sequence[float | None]) -> Estimate | None:
    """Mean and 95 % interval by Student's t over seeds: mean -+ t(0.975, n - 1) s / sqrt(n).

    Args:
        values: one for each seed; what is missing is left out.

    Returns:
        No interval for one value; None for none.
    """
    known = [float(x) for x in values if x is not None and is_number(x)]
    if not known:
        return None
    mean = float(np.mean(known))
    if len(known) == 1:
        return Estimate(mean, values=tuple(known))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(known) - 1))
    half = quantile * float(np.std(known, ddof=1)) / float(np.sqrt(len(known)))
    return Estimate(mean, mean - half, mean + half, "seeds", tuple(known))


def over_evaluations(evaluations: Sequence[Mapping[str, Any] | None]) -> Estimate | None:
    """Mean score over seeds; of one seed, the interval of its own games.

    Args:
        evaluations: of each seed, as `summarise_games` gives them.
    """
    scores = [score for x in evaluations if (score := as_score(x)) is not None]
    if len(scores) == 1:
        (only,) = scores
        return Estimate(only.mean, only.low, only.high, "games", (only.mean,))
    return over_seeds([score.mean for score in scores])


def finished_runs(out: Path, world: World) -> tuple[list[Finished], list[str]]:
    """The finished runs of a world in order of their seeds, and what was wrong with others."""
    found, problems = [], []
    for path in (out / world.name).glob("seed*"):
        number = path.name.removeprefix("seed")
        if not path.is_dir() or not number.isdecimal() or not is_finished(path, world):
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
        found.append(Finished(world, int(number), path, summary, extra, record, run))
    found.sort(key=lambda one: one.seed)
    return found, problems + unlike(found)


def unlike(runs: Sequence[Finished], but: Sequence[str] = ("seed",)) -> list[str]:
    """Says where runs that are compared do not share their settings.

    Args:
        runs: the first is what the others are held against.
        but: settings that may differ.
    """
    problems, first = [], runs[0] if runs else None
    for one in runs[1:]:
        if one.run is None or first is None or first.run is None:
            continue
        ours, theirs = _flat(one.run.config), _flat(first.run.config)
        names = [
            name
            for name in {**ours, **theirs}
            if ours.get(name) != theirs.get(name) and name not in but
        ]
        if names:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{one.path}: settings unlike those of {first.path}: {listed}")
    return problems


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, also of another version: one that it lacked is at its default."""
    flat = flat_dict(Config())
    for name, value in config.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{name}.{leaf}".rstrip("."): x for leaf, x in inner}
    return flat


def score(runs: Sequence[Finished]) -> Estimate | None:
    """The final evaluations."""
    return over_evaluations([one.summary.get("evaluation") for one in runs])


def random_score(runs: Sequence[Finished]) -> Estimate | None:
    """The random policy, by the same evaluator."""
    return over_evaluations([_baselines(one).get("random") for one in runs])


def best_constant(runs: Sequence[Finished]) -> tuple[str, Estimate] | None:
    """The constant action whose mean over seeds is highest."""
    tables = [_baselines(one).get("constant") or {} for one in runs]
    names = {name for table in tables for name in table}
    estimates = {name: over_evaluations([table.get(name) for table in tables]) for name in names}
    known = [(name, estimate) for name, estimate in sorted(estimates.items()) if estimate]
    return max(known, key=lambda item: item[1].mean, default=None)


def _baselines(one: Finished) -> dict[str, Any]:
    return one.summary.get("baselines") or {}


def optimum(runs: Sequence[Finished]) -> float | None:
    """The best possible score of a world with known rules, or the highest that there is."""
    for one in runs:
        returns = one.extra.get("returns")
        if isinstance(returns, dict) and is_number(returns.get("optimum")):
            return float(returns["optimum"])
    return runs[0].world.highest if runs else None


def minutes(runs: Sequence[Finished]) -> Estimate | None:
    """Minutes of a run, all included."""
    seconds = [one.summary.get("seconds_total") for one in runs]
    return over_seeds([x / 60 if x else None for x in seconds])


def distinct(runs: Sequence[Finished], read: Callable[[Finished], str | None]) -> list[str]:
    """What the runs say, each thing once, in order."""
    return list(dict.fromkeys(text for one in runs if (text := read(one))))


def hardware(one: Finished) -> str | None:
    """`1 core of an AMD EPYC`, by what the runner noted; else the platform of the summary."""
    cores, processor = one.record.get("cores"), one.record.get("processor")
    if cores and processor:
        return f"{cores} core{'s' if cores > 1 else ''} of {processor}"
    return one.summary.get("platform")


def preset(one: Finished) -> str | None:
    """The preset of a run."""
    return one.summary.get("preset") or one.record.get("preset")


def commit(one: Finished) -> str | None:
    """The commit, short, `-dirty` kept."""
    known = one.summary.get("commit")
    if not known:
        return None
    return known[:7] + ("-dirty" if known.endswith("-dirty") else "")
