"""Which child to follow inside the tree: PUCT at decision nodes, coverage at chance nodes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx

from smz_jax.config.search import SearchConfig
from smz_jax.search.edges import Edges
from smz_jax.types import Array


def select_chance_outcome(prior_logits: Array, visits: Array) -> Array:
    """Arg max of sigma / (visits + 1) over `[C]`: deterministic, no sampling.

    Antonoglou et al. 2022, appendix A: visit counts follow the probabilities as they grow.
    """
    return jnp.argmax(jax.nn.softmax(prior_logits) / (visits + 1), axis=-1).astype(jnp.int32)


def decision_view(tree: Any, edges: Edges) -> Any:
    """The `mctx.Tree` with children cut down to the A actions; works batched and unbatched."""
    names = [field.name for field in dataclasses.fields(tree) if field.name.startswith("children_")]
    return tree.replace(**{name: getattr(tree, name)[..., edges.actions] for name in names})


def root_qvalues(tree: Any) -> Array:
    """Q of the root's edges `[B, E]`."""
    return tree.children_rewards[:, 0] + tree.children_discounts[:, 0] * tree.children_values[:, 0]


def make_action_selection(edges: Edges, settings: SearchConfig) -> Callable:
    """Selection for `mctx.search` on trees whose nodes have edges of both kinds.

    PUCT's c1 is `pb_c_init`, c2 `pb_c_base`; ranges of Q from `q_epsilon` on are stretched to 1.

    Returns:
        `(rng_key, unbatched tree, node_index, depth) -> edge`.
    """
    transform = functools.partial(
        mctx.qtransform_by_parent_and_siblings, epsilon=settings.q_epsilon
    )
    puct = functools.partial(
        mctx.muzero_action_selection,
        pb_c_init=settings.pb_c_init,
        pb_c_base=settings.pb_c_base,
        qtransform=transform,
    )

    def select(rng_key: Array, tree: Any, node_index: Array, depth: Array) -> Array:
        action = puct(rng_key, decision_view(tree, edges), node_index, depth)
        outcome = select_chance_outcome(
            tree.children_prior_logits[node_index, edges.outcomes],
            tree.children_visits[node_index, edges.outcomes],
        )
        is_chance = tree.embeddings.is_chance[node_index]
        return jnp.where(is_chance, edges.first_outcome + outcome, action)

    return select
