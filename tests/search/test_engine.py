"""The batched engine against mctx itself: the same trees, node for node."""

import jax
import mctx
import numpy as np
import pytest

from tests.support.search_runs import GAMMA, depths, random_invalid, run_mctx, run_search
from tests.support.search_twin import TwinSearch
from tests.support.tabular import deterministic, random_tables

ENDED = (0, 1, 0, 2, 1)
"""The states after which a game goes on, is over, or is the other player's."""

# Batch, actions, outcomes, simulations, depth limits in turn; 40 models of each, half with ends.
SHAPES = [
    (1, 3, 2, 30, (None,)),
    (3, 2, 5, 16, (1, 2, 3, 8)),
    (8, 6, 4, 24, (None,)),
    (16, 4, 6, 50, (None,)),
    (4, 3, 2, 100, (3, 5, 6, 13)),
]
FIELDS = ("node_visits", "parents", "action_from_parent", "children_index", "children_visits")


def differing_rows(tree, other, num_actions):
    """Rows in which structure or visits of two trees differ; values must then be near."""
    batch_size = tree.parents.shape[0]
    differs = np.zeros(batch_size, bool)
    for name in FIELDS:
        ours, theirs = getattr(tree, name), getattr(other, name)
        width = min(ours.shape[-1], theirs.shape[-1]) if ours.ndim == 3 else None
        ours, theirs = ours[..., :width], theirs[..., :width]
        differs |= (ours != theirs).reshape(batch_size, -1).any(axis=1)
    same = ~differs
    for name in ("node_values", "raw_values"):
        np.testing.assert_allclose(getattr(tree, name)[same], getattr(other, name)[same], atol=1e-5)
    for name in ("children_values", "children_rewards", "children_discounts"):
        ours = getattr(tree, name)[same][:, :, :num_actions]
        theirs = getattr(other, name)[same][:, :, :num_actions]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    return differs


def twin_margin(tables, tree, row, options):
    """The least distance between two best scores in a row's search, by the plain-Python twin."""
    tables = tables._replace(prior=np.array(tables.prior))
    twin = TwinSearch(
        tables,
        row % 5,
        simulations=options["simulations"],
        gamma=GAMMA,
        invalid=options["invalid"][row],
        max_depth=options["depth"],
        ended=options["ended"],
        root_logits=tree.children_prior_logits[row, 0],
    )
    return twin.margin


def test_identical_to_mctx_on_200_random_models():
    """The longer searches, 80 of the models, are programs as optimised as a run's."""
    rows = differing = 0
    for batch_size, actions, outcomes, simulations, limits in SHAPES:
        jax.config.update("jax_disable_most_optimizations", simulations < 50)
        for seed in range(40):
            depth = limits[seed // 2 % len(limits)]
            tables = random_tables(seed, actions=actions, outcomes=outcomes)
            state_ids = np.arange(batch_size) % 5
            options = {
                "simulations": simulations,
                "invalid": random_invalid(seed, batch_size, actions),
                "seed": seed,
                "depth": depth if depth is None else np.int32(depth),
                "ended": ENDED if seed % 2 else (False,) * 5,
            }
            ours = run_search(tables, state_ids, engine="batched", **options)
            theirs = run_mctx(tables, state_ids, **options)
            differs = differing_rows(ours.tree, theirs.search_tree, actions)
            same = ~differs
            np.testing.assert_array_equal(ours.action[same], theirs.action[same])
            np.testing.assert_allclose(
                ours.action_weights[same], theirs.action_weights[same], atol=1e-6
            )
            np.testing.assert_allclose(
                ours.tree.node_values[same, 0], theirs.search_tree.node_values[same, 0], atol=1e-5
            )
            rows += batch_size
            differing += int(differs.sum())
            for row in np.flatnonzero(differs):  # only where two scores were nearly equal
                assert twin_margin(tables, ours.tree, row, options) < 1e-6
    assert rows > 1000
    assert differing <= 0.01 * rows


def test_noise_alone_decides_a_silent_model_as_in_mctx():
    """Equal priors and values: every choice is a tie, so every choice is mctx's noise."""
    tables = random_tables(0, actions=3, outcomes=2)
    tables = tables._replace(
        prior=np.zeros_like(tables.prior),
        value=np.zeros_like(tables.value),
        afterstate_value=np.zeros_like(tables.afterstate_value),
        reward=np.zeros_like(tables.reward),
    )
    state_ids = [0, 1, 2, 3]
    ours = run_search(tables, state_ids, simulations=24, engine="batched", dirichlet_fraction=0.0)
    reference = run_search(tables, state_ids, simulations=24, engine="mctx", dirichlet_fraction=0.0)
    assert not differing_rows(ours.tree, reference.tree, 3).any()
    assert len({tuple(row) for row in ours.tree.action_from_parent}) > 1


def test_zero_simulations():
    tables = random_tables(1)
    invalid = random_invalid(1, 4, 3)
    ours = run_search(tables, [0, 1, 2, 3], simulations=0, invalid=invalid, engine="batched")
    theirs = run_mctx(tables, [0, 1, 2, 3], simulations=0, invalid=invalid).search_tree
    for name in (*FIELDS, "raw_values", "node_values"):
        mine, other = getattr(ours.tree, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine[..., : other.shape[-1]], other)
    masked = np.where(invalid > 0, -np.inf, ours.tree.children_prior_logits[:, 0, :3])
    expected = np.exp(masked) / np.exp(masked).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours.action_weights, expected, rtol=1e-5)


@pytest.mark.parametrize("row_multiple", [1, 3, 4, 100])
def test_row_multiple_changes_nothing(row_multiple):
    tables = random_tables(2, actions=3, outcomes=4)
    options = {"simulations": 40, "engine": "batched", "collapse_threshold": 0.6}
    whole = run_search(tables, [0, 1, 2, 3, 4, 0, 2], **options)
    parts = run_search(tables, [0, 1, 2, 3, 4, 0, 2], row_multiple=row_multiple, **options)
    assert not differing_rows(parts.tree, whole.tree, 7).any()
    np.testing.assert_array_equal(parts.tree.embeddings.entropy, whole.tree.embeddings.entropy)
    np.testing.assert_array_equal(parts.tree.embeddings.state, whole.tree.embeddings.state)


# Collapsed chance nodes.

# Of one size, so that tests share their programs.
OF_FOUR = {"actions": 3, "outcomes": 4}
FROM_ALL = {"state_ids": range(5), "simulations": 40, "engine": "batched"}


def test_a_collapsed_deterministic_search_is_muzeros():
    """Each simulation adds a decision node: the trees of `mctx.muzero_policy`, visit for visit."""
    for seed in range(20):
        tables = deterministic(random_tables(seed, **OF_FOUR), seed)
        options = {"invalid": random_invalid(seed, 5, 3), "seed": seed}
        ours = run_search(tables, collapse_threshold=0.05, **FROM_ALL, **options)
        theirs = run_mctx(tables, range(5), simulations=40, policy=mctx.muzero_policy, **options)
        assert not differing_rows(ours.tree, theirs.search_tree, 3).any()
        np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-6)
        np.testing.assert_array_equal(ours.action, theirs.action)
        assert not ours.tree.embeddings.is_chance.any()


def test_threshold_zero_never_collapses():
    for outcomes in (1, 4):
        tables = deterministic(random_tables(3, actions=3, outcomes=outcomes), 3)
        tree = run_search(tables, **FROM_ALL).tree
        reference = run_search(tables, **{**FROM_ALL, "engine": "mctx"}).tree
        assert not differing_rows(tree, reference, 3).any()
        assert tree.embeddings.is_chance.any()


def test_the_threshold_is_strict_and_normalised():
    """H of (0.9, 0.1) is 0.325 nats, 0.469 of ln 2."""
    tables = random_tables(4, actions=2, outcomes=2)
    tables = tables._replace(chance=np.log(np.broadcast_to([0.9, 0.1], tables.chance.shape)))
    options = {"simulations": 9, "engine": "batched"}
    below = run_search(tables, [0], collapse_threshold=0.47, **options).tree
    above = run_search(tables, [0], collapse_threshold=0.468, **options).tree
    assert not below.embeddings.is_chance.any()
    assert above.embeddings.is_chance.any()
    np.testing.assert_allclose(below.embeddings.entropy[0, 1:], 0.469, atol=1e-3)


def test_a_collapsed_edge_holds_reward_gamma_and_entropy():
    tables = deterministic(random_tables(5, **OF_FOUR), 5)
    whole = run_search(tables, collapse_threshold=0.05, **FROM_ALL).tree
    tree = jax.tree.map(lambda x: x[2:3], whole)
    for node in range(1, 41):
        parent, action = tree.parents[0, node], tree.action_from_parent[0, node]
        assert 0 <= action < 3
        state = int(tree.embeddings.state[0, parent].argmax()) // 3
        outcome = int(tables.chance[state, action].argmax())
        expected = tables.reward[state, action, outcome]
        assert tree.children_rewards[0, parent, action] == pytest.approx(expected, rel=1e-6)
        assert tree.children_discounts[0, parent, action] == pytest.approx(0.9)
        following = int(tree.embeddings.state[0, node].argmax()) // 3
        assert following == tables.successor[state, action, outcome]
        assert tree.embeddings.entropy[0, node] == pytest.approx(0.0, abs=1e-6)


def test_rows_of_a_batch_do_not_touch_each_other():
    """Half of the states are certain: each row of a mixed batch grows the tree it grows alone."""
    random = random_tables(6, actions=3, outcomes=3)
    certain = deterministic(random, 6)
    mixed = random._replace(
        chance=np.where(np.arange(5)[:, None, None] % 2 == 0, certain.chance, random.chance)
    )
    options = {"simulations": 32, "engine": "batched", "collapse_threshold": 0.05, "noise": 0.0}
    together = run_search(mixed, [0, 1, 2, 3, 4], **options).tree
    kinds = together.embeddings.is_chance
    assert kinds.any()
    assert (~kinds[:, 1:] & (together.action_from_parent[:, 1:] < 3)).any()
    for row in range(5):
        alone = run_search(mixed, [row], **options).tree
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], together)
        assert not differing_rows(one, alone, 6).any()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_collapsed_edge_counts_two(depth):
    tables = deterministic(random_tables(7, actions=2, outcomes=3), 7)
    tree = run_search(
        tables, [0, 1], simulations=40, engine="batched", collapse_threshold=0.05,
        depth=np.int32(depth),
    ).tree  # fmt: skip
    for row in range(2):
        for node in range(1, 41):
            if tree.node_visits[row, node] == 0:
                continue
            edges, at = 0, node
            while at != 0:
                collapsed = not tree.embeddings.is_chance[row, at]
                collapsed &= tree.action_from_parent[row, at] < 2
                edges += 2 if collapsed else 1
                at = tree.parents[row, at]
            assert edges <= depth
    # An odd limit leaves one edge at its end: a chance node that is not collapsed.
    assert tree.embeddings.is_chance.any() == (depth % 2 == 1)


def expected_returns(tables, state, depth):
    """Action values of the deterministic game with `depth` steps to go."""
    values = []
    for action in range(tables.prior.shape[1]):
        outcome = int(tables.chance[state, action].argmax())
        later = 0.0
        if depth > 1:
            later = expected_returns(tables, tables.successor[state, action, outcome], depth - 1)
            later = later.max()
        values.append(tables.reward[state, action, outcome] + 0.9 * later)
    return np.array(values)


@pytest.mark.parametrize("qtransform", ["siblings", "tree"])
def test_the_optimum_of_a_deterministic_game_takes_half_the_simulations(qtransform):
    """Two-step games: the share of optimal actions, 80 collapsed against 160 uncollapsed.

    With a handful of simulations the two differ in more than depth: PUCT explores less, the fewer
    the visits, and an uncollapsed search counts twice as many.
    """
    games, found, found_uncollapsed = 40, 0, 0
    options = {"noise": 0.0, "temperature": 0.0, "engine": "batched", "qtransform": qtransform}
    for seed in range(games):
        tables = random_tables(seed, states=9, actions=4, outcomes=3, layered=True)
        tables = deterministic(tables, seed)
        best = int(expected_returns(tables, 0, 2).argmax())
        half = run_search(tables, [0], simulations=80, collapse_threshold=0.05, **options)
        full = run_search(tables, [0], simulations=160, **options)
        found += int(half.action[0]) == best
        found_uncollapsed += int(full.action[0]) == best
        assert depths(half.tree).max() >= depths(full.tree).max() // 2
    assert found >= found_uncollapsed
    assert found >= 0.75 * games


def test_on_a_random_model_nothing_is_lost():
    for seed in range(5):
        tables = random_tables(seed, **OF_FOUR)
        plain = run_search(tables, seed=seed, **FROM_ALL).tree
        collapsing = run_search(tables, seed=seed, collapse_threshold=0.05, **FROM_ALL).tree
        assert not differing_rows(plain, collapsing, 7).any()
