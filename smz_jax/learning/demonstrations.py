"""Windows of demonstrations in place of a share of a batch's own.

Demonstrations lie in a ring beside the replay that is never overwritten, and are drawn uniformly:
what a person showed a few times must not sink among millions of the agent's own steps. Pure.
"""

import jax
import jax.numpy as jnp

from smz_jax.config.training import ReplayConfig
from smz_jax.types import Array, ReplaySample


def demonstration_share(settings: ReplayConfig, step: Array, total: int) -> Array:
    """Which share of a batch is demonstrations after `step` of `total` updates, `[]` float32.

    It falls linearly from `replay.demonstration_share` to `replay.demonstration_share_end`.
    """
    start, end = settings.demonstration_share, settings.demonstration_share_end
    progress = jnp.clip(step / total, 0.0, 1.0)
    return (start + progress * (end - start)).astype(jnp.float32)


def mix(
    own: ReplaySample, shown: ReplaySample, rng_key: Array, share: Array
) -> tuple[ReplaySample, Array]:
    """Puts each window of `shown` in the place of one of `own` with probability `share`.

    Windows keep their weights; one without an index in `shown` gets -1, which has no priority.
    `rng_key` is consumed.

    Returns:
        The batch, and which of its windows were shown, `[B]` bool.
    """
    is_shown = jax.random.uniform(rng_key, own.weights.shape) < share

    def chosen(two: Array, one: Array) -> Array:
        return jnp.where(is_shown.reshape(-1, *[1] * (one.ndim - 1)), two, one)

    rows = jax.tree.map(chosen, shown.rows, own.rows)
    other = -1 if shown.indices is None else shown.indices
    indices = None if own.indices is None else jnp.where(is_shown, other, own.indices)
    return ReplaySample(rows, indices, chosen(shown.weights, own.weights)), is_shown
