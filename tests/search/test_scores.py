"""PUCT and the scaling of Q-values against hand-computed trees, mctx and a plain-Python twin."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from smz_jax.search.scores import Actions, puct, scale_by_siblings, scale_by_tree
from tests.support.search_runs import GAMMA, random_invalid, run_search
from tests.support.search_twin import TwinSearch
from tests.support.tabular import Tables, random_tables


def one_node(visits, qvalues, *, value=0.0, priors=None, low=np.inf, high=-np.inf):
    """A batch of one node, from plain numbers."""
    visits = jnp.array([visits], jnp.int32)
    probs = jnp.full(visits.shape, 0.5) if priors is None else jnp.array([priors], jnp.float32)
    return Actions(
        node_visits=1 + visits.sum(axis=-1),
        node_value=jnp.array([value], jnp.float32),
        raw_value=jnp.array([value], jnp.float32),
        prior_logits=jnp.log(probs),
        prior_probs=probs,
        visits=visits,
        qvalues=jnp.array([qvalues], jnp.float32),
        low=jnp.array([low], jnp.float32),
        high=jnp.array([high], jnp.float32),
    )


def random_nodes(seed, *, nodes=400, actions=5):
    """The same random decision nodes as `Actions` and as a batch of `mctx.Tree`s of one node.

    Among them: nodes without visits, with equal or huge Q-values, and with impossible actions.
    """
    generator = np.random.default_rng(seed)
    shape = (nodes, actions)
    visits = generator.integers(0, 9, shape) * (generator.random(shape) < 0.7)
    visits[: nodes // 10] = 0
    values = generator.normal(size=shape).astype(np.float32)
    rewards = generator.normal(size=shape).astype(np.float32)
    discounts = generator.choice([0.0, 0.9, 1.0], shape).astype(np.float32)
    same = slice(nodes // 10, nodes // 5)
    values[same], rewards[same], discounts[same] = 0.5, 0.0, 1.0
    values[nodes // 5 : nodes // 4] *= 1e4
    # Unvisited children hold zeros in mctx's tree.
    values, rewards, discounts = (x * (visits > 0) for x in (values, rewards, discounts))
    logits = 2 * generator.normal(size=shape).astype(np.float32)
    logits[:, 1] = np.where(np.arange(nodes) % 3 == 0, np.finfo(np.float32).min, logits[:, 1])
    node_values = generator.normal(size=nodes).astype(np.float32)
    raw_values = generator.normal(size=nodes).astype(np.float32)
    tree = mctx.Tree(
        node_visits=(1 + visits.sum(axis=1, keepdims=True)).astype(np.int32),
        raw_values=raw_values[:, None],
        node_values=node_values[:, None],
        parents=None,
        action_from_parent=None,
        children_index=np.zeros((nodes, 1, actions), np.int32),
        children_prior_logits=logits[:, None],
        children_values=values[:, None],
        children_visits=visits[:, None].astype(np.int32),
        children_rewards=rewards[:, None],
        children_discounts=discounts[:, None],
        embeddings=None,
        root_invalid_actions=np.zeros(shape, np.float32),
        extra_data=None,
    )
    entries = Actions(
        node_visits=jnp.asarray(tree.node_visits[:, 0]),
        node_value=jnp.asarray(node_values),
        raw_value=jnp.asarray(raw_values),
        prior_logits=jnp.asarray(logits),
        prior_probs=jax.nn.softmax(logits),
        visits=jnp.asarray(tree.children_visits[:, 0]),
        # Where nothing was visited the Q-value is undefined and must not matter.
        qvalues=jnp.asarray(np.where(visits > 0, rewards + discounts * values, 77.0)),
        low=jnp.full(nodes, np.inf),
        high=jnp.full(nodes, -np.inf),
    )
    return entries, tree


def test_siblings_by_hand():
    # Bounds are V = 1 and the visited Q = 3 and -1: (3 + 1) / 4, (-1 + 1) / 4; unvisited: 0.
    scaled = scale_by_siblings(one_node([2, 1, 0], [3.0, -1.0, 99.0], value=1.0), 1e-8)
    np.testing.assert_allclose(scaled, [[1.0, 0.0, 0.0]], atol=1e-7)
    # V = 5 is the greatest: (3 - 2) / 3, (2 - 2) / 3.
    scaled = scale_by_siblings(one_node([2, 1, 0], [3.0, 2.0, 99.0], value=5.0), 1e-8)
    np.testing.assert_allclose(scaled, [[1 / 3, 0.0, 0.0]], atol=1e-7)
    # A range of 0.2 is stretched by no more than 1 / 0.5.
    scaled = scale_by_siblings(one_node([1, 1], [1.2, 1.1], value=1.0), 0.5)
    np.testing.assert_allclose(scaled, [[0.4, 0.2]], atol=1e-6)


def test_tree_bounds_by_hand():
    # Bounds [-2, 6] of the whole tree, whatever the node's own are; unvisited: 0.
    node = one_node([2, 1, 0], [2.0, -1.0, 99.0], value=5.0, low=-2.0, high=6.0)
    np.testing.assert_allclose(scale_by_tree(node, 1e-8), [[0.5, 0.125, 0.0]], atol=1e-7)
    # One Q so far: no range, so nothing to tell apart. None so far: no NaN.
    single = one_node([1, 0], [3.0, 99.0], low=3.0, high=3.0)
    assert scale_by_tree(single, 1e-8).tolist() == [[0.0, 0.0]]
    assert scale_by_tree(one_node([0, 0], [9.0, 9.0]), 1e-8).tolist() == [[0.0, 0.0]]
    # The same Q, rounded otherwise in each place.
    more, less = 3.0 + 2**-22, 3.0 - 2**-22
    for q, low, high in ((more, 3.0, 3.0), (less, 3.0, 3.0), (3.0, 3.0, less), (3.0, less, 3.0)):
        single = one_node([1, 0], [q, 99.0], low=low, high=high)
        assert scale_by_tree(single, 1e-8).tolist() == [[0.0, 0.0]]
    narrow = one_node([1, 1], [1.2, 1.1], low=1.0, high=1.2)
    np.testing.assert_allclose(scale_by_tree(narrow, 0.5), [[0.4, 0.2]], atol=1e-6)


def test_puct_by_hand():
    # sqrt(9) * (1.25 + ln(20 / 10)) * prior / (visits + 1), with N = 9 and c2 = 10.
    node = one_node([5, 3, 0], [0.0, 0.0, 0.0], priors=[0.5, 0.3, 0.2])
    score = puct(node, jnp.array([[0.1, 1.0, 0.0]]), pb_c_init=1.25, pb_c_base=10.0)
    bonus = 3 * (1.25 + 0.693147) * np.array([0.5 / 6, 0.3 / 4, 0.2])
    np.testing.assert_allclose(score, bonus[None] + [0.1, 1.0, 0.0], rtol=1e-5)


def test_scores_agree_with_mctx():
    entries, tree = random_nodes(0)
    root, depth = jnp.int32(0), jnp.int32(1)
    for epsilon in (1e-8, 1.0):
        transform = functools.partial(mctx.qtransform_by_parent_and_siblings, epsilon=epsilon)
        expected = jax.jit(jax.vmap(transform, in_axes=(0, None)))(tree, root)
        np.testing.assert_allclose(scale_by_siblings(entries, epsilon), expected, atol=1e-6)
    keys = jax.random.split(jax.random.key(0), 400)
    for constants in ({"pb_c_init": 1.25, "pb_c_base": 19_652.0},
                      {"pb_c_init": 0.5, "pb_c_base": 20.0}):  # fmt: skip
        score = puct(entries, scale_by_siblings(entries, 1e-8), **constants)
        rule = functools.partial(mctx.muzero_action_selection, **constants)
        rule = jax.jit(jax.vmap(rule, in_axes=(0, 0, None, None)))
        expected = rule(keys, tree, root, depth)
        ordered = np.sort(score, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-5
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(np.argmax(score, axis=1)[clear], expected[clear])


def hand_game(**entries):
    """Two actions with priors 0.55 and 0.45; all that is not given is 0."""
    tables = Tables(
        prior=np.tile(np.log([0.55, 0.45]), (5, 1)),
        value=np.zeros(5),
        afterstate_value=np.zeros((5, 2)),
        chance=np.zeros((5, 2, entries.pop("outcomes"))),
        successor=None,
        reward=None,
    )
    shape = tables.chance.shape
    tables = tables._replace(successor=np.full(shape, 3), reward=np.zeros(shape))
    for name, given in entries.items():
        for place, entry in given.items():
            getattr(tables, name)[place] = entry
    return tables


def grow(tables, **options):
    tree = run_search(tables, [0], simulations=4, noise=0.0, engine="batched", **options).tree
    return [
        getattr(tree, name)[0].tolist() for name in ("parents", "action_from_parent", "node_visits")
    ], tree.node_values[0]


# With discount 0.9 and c1 = 1.25 (c2 adds less than 0.0003): at N visits the bonus of an action
# with n visits is 1.25 sqrt(N) prior / (n + 1).
CERTAIN = hand_game(
    outcomes=1,
    value={1: 1.0, 4: 2.0},
    successor={(0, 0): 1, (0, 1): 2, (1, 1): 4},
    reward={(0, 0): 1.0, (0, 1): 1.28, (4, 0): 1.0},
)


def test_siblings_tree_by_hand():
    # 1: 0.69 against 0.56: action 0, Q = 1 + 0.9 = 1.9; V(root) = 1.9 / 2 = 0.95.
    # 2: Q scaled by 0.95..1.9: 1 + 0.49 against 0.80: action 0; below it 0.69 against 0.56: action
    #    0 with Q = 0. V(node 1) = 1 / 2, V(root) = (1.9 + 1) / 3, Q(root, 0) = 1 + 0.45.
    # 3: 1 + 0.40 against 0.97: action 0; in node 1 bounds 0..0.5: 0 + 0.49 against 0.80: action 1
    #    with Q = 1.8. V(node 1) = 2.8 / 3, V(root) = (2.9 + 2.62) / 4, Q(root, 0) = 1.84.
    # 4: 1 + 0.34 against 1.13: action 0; in node 1 bounds 0..1.8: 0.60 against 1 + 0.49: action 1;
    #    in node 3 action 0 with Q = 1. V(node 3) = 3 / 2, V(node 1) = (2.8 + 0.9) / 4,
    #    V(root) = (5.52 + 1.81) / 5.
    structure, values = grow(CERTAIN, collapse_threshold=0.5, qtransform="siblings")
    assert structure == [[-1, 0, 1, 1, 3], [-1, 0, 0, 1, 0], [5, 4, 1, 2, 1]]
    np.testing.assert_allclose(values, [1.466, 0.925, 0.0, 1.5, 0.0], atol=1e-6)


def test_running_bounds_tree_by_hand():
    # 1: as above; the bounds are 1.9..1.9.
    # 2: no range: 0 + 0.49 against 0.80: action 1 with Q = 1.28. V(root) = 3.18 / 3.
    # 3: bounds 1.28..1.9: 1 + 0.60 against 0 + 0.49: action 0; below it action 0 with Q = 0.
    #    V(node 1) = 1 / 2, Q(root, 0) = 1.45, V(root) = 4.18 / 4; the bounds are 0..1.9.
    # 4: 1.45 / 1.9 + 0.4583 = 1.221 against 1.28 / 1.9 + 0.5625 = 1.236: action 1. Bounds of the Q
    #    of now, 0..1.45, would give 1.458 against 1.445. Below it action 0 with Q = 0.
    structure, values = grow(CERTAIN, collapse_threshold=0.5, qtransform="tree")
    assert structure == [[-1, 0, 0, 1, 2], [-1, 0, 1, 0, 0], [5, 2, 2, 1, 1]]
    np.testing.assert_allclose(values, [1.092, 0.5, 0.0, 0.0, 0.0], atol=1e-6)


def test_edges_out_of_chance_nodes_do_not_widen_the_bounds_by_hand():
    tables = hand_game(
        outcomes=2,
        afterstate_value={(0, 0): 1.0, (0, 1): -0.28, (1, 0): 0.4},
        chance={(0, 0, 0): np.log(3.0)},  # 3/4 and 1/4
        successor={(0, 0, 0): 1},
        reward={(0, 0, 0): -1.2},
    )
    # 1: action 0, Q = 1. V(root) = 1 / 2. 2: no range: action 1, Q = -0.28. V(root) = 0.72 / 3.
    # 3: bounds -0.28..1: action 0; there outcome 0 (edge 2) with -1.2. V(node 1) = -0.2 / 2,
    #    V(root) = -0.48 / 4.
    # 4: (-0.1 + 0.28) / 1.28 + 0.458 = 0.599 against 0.5625: action 0. Bounds with the outcome's,
    #    -1.2..1, would give 0.958 against 0.981. Then outcome 0 again (0.75 / 2 against 0.25) and
    #    action 0 with 0.4. V(node 3) = 0.4 / 2, V(node 1) = (-0.2 - 0.84) / 3, V(root) = -1.32 / 5.
    structure, values = grow(tables, qtransform="tree")
    assert structure == [[-1, 0, 0, 1, 3], [-1, 0, 1, 2, 0], [5, 3, 1, 2, 1]]
    np.testing.assert_allclose(values, [-0.264, -1.04 / 3, -0.28, 0.2, 0.4], atol=1e-6)


ENDED = (False, True, False, False, True)


@pytest.mark.parametrize("qtransform,threshold,depth,ended,outcomes", [
    ("siblings", 0.0, None, None, 3), ("siblings", 0.8, 5, ENDED, 2),
    ("tree", 0.0, None, ENDED, 3), ("tree", 0.8, 6, None, 2),
])  # fmt: skip
def test_agrees_with_the_plain_python_search(qtransform, threshold, depth, ended, outcomes):
    """Trees of random games, node for node; 0.8 collapses about half of two-outcome chance nodes.

    A choice by less than 1e-5 may fall otherwise in float32: such rows are left out, and few.
    """
    simulations, rows, compared, collapsed = 24, 5, 0, 0
    for seed in range(10):
        tables = random_tables(seed, actions=3, outcomes=outcomes)
        invalid = random_invalid(seed, rows, 3)
        tree = run_search(
            tables, range(rows), simulations=simulations, invalid=invalid, depth=depth, noise=0.0,
            ended=ended, engine="batched", qtransform=qtransform, collapse_threshold=threshold,
        ).tree  # fmt: skip
        for row in range(rows):
            twin = TwinSearch(
                tables, row, simulations=simulations, gamma=GAMMA, invalid=invalid[row],
                max_depth=depth, qtransform=qtransform, threshold=threshold, ended=ended,
            )  # fmt: skip
            if twin.margin < 1e-5:
                continue
            compared += 1
            collapsed += sum(node.steps == 2 for node, _, _ in filter(None, twin.nodes))
            compare_trees(tree, row, twin.nodes)
    assert compared >= 0.9 * 10 * rows
    assert (collapsed > compared) == (threshold > 0)


def compare_trees(tree, row, nodes):
    for index, entry in enumerate(nodes):
        if entry is None:  # the depth limit: nothing was added
            assert tree.node_visits[row, index] == 0
            assert tree.parents[row, index] == -1
            continue
        node, parent, edge = entry
        edge += tree.root_invalid_actions.shape[1] if index and nodes[parent][0].is_chance else 0
        assert tree.parents[row, index] == parent
        assert tree.action_from_parent[row, index] == edge
        assert tree.node_visits[row, index] == node.visits
        assert tree.embeddings.is_chance[row, index] == node.is_chance
        assert tree.node_values[row, index] == pytest.approx(node.value, abs=1e-5)
        assert tree.embeddings.entropy[row, index] == pytest.approx(node.entropy, abs=1e-5)
        if index:
            place = (row, parent, edge)
            assert tree.children_rewards[place] == pytest.approx(node.reward, abs=1e-6)
            assert tree.children_discounts[place] == pytest.approx(node.discount)


def test_a_depth_between_one_and_two_edges_a_simulation():
    """A chain of collapsed edges reaches depth 8 by simulation 4; the rest revisit its end."""
    tables = random_tables(0, actions=1, outcomes=1)
    options = {"simulations": 6, "depth": 8, "noise": 0.0, "engine": "batched"}
    tree = run_search(tables, [0], collapse_threshold=0.5, **options).tree
    twin = TwinSearch(tables, 0, simulations=6, gamma=GAMMA, max_depth=8, threshold=0.5)
    compare_trees(tree, 0, twin.nodes)
    assert tree.node_visits[0].tolist() == [7, 6, 5, 4, 3, 0, 0]
