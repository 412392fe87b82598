"""Windows and table of macros against the plain-Python twin."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.table import init_table, merge
from smz_jax.macros.mine.windows import PlayRows, init_carry, play_windows, tree_windows
from smz_jax.types import NodeEmbedding
from tests.support import macro_twin as twin
from tests.support.search_runs import run_search
from tests.support.tabular import deterministic, random_tables

B, N, A, C = 4, 20, 3, 5
ENTROPIES = np.array([0.0, 0.1, 0.2, 0.4, 0.7], np.float32)  # 0.2 and 0.4 are the thresholds
CONFIGS = (
    MacroConfig(capacity=512, num_buckets=16),
    MacroConfig(
        min_length=1, max_length=8, tree_weight="visits", include_repeats=False,
        capacity=64, num_buckets=16, tree_threshold=0.7, play_threshold=0.7,
    ),
)  # fmt: skip

FULL = MacroConfig(
    min_length=1, max_length=4, capacity=16, num_buckets=16, tree_threshold=0.8, play_threshold=0.8
)
"""A table that a handful of windows fills."""


@functools.cache
def jitted(config):
    told = {"config": config, "num_actions": A}
    return (
        jax.jit(
            lambda tree, buckets: tree_windows(
                tree, lambda nodes, _: buckets.reshape(-1)[nodes], config, A
            )
        ),
        jax.jit(lambda rows, carry: play_windows(rows, carry, config, A)),
        jax.jit(lambda table, windows: merge(table, windows, played=False, **told)),
        jax.jit(lambda table, windows: merge(table, windows, played=True, **told)),
    )


def make_tree(parents, edges, is_chance, entropy, rewards, visits, discounts=None):
    """An mctx.Tree from per-node arrays; children are filled in from the parents."""
    lanes, nodes = parents.shape
    children = np.full((lanes, nodes, A + C), -1, np.int32)
    for lane, node in np.argwhere(parents >= 0):
        children[lane, parents[lane, node], edges[lane, node]] = node
    numbers = np.full((lanes, nodes), np.nan, np.float32)
    per_edge = np.full((lanes, nodes, A + C), np.nan, np.float32)
    return mctx.Tree(
        node_visits=jnp.asarray(visits), raw_values=numbers, node_values=numbers,
        parents=jnp.asarray(parents), action_from_parent=jnp.asarray(edges),
        children_index=jnp.asarray(children), children_prior_logits=per_edge,
        children_visits=per_edge, children_rewards=jnp.asarray(rewards),
        children_discounts=jnp.asarray(per_edge if discounts is None else discounts),
        children_values=per_edge,
        embeddings=NodeEmbedding(numbers[..., None], jnp.asarray(is_chance), jnp.asarray(entropy)),
        root_invalid_actions=per_edge[:, 0], extra_data=None,
    )  # fmt: skip


def random_tree(rng):
    """Uncollapsed, collapsed and mixed lanes, with unused nodes and some non-finite rewards."""
    parents = np.full((B, N), -1, np.int32)
    edges = np.full((B, N), -1, np.int32)
    is_chance = np.zeros((B, N), bool)
    entropy = np.zeros((B, N), np.float32)
    rewards = rng.integers(-2, 3, (B, N, A + C)).astype(np.float32)
    rewards[rng.random(rewards.shape) < 0.03] = np.inf
    discounts = rng.choice(np.float32([1, 0, -1]), rewards.shape, p=(0.8, 0.1, 0.1))
    visits = rng.integers(1, 9, (B, N)).astype(np.int32)
    for lane, collapse in enumerate((0.0, 1.0, 0.5, rng.random())):
        unused = int(rng.integers(0, 6))
        visits[lane, N - unused :] = 0
        taken = set()
        for node in range(1, N - unused):
            while True:
                parent = int(max(node - rng.geometric(0.6), 0))
                low, high = (A, A + C) if is_chance[lane, parent] else (0, A)
                edge = int(rng.integers(low, high))
                if (parent, edge) not in taken:
                    break
                parent = int(rng.integers(0, node))
            taken.add((parent, edge))
            parents[lane, node], edges[lane, node] = parent, edge
            if not is_chance[lane, parent]:
                is_chance[lane, node] = rng.random() >= collapse
                entropy[lane, node] = rng.choice(ENTROPIES, p=(0.3, 0.3, 0.2, 0.15, 0.05))
    return make_tree(parents, edges, is_chance, entropy, rewards, visits, discounts)


def random_rows(rng, num_rows):
    """Lanes with truncated and terminated games, lost lives and turns of another player."""
    shape = (B, num_rows)
    discount = rng.choice(np.float32([1, 0, -1]), shape, p=(0.84, 0.08, 0.08))
    over = rng.random(shape) < 0.06
    is_first = np.zeros(shape, bool)
    is_first[:, 0] = True
    is_first[:, 1:] = over[:, :-1]
    reward = rng.integers(-2, 3, shape).astype(np.float32)
    reward[rng.random(shape) < 0.02] = np.nan
    return PlayRows(
        action=rng.integers(0, A, shape).astype(np.int32),
        entropy=rng.choice(ENTROPIES, shape, p=(0.4, 0.4, 0.1, 0.05, 0.05)).astype(np.float32),
        reward=reward,
        discount=discount,
        is_first=is_first,
        bucket=rng.integers(0, 16, shape).astype(np.int32),
    )


def test_of_several_players_a_window_goes_on_where_the_same_one_is_sure_to_move():
    """A new model expects a discount of about 0: its trees then hold no window over a turn."""
    config = CONFIGS[0]
    windows_of = jax.jit(
        lambda tree, buckets: tree_windows(
            tree, lambda nodes, _: buckets.reshape(-1)[nodes], config, A, players=2
        )
    )
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tree, buckets = random_tree(rng), rng.integers(0, 16, (B, N)).astype(np.int32)
        shape = tree.children_discounts.shape
        tree = tree.replace(children_discounts=rng.choice(np.float32([1, 0.6, 0.4, -1]), shape))
        windows, stats = windows_of(tree, buckets)
        found, _, _ = twin.tree_windows(tree, buckets, config, least_discount=0.5)
        assert twin.as_sorted(windows) == twin.rounded(found)
        unsure = len(twin.tree_windows(tree, buckets, config)[0])
        assert 0 < len(found) == int(stats.candidates_tree) < unsure
    silent = tree.replace(children_discounts=np.full(shape, 0.01, np.float32))
    assert not windows_of(silent, buckets)[0].key_high.any()


@pytest.mark.parametrize("config", CONFIGS)
def test_trees_and_games_give_the_twins_table(config):
    of_tree, of_play, merge_tree, merge_play = jitted(config)
    table, expected = init_table(config, A), twin.Table(config.capacity)
    carry = init_carry(config, B)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        tree, buckets = random_tree(rng), rng.integers(0, 16, (B, N)).astype(np.int32)
        windows, stats = of_tree(tree, buckets)
        found, seen, certain = twin.tree_windows(tree, buckets, config)
        assert twin.as_sorted(windows) == twin.rounded(found)
        assert len(found) > 10
        assert int(stats.trees) == B and int(stats.transitions_tree) == seen
        assert int(stats.certain_tree) == certain and int(stats.candidates_tree) == len(found)
        table = merge_tree(table, windows)
        expected.merge(found, played=False)
        expected.assert_equals(table)

        rows = random_rows(rng, 30)
        windows, stats, _ = of_play(rows, carry)
        found, seen, certain = twin.play_windows(rows, config)
        assert twin.as_sorted(windows) == twin.rounded(found)
        assert int(stats.trajectories) == B and int(stats.transitions_play) == seen
        assert int(stats.certain_play) == certain and int(stats.candidates_play) == len(found)
        table = merge_play(table, windows)
        expected.merge(found, played=True)
        expected.assert_equals(table)
    assert (expected.dropped > 0) == (config.capacity == 64)


@functools.partial(jax.jit, static_argnames=("collapse_threshold", "max_depth"))
def tabular_search(rng_key, collapse_threshold, max_depth):
    """A real `mctx.search` over a small random game; depth-cut leaves are expanded again."""
    states = 6
    rng = np.random.default_rng(0)
    sharp = rng.choice([0.5, 8.0], (states, A, 1))
    sigma = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(states, A, C)) * sharp, jnp.float32))
    after = jnp.asarray(rng.integers(0, states, (states, A, C)), jnp.int32)
    reward = jnp.asarray(rng.integers(-1, 2, (states, A, C)), jnp.float32)
    entropy = -jnp.sum(jnp.exp(sigma) * sigma, axis=-1) / jnp.log(float(C))
    never, zero = jnp.full((A + C,), -jnp.inf), jnp.float32(0)
    action_logits = never.at[:A].set(jnp.array([2.0, 0.0, -1.0]))

    def step(_, rng_key, edge, embedding):
        del rng_key

        def one(edge, node):
            state, action = node.state.astype(jnp.int32)
            outcome = jnp.where(node.is_chance, edge - A, sigma[state, edge].argmax())
            action = jnp.where(node.is_chance, action, edge)
            collapsed = ~node.is_chance & (entropy[state, action] < collapse_threshold)
            to_decision = node.is_chance | collapsed
            new = jnp.where(to_decision, after[state, action, outcome], state)
            held = jnp.where(node.is_chance, zero, entropy[state, action])
            chance_logits = never.at[A:].set(sigma[state, action])
            logits = jnp.where(to_decision, action_logits, chance_logits)
            gain = jnp.where(to_decision, reward[state, action, outcome], zero)
            embedding = NodeEmbedding(jnp.stack([new, action]).astype(float), ~to_decision, held)
            return logits, gain, embedding

        logits, gain, embedding = jax.vmap(one)(edge, embedding)
        ones = jnp.ones_like(gain)
        out = mctx.RecurrentFnOutput(reward=gain, discount=ones, prior_logits=logits, value=gain)
        return out, embedding

    def select(rng_key, tree, node, depth):
        del depth
        return jnp.argmax(tree.children_prior_logits[node] + jax.random.gumbel(rng_key, (A + C,)))

    root = mctx.RootFnOutput(
        prior_logits=jnp.tile(action_logits, (B, 1)),
        value=jnp.zeros((B,)),
        embedding=NodeEmbedding(
            jnp.stack([jnp.arange(B) % states, jnp.zeros(B)], axis=1),
            jnp.zeros((B,), bool),
            jnp.zeros((B,)),
        ),
    )
    return mctx.search(
        None, rng_key, root=root, recurrent_fn=step,
        root_action_selection_fn=lambda key, tree, node: select(key, tree, node, 0),
        interior_action_selection_fn=select, num_simulations=N - 1, max_depth=max_depth,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("collapse_threshold", "max_depth"), [(0.0, None), (0.0, 5), (0.3, 4), (2.0, None)]
)
def test_windows_of_real_mctx_trees(collapse_threshold, max_depth):
    config = MacroConfig(min_length=1, tree_threshold=0.6, num_buckets=16)
    of_tree, *_ = jitted(config)
    longest = unused = 0
    for seed in range(4):
        tree = tabular_search(jax.random.key(seed), collapse_threshold, max_depth)
        buckets = np.random.default_rng(seed).integers(0, 16, (B, N)).astype(np.int32)
        found, seen, certain = twin.tree_windows(tree, buckets, config)
        windows, stats = of_tree(tree, buckets)
        assert twin.as_sorted(windows) == twin.rounded(found)
        assert (int(stats.transitions_tree), int(stats.certain_tree)) == (seen, certain)
        longest = max([longest, *(len(actions) for actions, *_ in found)])
        chance = np.asarray(tree.embeddings.is_chance)[:, 1:]
        assert chance.any() == (collapse_threshold < 1)
        unused += int((np.asarray(tree.node_visits) == 0).sum())
    assert longest >= 2
    assert (unused > 0) == (max_depth is not None)


def test_a_window_by_hand():
    """Root -2-> (collapsed) 1 -0-> chance 2 -c4-> 3: one window of two steps."""
    parents = np.array([[-1, 0, 1, 2]], np.int32)
    edges = np.array([[-1, 2, 0, A + 4]], np.int32)
    rewards = np.zeros((1, 4, A + C), np.float32)
    rewards[0, 0, 2], rewards[0, 2, A + 4] = 1.0, 2.5
    tree = make_tree(
        parents, edges, np.array([[False, False, True, False]]),
        np.array([[0.0, 0.1, 0.3, 0.0]], np.float32), rewards, np.array([[9, 5, 4, 3]], np.int32),
    )  # fmt: skip
    buckets = np.array([[7, 6, 5, 4]], np.int32)
    windows, stats = jitted(MacroConfig(tree_weight="visits"))[0](tree, buckets)
    assert twin.as_sorted(windows) == [((2, 0), 0.2, 3.5, 7, 3)]
    assert int(stats.transitions_tree) == 2
    windows, _ = jitted(MacroConfig(tree_threshold=0.3))[0](tree, buckets)
    assert twin.as_sorted(windows) == []  # the threshold is strict


def test_played_windows_end_with_a_termination_and_do_not_span_it():
    config = MacroConfig(min_length=2, max_length=3)
    zeros = np.zeros((1, 8), np.float32)
    rows = PlayRows(
        action=np.array([[0, 1, 2, 0, 1, 2, 2, 0]], np.int32), entropy=zeros, reward=zeros,
        discount=np.array([[1, 0, 1, 1, 1, 1, 1, 1]], np.float32),
        # Row 4 is a final observation: its action 1 was ignored. Row 7 is undecided.
        is_first=np.array([[1, 0, 0, 0, 0, 1, 0, 0]], bool), bucket=np.zeros((1, 8), np.int32),
    )  # fmt: skip
    _, of_play, *_ = jitted(config)
    windows, stats, _ = of_play(rows, init_carry(config, 1))
    assert [actions for actions, *_ in twin.as_sorted(windows)] == [(0, 1), (2, 0), (2, 2)]
    assert int(stats.transitions_play) == 6


@pytest.mark.parametrize("cuts", [(20, 40), (1, 2, 31)])
def test_carry_makes_many_rollouts_one(cuts):
    config = CONFIGS[0]
    _, of_play, _, merge_play = jitted(config)
    rows = random_rows(np.random.default_rng(5), 60)
    found, seen, certain = twin.play_windows(rows, config)
    table, carry, expected = init_table(config, A), init_carry(config, B), twin.Table(512)
    counts = np.zeros(3, int)
    for low, high in zip((0, *cuts), (*cuts, 60), strict=True):
        part = jax.tree.map(lambda field, low=low, high=high: field[:, low:high], rows)
        windows, stats, carry = of_play(part, carry)
        table = merge_play(table, windows)
        counts += [stats.transitions_play, stats.certain_play, stats.candidates_play]
    assert counts.tolist() == [seen, certain, len(found)]
    expected.merge(found, played=True)
    expected.assert_equals(table)


@pytest.mark.parametrize("engine", ["batched", "mctx"])
@settings(max_examples=130, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_trees_of_both_engines_and_games_give_the_twins_table(engine, seed):
    """4 trees and 4 lanes of play an example: 520 of each with either engine; the table is full."""
    rng = np.random.default_rng(seed)
    random = random_tables(seed, actions=A, outcomes=C)
    certain = deterministic(random, seed % 97).chance
    kind = rng.random(random.chance.shape[:2])[..., None] < 0.5
    tables = random._replace(  # whole rewards: their sums have one order of size
        chance=np.where(kind, certain, random.chance), reward=np.round(2 * random.reward)
    )
    tree = run_search(
        tables, rng.integers(0, 5, B), simulations=N - 1, seed=seed % 2**31, engine=engine,
        collapse_threshold=0.3 if engine == "batched" else 0.0,
    ).tree  # fmt: skip
    of_tree, of_play, merge_tree, merge_play = jitted(FULL)
    buckets = rng.integers(0, 16, tree.parents.shape).astype(np.int32)
    windows, _ = of_tree(tree, buckets)
    found, _, _ = twin.tree_windows(tree, buckets, FULL)
    assert close(twin.as_sorted(windows), twin.rounded(found))
    rows = random_rows(rng, 30)
    played, _, _ = of_play(rows, init_carry(FULL, B))
    expected_play, _, _ = twin.play_windows(rows, FULL)
    assert close(twin.as_sorted(played), twin.rounded(expected_play))
    table = merge_play(merge_tree(init_table(FULL, A), windows), played)
    expected = twin.Table(FULL.capacity)
    expected.merge(found, played=False)
    expected.merge(expected_play, played=True)
    expected.assert_equals(table)
    assert expected.dropped > 0


def close(ours, theirs):
    """Whether windows are the same, but for the last bits of their sums."""
    ours, theirs = (sorted(x, key=lambda w: (w[0], w[3:], w[2], w[1])) for x in (ours, theirs))
    assert [window[0] for window in ours] == [window[0] for window in theirs]
    for position in (1, 2, 3, 4):
        one, other = ([window[position] for window in side] for side in (ours, theirs))
        np.testing.assert_allclose(one, other, atol=1e-3)
    return True


@pytest.mark.parametrize("collapse_threshold", [0.05, 0.7])
def test_windows_of_the_batched_engines_trees(collapse_threshold):
    """Certain and random states mixed: collapsed and uncollapsed transitions in one tree."""
    random = random_tables(3, actions=A, outcomes=C)
    certain = deterministic(random, 3).chance
    chance = np.where(np.arange(5)[:, None, None] % 2, certain, random.chance)
    tree = run_search(
        random._replace(chance=chance), [0, 1, 2], simulations=40, engine="batched",
        collapse_threshold=collapse_threshold,
    ).tree  # fmt: skip
    is_chance, edge = tree.embeddings.is_chance, tree.action_from_parent
    assert is_chance.any() and (~is_chance & (edge >= 0) & (edge < A)).any()
    config = MacroConfig(tree_threshold=0.8, min_length=1, max_length=4)
    buckets = (np.arange(tree.parents.size).reshape(tree.parents.shape) % 5).astype(np.int32)
    windows, stats = jitted(config)[0](tree, buckets)
    found, seen, sure = twin.tree_windows(tree, buckets, config)
    assert (int(stats.transitions_tree), int(stats.certain_tree)) == (seen, sure)
    assert len(found) > 10
    ours, theirs = twin.as_sorted(windows), twin.rounded(found)
    assert [window[0] for window in ours] == [window[0] for window in theirs]
    for position in (1, 2, 3, 4):  # float32 sums of rewards
        np.testing.assert_allclose(
            [window[position] for window in ours],
            [window[position] for window in theirs],
            atol=1e-3,
        )
