"""One new node for each row: the model's functions, each run only for the rows that need it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.model.steps import normalised_entropy, to_afterstate, to_state
from smz_jax.search.nodes import NewNode
from smz_jax.types import Array, Networks, Params


def on_rows(
    function: Callable[..., Any],
    needed: Array,
    inputs: Any,
    outputs: Any,
    row_multiple: int | None,
) -> Any:
    """Runs `function` for the rows that need it, and for none if no row does.

    Args:
        function: of a batch of any size, row by row: `(inputs) -> outputs`.
        needed: `[B]` bool.
        inputs: pytree of `[B, ...]`.
        outputs: pytree of `[B, ...]`; keeps its entries in rows that do not need the function.
        row_multiple: the needing rows are gathered, and `function` runs once on the next multiple
            of this many rows (each multiple up to B is compiled); None: on the whole batch.

    Returns:
        `outputs` with the results.
    """
    (batch_size,) = needed.shape
    if row_multiple is None or row_multiple >= batch_size:

        def keep(old: Array, new: Array) -> Array:
            return jnp.where(needed.reshape(-1, *(1,) * (old.ndim - 1)), new.astype(old.dtype), old)

        return jax.lax.cond(
            jnp.any(needed),
            lambda: jax.tree.map(keep, outputs, function(inputs)),
            lambda: outputs,
        )
    # Rows beyond the needing ones are out of range: read as the last row, and never written.
    (rows,) = jnp.nonzero(needed, size=batch_size, fill_value=batch_size)

    def run_first(count: int) -> Any:
        some = rows[:count]
        results = function(jax.tree.map(lambda x: x.at[some].get(mode="clip"), inputs))
        return jax.tree.map(
            lambda old, new: old.at[some].set(new.astype(old.dtype), mode="drop"), outputs, results
        )

    sizes = [*range(row_multiple, batch_size, row_multiple), batch_size]
    branches = [lambda: outputs, *(functools.partial(run_first, size) for size in sizes)]
    count = jnp.sum(needed, dtype=jnp.int32)
    return jax.lax.switch((count + row_multiple - 1) // row_multiple, branches)


def make_expand(
    networks: Networks,
    *,
    num_actions: int,
    gamma: float,
    collapse_threshold: float,
    row_multiple: int | None,
) -> Callable[..., NewNode]:
    """The evaluation of one edge per row.

    From a decision node an action leads to a chance node. Where its normalised H(sigma) is strictly
    below `collapse_threshold`, and the row may collapse, the same call goes on through the most
    likely outcome to the next decision node.

    Args:
        networks: the model.
        num_actions: A.
        gamma: discount of one step of the game.
        collapse_threshold: 0 never collapses.
        row_multiple: see `on_rows`.

    Returns:
        `(params, state [B, ...], edge [B], from_chance [B], needed [B], may_collapse [B]) ->
        NewNode`; rows that are not needed hold nothing of meaning.
    """

    def expand(
        params: Params,
        state: Array,
        edge: Array,
        from_chance: Array,
        needed: Array,
        may_collapse: Array,
    ) -> NewNode:
        decide = functools.partial(to_afterstate, networks, params)
        logits = jax.eval_shape(decide, (state, edge))[1]
        zeros, no_faults = jnp.zeros(edge.shape, jnp.float32), jnp.zeros_like(edge)
        state, chance_logits, value, faults = on_rows(
            decide,
            needed & ~from_chance,
            (state, edge),
            (state, jnp.zeros(logits.shape, jnp.float32), zeros, no_faults),
            row_multiple,
        )
        # Of a chance node, or of the edge of a collapsed one.
        entropy = jnp.where(from_chance, 0.0, normalised_entropy(chance_logits))
        collapsed = needed & ~from_chance & may_collapse & (entropy < collapse_threshold)
        outcome = edge - num_actions
        if collapse_threshold > 0:
            likely = jnp.argmax(chance_logits, axis=-1).astype(jnp.int32)
            outcome = jnp.where(collapsed, likely, outcome)
        to_decision = from_chance | collapsed
        no_logits = jnp.zeros((*edge.shape, num_actions), jnp.float32)
        state, policy_logits, value, reward, discount, more_faults = on_rows(
            functools.partial(to_state, networks, params, gamma, logits.shape[-1]),
            needed & to_decision,
            (state, outcome),
            (state, no_logits, value, zeros, zeros + 1.0, no_faults),
            row_multiple,
        )
        return NewNode(
            value=value,
            reward=reward,
            discount=discount,
            prior_logits=jnp.concatenate(
                [
                    jnp.where(to_decision[:, None], policy_logits, -jnp.inf),
                    jnp.where(to_decision[:, None], -jnp.inf, chance_logits),
                ],
                axis=-1,
            ),
            is_chance=~to_decision,
            entropy=entropy,
            faults=faults + more_faults,
            state=state,
        )

    return expand
