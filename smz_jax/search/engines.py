"""The two engines that grow a tree, and the decision of a Gumbel root."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from smz_jax.config.check import require
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.search import gumbel as gumbel_rules
from smz_jax.search import scores
from smz_jax.search.batched import make_grow
from smz_jax.search.candidates import EdgeActions
from smz_jax.search.descent import Score
from smz_jax.search.edges import Edges
from smz_jax.search.expansion import make_expand
from smz_jax.search.interface import make_recurrent_fn
from smz_jax.search.macro_edges import best_macro
from smz_jax.search.nodes import NewNode, as_mctx_tree
from smz_jax.search.scores import Actions
from smz_jax.search.selection import decision_view, make_action_selection, root_qvalues
from smz_jax.types import Array, Networks, Params

GrowTree = Callable[..., Any]
"""`(params, rng_key, mctx.RootFnOutput, invalid_actions, gumbel, actions, values) -> mctx.Tree`
whose embeddings are `NodeEmbedding`; `[B, K]` each, or None: see `candidates`. `values [B, P]` are
the root's of more than two players, else None."""


def make_mctx_tree(networks: Networks, config: Config, choices: EdgeActions) -> GrowTree:
    """The reference engine: `mctx.search` over decision and chance nodes.

    Agrees with `mctx.stochastic_muzero_policy` visit for visit, and keeps the whole tree.
    """
    settings, edges = config.search, Edges(choices.count)
    allowed = "batched in a game of more than two players"
    require(networks.turn is None, "search.engine", settings.engine, allowed)
    select = make_action_selection(edges, settings)
    recurrent_fn = make_recurrent_fn(networks, edges=edges, gamma=config.learner.gamma)

    def grow_tree(
        params: Params, rng_key: Array, root: Any, invalid_actions: Array, *unused: None
    ) -> Any:
        del unused
        return mctx.search(
            params,
            rng_key,
            root=root,
            recurrent_fn=recurrent_fn,
            root_action_selection_fn=functools.partial(select, depth=jnp.int32(0)),
            interior_action_selection_fn=select,
            num_simulations=settings.num_simulations,
            max_depth=settings.max_depth,
            invalid_actions=invalid_actions,
        )

    return grow_tree


def make_batched_tree(networks: Networks, config: Config, choices: EdgeActions) -> GrowTree:
    """The batched engine, see `batched.py`."""
    settings, edges = config.search, Edges(choices.count, int(config.search.macros))
    puct, completed = make_puct(settings), make_completed(settings)
    is_gumbel = settings.root == "gumbel"
    considered = min(settings.gumbel_considered, edges.num_actions) if is_gumbel else 0
    # Without simulations it is read by a loop that never runs.
    table = gumbel_rules.halving_table(considered, max(settings.num_simulations, 1))

    def gumbel_interior(actions: Actions) -> Array:
        return gumbel_rules.interior_score(actions, completed(actions))

    interior_score = gumbel_interior if settings.interior == "gumbel" else puct
    expand = make_expand(networks, config, choices)
    grow = make_grow(expand, settings, edges, interior_score)

    def grow_tree(
        params: Params,
        rng_key: Array,
        root: Any,
        invalid_actions: Array,
        gumbel: Array | None,
        actions: Array | None,
        values: Array | None,
    ) -> Any:
        valid = jnp.sum(1 - invalid_actions, axis=-1).astype(jnp.int32)
        most_visits = jnp.asarray(table)[jnp.minimum(considered, valid)]

        def root_score(actions: Actions, simulation: Array) -> Array:
            if gumbel is None:
                score = puct(actions)
            else:
                visits = most_visits[:, simulation]
                if settings.macros:  # a refused jump is no simulation of its row
                    done = actions.node_visits[:, None] - 1
                    visits = jnp.take_along_axis(most_visits, done, axis=1)[:, 0]
                score = gumbel_rules.root_score(actions, completed(actions), gumbel, visits)
            return jnp.where(invalid_actions > 0, -jnp.inf, score)

        zeros, of = jnp.zeros_like(root.value), root.embedding
        kind, value, reward, mover = (of.is_chance, of.entropy, of.faults), root.value, zeros, None
        if values is not None:
            value, reward, mover = values, jnp.zeros_like(values), zeros.astype(jnp.int32)
        edge = value, reward, zeros, root.prior_logits
        node = NewNode(*edge, *kind, of.state, actions, mover=mover)
        if settings.macros:
            macro, gain = best_macro(networks, params, of.state, invalid_actions)
            node = node._replace(macro=macro, gain=gain)
        nodes = grow(params, rng_key, node, root_score)
        return as_mctx_tree(nodes, invalid_actions, extra_data=gumbel)

    return grow_tree


def make_puct(settings: SearchConfig) -> Score:
    """PUCT with the Q-normalisation of the settings."""
    scale = scores.scale_by_tree if settings.qtransform == "tree" else scores.scale_by_siblings

    def puct(actions: Actions) -> Array:
        value_score = scale(actions, settings.q_epsilon)
        return scores.puct(
            actions, value_score, pb_c_init=settings.pb_c_init, pb_c_base=settings.pb_c_base
        )

    return puct


def make_completed(settings: SearchConfig) -> Score:
    """The completed Q-values of the settings."""
    return functools.partial(
        gumbel_rules.completed_qvalues,
        maxvisit_init=settings.gumbel_maxvisit_init,
        value_scale=settings.gumbel_value_scale,
        epsilon=settings.q_epsilon,
    )


def gumbel_decision(
    tree: Any, logits: Array, gumbel: Array, settings: SearchConfig
) -> tuple[Array, Array]:
    """What a searched Gumbel root decides, from masked root priors and noise `[B, A]`.

    Returns:
        The best of the most visited actions, int32 `[B]`, and the policy target `[B, A]`: the prior
        improved by completed Q-values.
    """
    root = decision_view(tree, Edges(logits.shape[-1]))
    visits = root.children_visits[:, 0]
    unbounded = jnp.full(tree.node_values.shape[:1], np.inf, jnp.float32)
    actions = Actions(
        node_visits=root.node_visits[:, 0],
        node_value=root.node_values[:, 0],
        raw_value=root.raw_values[:, 0],
        prior_logits=logits,
        prior_probs=jax.nn.softmax(logits),
        visits=visits,
        qvalues=root_qvalues(root),
        low=unbounded,
        high=-unbounded,
    )
    completed = make_completed(settings)(actions)
    score = gumbel_rules.root_score(actions, completed, gumbel, jnp.max(visits, axis=-1))
    invalid = tree.root_invalid_actions > 0
    action = jnp.argmax(jnp.where(invalid, -jnp.inf, score), axis=-1).astype(jnp.int32)
    # Invalid actions have the lowest logits there are; Q must not lift them.
    improved = jnp.where(invalid, jnp.finfo(jnp.float32).min, logits + completed)
    return action, jax.nn.softmax(improved)
