"""Start-state buckets: a coarse, fixed hash of an embedding.

    bucket(e) = argmax_j ((e - mean) · [P, -P])_j

P is random and fixed; a direction and its opposite are two buckets for one multiplication (the
cross-polytope hash of Andoni et al. 2015). The mean is a running one that is frozen after warm-up:
without it, min-max scaled embeddings (all positive, nearly equal) fall into one or two buckets.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.training import MacroConfig
from smz_jax.types import Array


class BucketState(NamedTuple):
    """What assigns buckets; saved with the run. D' is the size of a flattened embedding."""

    projection: Array  # [D', num_buckets / 2] float32, fixed
    mean: Array  # [D'] float32, running mean of the observed embeddings
    count: Array  # [] float32, observations that went into the mean


def init_buckets(
    rng_key: Array, embedding_shape: tuple[int, ...], config: MacroConfig
) -> BucketState:
    """Draws the projection; the mean starts at 0.

    `embedding_shape` is the shape of one embedding, e.g. (256,) or (6, 6, 64).
    """
    size = math.prod(embedding_shape)
    projection = jax.random.normal(rng_key, (size, config.num_buckets // 2), jnp.float32)
    mean = jnp.zeros((size,), jnp.float32)
    return BucketState(projection / math.sqrt(size), mean, count=jnp.float32(0))


def update_buckets(state: BucketState, embeddings: Array, *, frozen: Array) -> BucketState:
    """Takes embeddings [B, ...] of root states into the running mean.

    Rows that are not finite do not count. `frozen` [] bool leaves the state as it is (warm-up is
    over).
    """
    flat = embeddings.reshape(embeddings.shape[0], -1).astype(jnp.float32)
    finite = jnp.all(jnp.isfinite(flat), axis=1, keepdims=True)
    rows = jnp.sum(finite, dtype=jnp.float32)
    offset = jnp.sum(jnp.where(finite, flat - state.mean, 0.0), axis=0) / jnp.maximum(rows, 1.0)
    count = state.count + rows
    # A plain average at first, then one that forgets what the untrained model saw.
    rate = jnp.maximum(rows / jnp.maximum(count, 1.0), 0.01)
    mean = state.mean + offset * rate
    mean, count = jnp.where(frozen, state.mean, mean), jnp.where(frozen, state.count, count)
    return state._replace(mean=mean, count=count)


def assign_buckets(state: BucketState, embeddings: Array) -> Array:
    """Buckets [...] int32, in 0..num_buckets-1, of embeddings [..., *embedding_shape].

    The trailing axes whose sizes multiply to D' are one embedding.

    Raises:
        ValueError: if no trailing axes multiply to D'.
    """
    size = state.mean.shape[0]
    lead = embeddings.ndim
    while lead > 0 and math.prod(embeddings.shape[lead:]) != size:
        lead -= 1
    if math.prod(embeddings.shape[lead:]) != size:
        raise ValueError(f"embeddings {embeddings.shape} do not end with {size} numbers")
    flat = embeddings.reshape(-1, size).astype(jnp.float32)
    precision = jax.lax.Precision.HIGHEST
    offset = jnp.matmul(state.mean, state.projection, precision=precision)
    scores = jnp.matmul(flat, state.projection, precision=precision) - offset
    # Two plain reductions: XLA's argmax takes three times as long on a CPU.
    half = scores.shape[-1]
    index = jnp.arange(half, dtype=jnp.int32)
    best = jnp.max(jnp.abs(scores), axis=-1, keepdims=True)
    opposite = jnp.where(-scores == best, half + index, 2 * half - 1)
    bucket = jnp.min(jnp.where(scores == best, index, opposite), axis=-1)
    return bucket.reshape(embeddings.shape[:lead])


def assign_wanted(state: BucketState, embeddings: Sequence[Array], wanted: Array) -> Array:
    """Buckets [S, R] int32 of those rows of S steps that are wanted, few as a rule; else any.

    `state` has the mean [S, D'] of each step, `embeddings` [R, D'] are those of each, `wanted` is
    bool.
    """
    steps, rows = wanted.shape

    def of_at_most(most: int) -> Array:
        (picked,) = jax.vmap(partial(jnp.nonzero, size=most, fill_value=rows))(wanted)
        found = jnp.stack([x[row] for x, row in zip(embeddings, picked, strict=True)])
        found = jax.vmap(lambda mean, x: assign_buckets(state._replace(mean=mean), x))(
            state.mean, found
        )
        step = jnp.arange(steps)[:, None]
        return jnp.zeros((steps, rows), jnp.int32).at[step, picked].set(found, mode="drop")

    few = rows // 6
    if few < 64:  # a product of so few costs less than the compilation of another
        return of_at_most(rows)
    fits = jnp.max(jnp.sum(wanted, axis=1)) <= few
    return jax.lax.cond(fits, lambda: of_at_most(few), lambda: of_at_most(rows))
