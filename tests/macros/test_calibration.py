"""The temperature of the precondition head: a plain twin, and never worse than none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.training import MacroConfig
from smz_jax.macros.precondition.quality import (
    LOGIT_BINS,
    TEMPERATURES,
    calibration_error,
    fit_temperature,
    init_tally,
    quality,
)
from smz_jax.macros.precondition.slots import init_slots

SETTINGS = MacroConfig(slots=3, num_buckets=4)


def plain_error(bins, temperature):
    """Gaps of ten bins of probability, entry by entry."""
    gaps = [0.0] * 10
    for negative, positive, total in bins.T.tolist():
        number = negative + positive
        if number:
            chance = 1 / (1 + np.exp(-total / number / temperature))
            gaps[min(int(chance * 10), 9)] += chance * number - positive
    return sum(map(abs, gaps)) / bins[:2].sum()


def plain_loss(bins, temperature):
    """Nats of a window, entry by entry."""
    nats = 0.0
    for negative, positive, total in bins.T.tolist():
        if number := negative + positive:
            logit = total / number / temperature
            nats += negative * np.logaddexp(0, logit) + positive * np.logaddexp(0, -logit)
    return nats / bins[:2].sum()


def some_bins(rng, scale, offset, number=3000):
    """Counts of windows that apply with sigmoid(scale * logit + offset)."""
    bins = np.zeros((3, LOGIT_BINS), np.float64)
    for logit in np.clip(rng.normal(1, 2, number), -7.9, 7.9):
        applies = rng.random() < 1 / (1 + np.exp(-scale * logit - offset))
        bins[:, int((logit + 8) * 4)] += [not applies, applies, logit]
    return bins.astype(np.float32)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (0.4, 0), (2.5, 0), (0.9, 0.4), (0.9, -0.4), (1.2, 1.0)]
)
def test_the_temperature_is_the_twins_and_never_worse_than_none(scale, offset):
    fit = jax.jit(fit_temperature)
    for seed in range(4):
        bins = some_bins(np.random.default_rng(seed), scale, offset)
        found = float(fit(jnp.asarray(bins)))
        raw = plain_error(bins, 1.0)
        assert float(calibration_error(jnp.asarray(bins), found)) == pytest.approx(
            plain_error(bins, found), abs=2e-5
        )
        allowed = [t for t in TEMPERATURES if plain_error(bins, t) <= raw]
        best = min(allowed, key=lambda t: plain_loss(bins, t))
        assert plain_loss(bins, found) == pytest.approx(plain_loss(bins, best), abs=1e-6)
        assert found == pytest.approx(best) and plain_error(bins, found) <= raw + 1e-6
        tally = init_tally(SETTINGS)._replace(asked=jnp.ones(3), bins=jnp.asarray(bins))
        shown = quality(init_slots(SETTINGS), tally)
        assert shown["temperature"] == found and shown["ece"] <= shown["ece_raw"] + 1e-7


def test_an_offset_would_be_fitted_by_a_worse_temperature():
    """The case that made it worse: the least cross-entropy alone is not the least error."""
    bins = some_bins(np.random.default_rng(0), 0.9, 0.3)
    alone = min(TEMPERATURES, key=lambda t: plain_loss(bins, t))
    assert plain_error(bins, alone) > plain_error(bins, 1.0) + 1e-3
    assert plain_error(bins, float(fit_temperature(jnp.asarray(bins)))) <= plain_error(bins, 1.0)
