"""Scores of runs over seeds and tasks as few numbers with intervals (Agarwal et al. 2021).

"Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264. A task is
an experiment; scores of several tasks are normalised first. Intervals are 95 %, by the percentile
bootstrap stratified by task: runs are drawn with replacement within each.

`Scores` are arrays of the runs' scores, one for each task, `[n_m]` float64, none of them empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from smz_jax.storage.estimate import (
    Estimate,
    mean_estimate,
    percentile_interval,
    stratified_draws,
)

Scores = Sequence[np.ndarray]


class Profile(NamedTuple):
    """Share of runs whose score is above each threshold, `[T]` each."""

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _resampled(scores: Scores, seed: int) -> list[np.ndarray]:
    """Draws of each task's scores, `[R, n_m]`."""
    draws = stratified_draws([len(x) for x in scores], seed=seed)
    return [x[drawn] for x, drawn in zip(scores, draws, strict=True)]


def interquartile_mean(scores: Scores) -> Estimate:
    """Mean of the middle half of all runs of all tasks; of fewer than 4 runs their mean.

    Without an interval where no task has two runs.
    """

    def middle(parts: Sequence[np.ndarray]) -> Any:
        return stats.trim_mean(np.concatenate(parts, axis=-1), 0.25, axis=-1)

    return _estimate(middle(scores), middle, [scores])


def probability_of_improvement(ours: Scores, theirs: Scores) -> Estimate:
    """How likely a run of ours scores higher than one of theirs, ties as half; mean over tasks.

    P(X > Y) = mean over tasks m of U_m / (n_m k_m), U of Mann and Whitney.
    """

    def likely(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Any:
        tasks = []
        for a, b in zip(x, y, strict=True):
            above = np.sign(a[..., :, None] - b[..., None, :])
            tasks.append((above.mean(axis=(-2, -1)) + 1) / 2)
        return np.mean(tasks, axis=0)

    return _estimate(likely(ours, theirs), likely, [ours, theirs])


def performance_profile(scores: Scores, thresholds: np.ndarray) -> Profile:
    """Share of runs with a score above each of `[T]` thresholds, mean over tasks."""

    def above(parts: Sequence[np.ndarray]) -> Any:
        return np.mean([(x[..., None] > thresholds).mean(axis=-2) for x in parts], axis=0)

    low, high = percentile_interval(above(_resampled(scores, 0)))
    return Profile(above(scores), low, high)


def _estimate(value: Any, statistic: Any, samples: Sequence[Scores]) -> Estimate:
    """A statistic of samples, each resampled by itself, with its interval."""
    count = sum(len(x) for x in samples[0])
    if not any(len(x) > 1 for scores in samples for x in scores):
        return Estimate(float(value), count=count)
    drawn = statistic(*(_resampled(scores, seed) for seed, scores in enumerate(samples)))
    low, high = percentile_interval(drawn)
    return Estimate(float(value), float(low), float(high), count)


def paired_difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Estimate | None:
    """Mean of our score less theirs over the keys of both, by Student's t; None without any.

    A key is a task and a seed: runs of one seed share what is drawn from it, so that the
    difference of a pair varies less than that of two runs.
    """
    return mean_estimate([ours[key] - theirs[key] for key in ours if key in theirs])
