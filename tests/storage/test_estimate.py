"""Intervals against scipy's, and what they do at their edges."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from smz_jax.storage.estimate import (
    TWO_SIDED,
    Estimate,
    bootstrap,
    mean_estimate,
    percentile_interval,
    read_estimate,
    share_estimate,
    wilson,
)

SCORES = np.random.default_rng(0).normal(3, 2, 25)


def test_a_mean_has_the_interval_of_student():
    found = mean_estimate(SCORES.tolist())
    expected = stats.t.interval(0.95, 24, SCORES.mean(), stats.sem(SCORES))
    assert found is not None and found[1:3] == pytest.approx(expected)
    assert (found.mean, found.count) == (pytest.approx(SCORES.mean()), 25)
    # Each value a cluster of its own: the same interval.
    assert mean_estimate(SCORES.tolist(), range(25)) == pytest.approx(found)


def test_a_single_value_has_no_interval_and_none_no_mean():
    assert mean_estimate([2.0]) == Estimate(2.0, None, None, 1)
    assert mean_estimate([1.0, 3.0], ["a", "a"]) == Estimate(2.0, None, None, 2)
    assert mean_estimate([]) is None and share_estimate([], []) is None
    assert (Estimate(2.0).floor, Estimate(2.0).ceiling) == (2.0, 2.0)
    assert (Estimate(2.0, 1.0, 4.0).floor, Estimate(2.0, 1.0, 4.0).ceiling) == (1.0, 4.0)


def test_the_quantile_is_scipys_to_the_last_bit():
    assert float(stats.norm.ppf(0.975)) == TWO_SIDED


def test_wilson_is_that_of_scipy_in_either_module():
    for held, trials in ((0, 5), (3, 5), (5, 5), (190, 200)):
        expected = stats.binomtest(held, trials).proportion_ci(0.95, method="wilson")
        assert wilson(held / trials, trials) == pytest.approx((expected.low, expected.high))
        bounds = wilson(jnp.float32(held / trials), jnp.float32(trials), xp=jnp)
        assert [float(x) for x in bounds] == pytest.approx([*expected], abs=1e-6)


def test_the_bootstrap_is_that_of_scipy():
    for statistic in (np.mean, np.median):
        own = bootstrap(lambda drawn, f=statistic: f(SCORES[drawn], axis=-1), 25, seed=3)
        reference = stats.bootstrap(
            (SCORES,),
            statistic,
            n_resamples=2000,
            method="percentile",
            rng=np.random.default_rng(3),
        )
        assert own == tuple(reference.confidence_interval)


def test_percentiles_leave_out_what_is_not_known():
    values = np.random.default_rng(1).normal(size=(1000, 3))
    values[::7, 1], values[:, 2] = np.nan, np.nan
    low, high = percentile_interval(values)
    np.testing.assert_allclose(low[:2], np.nanpercentile(values[:, :2], 2.5, axis=0))
    np.testing.assert_allclose(high[:2], np.nanpercentile(values[:, :2], 97.5, axis=0))
    assert np.isnan([low[2], high[2]]).all()


def test_an_estimate_is_read_from_a_document():
    text = '{"mean": 2.0, "mean_low": 1, "mean_high": NaN, "iqm": 3.0, "games": 8, "bad": "x"}'
    values = json.loads(text)
    assert read_estimate(values) == Estimate(2.0, 1, None, 8)
    assert read_estimate(values, "iqm") == Estimate(3.0, None, None, 8)
    assert read_estimate(values, "bad") is None and read_estimate(values, "median") is None
    assert read_estimate(None) is None and read_estimate([1.0]) is None
    assert read_estimate({"mean": True}) is None
