"""The miner over real searches and games of Catch, against the plain-Python twin."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import make_decide
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import MacroConfig, RolloutConfig
from smz_jax.macros.mine.buckets import assign_buckets
from smz_jax.macros.mine.miner import Miner, mining_row, slim
from smz_jax.macros.mine.windows import PlayRows, tree_windows
from smz_jax.model.networks import make_networks
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import MacroStats, Space
from tests.acting.test_rollout import random_params
from tests.support import macro_twin as twin
from tests.support.toy_env import CatchEnv

B, T, ROLLOUTS, WARMUP = 3, 12, 3, 15  # games of 10 rows cross rollouts; the warm-up ends in one


def make_config(policy="search") -> Config:
    default = Config()
    return dataclasses.replace(
        default,
        env=dataclasses.replace(default.env, num_envs=B, frame_stack=1),
        network=NetworkConfig(
            family="mlp", embedding_size=8, hidden_size=8, codebook_size=4, value_support=5,
            reward_support=5,
        ),
        search=SearchConfig(num_simulations=10),
        rollout=RolloutConfig(length=T, policy=policy),
        macro=MacroConfig(capacity=1024, num_buckets=8, bucket_warmup_steps=WARMUP * B),
    )  # fmt: skip


class Mining:
    """A miner and the state of a run that it mines for, from rollout to rollout."""

    def __init__(self, config):
        self.miner, self.settings = Miner(config, Space(3, ("a", "b", "c")), (8,)), config.macro
        self.state, self.steps = self.miner.init(jax.random.key(2)), 0
        self.totals = MacroStats(*[0] * len(MacroStats._fields))
        self.miner.begin(self.state, 0)

    def watch(self, *decisions):
        self.miner.watch(*decisions)
        self.steps += 1

    def end_rollout(self, rows, follows=None):
        self.state, counts, entropy = self.miner.end_rollout(rows, follows)
        self.totals = MacroStats(*(a + b for a, b in zip(self.totals, counts, strict=True)))
        self.miner.begin(self.state, self.steps)
        row = mining_row(self.state.table, self.totals, self.settings)
        return row | {"search/tree_entropy": entropy}


def mine(config):
    """Plays and mines; gives the miner, the rows, the decisions and the last metrics row."""
    env = CatchEnv(B, 4)
    networks = make_networks(config.network, env.spec)

    def sharper(params, afterstate):
        """Chance logits, spread so that entropies lie on both sides of the thresholds."""
        logits, value = networks.afterstate_prediction(params, afterstate)
        return logits * 2, value

    def softer(params, embedding):
        """Policy logits so flat that trees and games hold many different sequences."""
        logits, value = networks.prediction(params, embedding)
        return logits * 0.05, value * 0.0

    sharp = networks._replace(afterstate_prediction=sharper, prediction=softer)
    params = random_params(networks)
    miner = Mining(config)
    decisions = []

    def watch(decision):
        decisions.append(jax.device_get(decision))
        miner.watch(decision)

    actor = Actor(
        [env],
        config,
        make_decide(sharp, config, env.spec, policy=config.rollout.policy),
        jax.random.key(3),
        PhaseTimers(),
        watch,
    )
    several, row = [], {}
    for _ in range(ROLLOUTS):
        rows = actor.next(params).rows
        several.append(jax.device_get(rows))
        row = miner.end_rollout(rows)
    return miner, jax.tree.map(lambda *x: np.concatenate(x, axis=1), *several), decisions, row


@pytest.fixture(scope="module")
def mined():
    return mine(make_config())


def plain_buckets(projection, decisions):
    """For each step, a function from embeddings to buckets; the mean is frozen after warm-up."""
    seen = []
    for t, decision in enumerate(decisions):
        if t < WARMUP:
            seen.append(np.asarray(decision.embedding, np.float64))
        mean = np.concatenate(seen).mean(axis=0)
        yield lambda x, mean=mean: ((np.asarray(x, np.float64) - mean) @ projection).argmax(-1)


def twin_of(miner, rows, decisions, config):
    """The same table, its counts and its roots' buckets in plain Python."""
    projection = np.asarray(miner.state.buckets.projection, np.float64)
    projection = np.concatenate([projection, -projection], axis=1)
    table, roots = twin.Table(config.capacity), []
    counts = {"seen": 0, "certain": 0, "candidates": 0}
    for bucket, decision in zip(plain_buckets(projection, decisions), decisions, strict=True):
        roots.append(bucket(decision.embedding))
        tree = decision.search.tree
        if tree is None:
            continue
        found, seen, certain = twin.tree_windows(tree, bucket(tree.embeddings.state), config)
        table.merge(found, played=False)
        for name, more in zip(counts, (seen, certain, len(found)), strict=True):
            counts[name] += more
    played = twin_rows(rows, np.stack(roots, axis=1))
    found, seen, certain = twin.play_windows(played, config)
    table.merge(found, played=True)
    for entry in table.entries.values():
        entry["buckets"] = None  # of start states, see the test of the warm-up
    return table, counts, {"seen": seen, "certain": certain, "candidates": len(found)}


def twin_rows(rows, bucket):
    return PlayRows(
        action=rows.action,
        entropy=rows.transition_entropy,
        reward=rows.reward,
        discount=rows.discount,
        is_first=rows.is_first,
        bucket=bucket,
    )


def test_table_and_counts_are_those_of_the_plain_twin(mined):
    miner, rows, decisions, row = mined
    table, tree, play = twin_of(miner, rows, decisions, make_config().macro)
    assert 0 < tree["certain"] < tree["seen"] and 0 < play["certain"] < play["seen"]
    assert 10 < len(table.entries) <= 1024
    filled = int((miner.state.table.length > 0).sum())
    assert np.asarray(miner.state.table.buckets[:filled]).any()
    table.assert_equals(miner.state.table, buckets=False)
    totals = miner.totals
    assert totals.trees == B * T * ROLLOUTS and totals.trajectories == B * ROLLOUTS
    for source, counts in (("tree", tree), ("play", play)):
        for name, field in (("seen", "transitions"), ("certain", "certain")):
            assert getattr(totals, f"{field}_{source}") == counts[name]
        assert getattr(totals, f"candidates_{source}") == counts["candidates"]
        rate = counts["certain"] / counts["seen"]
        assert row[f"macros/certain_rate_{source}"] == pytest.approx(rate)


def test_the_row_of_metrics_is_plain_numbers(mined):
    _, _, decisions, row = mined
    assert all(isinstance(value, (int, float)) for value in row.values())
    means = []
    for decision in decisions[-T:]:
        tree = decision.search.tree
        chance = tree.embeddings.is_chance & (tree.node_visits > 0)
        means.append(tree.embeddings.entropy[chance].mean())
    assert row["search/tree_entropy"] == pytest.approx(np.mean(means), rel=1e-4)


def test_one_trace_each(mined):
    """Over rollouts and across the end of the warm-up; a second trace would cost seconds."""
    miner = mined[0]
    assert miner.steps == T * ROLLOUTS > WARMUP
    assert miner.miner._post_pass._cache_size() == 1
    assert miner.miner._merge._cache_size() == 1


@pytest.mark.parametrize("policy", ["search", "prior"])
def test_what_is_found_does_not_depend_on_how_lanes_are_split(mined, policy):
    """The same decisions once more, one lane in a pool and two in the other; bit for bit."""
    config = make_config(policy)
    whole, rows, decisions, _ = mined if policy == "search" else mine(config)
    miner = Mining(config)
    for t, decision in enumerate(decisions):
        miner.watch(*(jax.tree.map(lambda x, p=p: x[p], decision) for p in (slice(1), slice(1, 3))))
        if (t + 1) % T == 0:
            miner.end_rollout(jax.tree.map(lambda x, t=t: x[:, t + 1 - T : t + 1], rows))
    jax.tree.map(np.testing.assert_array_equal, miner.state, whole.state)
    assert miner.totals == whole.totals and (miner.state.table.length > 0).sum() > 10


def test_windows_have_the_buckets_of_their_start_nodes(mined):
    """Those that a hash of every node of every tree would give."""
    mining, _, decisions, _ = mined
    miner, buckets, newest = mining.miner, mining.state.buckets, decisions[-6:]
    waiting = [([slim(x.search.tree)], [x.embedding]) for x in newest]
    _, found = miner._post_pass(buckets, jax.tree.map(jnp.asarray, waiting), np.ones(6, bool))
    trees = jax.tree.map(lambda *x: np.concatenate(x), *[tree for (tree,), _ in waiting])
    every = assign_buckets(buckets, trees.embeddings.state).reshape(-1)
    earlier = partial(
        tree_windows, bucket_of=lambda x, _: every[x], config=mining.settings, num_actions=3
    )
    expected, _ = jax.jit(earlier)(trees)
    exists = np.asarray(expected.key_high != 0)
    for ours, theirs in zip(found.windows, expected, strict=True):
        np.testing.assert_array_equal(ours[exists], theirs[exists])
    assert len(set(np.asarray(expected.bucket)[exists].tolist())) > 2


def test_steps_that_follow_a_macro_are_not_mined(mined):
    """The same play once more: no window has such a step, and the others are as they were."""
    _, rows, decisions, _ = mined
    follows = np.random.default_rng(0).random(rows.action.shape) < 0.3
    miner = Mining(make_config())
    for t, decision in enumerate(decisions):
        miner.watch(jax.tree.map(jnp.asarray, decision))
        if (t + 1) % T == 0:
            part = slice(t + 1 - T, t + 1)
            these = jax.tree.map(lambda x, part=part: jnp.asarray(x[:, part]), rows)
            miner.end_rollout(these, jnp.asarray(follows[:, part]))
    marked = rows._replace(transition_entropy=np.where(follows, 1.0, rows.transition_entropy))
    table, tree, play = twin_of(miner, marked, decisions, make_config().macro)
    table.assert_equals(miner.state.table, buckets=False)
    assert miner.totals.certain_tree == tree["certain"]
    assert 0 < miner.totals.certain_play == play["certain"] < mined[0].totals.certain_play
    # The last row of a lane is not decided yet, and one before a first observation is not real.
    real = ~rows.is_first[:, 1:]
    assert play["seen"] - miner.totals.transitions_play == (real & follows[:, :-1]).sum()


def test_plain_policy_mines_played_games_only():
    miner, rows, decisions, row = mine(make_config("prior"))
    table, tree, play = twin_of(miner, rows, decisions, make_config().macro)
    assert tree["seen"] == 0 < play["candidates"]
    table.assert_equals(miner.state.table, buckets=False)
    assert miner.totals.trees == 0 and row["search/tree_entropy"] == 0.0
    assert miner.totals.candidates_play == play["candidates"]
