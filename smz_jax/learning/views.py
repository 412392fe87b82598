"""The second priority of replayed windows: recent play, good play, and games that are kept. Pure.

Nothing is copied and no game is deleted: a view says how likely each window of the ring is.
"""

from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.config.kept import Kept
from smz_jax.config.settings import Config
from smz_jax.types import Array


def view_weights(state: Any, config: Config) -> Array:
    """The second priority of each window, `replay.view`, `[lanes, ring]` float32 by first row.

    0: there is no such window (unwritten, or across the write head). Of the best and of those that
    are kept, windows of games that are whole in the ring have one; where none of these is above
    their mean, or is kept, all windows have the same.
    """
    rows, history = state.experience, config.env.frame_stack - 1
    lanes, ring = rows.reward.shape
    held = jnp.where(state.is_full, ring, state.current_index)
    time = jnp.arange(ring)
    place = (jnp.where(state.is_full, state.current_index, 0) + time) % ring  # oldest first
    weights = jnp.broadcast_to(time + 1.0, (lanes, ring))
    if config.replay.view in ("best", "kept"):
        game = jnp.cumsum(rows.is_first[:, place], axis=1)  # of its lane; 0 began before the ring
        total = jax.vmap(lambda x, i: jax.ops.segment_sum(x, i, ring + 1))
        returns = jnp.take_along_axis(total(rows.reward[:, place], game), game, axis=1)
        is_whole = (game > 0) & (game < game[:, -1:])  # nor is the last one of its lane over
        if config.replay.view == "kept":
            is_end = is_whole & (jnp.diff(game, axis=1, append=game[:, -1:]) > 0)
            ends = kept_ends(returns, is_end, config.replay.kept)
            weights = jnp.take_along_axis(total(ends * 1.0, game), game, axis=1)
        else:
            above = returns - jnp.mean(returns, where=is_whole)
            least = 1e-6 * jnp.max(jnp.abs(returns), initial=1.0)  # less is rounding
            weights = jnp.where(is_whole & (above > least), above, 0.0)
    is_window = jnp.broadcast_to(time <= held - config.window_rows, weights.shape)
    own = jnp.where(is_window, jnp.roll(weights, -history, axis=1), 0.0)  # of the window's root
    own = jnp.where(jnp.any(own > 0), own, is_window)
    return jnp.zeros_like(own).at[:, place].set(own).astype(jnp.float32)


def kept_ends(returns: Array, is_end: Array, kept: Kept) -> Array:
    """The last rows of the games that `Kept.choose` would keep, `[lanes, T]` bool.

    Games are in the order of their last rows, of equal times in that of their lanes.

    Args:
        returns: `[lanes, T]`, oldest first, the sum of the rewards of each row's game.
        is_end: `[lanes, T]` bool, the last rows of games.
        kept: what is kept.
    """
    newest_first = is_end.T.ravel()[::-1]
    scores = jnp.where(newest_first, returns.T.ravel()[::-1], -jnp.inf)
    chosen = newest_first
    if kept.best is not None:  # of equal scores top_k gives the first, the newer one
        _, best = jax.lax.top_k(scores, min(kept.best, scores.size))
        chosen &= jnp.zeros_like(chosen).at[best].set(True)
    if kept.newest is not None:
        chosen &= jnp.cumsum(newest_first) <= min(kept.newest, scores.size)
    if kept.min_score is not None:
        chosen &= scores >= kept.min_score
    return chosen[::-1].reshape(is_end.shape[::-1]).T
