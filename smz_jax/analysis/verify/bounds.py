"""Shares and means with 95 % intervals, over trials that share a state and so are no free draws."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A share or a mean; without a trial there is none."""

    mean: float | None
    low: float | None
    high: float | None
    trials: int


NOTHING = Estimate(None, None, None, 0)


def _cluster_totals(values: np.ndarray, clusters: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each cluster."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, values), np.bincount(index)


def _variance(values: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> float:
    """Of the mean, between clusters: C / (C - 1) sum_c (y_c - m n_c)^2 / n^2 (Cochran 1977, 6.8).

    The ratio estimator's; needs at least two clusters.
    """
    residuals = sums - values.mean() * counts
    share = len(counts) / (len(counts) - 1)
    return float(share * np.sum(residuals**2) / len(values) ** 2)


def share(held: Sequence[bool], clusters: Sequence[Any]) -> Estimate:
    """A share with Wilson's 95 % interval at the effective number of trials.

    That number is p (1 - p) / variance between clusters (Korn and Graubard 1998), at most the
    number of trials; the number of clusters where all trials agree, or there is one cluster.

    Args:
        held: of each trial.
        clusters: the state of each trial; any labels.
    """
    values = np.asarray(held, np.float64)
    if not len(values):
        return NOTHING
    sums, counts = _cluster_totals(values, clusters)
    p, effective = float(values.mean()), float(len(counts))
    if 0 < p < 1 and len(counts) > 1:
        variance = _variance(values, sums, counts)
        effective = min(p * (1 - p) / max(variance, 1e-12), float(len(values)))
    low, high = wilson(p, effective)
    return Estimate(p, low, high, len(values))


def wilson(p: float, count: float) -> tuple[float, float]:
    """Two-sided 95 % bounds of a share (Wilson 1927's score interval)."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = z * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(float(centre - spread), 0.0), min(float(centre + spread), 1.0)


def mean(values: Sequence[float], clusters: Sequence[Any]) -> Estimate:
    """A mean with the 95 % interval of Student's t over clusters; none for a single cluster.

    Args:
        values: of each trial.
        clusters: the state of each trial; any labels.
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return NOTHING
    sums, counts = _cluster_totals(array, clusters)
    centre = float(array.mean())
    if len(counts) == 1:
        return Estimate(centre, None, None, len(array))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(counts) - 1))
    half = quantile * float(np.sqrt(_variance(array, sums, counts)))
    return Estimate(centre, centre - half, centre + half, len(array))
