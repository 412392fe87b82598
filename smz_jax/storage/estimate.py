"""Means and shares with 95 % intervals: Student's t, Wilson's score interval, the bootstrap.

Values that share a cause (trials of one start state, steps of one game) are no independent draws:
their intervals are taken between clusters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
"""Share of a distribution beyond either end of a two-sided interval."""
TWO_SIDED = 1.959963984540054
"""Quantile of the normal distribution for two-sided bounds, `scipy.stats.norm.ppf(0.975)`."""


class Estimate(NamedTuple):
    """A mean or a share with its 95 % interval; no bounds where they are not known."""

    mean: float
    low: float | None = None
    high: float | None = None
    count: int = 0
    """Number of values that were averaged; 0 where it is not known."""

    @property
    def floor(self) -> float:
        """Lower end of the interval, or the mean."""
        return self.mean if self.low is None else self.low

    @property
    def ceiling(self) -> float:
        """Upper end of the interval, or the mean."""
        return self.mean if self.high is None else self.high

    def text(self, number: Callable[[float], str], unit: str = "") -> str:
        """`8.30 (7.10 to 9.60)`, the unit after the mean; without bounds the mean alone."""
        mean = f"{number(self.mean)}{unit}"
        if self.low is None or self.high is None:
            return mean
        return f"{mean} ({number(self.low)} to {number(self.high)})"


def read_estimate(values: Any, name: str = "mean") -> Estimate | None:
    """The estimate that a document keeps as `name`, `name_low`, `name_high`, of `games`.

    Of anything: bounds that are no finite numbers are left out; None without a finite mean.
    """
    if not isinstance(values, Mapping):
        return None
    mean, low, high = (_finite(values.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    games = _finite(values.get("games")) or 0
    return None if mean is None else Estimate(mean, low, high, int(games))


def _finite(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and math.isfinite(value) else None


def mean_estimate(
    values: Sequence[float], clusters: Sequence[Any] | None = None
) -> Estimate | None:
    """A mean with the interval of Student's t over independent values, or over clusters.

    Args:
        values: mean -+ t(0.975, n - 1) s / sqrt(n), s with n - 1 in the denominator.
        clusters: a label for each value; None: each value is its own. The variance is then that
            of `cluster_variance`, with one less than the number of clusters as degrees of freedom.

    Returns:
        No bounds for a single value or cluster; None without a value.
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return None
    centre = float(array.mean())
    groups = len(array) if clusters is None else len(np.unique(np.asarray(clusters)))
    if groups == 1:
        return Estimate(centre, count=len(array))
    from scipy import stats  # most of a second, which a table of macros need not wait for

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, groups - 1))
    if clusters is None:
        half = quantile * float(np.std(array, ddof=1)) / math.sqrt(len(array))
    else:
        half = quantile * math.sqrt(cluster_variance(array, clusters))
    return Estimate(centre, centre - half, centre + half, len(array))


def share_estimate(held: Sequence[bool], clusters: Sequence[Any]) -> Estimate | None:
    """A share with Wilson's interval at the effective number of trials.

    That number is p (1 - p) / variance between clusters (Korn and Graubard 1998), at most the
    number of trials; the number of clusters where all trials agree, or there is one cluster.

    Args:
        held: of each trial.
        clusters: the start state of each trial; any labels.

    Returns:
        None without a trial.
    """
    values = np.asarray(held, np.float64)
    if not len(values):
        return None
    groups = len(np.unique(np.asarray(clusters)))
    p, effective = float(values.mean()), float(groups)
    if 0 < p < 1 and groups > 1:
        variance = cluster_variance(values, clusters)
        effective = min(p * (1 - p) / max(variance, 1e-12), float(len(values)))
    low, high = wilson(p, effective)
    return Estimate(p, float(low), float(high), len(values))


def cluster_variance(values: np.ndarray, clusters: Sequence[Any]) -> float:
    """Of the mean, between clusters: C / (C - 1) sum_c (y_c - m n_c)^2 / n^2 (Cochran 1977, 6.8).

    The ratio estimator's; needs at least two clusters.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    residuals = sums - values.mean() * counts
    share = len(counts) / (len(counts) - 1)
    return float(share * np.sum(residuals**2) / len(values) ** 2)


def wilson(share: Any, count: Any, quantile: float = TWO_SIDED, xp: Any = np) -> tuple[Any, Any]:
    """Bounds of a share by the score interval of Wilson (1927), within 0 and 1.

    Args:
        share: between 0 and 1, any shape.
        count: trials behind it, above 0; need not be whole.
        quantile: of the normal distribution; a one-sided bound takes a lower one.
        xp: the module of the arrays, numpy or jax.numpy.
    """
    square = quantile * quantile
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = quantile * xp.sqrt(
        xp.maximum(share * (1 - share), 0) / count + square / (4 * count**2)
    )
    spread /= 1 + square / count
    return xp.clip(centre - spread, 0.0, 1.0), xp.clip(centre + spread, 0.0, 1.0)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, *, resamples: int = 2000, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic over draws with replacement.

    Args:
        statistic: of the indices drawn, `[R, count]` int64 below `count`; gives `[R, ...]`.
        count: number of independent values, or of clusters.
        resamples: R.
        seed: of the draws.
    """
    draws = stratified_draws([count], resamples=resamples, seed=seed)
    return percentile_interval(statistic(draws[0]))


def stratified_draws(
    counts: Sequence[int], *, resamples: int = 2000, seed: int
) -> list[np.ndarray]:
    """Indices drawn with replacement within each stratum, `[R, count]` each.

    Runs are resampled within their task, as in Agarwal et al. 2021 (arXiv:2108.13264), 4.1.
    """
    rng = np.random.default_rng(seed)
    return [rng.integers(0, count, (resamples, count)) for count in counts]


def percentile_interval(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the middle 95 % of `[R, ...]` along R; NaN is left out."""
    from scipy import stats

    array = np.moveaxis(np.asarray(values, np.float64), 0, -1)
    levels = np.broadcast_to([TAIL, 1 - TAIL], (*array.shape[:-1], 2))
    ends = stats.quantile(array, levels, axis=-1, nan_policy="omit")
    return ends[..., 0], ends[..., 1]
