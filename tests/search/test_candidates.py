"""Sampled actions: the prior's correction, searches over candidates, actions of several parts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.config.training import LearnerConfig, MacroConfig
from smz_jax.macros.mine.keys import unpack
from smz_jax.macros.mine.windows import tree_windows
from smz_jax.model.actions import log_prob
from smz_jax.search.candidates import make_edge_actions
from smz_jax.search.root_search import make_search
from smz_jax.types import EnvSpec, Part, Prediction, Space
from tests.search.test_search import expectimax
from tests.support.search_runs import GAMMA, run_search
from tests.support.tabular import (
    as_params,
    deterministic,
    embed,
    make_tabular_networks,
    random_tables,
)

SIZES = (2, 3, 2)
MIXED = Space(12, (), tuple(Part(tuple(map(str, range(size))), (0.0,) * size) for size in SIZES))


def plain(actions):
    return Space(actions, ("?",) * actions)


@functools.cache
def compiled(states, space, settings):
    networks = make_tabular_networks(states, space.size)

    def prediction(tables_and_logits, embedding):
        tables, logits = tables_and_logits
        state = jnp.argmax(embedding, axis=-1) // space.size
        return Prediction(logits[state], tables.value[state][:, None])

    def on_tables(function):
        return lambda both, *inputs: function(both[0], *inputs)

    names = ("afterstate_dynamics", "afterstate_prediction", "dynamics")
    others = {name: on_tables(getattr(networks, name)) for name in names}
    networks = networks._replace(prediction=prediction, **others)
    spec = EnvSpec("tabular", (1,), 1, np.dtype("float32"), space, 1)
    config = Config(search=settings, learner=LearnerConfig(gamma=GAMMA))
    return jax.jit(make_search(networks, config, spec))


def searched(
    tables, space, *, logits=None, batch=6, invalid=None, seed=0, noise=1.0, heat=1.0, **search
):
    """A search of state 0, by a policy head's logits of each state."""
    logits = tables.prior if logits is None else logits
    invalid = np.zeros((batch, logits.shape[1]), np.float32) if invalid is None else invalid
    run = compiled(len(logits), space, SearchConfig(**search))
    output = run(
        *((as_params(tables), jnp.asarray(logits, jnp.float32)), jax.random.key(seed)),
        *(embed(tables, [0] * batch), invalid, jnp.float32(heat), jnp.float32(noise)),
    )
    return jax.device_get(output)


@pytest.mark.parametrize(("uniform", "control"), [(0.0, 0.2), (0.5, 0.18)])
def test_the_corrected_prior_learns_what_a_search_of_all_actions_would(uniform, control):
    """50 actions, K = 20: the averaged target's distance from the exact one, in total variation.

    The improvement is pi e^Q / Z; the control is pi over the actions that were drawn.
    """
    generator, rows, space = np.random.default_rng(1), 4000, plain(50)
    logits, qvalues = (scale * generator.normal(size=50) for scale in (1.5, 1.0))
    exact = np.exp(logits + qvalues) / np.exp(logits + qvalues).sum()
    prior = np.exp(logits) / np.exp(logits).sum()
    assert 0.3 < np.abs(prior - exact).sum() / 2 < 0.5
    choices = make_edge_actions(SearchConfig(sampled_actions=20), space)
    every = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (rows, 50))
    root = choices.of_root(
        jax.random.key(0), every, jnp.zeros((rows, 50)), uniform=uniform, fraction=0.0
    )
    actions, corrected, _, repeated = jax.device_get(root)

    def distance(logits):
        weights = np.where(repeated > 0, 0.0, np.exp(logits + qvalues[actions]))
        weights /= weights.sum(axis=1, keepdims=True)
        learned = np.bincount(actions.ravel(), weights.ravel(), 50) / rows
        return np.abs(learned - exact).sum() / 2

    assert distance(corrected) < 0.05
    assert distance(logits[actions]) > control


def test_the_noisy_prior_of_a_sampled_root():
    """With as much uniform in the prior as in the draws it is the share of the draws."""
    choices = make_edge_actions(SearchConfig(sampled_actions=8), MIXED)
    logits = jax.random.normal(jax.random.key(5), (200, sum(SIZES)))
    invalid = jnp.zeros((200, sum(SIZES)))
    both = {"uniform": 0.3, "fraction": 0.3}
    actions, clean, noisy, repeated = choices.of_root(jax.random.key(1), logits, invalid, **both)
    counts = (actions[:, :, None] == actions[:, None, :]).sum(axis=-1)
    np.testing.assert_allclose(np.exp(noisy), counts / 8, rtol=1e-4)
    assert (np.asarray(repeated).sum(axis=1) == [8 - len(set(x)) for x in actions.tolist()]).all()
    pi = np.exp(log_prob(logits, actions, SIZES))
    np.testing.assert_allclose(np.exp(clean), counts / 8 * pi / (0.7 * pi + 0.3 / 12), rtol=1e-4)
    # Of 1,600 draws of 12 actions 30 % are anywhere: no action is left out.
    assert set(np.unique(actions)) == set(range(12))


@pytest.mark.parametrize(("root", "sampled"), [("puct", 3), ("gumbel", 7)])
def test_with_as_many_candidates_as_actions_it_is_the_plain_search(root, sampled):
    tables = random_tables(3)
    kind = {"simulations": 12, "root": root, "engine": "batched"}
    one = run_search(tables, [0, 1, 2], **kind)
    other = run_search(tables, [0, 1, 2], sampled_actions=sampled, **kind)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert other.tree.embeddings.action is None


def test_all_actions_of_several_parts_are_searched_as_one_choice_is():
    tables, settings = random_tables(4, actions=12), {"num_simulations": 14, "root": "gumbel"}
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5, sum(SIZES)))
    every = np.broadcast_to(np.arange(12, dtype=np.int32), (5, 12))
    joint = np.asarray(log_prob(jnp.asarray(logits, jnp.float32), jnp.asarray(every), SIZES))
    one = searched(tables, plain(12), logits=joint, **settings)
    other = searched(tables, MIXED, logits=logits, sampled_actions=12, **settings)
    np.testing.assert_array_equal(one.tree.children_index, other.tree.children_index)
    np.testing.assert_array_equal(one.action, other.action)
    # The weight of an option is that of all actions which have it.
    weights = one.action_weights.reshape(-1, *SIZES)
    wanted = [weights.sum((2, 3)), weights.sum((1, 3)), weights.sum((1, 2))]
    np.testing.assert_allclose(other.action_weights, np.concatenate(wanted, axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("root", "space"), [("puct", plain(12)), ("gumbel", MIXED)], ids=["one", "parts"]
)
def test_a_sampled_search(root, space):
    tables = random_tables(5, actions=12)
    generator, one = np.random.default_rng(2), len(space.sizes) == 1
    logits = generator.normal(size=(5, sum(space.sizes)))
    invalid = np.zeros((6, sum(space.sizes)), np.float32)
    if one:
        invalid[:, [2, 5, 7]] = 1.0
        logits[:, 2] = 9.0  # what pi likes most is not allowed
    kind = {"num_simulations": 24, "sampled_actions": 5, "root": root, "interior": root}
    output = searched(tables, space, logits=logits, invalid=invalid, seed=3, **kind)
    tree, action = output.tree, output.tree.embeddings.action
    edge, parent = tree.action_from_parent, np.maximum(tree.parents, 0)
    rows = np.arange(6)[:, None]
    below_chance = tree.embeddings.is_chance[rows, parent] & (tree.parents >= 0)
    by_action = (tree.parents >= 0) & ~below_chance
    assert (edge[by_action] < 5).all() and (edge[below_chance] >= 5).all()
    assert ((action >= 0) == by_action).all() and (action < 12).all()
    for row in range(6):
        for node in range(25):
            children = by_action[row] & (tree.parents[row] == node)
            assert len(set(action[row, children])) == children.sum()
        first = by_action[row] & (tree.parents[row] == 0)
        assert output.action[row] in action[row, first]
        if one:
            assert not set(action[row, first]) & {2, 5, 7}
    starts = np.cumsum([0, *space.sizes])
    for start, end in itertools.pairwise(starts):
        np.testing.assert_allclose(output.action_weights[:, start:end].sum(axis=1), 1.0, rtol=1e-5)
    again = searched(tables, space, logits=logits, invalid=invalid, seed=3, **kind)
    jax.tree.map(np.testing.assert_array_equal, output, again)
    other = searched(tables, space, logits=logits, invalid=invalid, seed=4, **kind)
    assert (output.tree.embeddings.action != other.tree.embeddings.action).any()


def test_evaluation_draws_no_uniform_candidates():
    tables, logits = random_tables(5, actions=12), np.zeros((5, 12))
    logits[:, 3] = 40.0
    # A gumbel root visits every candidate.
    kind = {"sampled_actions": 6, "num_simulations": 12, "batch": 64, "root": "gumbel"}
    sure = searched(tables, plain(12), logits=logits, noise=0.0, **kind)
    assert set(sure.tree.embeddings.action[sure.tree.parents == 0]) == set(sure.action) == {3}
    tried = searched(tables, plain(12), logits=logits, **kind)
    others = (tried.tree.embeddings.action % 12 != 3) & (tried.tree.parents == 0)
    assert 0.5 < others.any(axis=1).mean() < 0.95  # 1 - 0.77^6, or 0.79 of the roots


@pytest.mark.parametrize("root", ["puct", "gumbel"])
def test_the_best_candidate_by_enumeration_is_chosen(root):
    """12 actions with two outcomes each, and nothing to be had after the first step."""
    regret = []
    for seed in range(3):
        tables = random_tables(seed, states=7, actions=12, layered=True)
        tables.reward[1:] = 0.0
        exact, logits = expectimax(tables, 0, 1), np.zeros((7, sum(SIZES)))
        kind = {"num_simulations": 150, "sampled_actions": 8, "root": root, "interior": root}
        output = searched(tables, MIXED, logits=logits, noise=0.0, heat=0.0, batch=16, **kind)
        tree = output.tree
        for row in range(16):
            candidates = tree.embeddings.action[row, tree.parents[row] == 0]
            assert 1 < len(candidates) < 9
            worth, best = exact[candidates], exact[candidates].max()
            regret.append((best - exact[output.action[row]]) / (best - worth.min()))
    assert np.mean(regret) < 0.05 and np.mean(np.array(regret) < 0.01) > 0.7


def test_macros_are_mined_by_actions_and_not_by_edges():
    tables = deterministic(random_tables(8, actions=12))
    output = searched(tables, plain(12), sampled_actions=4, num_simulations=30)
    config = MacroConfig(tree_threshold=0.5, min_length=1, max_length=2, include_repeats=True)
    found, stats = jax.jit(
        lambda tree: tree_windows(tree, lambda states, exists: states, config, 12)
    )(output.tree)
    keys = unpack(found.key_high, found.key_low, 2)
    mined = sorted(tuple(x) for x in np.asarray(keys).tolist() if x[0] >= 0)
    tree, wanted = output.tree, []
    for row in range(6):
        led = tree.embeddings.action[row]
        for node in range(31):
            parent = tree.parents[row, node]
            if parent < 0 or not tree.embeddings.is_chance[row, parent]:
                continue
            above = tree.parents[row, parent]  # a decision node
            wanted.append((led[parent], -1))
            if above > 0:
                wanted.append((led[tree.parents[row, above]], led[parent]))
    assert mined == sorted((int(a), int(b)) for a, b in wanted) and len(mined) > 60
    assert int(stats.transitions_tree) == sum(b == -1 for _, b in wanted)


def test_what_cannot_be_sampled_is_refused_in_one_line():
    for settings, space in (
        ({"sampled_actions": 0}, plain(3)),
        ({"sampled_actions": 2, "engine": "mctx"}, plain(3)),
        ({"engine": "mctx"}, MIXED),
        ({"uniform_candidates": 1.5}, MIXED),
    ):
        with pytest.raises(ConfigError) as raised:
            make_edge_actions(SearchConfig(**settings), space)
        assert "\n" not in str(raised.value) and "search." in str(raised.value)
