"""Both engines against brute-force expectimax and hand-computed numbers; the root policies."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.search import SearchConfig
from smz_jax.model.steps import normalised_entropy
from smz_jax.search.root_search import make_prior_policy, sample_by_temperature
from smz_jax.search.selection import select_chance_outcome
from smz_jax.types import Space
from tests.support.search_runs import GAMMA, compiled_search, run_mctx, run_search
from tests.support.tabular import as_params, embed, make_tabular_networks, random_tables

both_engines = pytest.mark.parametrize("engine", ["batched", "mctx"])


@both_engines
def test_kinds_alternate_and_each_node_keeps_its_entropy(engine):
    tables = random_tables(3, actions=3, outcomes=4)
    tree = run_search(tables, [0, 1], engine=engine, simulations=40).tree
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


def test_a_turn_of_the_other_player_turns_values_around():
    """States 1 and 4 have discount -1: mctx grows the same trees, edges to them have -gamma."""
    tables, turns = random_tables(6, actions=3, outcomes=2), (0.0, 2.0, 0.0, 0.0, 2.0)
    search = {"simulations": 40, "ended": turns}
    ours = run_search(tables, [0, 1, 2], engine="batched", **search).tree
    theirs = run_mctx(tables, [0, 1, 2], **search).search_tree
    np.testing.assert_array_equal(ours.parents, theirs.parents)
    np.testing.assert_allclose(ours.node_values, theirs.node_values, atol=1e-5)
    state = ours.embeddings.state.argmax(axis=-1) // 3
    row, node = np.nonzero(~ours.embeddings.is_chance & (ours.parents >= 0))
    edge = (row, ours.parents[row, node], ours.action_from_parent[row, node])
    sign = np.where(np.isin(state[row, node], [1, 4]), -1, 1)
    assert set(sign) == {-1, 1}
    np.testing.assert_allclose(ours.children_discounts[edge], GAMMA * sign, rtol=1e-6)


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


def expectimax(tables, state, depth, turns=None):
    """Exact action values of a game that ends after `depth` steps, for who moves in `state`.

    With `turns [n]` two players move: where it is 2, the state is of who did not move before it.
    """
    values = []
    for action in range(tables.prior.shape[1]):
        logits = tables.chance[state, action]
        probs = np.exp(logits) / np.exp(logits).sum()
        value = 0.0
        for outcome, prob in enumerate(probs):
            following = tables.successor[state, action, outcome]
            later = expectimax(tables, following, depth - 1, turns).max() if depth > 1 else 0.0
            later *= -1 if turns is not None and turns[following] == 2 else 1
            value += prob * (tables.reward[state, action, outcome] + GAMMA * later)
        values.append(value)
    return np.array(values)


@both_engines
def test_converges_to_expectimax(engine):
    checked = 0
    for seed in range(12):
        tables = random_tables(seed, states=7, layered=True)
        exact = expectimax(tables, 0, 2)
        gap = np.sort(exact)[-1] - np.sort(exact)[-2]
        if gap < 0.3:
            continue
        checked += 1
        output = run_search(
            tables, [0], engine=engine, simulations=400, noise=0.0, seed=seed, temperature=0.0
        )
        assert int(output.action[0]) == int(exact.argmax())
        visited = output.tree.children_visits[0, 0, :3] > 20
        q = output.tree.children_rewards[0, 0, :3] + output.tree.children_values[0, 0, :3]
        np.testing.assert_allclose(q[visited], exact[visited], atol=0.25)
    assert checked >= 4


@pytest.mark.parametrize("qtransform", ["siblings", "tree"])
def test_the_root_value_converges_to_expectimax(qtransform):
    """Every game solved, and the error of the root's value falls with the simulations."""
    errors = {400: [], 4000: []}
    options = {"engine": "batched", "noise": 0.0, "temperature": 0.0, "qtransform": qtransform}
    for seed in range(12):
        tables = random_tables(seed, states=7, layered=True)
        exact = expectimax(tables, 0, 2)
        for simulations, found in errors.items():
            output = run_search(tables, [0], simulations=simulations, **options)
            found.append(abs(output.value[0] - exact.max()))
        assert int(output.action[0]) == int(exact.argmax())
    assert max(errors[4000]) < 0.15
    assert np.mean(errors[4000]) < 0.5 * np.mean(errors[400])


@pytest.mark.parametrize("interior", ["puct", "gumbel"])
def test_a_gumbel_roots_action_is_near_the_optimum(interior):
    for seed in range(12):
        tables = random_tables(seed, states=7, layered=True)
        exact = expectimax(tables, 0, 2)
        output = run_search(
            tables, [0], engine="batched", simulations=1000, noise=0.0, root="gumbel",
            interior=interior,
        )  # fmt: skip
        assert exact.max() - exact[output.action[0]] < 0.1


@both_engines
def test_zero_simulations_act_from_the_masked_prior(engine):
    tables = random_tables(5)
    invalid = np.array([[0, 1, 0], [0, 0, 0]], np.float32)
    output = run_search(tables, [0, 1], engine=engine, simulations=0, invalid=invalid, noise=0.0)
    logits = tables.prior[[0, 1]].copy()
    logits[0, 1] = -np.inf
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(output.action_weights, expected, rtol=1e-5)
    np.testing.assert_allclose(output.value, tables.value[[0, 1]], rtol=1e-5)


def prior_policy(actions):
    space = Space(actions, ("?",) * actions)
    return make_prior_policy(make_tabular_networks(5, actions), SearchConfig(q_epsilon=0.1), space)


@both_engines
def test_invalid_actions_are_never_chosen(engine):
    tables = random_tables(6, actions=4)
    invalid = np.array([[0, 1, 1, 0]] * 64, np.float32)
    output = run_search(
        tables, [0] * 64, engine=engine, simulations=9, invalid=invalid, temperature=5.0
    )
    assert set(np.unique(output.action)) <= {0, 3}
    assert np.all(np.asarray(output.action_weights)[:, 1:3] == 0)
    policy = jax.jit(prior_policy(4))
    acted = policy(as_params(tables), jax.random.key(0), embed(tables, [0] * 64), invalid, 1.0, 0.5)
    assert set(np.unique(acted.action)) == {0, 3}


def test_epsilon_greedy_prior_rates():
    tables = random_tables(7)
    tables = tables._replace(prior=np.tile([5.0, 0.0, 0.0], (5, 1)))
    policy = jax.jit(prior_policy(3))
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


@both_engines
def test_q_epsilon_keeps_tiny_differences_from_deciding(engine):
    tables = random_tables(8, actions=4)
    tables = tables._replace(
        prior=np.zeros((5, 4)),
        reward=np.zeros_like(tables.reward),
        value=np.zeros(5),
        afterstate_value=np.full((5, 4), 1e-3) * np.arange(4),
    )
    sharp = run_search(tables, [0], engine=engine, simulations=16, noise=0.0)
    calm = run_search(tables, [0], engine=engine, simulations=16, noise=0.0, q_epsilon=1.0)
    assert calm.action_weights.max() < 0.5 < sharp.action_weights.max()


@both_engines
def test_one_trace_per_configuration(engine):
    tables = random_tables(9)
    search_fn = compiled_search(5, 3, SearchConfig(num_simulations=5, engine=engine))
    for seed in range(3):
        run_search(tables, [seed, 1], engine=engine, simulations=5, seed=seed, temperature=seed / 2)
    assert search_fn._cache_size() == 1


@both_engines
def test_max_depth_limits_the_tree(engine):
    tree = jax.device_get(
        run_search(random_tables(10), [0], engine=engine, simulations=30, depth=4).tree
    )
    depths = []
    for node in range(1, 31):
        if tree.node_visits[0, node] > 0:
            depth, at = 0, node
            while at != 0:
                at, depth = int(tree.parents[0, at]), depth + 1
            depths.append(depth)
    assert max(depths) == 4


TURNS = (0, 2, 0, 2, 2, 0, 0)
"""In layered games of 7 states: after the first move the same player moves again in state 2."""
TWO_PLAYER = [random_tables(seed, states=7, layered=True) for seed in range(8)]


@pytest.mark.parametrize(
    ("engine", "root", "qtransform"),
    [
        ("batched", "puct", "siblings"),
        ("batched", "puct", "tree"),
        ("mctx", "puct", "siblings"),
        ("batched", "gumbel", "siblings"),
    ],
)
def test_two_players_converge_to_expectiminimax(engine, root, qtransform):
    """The action at the root is as good as the best, its value near; all games in one batch."""
    exact, alone = ([expectimax(t, 0, 2, turns) for t in TWO_PLAYER] for turns in (TURNS, None))
    options = {"noise": 0.0, "temperature": 0.0, "root": root, "qtransform": qtransform}
    simulations = 400 if engine == "mctx" else 1000
    lost, errors = [], []
    for tables, q in zip(TWO_PLAYER, exact, strict=True):
        output = run_search(
            tables, [0], simulations=simulations, engine=engine, ended=np.array(TURNS, np.float32),
            **options,
        )  # fmt: skip
        lost.append(q.max() - q[output.action[0]])
        errors.append(abs(output.value[0] - q.max()))
    without = [q.max() - q[p.argmax()] for p, q in zip(alone, exact, strict=True)]
    assert max(lost) < 0.15 and np.mean(errors) < 0.2
    assert max(without) > 0.5  # who forgets whose turn it is loses as much
