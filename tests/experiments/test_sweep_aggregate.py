"""The statistics of sweeps, against values published with rliable, SciPy and hand computation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.sweep.aggregate import (
    interquartile_mean,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)

# Two tasks, 4 and 3 runs: the matrices of rliable's own tests (github.com/google-research/rliable,
# tests/rliable/metrics_test.py), by whose values IQM is 1.5 and 2, P(X > Y) 1/3.
X = [np.array([1.0, 2, 1, 2]), np.array([2.0, 2, 1, 1])]
Y = [np.array([1.0, 2, 3]), np.array([1.0, 2, 3])]


def test_values_published_with_rliable():
    assert interquartile_mean(X).mean == 1.5
    assert interquartile_mean(Y).mean == 2
    assert probability_of_improvement(X, Y).mean == pytest.approx(1 / 3)


def test_against_scipy():
    rng = np.random.default_rng(5)
    ours, theirs = ([rng.normal(size=n).round(1) for n in (7, 5)] for _ in range(2))
    iqm = interquartile_mean(ours)
    assert iqm.mean == pytest.approx(stats.trim_mean(np.concatenate(ours), 0.25))
    expected = [
        stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert probability_of_improvement(ours, theirs).mean == pytest.approx(np.mean(expected))
    # Of one task the interval is SciPy's percentile bootstrap, up to the draws.
    (scores,) = one = [rng.normal(size=12)]
    found = interquartile_mean(one)
    twin = stats.bootstrap(
        (scores,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile",
        n_resamples=9999, rng=0,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((twin.low, twin.high), abs=0.06)


def test_strata_are_resampled_apart():
    """Task 1 has two runs, 0 and 4, task 2 one: of the 4 draws the mean is 7/3, 11/3 or 5."""
    found = interquartile_mean([np.array([0.0, 4.0]), np.array([7.0])])
    assert found.mean == pytest.approx(11 / 3)
    assert (found.low, found.high) == (pytest.approx(7 / 3), pytest.approx(5))
    exact = [np.mean([a, b, 7.0]) for a, b in itertools.product((0.0, 4.0), repeat=2)]
    assert (min(exact), max(exact)) == (found.low, pytest.approx(found.high))
    alone = interquartile_mean([np.array([3.0])])
    assert (alone.mean, alone.low, alone.count) == (3, None, 1)
    even = probability_of_improvement([np.array([1.0])], [np.array([1.0])])
    assert (even.mean, even.low) == (0.5, None)


def test_profile_by_hand():
    """Above 1: 2 of 4 and 2 of 4 runs; of tasks with 4 and 1 runs each counts the same."""
    found = performance_profile(X, np.array([0.0, 1.0, 2.0]))
    assert found.share.tolist() == [1, 0.5, 0]
    assert found.low[0] == found.high[0] == 1 and found.low[1] < 0.5 < found.high[1]
    uneven = performance_profile([np.array([0.0, 0, 0, 2]), np.array([2.0])], np.array([1.0]))
    assert uneven.share.tolist() == [(0.25 + 1) / 2]


def test_differences_are_paired_by_seed():
    """5 - 1, 8 - 6: 3 on the average, sd sqrt(2), half = 12.7062 (tables) * 1."""
    found = paired_difference({0: 5.0, 1: 8.0, 2: 9.0}, {1: 6.0, 0: 1.0, 7: 4.0})
    assert found is not None and found.mean == 3 and found.count == 2
    assert (found.low, found.high) == pytest.approx((3 - 12.7062, 3 + 12.7062), abs=1e-4)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
