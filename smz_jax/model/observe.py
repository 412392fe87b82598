"""Observations from stored frames."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from smz_jax.types import Array, EnvSpec, Trajectory, is_end


def stack_observations(
    frames: Array,
    is_first: Array,
    positions: Sequence[int],
    context: int,
    is_marked: bool = False,
) -> Array:
    """Rebuilds the environment's observations from newest frames, bit for bit.

    Frames from before the game's first one are replaced by it; a lost life carries on.

    Args:
        frames: [W, *frame_shape] newest frame of each row.
        is_first: [W] bool, first observation of a game.
        positions: static rows whose observations are wanted, each at least `context` - 1.
        context: F.
        is_marked: whether a row comes first that counts the frames of the game in progress.

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
    stacks = frames[index]
    if not is_marked:
        return stacks
    count = jnp.minimum(wanted - game_start[wanted] + 1, context).astype(frames.dtype)
    mark = jnp.broadcast_to(count.reshape(-1, *[1] * frames.ndim), stacks[:, :1].shape)
    return jnp.concatenate([mark, stacks], axis=1)


def stack_windows(rows: Trajectory, spec: EnvSpec, positions: range) -> Array:
    """Observations of sampled rows `[B, W, ...]`: `[B, positions, F, *frame_shape]`."""
    layout = positions, spec.context, spec.is_marked
    return jax.vmap(lambda frames, first: stack_observations(frames, first, *layout))(
        rows.frame, rows.is_first
    )


def shift_windows(rng_key: Array, rows: Trajectory, most: int) -> Trajectory:
    """Sampled rows `[B, W, ...]` whose frames `[B, W, H, V]` are shifted by up to `most` pixels.

    All frames of a window by the same, drawn uniformly for both directions; what is shifted in
    repeats the edge. Of 0 the rows are as they were, whatever their frames; `rng_key` is consumed.
    Source: Kostrikov et al. 2021 (DrQ), section 3.1.
    """
    if not most:
        return rows
    size, windows = rows.frame.shape[2:], len(rows.frame)
    by = jax.random.randint(rng_key, (2, windows, 1), -most, most + 1)
    y, x = (jnp.clip(jnp.arange(n) + d, 0, n - 1) for n, d in zip(size, by, strict=True))
    shifted = jax.vmap(lambda frames, y, x: frames[:, y][:, :, x])(rows.frame, y, x)
    return rows._replace(frame=shifted)


def unbroken(rows: Trajectory, first: int, steps: int) -> tuple[Array, Array]:
    """Which steps of windows `[B, W, ...]`, from row `first` on, are of one game and of one life.

    Returns:
        Both `[B, steps]` bool: whether so many transitions are real and none but the last led to an
        end; and whether each led to one. The action of a row is ignored where the next row begins
        a game.
    """
    real = ~rows.is_first[:, first + 1 : first + steps + 1]
    ended = is_end(rows.discount[:, first : first + steps])
    before = jnp.pad(ended[:, :-1], ((0, 0), (1, 0)))
    return jnp.cumprod(real & ~before, axis=1) > 0, ended
