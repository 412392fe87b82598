"""The Gumbel rules node by node against mctx's, and what searches by them promise."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
from mctx._src import action_selection, seq_halving

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.search import gumbel as rules
from tests.search.test_scores import random_nodes
from tests.support.search_runs import random_invalid, run_search
from tests.support.search_twin import softmax
from tests.support.tabular import Tables, random_tables

GUMBEL = {"engine": "batched", "root": "gumbel"}
PLAIN = {**GUMBEL, "collapse_threshold": 0.5}
"""For models with one outcome, whose every chance node is collapsed: MuZero's own tree."""
FEW = {"gumbel_considered": 3, "gumbel_maxvisit_init": 20.0, "gumbel_value_scale": 0.3}


def test_halving_schedule_by_hand():
    # 16 simulations, 4 actions: 2 phases of 8: four actions twice, then the better two 4 times.
    assert rules.halving_schedule(4, 16) == [0] * 4 + [1] * 4 + [2, 2, 3, 3, 4, 4, 5, 5]
    assert rules.halving_schedule(3, 2) == [0, 0]
    assert rules.halving_schedule(1, 3) == [0, 1, 2]


@pytest.mark.parametrize("simulations", [0, 1, 2, 5, 16, 50, 200])
def test_halving_table_is_mctxs(simulations):
    table = rules.halving_table(20, simulations)
    assert table.shape == (21, simulations) and table.dtype == np.int32
    expected = seq_halving.get_table_of_considered_visits(20, simulations)
    assert [tuple(row) for row in table] == [tuple(row) for row in expected]


def test_completed_qvalues_by_hand():
    # Priors 0.5, 0.25, 0.25; Q = 4 (3 visits) and 1 (1 visit); raw value 2. The mean of the
    # visited by their priors is (0.5 * 4 + 0.25 * 1) / 0.75 = 3, mixed: (2 + 4 * 3) / 5 = 2.8.
    # Scaled to (4 - 1): 1, 0, 0.6; times (10 + 3) * 0.1.
    entries, _ = random_nodes(0, nodes=1, actions=3)
    entries = entries._replace(
        raw_value=jnp.array([2.0]),
        prior_probs=jnp.array([[0.5, 0.25, 0.25]]),
        visits=jnp.array([[3, 1, 0]]),
        qvalues=jnp.array([[4.0, 1.0, 99.0]]),
    )
    completed = rules.completed_qvalues(entries, maxvisit_init=10.0, value_scale=0.1, epsilon=1e-8)
    np.testing.assert_allclose(completed, [[1.3, 0.0, 0.78]], rtol=1e-5)


@pytest.mark.parametrize("maxvisit_init,value_scale,epsilon", [(50.0, 0.1, 1e-8), (7.0, 0.5, 1.0)])
def test_rules_agree_with_mctx_node_by_node(maxvisit_init, value_scale, epsilon):
    entries, tree = random_nodes(1)
    constants = {"maxvisit_init": maxvisit_init, "value_scale": value_scale, "epsilon": epsilon}
    completed = rules.completed_qvalues(entries, **constants)
    transform = functools.partial(mctx.qtransform_completed_by_mix_value, **constants)
    expected = jax.jit(jax.vmap(transform, in_axes=(0, None)))(tree, jnp.int32(0))
    # Where only impossible actions were visited, mctx's product of the least float and Q is 0.
    visited = np.asarray(entries.visits) > 0
    clear = (visited & (entries.prior_probs > 0)).any(axis=1) | ~visited.any(axis=1)
    assert clear.mean() > 0.97
    np.testing.assert_allclose(completed[clear], expected[clear], atol=1e-4)

    gumbel = jax.random.gumbel(jax.random.key(0), entries.visits.shape)
    considered = jnp.arange(400) % 4
    score = rules.root_score(entries, completed, gumbel, considered)
    theirs = seq_halving.score_considered(
        considered[:, None], gumbel, entries.prior_logits, completed, entries.visits
    )
    assert np.isneginf(score).any() and (score == -1e9).any()
    np.testing.assert_allclose(score, theirs, rtol=1e-6)

    theirs = action_selection._prepare_argmax_input(
        jax.nn.softmax(entries.prior_logits + completed), entries.visits
    )
    np.testing.assert_allclose(rules.interior_score(entries, completed), theirs, atol=1e-6)


# What the rules promise.


def bandits(seed, *, count, actions, outcomes):
    """Games of one step in the states 0..count-1, whose model knows every true value."""
    generator = np.random.default_rng(seed)
    shape = (count + 1, actions, outcomes)
    chance, reward = generator.normal(size=shape), generator.normal(size=shape)
    prior = 2 * generator.normal(size=shape[:2])
    reward[count] = 0.0
    probs = np.exp(chance) / np.exp(chance).sum(axis=-1, keepdims=True)
    q = (probs * reward).sum(axis=-1)
    priors = np.exp(prior) / np.exp(prior).sum(axis=-1, keepdims=True)
    tables = Tables(
        prior=prior,
        value=(priors * q).sum(axis=-1),
        afterstate_value=q,
        chance=chance,
        successor=np.full(shape, count),
        reward=reward,
    )
    return tables, q[:count], priors[:count]


@pytest.mark.parametrize("simulations,outcomes,exact", [(3, 1, True), (6, 3, True), (24, 3, False)])
def test_the_policy_improves_on_bandits(simulations, outcomes, exact):
    """Six actions. Q is exact unless outcomes are sampled, beyond the first visit of an action."""
    count, gains = 64, []
    options = PLAIN if outcomes == 1 else GUMBEL
    for seed in range(6):
        tables, q, priors = bandits(seed, count=count, actions=6, outcomes=outcomes)
        output = run_search(tables, range(count), simulations=simulations, seed=seed, **options)
        before = (priors * q).sum(axis=1)
        improved = (output.action_weights * q).sum(axis=1)
        assert not exact or (improved >= before - 1e-5).all()
        gains.append([improved.mean(), q[np.arange(count), output.action].mean()] - before.mean())
    assert (np.min(gains, axis=0) > 0.3).all()


def drawn_gumbel(seed, shape):
    return np.asarray(jax.random.gumbel(jax.random.split(jax.random.key(seed))[1], shape))


def test_invalid_actions_are_never_visited_nor_chosen():
    invalid = np.zeros((5, 5), np.float32)
    invalid[0, 1:] = invalid[1, :4] = invalid[2, [0, 3]] = 1.0
    for seed in range(10):
        tables = random_tables(seed, actions=5, outcomes=1)
        # The prior's and the game's favourites are among the invalid ones.
        tables.prior[:3, 3] += 20.0
        tables.reward[:3, 3] += 20.0
        output = run_search(tables, range(5), simulations=20, invalid=invalid, seed=seed,
                            interior="gumbel", **PLAIN)  # fmt: skip
        assert not invalid[np.arange(5), output.action].any()
        assert (output.action_weights[invalid > 0] == 0).all()
        np.testing.assert_allclose(output.action_weights.sum(axis=1), 1.0, rtol=1e-5)
        assert (output.tree.children_visits[:, 0, :5][invalid > 0] == 0).all()
        assert output.action[:2].tolist() == [0, 4]
        assert output.action_weights[0, 0] == output.action_weights[1, 4] == 1.0
        assert not output.all_invalid.any()


def test_only_the_best_by_noise_and_prior_are_considered():
    for seed in range(10):
        tables = random_tables(seed, actions=5, outcomes=1)
        invalid = random_invalid(seed, 4, 5)
        output = run_search(tables, range(4), simulations=33, depth=4, invalid=invalid, seed=seed,
                            **PLAIN, **FEW)  # fmt: skip
        perturbed = drawn_gumbel(seed, (4, 5)) + tables.prior[:4]
        perturbed[invalid > 0] = -np.inf
        for row in range(4):
            considered = min(3, int((1 - invalid[row]).sum()))
            visited = np.flatnonzero(output.tree.children_visits[row, 0, :5])
            assert set(visited) == set(np.argsort(perturbed[row])[-considered:])
            assert output.action[row] in visited


def test_without_noise_the_key_does_not_matter():
    options = {"simulations": 20, "noise": 0.0, "interior": "gumbel", **PLAIN}
    tables = random_tables(0, actions=5, outcomes=1)
    outputs = [run_search(tables, range(5), seed=seed, **options) for seed in range(5)]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output.tree.parents, outputs[0].tree.parents)
        np.testing.assert_array_equal(output.tree.node_values, outputs[0].tree.node_values)
        np.testing.assert_array_equal(output.action, outputs[0].action)
        np.testing.assert_array_equal(output.action_weights, outputs[0].action_weights)
    noisy = [run_search(tables, range(5), seed=seed, **{**options, "noise": 1.0}).action
             for seed in range(5)]  # fmt: skip
    assert len({tuple(actions) for actions in noisy}) > 1


def test_without_noise_the_first_of_equal_actions_is_taken():
    """As mctx's root rule, which draws no noise to break ties."""
    silent = jax.tree.map(np.zeros_like, random_tables(0, actions=5, outcomes=1))
    visits, expected = [0] * 5, []
    for count in seq_halving.get_sequence_of_considered_visits(5, 20):
        expected.append(visits.index(count))
        visits[expected[-1]] += 1
    for seed in range(3):
        output = run_search(silent, range(5), simulations=20, noise=0.0, seed=seed,
                            interior="gumbel", **PLAIN)  # fmt: skip
        assert (output.tree.children_visits[:, 0, :5] == visits).all()
        first_visits = output.tree.children_index[:, 0, :5]
        assert (first_visits == [1 + expected.index(action) for action in range(5)]).all()
        assert (output.action == int(np.argmax(visits))).all()
        np.testing.assert_allclose(output.action_weights, 0.2, rtol=1e-6)


def test_zero_simulations_draw_from_the_masked_prior():
    tables = random_tables(3, actions=5, outcomes=2)
    invalid = random_invalid(3, 5, 5)
    for noise in (1.0, 0.0):
        output = run_search(tables, range(5), simulations=0, invalid=invalid, seed=3, noise=noise,
                            **GUMBEL)  # fmt: skip
        logits = np.where(invalid > 0, -np.inf, tables.prior)
        np.testing.assert_allclose(
            output.action_weights, np.apply_along_axis(softmax, 1, logits), rtol=1e-5
        )
        perturbed = logits + noise * drawn_gumbel(3, (5, 5))
        np.testing.assert_array_equal(output.action, perturbed.argmax(axis=1))
        np.testing.assert_allclose(output.value, tables.value, rtol=1e-6)
        assert output.tree.node_visits.tolist() == [[1]] * 5


@pytest.mark.parametrize("settings,field", [
    ({"engine": "mctx", "root": "gumbel"}, "search.root"),
    ({"engine": "mctx", "root": "gumbel", "interior": "gumbel"}, "search.root"),
    ({"engine": "batched", "interior": "gumbel"}, "search.interior"),
    ({"engine": "mctx", "qtransform": "tree"}, "search.qtransform"),
    ({"gumbel_considered": 0}, "search.gumbel_considered"),
    ({"gumbel_value_scale": -0.1}, "search.gumbel_value_scale"),
    ({"gumbel_maxvisit_init": -1.0}, "search.gumbel_maxvisit_init"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused_in_one_line(settings, field):
    with pytest.raises(ConfigError) as refusal:
        SearchConfig(**settings)
    assert str(refusal.value).startswith(f"{field} = ")
    assert "\n" not in str(refusal.value)
