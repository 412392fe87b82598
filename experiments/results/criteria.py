"""What is required of each world, as numbers: read from its runs, compared with their bounds."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.results.finished import Finished, Seeds, best_constant, over_seeds
from experiments.results.worlds import STICKY, World
from smz_jax.storage.estimate import Estimate, read_estimate

BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}

ALL = "all"
"""What is required of a figure that is no number."""


@dataclass(frozen=True)
class Figure:
    """A measure of a world's finished runs."""

    name: str
    estimate: Seeds | None
    required: str
    reached: bool | None
    """By the mean; None: nothing is required, or nothing is known."""
    seeds_reached: tuple[bool, ...] = ()
    """Of each seed; empty where none is judged by itself."""


def _score(one: Finished) -> float | None:
    return one.part("evaluation").get("mean")


def _random(one: Finished) -> float | None:
    return (one.baselines.get("random") or {}).get("mean")


def _constant(one: Finished) -> float | None:
    constant = best_constant([one])
    return None if constant is None else constant[1].estimate.mean


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _score_over_random(one: Finished) -> float | None:
    return _ratio(_score(one), max(_random(one) or 0, 0))


def _encoder_gradient(one: Finished) -> float | None:
    """Norm of the encoder's gradient at the first check of the model."""
    norms = one.run.curve("check/encoder_gradient")[1] if one.run else []
    return norms[0] if norms else None


def _entropy_ratio(one: Finished) -> float | None:
    """Mean normalised entropy without sticky actions over that with them."""
    random, plain = (one.part(f"sticky {sticky:g}").get("entropy") for sticky in STICKY)
    return _ratio(plain, random)


def _sticky_minutes(one: Finished) -> float | None:
    seconds = one.part(f"sticky {STICKY[0]:g}").get("seconds")
    return None if seconds is None else seconds / 60


VALUES: dict[str, Callable[[Finished], float | None]] = {
    "return": _score,
    "return / optimum": lambda one: _ratio(_score(one), one.optimum),
    "score / random": _score_over_random,
    "above random": lambda one: _difference(_score(one), _random(one)),
    "above best constant": lambda one: _difference(_score(one), _constant(one)),
    "minutes": lambda one: one.minutes,
    "first encoder gradient": _encoder_gradient,
    "sticky 0.25/minutes": _sticky_minutes,
    "sticky 0 over 0.25/entropy": _entropy_ratio,
}
"""Values of a run that are worked out; others are read, e.g. `grid/roc_area` from grid.json."""


def read_value(one: Finished, name: str) -> float | None:
    """A value of a run: one of `VALUES`, or `part/key` (see `Finished.part`); None if unknown."""
    if name in VALUES:
        return VALUES[name](one)
    part, _, key = name.rpartition("/")
    return one.part(part).get(key)


def judge(measures: Sequence[Sequence[str]], runs: Sequence[Finished]) -> list[Figure]:
    """Each measure over the seeds; its mean is what has to keep to the bound.

    Args:
        measures: name, value (see `read_value`), and a bound such as `at least 0.95` or none.
        runs: of one world.
    """
    figures = []
    for name, value, *bounds in measures:
        seeds = over_seeds([read_value(one, value) for one in runs])
        required, reached, each = "", None, ()
        for bound in bounds:
            kind, _, text = bound.rpartition(" ")
            keeps, limit = BOUNDS[kind], float(text)
            required = f"{kind} {limit:.3g}"
            if seeds is not None:
                reached = keeps(seeds.estimate.mean, limit)
                each = tuple(keeps(value, limit) for value in seeds.values)
        figures.append(Figure(name, seeds, required, reached, each))
    return figures


def figures_of(world: World, runs: Sequence[Finished]) -> list[Figure]:
    """All figures of a world."""
    figures = judge(world.measures, runs)
    return figures if world.is_run else [*figures, _entropies_apart(runs)]


def _entropies_apart(runs: Sequence[Finished]) -> Figure:
    """Whether the encoders' entropy without sticky actions lies below that with them."""
    jobs = [[one.part(f"sticky {sticky:g}") for one in runs] for sticky in STICKY]
    if len(runs) == 1:  # of one seed, the interval over the held-out games
        random, plain = (read_estimate(job, "entropy") for (job,) in jobs)
    else:
        seeds = [over_seeds([job.get("entropy") for job in each]) for each in jobs]
        random, plain = (x and x.estimate for x in seeds)
    return Figure("intervals of the two entropies apart", None, ALL, is_above(random, plain))


def is_above(one: Estimate | None, other: Estimate | None) -> bool | None:
    """Whether the first interval lies above the other, wholly; None where one is not known."""
    if one is None or other is None or one.low is None or other.high is None:
        return None
    return one.low > other.high


def verdict(figures: Sequence[Figure]) -> bool | None:
    """Whether all that is required is reached; None where nothing is, or it is not known."""
    return all_reached([figure.reached for figure in figures if figure.required])


def all_reached(verdicts: Sequence[bool | None]) -> bool | None:
    """Whether all are true; None where there is none, or none is false and one is not known."""
    if not verdicts or (None in verdicts and False not in verdicts):
        return None
    return all(verdicts)
