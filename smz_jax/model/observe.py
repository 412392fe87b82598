"""Observations from stored frames."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from smz_jax.types import Array, Trajectory


def stack_observations(
    frames: Array, is_first: Array, positions: Sequence[int], context: int
) -> Array:
    """Rebuilds the environment's observations from newest frames, bit for bit.

    Frames from before the game's first one are replaced by it; a lost life carries on.

    Args:
        frames: [W, *frame_shape] newest frame of each row.
        is_first: [W] bool, first observation of a game.
        positions: static rows whose observations are wanted, each at least `context` - 1.
        context: F.

    Returns:
        [len(positions), F, *frame_shape], newest frame last.
    """
    chex.assert_rank(is_first, 1)
    if min(positions) < context - 1 or max(positions) >= is_first.shape[0]:
        raise ValueError(f"positions {list(positions)} lie outside {is_first.shape[0]} rows")
    row = jnp.arange(is_first.shape[0])
    game_start = jax.lax.cummax(jnp.where(is_first, row, 0))
    wanted = jnp.asarray(positions)
    back = jnp.arange(context) - (context - 1)
    index = jnp.maximum(wanted[:, None] + back[None, :], game_start[wanted][:, None])
    return frames[index]


def stack_windows(rows: Trajectory, context: int, positions: range) -> Array:
    """Observations of sampled rows `[B, W, ...]`: `[B, positions, F, *frame_shape]`."""
    return jax.vmap(lambda frames, first: stack_observations(frames, first, positions, context))(
        rows.frame, rows.is_first
    )
