"""Gumbel MuZero's rules (Danihelka et al., "Policy improvement by planning with Gumbel", 2022).

At the root, sequential halving of Gumbel-perturbed actions; below it, the deterministic rule that
makes visits follow the improved policy. Row-wise over the last axis, as in `scores.py`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.search.scores import Actions
from smz_jax.types import Array


def halving_schedule(num_considered: int, num_simulations: int) -> list[int]:
    """For each simulation, the visits that the action to be chosen has so far.

    Sequential halving (Karnin et al. 2013): the considered actions are visited in turn, in each
    of log2(m) phases equally often, and after a phase the better half stays.
    """
    if num_considered <= 1:
        return list(range(num_simulations))
    phases = math.ceil(math.log2(num_considered))
    visits = [0] * num_considered
    schedule: list[int] = []
    while len(schedule) < num_simulations:
        for _ in range(max(1, num_simulations // (phases * num_considered))):
            schedule += visits[:num_considered]
            visits[:num_considered] = [count + 1 for count in visits[:num_considered]]
        num_considered = max(2, num_considered // 2)
    return schedule[:num_simulations]


def halving_table(most_considered: int, num_simulations: int) -> np.ndarray:
    """`halving_schedule` of 0..m considered actions: int32 `[m + 1, num_simulations]`."""
    rows = [halving_schedule(count, num_simulations) for count in range(most_considered + 1)]
    return np.array(rows, np.int32).reshape(most_considered + 1, num_simulations)


def completed_qvalues(
    actions: Actions, *, maxvisit_init: float, value_scale: float, epsilon: float
) -> Array:
    """Q-values in units of logits; those of unvisited actions are the mixed value (appendix D).

    `maxvisit_init` is c_visit, `value_scale` c_scale; ranges of Q below `epsilon` are not stretched
    to 1.

    Returns:
        (c_visit + most visits) * c_scale * Q scaled to [0, 1]; float32 `[B, A]`.
    """
    visited = actions.visits > 0
    total = jnp.sum(actions.visits, axis=-1, keepdims=True)
    probs = jnp.where(visited, jnp.maximum(actions.prior_probs, jnp.finfo(jnp.float32).tiny), 0.0)
    share = probs / jnp.where(total > 0, jnp.sum(probs, axis=-1, keepdims=True), 1.0)
    seen = jnp.sum(jnp.where(visited, share * actions.qvalues, 0.0), axis=-1, keepdims=True)
    mixed = (actions.raw_value[..., None] + total * seen) / (total + 1)
    completed = jnp.where(visited, actions.qvalues, mixed)
    low = jnp.min(completed, axis=-1, keepdims=True)
    spread = jnp.max(completed, axis=-1, keepdims=True) - low
    scaled = (completed - low) / jnp.maximum(spread, epsilon)
    most = jnp.max(actions.visits, axis=-1, keepdims=True)
    return (maxvisit_init + most) * value_scale * scaled


def root_score(actions: Actions, completed: Array, gumbel: Array, considered_visit: Array) -> Array:
    """Gumbel + logits + completed Q of actions with `considered_visit [B]` visits; else -inf."""
    logits = actions.prior_logits - jnp.max(actions.prior_logits, axis=-1, keepdims=True)
    score = jnp.maximum(-1e9, gumbel + logits + completed)
    return jnp.where(actions.visits == considered_visit[..., None], score, -jnp.inf)


def interior_score(actions: Actions, completed: Array) -> Array:
    """Improved policy less the share of visits (section 5): visits come to follow the policy."""
    improved = jax.nn.softmax(actions.prior_logits + completed)
    return improved - actions.visits / (1 + jnp.sum(actions.visits, axis=-1, keepdims=True))
