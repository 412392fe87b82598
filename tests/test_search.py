"""The search against mctx itself, brute-force expectimax and hand-computed numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from smz_jax.config import Config, LearnerConfig, SearchConfig
from smz_jax.search import make_prior_policy, make_search
from smz_jax.search.model_functions import normalised_entropy
from smz_jax.search.policy import sample_by_temperature
from smz_jax.search.selection import select_chance_outcome
from smz_jax.types import EnvSpec
from tests.tabular import as_params, embed, make_tabular_networks, random_tables

GAMMA = 0.9


def config_for(simulations, max_depth=None, **search):
    return Config(
        search=SearchConfig(num_simulations=simulations, max_depth=max_depth, **search),
        learner=LearnerConfig(gamma=GAMMA),
    )


@functools.cache
def compiled_search(states, actions, simulations, depth, noise, options):
    networks = make_tabular_networks(states, actions)
    spec = EnvSpec("tabular", (1,), 1, np.dtype("float32"), actions, ("?",) * actions, 1)
    search_fn = make_search(networks, config_for(simulations, depth, **dict(options)), spec)
    return jax.jit(functools.partial(search_fn, noise=noise))


def run_search(tables, state_ids, *, simulations, invalid=None, seed=0, noise=True, depth=None,
               temperature=1.0, **search):  # fmt: skip
    states, actions = tables.prior.shape
    invalid = np.zeros((len(state_ids), actions), np.float32) if invalid is None else invalid
    search_fn = compiled_search(
        states, actions, simulations, depth, noise, tuple(sorted(search.items()))
    )
    return search_fn(
        as_params(tables),
        jax.random.key(seed),
        embed(tables, state_ids),
        invalid,
        jnp.float32(temperature),
    )


@functools.cache
def compiled_mctx(states, actions, outcomes, simulations, depth):
    """mctx's own policy over the same networks."""
    networks = make_tabular_networks(states, actions)

    def decision_fn(params, key, action, embedding):
        afterstate = networks.afterstate_dynamics(params, embedding, action)
        logits, value = networks.afterstate_prediction(params, afterstate)
        output = mctx.DecisionRecurrentFnOutput(chance_logits=logits, afterstate_value=value[:, 0])
        return output, afterstate

    def chance_fn(params, key, outcome, afterstate):
        code = jax.nn.one_hot(outcome, outcomes)
        embedding, reward = networks.dynamics(params, afterstate, code)
        logits, value = networks.prediction(params, embedding)
        output = mctx.ChanceRecurrentFnOutput(
            action_logits=logits,
            value=value[:, 0],
            reward=reward[:, 0],
            discount=jnp.full_like(value[:, 0], GAMMA),
        )
        return output, embedding

    @jax.jit
    def run(params, key, embedding, invalid):
        logits, value = networks.prediction(params, embedding)
        return mctx.stochastic_muzero_policy(
            params,
            key,
            root=mctx.RootFnOutput(prior_logits=logits, value=value[:, 0], embedding=embedding),
            decision_recurrent_fn=decision_fn,
            chance_recurrent_fn=chance_fn,
            num_simulations=simulations,
            invalid_actions=invalid,
            max_depth=depth,
        )

    return run


def run_mctx(tables, state_ids, *, simulations, invalid, seed=0, depth=None):
    run = compiled_mctx(*tables.chance.shape, simulations, depth)
    return run(as_params(tables), jax.random.key(seed), embed(tables, state_ids), invalid)


@pytest.mark.parametrize("simulations,depth,shape", [
    (1, None, (3, 2)), (24, None, (4, 3)), (24, 3, (2, 5)),
])  # fmt: skip
def test_agrees_with_mctx_visit_for_visit(simulations, depth, shape):
    actions, outcomes = shape
    for seed in range(10):
        tables = random_tables(seed, actions=actions, outcomes=outcomes)
        generator = np.random.default_rng(seed)
        invalid = (generator.random((4, actions)) < 0.3).astype(np.float32)
        invalid[:, 0] = 0.0
        options = {"simulations": simulations, "invalid": invalid, "seed": seed, "depth": depth}
        ours = run_search(tables, [0, 1, 2, 3], **options)
        theirs = run_mctx(tables, [0, 1, 2, 3], **options)
        tree = theirs.search_tree
        np.testing.assert_array_equal(ours.tree.node_visits, tree.node_visits)
        np.testing.assert_array_equal(ours.tree.parents, tree.parents)
        np.testing.assert_array_equal(ours.tree.action_from_parent, tree.action_from_parent)
        np.testing.assert_array_equal(ours.action, theirs.action)
        np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-6)
        np.testing.assert_allclose(ours.tree.node_values, tree.node_values, atol=1e-5)


def test_kinds_alternate_and_each_node_keeps_its_entropy():
    tables = random_tables(3, actions=3, outcomes=4)
    tree = run_search(tables, [0, 1], simulations=40).tree
    networks, params = make_tabular_networks(5, 3), as_params(tables)
    tree = jax.device_get(tree)
    for row in range(2):
        for node in range(1, 41):
            if tree.node_visits[row, node] == 0:
                continue
            parent = int(tree.parents[row, node])
            edge = int(tree.action_from_parent[row, node])
            is_chance = bool(tree.embeddings.is_chance[row, node])
            assert is_chance != bool(tree.embeddings.is_chance[row, parent])
            assert (edge < 3) == is_chance
            if is_chance:
                state = tree.embeddings.state[row, node][None]
                logits = np.asarray(networks.afterstate_prediction(params, state)[0][0], np.float64)
                probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                expected = -(probs * np.log(probs)).sum() / math.log(4)
                assert tree.embeddings.entropy[row, node] == pytest.approx(expected, abs=1e-5)
                assert tree.children_discounts[row, parent, edge] == 1.0
                assert tree.children_rewards[row, parent, edge] == 0.0
            else:
                assert tree.embeddings.entropy[row, node] == 0.0
                assert tree.children_discounts[row, parent, edge] == pytest.approx(GAMMA)


def test_normalised_entropy_by_hand():
    assert normalised_entropy(jnp.zeros((1, 7)))[0] == pytest.approx(1.0)
    assert normalised_entropy(jnp.array([[50.0, 0.0, 0.0]]))[0] == pytest.approx(0.0, abs=1e-6)
    half = jnp.log(jnp.array([[0.5, 0.5, 1e-30, 1e-30]]))
    assert normalised_entropy(half)[0] == pytest.approx(0.5, abs=1e-5)
    assert normalised_entropy(jnp.zeros((2, 1))).tolist() == [0.0, 0.0]


def test_chance_outcomes_follow_their_probabilities():
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    visits = np.zeros(4, np.int32)
    for _ in range(200):
        visits[int(select_chance_outcome(jnp.log(probs), jnp.asarray(visits)))] += 1
    np.testing.assert_allclose(visits / 200, probs, atol=0.02)


def expectimax(tables, state, depth):
    """Exact action values of a game that ends after `depth` steps."""
    values = []
    for action in range(tables.prior.shape[1]):
        logits = tables.chance[state, action]
        probs = np.exp(logits) / np.exp(logits).sum()
        value = 0.0
        for outcome, prob in enumerate(probs):
            following = tables.successor[state, action, outcome]
            later = expectimax(tables, following, depth - 1).max() if depth > 1 else 0.0
            value += prob * (tables.reward[state, action, outcome] + GAMMA * later)
        values.append(value)
    return np.array(values)


def test_converges_to_expectimax():
    checked = 0
    for seed in range(12):
        tables = random_tables(seed, states=7, layered=True)
        exact = expectimax(tables, 0, 2)
        gap = np.sort(exact)[-1] - np.sort(exact)[-2]
        if gap < 0.3:
            continue
        checked += 1
        output = run_search(tables, [0], simulations=400, noise=False, seed=seed, temperature=0.0)
        assert int(output.action[0]) == int(exact.argmax())
        visited = output.tree.children_visits[0, 0, :3] > 20
        q = output.tree.children_rewards[0, 0, :3] + output.tree.children_values[0, 0, :3]
        np.testing.assert_allclose(q[visited], exact[visited], atol=0.25)
    assert checked >= 4


def test_zero_simulations_act_from_the_masked_prior():
    tables = random_tables(5)
    invalid = np.array([[0, 1, 0], [0, 0, 0]], np.float32)
    output = run_search(tables, [0, 1], simulations=0, invalid=invalid, noise=False)
    logits = tables.prior[[0, 1]].copy()
    logits[0, 1] = -np.inf
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(output.action_weights, expected, rtol=1e-5)
    np.testing.assert_allclose(output.value, tables.value[[0, 1]], rtol=1e-5)


def test_invalid_actions_are_never_chosen():
    tables = random_tables(6, actions=4)
    invalid = np.array([[0, 1, 1, 0]] * 64, np.float32)
    output = run_search(tables, [0] * 64, simulations=9, invalid=invalid, temperature=5.0)
    assert set(np.unique(output.action)) <= {0, 3}
    assert np.all(np.asarray(output.action_weights)[:, 1:3] == 0)
    policy = make_prior_policy(make_tabular_networks(5, 4), 0.1)
    acted = policy(as_params(tables), jax.random.key(0), embed(tables, [0] * 64), invalid, 1.0, 0.5)
    assert set(np.unique(acted.action)) == {0, 3}


def test_epsilon_greedy_prior_rates():
    tables = random_tables(7)
    tables = tables._replace(prior=np.tile([5.0, 0.0, 0.0], (5, 1)))
    policy = make_prior_policy(make_tabular_networks(5, 3), 0.1)
    batch = 6000
    invalid = np.zeros((batch, 3), np.float32)
    output = policy(
        as_params(tables), jax.random.key(1), embed(tables, [0] * batch), invalid, 0.0, 0.3
    )
    share = np.bincount(output.action, minlength=3) / batch
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.02)
    q, value = tables.afterstate_value[0], tables.value[0]
    logits = tables.prior[0] + (q - value) / (q.max() - q.min())
    target = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(output.action_weights[0], target, rtol=1e-4)


def test_temperature():
    weights = jnp.tile(jnp.array([[0.6, 0.3, 0.1, 0.0]]), (20_000, 1))
    drawn = np.bincount(sample_by_temperature(jax.random.key(0), weights, 0.5), minlength=4)
    squares = np.array([0.36, 0.09, 0.01, 0.0])
    np.testing.assert_allclose(drawn / 20_000, squares / squares.sum(), atol=0.015)
    greedy = sample_by_temperature(jax.random.key(0), weights, 0.0)
    assert np.all(np.asarray(greedy) == 0)


def test_q_epsilon_keeps_tiny_differences_from_deciding():
    tables = random_tables(8, actions=4)
    tables = tables._replace(
        prior=np.zeros((5, 4)),
        reward=np.zeros_like(tables.reward),
        value=np.zeros(5),
        afterstate_value=np.full((5, 4), 1e-3) * np.arange(4),
    )
    sharp = run_search(tables, [0], simulations=16, noise=False)
    calm = run_search(tables, [0], simulations=16, noise=False, q_epsilon=1.0)
    assert calm.action_weights.max() < 0.5 < sharp.action_weights.max()


def test_one_trace_per_configuration():
    tables = random_tables(9)
    search_fn = compiled_search(5, 3, 5, None, True, ())
    for seed in range(3):
        run_search(tables, [seed, 1], simulations=5, seed=seed, temperature=seed / 2)
    assert search_fn._cache_size() == 1


def test_max_depth_limits_the_tree():
    tree = jax.device_get(run_search(random_tables(10), [0], simulations=30, depth=4).tree)
    depths = []
    for node in range(1, 31):
        if tree.node_visits[0, node] > 0:
            depth, at = 0, node
            while at != 0:
                at, depth = int(tree.parents[0, at]), depth + 1
            depths.append(depth)
    assert max(depths) == 4
