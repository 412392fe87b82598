"""What a decision node's actions are worth to the search: PUCT, and the scaling of Q-values.

Functions of one row's plain arrays `[A]`, batched by leading axes: all reduce over the last one.
"""

from typing import NamedTuple

import jax.numpy as jnp

from smz_jax.types import Array

ROUNDING = 1e-6
"""Relative difference of two float32 numbers that may be one number computed twice."""


class Actions(NamedTuple):
    """A decision node seen from itself, and the bounds of its tree."""

    node_visits: Array  # [B] int32
    node_value: Array  # [B] float32
    raw_value: Array  # [B] float32
    prior_logits: Array  # [B, A] float32
    prior_probs: Array  # [B, A] float32
    visits: Array  # [B, A] int32, of each action
    qvalues: Array  # [B, A] float32, reward + discount * value; undefined where not visited
    low: Array  # [B] float32, least Q of an action backed up in this tree so far; +inf before
    high: Array  # [B] float32, greatest; -inf before


def scale_by_siblings(actions: Actions, epsilon: float) -> Array:
    """Q in [0, 1] between the bounds of V(node) and its children's Q; unvisited actions get 0.

    Ranges from `epsilon` on are stretched to 1; as `mctx.qtransform_by_parent_and_siblings`.
    """
    visited, value = actions.visits > 0, actions.node_value[..., None]
    known = jnp.where(visited, actions.qvalues, value)
    low = jnp.minimum(value, jnp.min(known, axis=-1, keepdims=True))
    high = jnp.maximum(value, jnp.max(known, axis=-1, keepdims=True))
    return (jnp.where(visited, actions.qvalues, low) - low) / jnp.maximum(high - low, epsilon)


def scale_by_tree(actions: Actions, epsilon: float) -> Array:
    """Q in [0, 1] between the bounds of all Q backed up in the tree; unvisited actions get 0.

    MuZero (Schrittwieser et al. 2020), appendix B, equation 5: the bounds are running ones, of
    every Q(s, a) at the time of its backup. Ranges from `epsilon` on are stretched to 1.
    """
    low, high = actions.low[..., None], actions.high[..., None]
    scaled = (jnp.clip(actions.qvalues, low, high) - low) / jnp.maximum(high - low, epsilon)
    # XLA may round one Q differently where it is compared with each bound: that is no range.
    is_range = high - low > ROUNDING * jnp.maximum(jnp.abs(low), jnp.abs(high))
    return jnp.where((actions.visits > 0) & is_range, scaled, 0.0)


def puct(actions: Actions, value_score: Array, *, pb_c_init: float, pb_c_base: float) -> Array:
    """Scaled Q `[B, A]` plus the prior's exploration bonus (MuZero, appendix B, equation 2).

    `pb_c_init` is c1, `pb_c_base` c2.
    """
    node_visits = actions.node_visits[..., None].astype(jnp.float32)
    pb_c = pb_c_init + jnp.log((node_visits + pb_c_base + 1.0) / pb_c_base)
    bonus = jnp.sqrt(node_visits) * pb_c * actions.prior_probs / (actions.visits + 1)
    return value_score + bonus
