"""Searches from a Gumbel root against mctx given its own rules: the same trees and decisions."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
from mctx._src import action_selection, seq_halving

from smz_jax.config.search import SearchConfig
from smz_jax.search.edges import Edges
from smz_jax.search.interface import make_recurrent_fn, make_root, mask_invalid
from smz_jax.search.selection import decision_view, select_chance_outcome
from tests.search.test_gumbel import FEW, GUMBEL, PLAIN
from tests.support.search_runs import GAMMA, random_invalid, run_mctx, run_search, tabular_networks
from tests.support.search_twin import softmax
from tests.support.tabular import as_params, embed, random_tables


def transform_of(settings):
    return functools.partial(
        mctx.qtransform_completed_by_mix_value,
        maxvisit_init=settings.gumbel_maxvisit_init,
        value_scale=settings.gumbel_value_scale,
    )


def root_rule(settings, simulations):
    return functools.partial(
        mctx.gumbel_muzero_root_action_selection,
        num_simulations=simulations,
        max_num_considered_actions=settings.gumbel_considered,
        qtransform=transform_of(settings),
    )


def searched_from_gumbel_root(settings, params, key, root, **search):
    """`mctx.search`, with its Gumbel rule at the root, and what its Gumbel policy then decides."""
    key, gumbel_key = jax.random.split(key)
    invalid, simulations = search["invalid_actions"], search["num_simulations"]
    actions = invalid.shape[1]
    gumbel = jax.random.gumbel(gumbel_key, invalid.shape)
    extra_data = action_selection.GumbelMuZeroExtraData(root_gumbel=gumbel)
    rule = root_rule(settings, simulations)
    tree = mctx.search(
        params,
        key,
        root=root,
        root_action_selection_fn=lambda key, tree, node: rule(
            key, decision_view(tree, Edges(actions)), node
        ),
        extra_data=extra_data,
        **search,
    )
    seen = decision_view(tree, Edges(actions))
    completed = jax.vmap(transform_of(settings), in_axes=(0, None))(seen, jnp.int32(0))
    logits, visits = seen.children_prior_logits[:, 0], seen.children_visits[:, 0]
    most = visits.max(axis=-1, keepdims=True)
    score = seq_halving.score_considered(most, gumbel, logits, completed, visits)
    return mctx.PolicyOutput(
        action=action_selection.masked_argmax(score, invalid),
        action_weights=jax.nn.softmax(mask_invalid(logits + completed, invalid)),
        search_tree=tree,
    )


def gumbel_above_puct(settings, params, key, root, **search):
    """A policy for `run_mctx`: PUCT below the root."""
    logits = mask_invalid(root.prior_logits, search["invalid_actions"])
    return searched_from_gumbel_root(
        settings,
        params,
        key,
        root.replace(prior_logits=logits),
        interior_action_selection_fn=mctx.muzero_action_selection,
        **search,
    )


@functools.cache
def mctx_policy(settings):
    """mctx's policy by the rules of `settings`."""
    if settings.interior == "puct":
        return functools.partial(gumbel_above_puct, settings)
    return functools.partial(
        mctx.gumbel_muzero_policy,
        qtransform=transform_of(settings),
        max_num_considered_actions=settings.gumbel_considered,
    )


def assert_same(ours, theirs):
    """Compares decisions, and the trees' structure and statistics on the edges that both have."""
    np.testing.assert_array_equal(ours.action, theirs.action)
    np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-5)
    tree, other = ours.tree, theirs.search_tree
    num_edges = other.children_index.shape[-1]
    for name in ("node_visits", "parents", "action_from_parent"):
        np.testing.assert_array_equal(getattr(tree, name), getattr(other, name))
    for name in ("children_index", "children_visits"):
        np.testing.assert_array_equal(getattr(tree, name)[..., :num_edges], getattr(other, name))
    logits = tree.children_prior_logits[..., :num_edges]
    np.testing.assert_allclose(logits, other.children_prior_logits, atol=1e-6)
    np.testing.assert_allclose(tree.node_values, other.node_values, atol=1e-5)


@pytest.mark.parametrize("interior,simulations,batch_size,depth,options", [
    ("gumbel", 20, 5, None, {}), ("gumbel", 40, 3, 3, FEW),
    ("puct", 7, 1, None, {}), ("puct", 33, 4, 2, FEW),
])  # fmt: skip
def test_one_outcome_is_mctxs_gumbel_muzero(interior, simulations, batch_size, depth, options):
    """Same key, same tree, weights and action; mctx's `max_depth` counts a collapsed edge once."""
    policy = mctx_policy(SearchConfig(interior=interior, **GUMBEL, **options))
    for seed in range(20):
        tables = random_tables(seed, actions=5, outcomes=1)
        rows = np.arange(batch_size) % 5
        invalid = random_invalid(seed, batch_size, 5)
        invalid[-1] = np.where(seed % 5 == 0, 1.0, invalid[-1])  # a game that is over
        search = {"simulations": simulations, "seed": seed, "invalid": invalid}
        ours = run_search(tables, rows, depth=depth and 2 * depth, interior=interior, **PLAIN,
                          **search, **options)  # fmt: skip
        theirs = run_mctx(tables, rows, depth=depth, policy=policy, **search)
        assert_same(ours, theirs)


@functools.cache
def compiled_stochastic(states, actions, simulations, settings):
    """`mctx.search` over chance nodes with mctx's own rules at the decision nodes."""
    networks = tabular_networks(states, actions, None)
    interior = mctx.muzero_action_selection
    if settings.interior == "gumbel":
        interior = functools.partial(
            mctx.gumbel_muzero_interior_action_selection, qtransform=transform_of(settings)
        )

    def below(key, tree, node, depth):
        action = interior(key, decision_view(tree, Edges(actions)), node, depth)
        outcome = select_chance_outcome(
            tree.children_prior_logits[node, actions:], tree.children_visits[node, actions:]
        )
        return jnp.where(tree.embeddings.is_chance[node], outcome + actions, action)

    @jax.jit
    def run(params, key, embedding, invalid):
        logits, value = networks.prediction(params, embedding)
        logits, value = mask_invalid(logits, invalid), value[:, 0]
        no_faults = jnp.zeros(value.shape, jnp.int32)
        return searched_from_gumbel_root(
            settings,
            params,
            key,
            make_root(embedding, Edges(actions).of_decision(logits, 3), value, no_faults),
            recurrent_fn=make_recurrent_fn(networks, edges=Edges(actions), gamma=GAMMA),
            interior_action_selection_fn=below,
            num_simulations=simulations,
            invalid_actions=invalid,
        )

    return run


@pytest.mark.parametrize("interior", ["puct", "gumbel"])
def test_stochastic_trees(interior):
    """Trees are mctx's; the root follows sequential halving, chance nodes their probabilities."""
    actions, simulations, settings = 4, 40, SearchConfig(interior=interior, **GUMBEL)
    run = compiled_stochastic(5, actions, simulations, settings)
    for seed in range(8):
        tables = random_tables(seed, actions=actions, outcomes=3)
        invalid = random_invalid(seed, 5, actions)
        output = run_search(tables, range(5), simulations=simulations, invalid=invalid, seed=seed,
                            interior=interior, **GUMBEL)  # fmt: skip
        params, states = as_params(tables), embed(tables, range(5))
        theirs = jax.device_get(run(params, jax.random.key(seed), states, invalid))
        assert_same(output, theirs)
        assert (output.tree.node_visits[:, 0] == simulations + 1).all()
        for row in range(5):
            follows_halving(output, row, int((1 - invalid[row]).sum()))
            covers_outcomes(output.tree, row, actions)


def follows_halving(output, row, considered):
    """Simulation i, which added node i + 1, took an action with the visits of the schedule."""
    parents, edges = output.tree.parents[row], output.tree.action_from_parent[row]
    visits = np.zeros(output.action_weights.shape[1], int)
    schedule = seq_halving.get_sequence_of_considered_visits(considered, len(parents) - 1)
    for node, expected in enumerate(schedule, start=1):
        while parents[node] != 0:
            node = parents[node]
        assert visits[edges[node]] == expected
        visits[edges[node]] += 1
    np.testing.assert_array_equal(output.tree.children_visits[row, 0, : len(visits)], visits)
    assert visits[output.action[row]] == visits.max()


def covers_outcomes(tree, row, actions):
    """Arg max of p / (n + 1) is d'Hondt's rule: after N visits each outcome has at least [p N]."""
    for node in np.flatnonzero(tree.embeddings.is_chance[row]):
        probs = softmax(tree.children_prior_logits[row, node, actions:].astype(np.float64))
        visits = tree.children_visits[row, node, actions:]
        assert visits.sum() == tree.node_visits[row, node] - 1
        assert (visits >= np.floor(probs * visits.sum() - 1e-6)).all()
