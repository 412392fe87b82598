"""Windows of demonstrations within a batch, against their definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.training import ReplayConfig
from smz_jax.learning.demonstrations import demonstration_share, mix
from smz_jax.types import ReplaySample, Trajectory


@pytest.mark.parametrize(("step", "wanted"), [(0, 0.4), (25, 0.325), (100, 0.1), (130, 0.1)])
def test_the_share_falls_linearly_to_its_end(step, wanted):
    settings = ReplayConfig(demonstration_share=0.4, demonstration_share_end=0.1)
    found = demonstration_share(settings, jnp.int32(step), 100)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    same = dataclasses.replace(settings, demonstration_share_end=0.4)
    np.testing.assert_allclose(demonstration_share(same, jnp.int32(step), 100), 0.4, rtol=1e-6)


def sample(first, size, indices):
    rows = Trajectory(*[first + jnp.arange(6.0 * size).reshape(size, 3, 2)] * 11)
    return ReplaySample(rows, indices, jnp.full(size, 0.25, jnp.float32))


@pytest.mark.parametrize("is_uniform", [False, True])
def test_a_window_is_whole_of_one_kind_or_the_other(is_uniform):
    size, indices = 4096, None if is_uniform else jnp.arange(4096, dtype=jnp.int32)
    own, shown = sample(0.0, size, indices), sample(1e6, size, None)
    shown = shown._replace(weights=jnp.ones(size, jnp.float32))
    found, is_shown = jax.jit(mix)(own, shown, jax.random.key(0), jnp.float32(0.3))
    is_shown = np.asarray(is_shown)
    assert abs(is_shown.mean() - 0.3) < 0.03  # four deviations
    for one, two, three in zip(found.rows, own.rows, shown.rows, strict=True):
        wanted = np.where(is_shown[:, None, None], three, two)
        np.testing.assert_array_equal(one, wanted)
    np.testing.assert_array_equal(found.weights, np.where(is_shown, 1.0, 0.25))
    if is_uniform:
        assert found.indices is None
    else:
        np.testing.assert_array_equal(found.indices, np.where(is_shown, -1, np.arange(size)))
    if not is_uniform:  # windows of the same ring have an index, and learn of their priority
        viewed, _ = mix(own, shown._replace(indices=-2 - indices), jax.random.key(0), 0.3)
        wanted = np.where(is_shown, -2 - np.arange(size), np.arange(size))
        np.testing.assert_array_equal(viewed.indices, wanted)
    for share, all_are in ((0.0, False), (1.0, True)):
        assert (mix(own, shown, jax.random.key(1), jnp.float32(share))[1] == all_are).all()
