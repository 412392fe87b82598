"""What is asked of each world, as numbers: read from its runs, set against their bounds."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.results.encoders import encoder_value, entropy_ratio
from experiments.results.results import Estimate, Finished, best_constant, optimum, over_seeds
from experiments.results.worlds import STICKY, World

BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}

ALL = "all"
"""What is asked of a figure that is no number."""


@dataclass(frozen=True)
class Measure:
    """A number of each run, and what is asked of its mean over seeds."""

    name: str
    read: Callable[[Finished], float | None]
    bound: tuple[str, float] | None = None
    """A key of `BOUNDS` and the limit; None: shown, not asked."""


@dataclass(frozen=True)
class Figure:
    """A measure of a world's finished runs."""

    name: str
    estimate: Estimate | None
    asked: str
    reached: bool | None
    """By the mean; None: nothing is asked, or nothing is known."""
    seeds_reached: tuple[bool, ...] = ()
    """Of each seed; empty where none is asked by itself."""


def _score(one: Finished) -> float | None:
    evaluation = one.summary.get("evaluation") or {}
    return evaluation.get("mean")


def _over_optimum(one: Finished) -> float | None:
    best, score = optimum([one]), _score(one)
    return None if not best or score is None else score / best


def _random(one: Finished) -> float | None:
    return ((one.summary.get("baselines") or {}).get("random") or {}).get("mean")


def _over_random(one: Finished) -> float | None:
    random, score = _random(one), _score(one)
    return None if not random or random <= 0 or score is None else score / random


def _above_random(one: Finished) -> float | None:
    random, score = _random(one), _score(one)
    return None if random is None or score is None else score - random


def _above_constant(one: Finished) -> float | None:
    constant, score = best_constant([one]), _score(one)
    return None if constant is None or score is None else score - constant[1].mean


def _minutes(one: Finished) -> float | None:
    seconds = one.summary.get("seconds_total")
    return None if seconds is None else seconds / 60


def _games(one: Finished) -> float | None:
    return (one.summary.get("evaluation") or {}).get("games")


def _grid(name: str) -> Callable[[Finished], float | None]:
    return lambda one: one.extra.get(name)


def encoder_gradient(one: Finished) -> float | None:
    """Norm of the encoder's gradient at the first check of the model."""
    norms = one.run.curve("check/encoder_gradient")[1] if one.run else []
    return norms[0] if norms else None


def _saved(sticky: float) -> Callable[[Finished], float | None]:
    """1 - error with the real code / error with another's, where outcomes differ."""
    return encoder_value(sticky, "code_gain")


def _sticky_minutes(one: Finished) -> float | None:
    seconds = encoder_value(STICKY[0], "seconds")(one)
    return None if seconds is None else seconds / 60


_MODEL = (
    Measure("normalised transition entropy", _grid("transition_entropy")),
    Measure("agreement of prior and encoder", _grid("agreement")),
    Measure("code perplexity", _grid("code_perplexity")),
)
_OVER_RANDOM = Measure("score / random", _over_random, ("at least", 3.0))
_CURVE = (Measure("above random", _above_random), Measure("above best constant", _above_constant))

MEASURES: dict[str, tuple[Measure, ...]] = {
    "grid-slippery": (
        Measure("return / optimum", _over_optimum, ("at least", 0.95)),
        Measure("ROC area", _grid("roc_area"), ("at least", 0.99)),
        Measure("the same, pairs never visited too", _grid("roc_area_reachable")),
        Measure("entropy error, nats", _grid("entropy_error"), ("at most", 0.1)),
        *_MODEL,
    ),
    "grid-deterministic": (
        Measure("return / optimum", _over_optimum, ("at least", 0.98)),
        Measure(_MODEL[0].name, _MODEL[0].read, ("below", 0.02)),
        Measure(_MODEL[1].name, _MODEL[1].read, ("at least", 0.99)),
        Measure("first encoder gradient", encoder_gradient, ("above", 0.0)),
        _MODEL[2],
    ),
    "grid-twin": (Measure("return / optimum", _over_optimum),),
    "cartpole": (
        Measure("return", _score, ("at least", 475.0)),
        Measure("episodes", _games, ("at least", 100)),
        Measure("minutes", _minutes, ("at most", 10.0)),
    ),
    "cartpole-twin": (Measure("minutes", _minutes),),
    "2048": (_OVER_RANDOM, Measure("minutes", _minutes)),
    "2048-twin": (Measure("score / random", _over_random), Measure("minutes", _minutes)),
    "breakout": (_OVER_RANDOM, *_CURVE),
    "pong": _CURVE,
    "space-invaders": _CURVE,
    "encoders": (
        Measure("ROC area, sticky 0.25", encoder_value(0.25, "roc"), ("at least", 0.9)),
        Measure("away from walls", encoder_value(0.25, "roc_open")),
        Measure("ROC area by the change of action alone", encoder_value(0.25, "roc_actions")),
        Measure("code perplexity", encoder_value(0.25, "code_perplexity"), ("above", 1.5)),
        Measure("minutes of training", _sticky_minutes, ("at most", 60.0)),
        Measure("entropy at sticky 0 / at 0.25", entropy_ratio, ("at most", 1 / 3)),
        Measure("share of error saved by the code, sticky 0", _saved(0.0), ("above", 0.0)),
        Measure("the same, sticky 0.25", _saved(0.25)),
    ),
}


def judge(measures: Sequence[Measure], runs: Sequence[Finished]) -> list[Figure]:
    """Each measure over the seeds; its mean is what has to keep to the bound."""
    figures = []
    for measure in measures:
        estimate = over_seeds([measure.read(one) for one in runs])
        asked, reached, each = "", None, ()
        if measure.bound is not None:
            kind, limit = measure.bound
            asked = f"{kind} {limit:.3g}"
            if estimate is not None:
                reached = BOUNDS[kind](estimate.mean, limit)
                each = tuple(BOUNDS[kind](value, limit) for value in estimate.values)
        figures.append(Figure(measure.name, estimate, asked, reached, each))
    return figures


def figures_of(world: World, runs: Sequence[Finished]) -> list[Figure]:
    """All figures of a world."""
    figures = judge(MEASURES[world.name], runs)
    if world.is_run:
        return figures
    name = "entropy"
    ends = [over_seeds([encoder_value(x, name)(one) for one in runs]) for x in STICKY]
    if len(runs) == 1:  # of one seed, the interval over the held-out games
        jobs = [runs[0].summary["jobs"].get(x, {}) for x in STICKY]
        ends = [Estimate(x[name], x.get(f"{name}_low"), x.get(f"{name}_high")) for x in jobs]
    random, plain = ends
    apart = None
    if random and plain and random.low is not None and plain.high is not None:
        apart = plain.high < random.low
    return [*figures, Figure("intervals of the two entropies apart", None, ALL, apart)]


def verdict(figures: Sequence[Figure]) -> bool | None:
    """Whether all that is asked is reached; None where nothing is, or something is not known."""
    asked = [figure.reached for figure in figures if figure.asked]
    if not asked or (None in asked and False not in asked):
        return None
    return all(asked)
