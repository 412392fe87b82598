"""Observations from stored frames."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from smz_jax.types import Array


def stack_observations(
    frames: Array, is_first: Array, positions: Sequence[int], frame_stack: int
) -> Array:
    """Rebuilds the environment's observations from newest frames, bit for bit.

    Frames from before the game's first one are replaced by it; a lost life carries on.

    Args:
        frames: [W, *frame_shape] newest frame of each row.
        is_first: [W] bool, first observation of a game.
        positions: static rows whose observations are wanted, each at least `frame_stack` - 1.
        frame_stack: F.

    Returns:
        [len(positions), F, *frame_shape], newest frame last.
    """
    chex.assert_rank(is_first, 1)
    if min(positions) < frame_stack - 1 or max(positions) >= is_first.shape[0]:
        raise ValueError(f"positions {list(positions)} lie outside {is_first.shape[0]} rows")
    row = jnp.arange(is_first.shape[0])
    game_start = jax.lax.cummax(jnp.where(is_first, row, 0))
    wanted = jnp.asarray(positions)
    back = jnp.arange(frame_stack) - (frame_stack - 1)
    index = jnp.maximum(wanted[:, None] + back[None, :], game_start[wanted][:, None])
    return frames[index]
