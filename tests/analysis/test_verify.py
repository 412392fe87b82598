"""Verification without a game: intervals, counts and the judgement of single trials."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from smz_jax.analysis.verify import emulator_world, outcomes
from smz_jax.analysis.verify.document import tally
from smz_jax.analysis.verify.foresight import nearness, padded
from smz_jax.analysis.verify.tried_libraries import is_paid
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import SequenceRun
from smz_jax.storage.estimate import mean_estimate, share_estimate
from tests.support.verify_parts import random_trials


def plain_wilson(p, n):
    """The shares q with (p - q)^2 = z^2 q (1 - q) / n, by root search."""
    z = stats.norm.ppf(0.975)

    def gap(q):
        return (p - q) ** 2 - z**2 * q * (1 - q) / n

    low = 0.0 if p == 0 else brentq(gap, 1e-12, p - 1e-9)
    return low, 1.0 if p == 1 else brentq(gap, p + 1e-9, 1 - 1e-12)


def test_a_share_of_free_trials_and_one_of_copies():
    held = [True] * 14 + [False] * 6
    free = share_estimate(held, range(20))
    assert (free.mean, free.count) == (0.7, 20)
    np.testing.assert_allclose(free[1:3], plain_wilson(0.7, 19), atol=1e-6)
    # Ten copies of each trial in its cluster say nothing more.
    copies = share_estimate(np.repeat(held, 10), np.repeat(np.arange(20), 10))
    np.testing.assert_allclose(copies[:3], free[:3], atol=1e-9)
    # Clusters alike in their shares: every trial counts.
    even = share_estimate([True, True, False, False] * 10, np.repeat(np.arange(10), 4))
    np.testing.assert_allclose(even[1:3], plain_wilson(0.5, 40), atol=1e-6)
    # Where all agree the clusters count, not the trials.
    sure = share_estimate([True] * 60, np.repeat(np.arange(6), 10))
    np.testing.assert_allclose(sure[1:3], plain_wilson(1.0, 6), atol=1e-6)
    assert share_estimate([], []) is None


def test_the_interval_of_a_share_covers_it():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        chances = rng.beta(4, 1, 25)
        clusters = np.repeat(np.arange(25), 8)
        found = share_estimate(rng.random(200) < chances[clusters], clusters)
        inside += found.low <= 0.8 <= found.high
    assert 0.91 <= inside / 400 <= 0.99


def test_a_mean_of_free_values_and_one_of_copies():
    values = np.random.default_rng(1).normal(2, 3, 12)
    free = mean_estimate(values, range(12))
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    np.testing.assert_allclose(free[1:3], expected)
    copies = mean_estimate(np.repeat(values, 5), np.repeat(np.arange(12), 5))
    np.testing.assert_allclose(copies[:3], free[:3])
    assert mean_estimate([1.0, 3.0], ["a", "a"]) == (2.0, None, None, 2)


def test_counts_equal_a_plain_recount():
    rng = np.random.default_rng(2)
    trials = random_trials(rng)
    applied = rng.random((5, 7)) < 0.5
    found = tally(trials, applied)

    def ratio(rows, read):
        rows = list(rows)
        return sum(read(x) for x in rows) / len(rows), len(rows)

    def counts(estimate):
        return estimate["mean"], estimate["trials"]

    here = [x for x in trials if x.applies]
    counted = [x for x in here if not x.cut and x.rivals > 0]
    assert counts(found["applied"]) == (applied.sum() / 35, 35)
    assert counts(found["held"]) == ratio(counted, lambda x: x.nearest and x.paid)
    assert counts(found["nearest"]) == ratio(counted, lambda x: x.nearest)
    assert counts(found["told_apart"]) == ratio(counted, lambda x: x.told_apart)
    with_reward = [x for x in counted if x.rewarded]
    assert counts(found["paid_rewarded"]) == ratio(with_reward, lambda x: x.paid)
    without = [x for x in counted if not x.rewarded]
    assert counts(found["paid_unrewarded"]) == ratio(without, lambda x: x.paid)
    whole = [x for x in here if x.ended or x.moments > 0]
    assert counts(found["whole"]) == ratio(whole, lambda x: x.whole)
    assert counts(found["whole_paid"]) == ratio(whole, lambda x: x.whole and x.paid)
    assert counts(found["lost"]) == ratio(here, lambda x: x.ended)
    lost = [x for x in here if x.ended]
    assert counts(found["lost_foreseen"]) == ratio(lost, lambda x: x.end_foreseen)
    anywhere = [x for x in trials if x.drawn and (x.ended or x.moments)]
    assert counts(found["whole_anywhere"]) == ratio(anywhere, lambda x: x.whole)
    alive = [x for x in whole if not x.ended]
    assert found["whole_chance"] == pytest.approx(ratio(alive, lambda x: 1 / (x.moments + 1))[0])
    for kind, name in enumerate(("in_time", "later", "elsewhere")):
        known = [x for x in alive if x.beats[kind] is not None]
        assert counts(found[name]) == ratio(known, lambda x, kind=kind: x.beats[kind])
    assert found["hidden"] == sum(x.hidden for x in here)
    drawn = [x for x in trials if x.drawn and not x.cut and x.rivals]
    assert counts(found["held_anywhere"]) == ratio(drawn, lambda x: x.nearest and x.paid)
    assert found["gain"]["mean"] == pytest.approx(ratio(here, lambda x: x.gain)[0])
    assert found["lives"]["mean"] == ratio(here, lambda x: x.lives)[0]
    assert found["chance"] == pytest.approx(ratio(counted, lambda x: 1 / (x.rivals + 1))[0])
    assert found["cut"] == sum(x.cut for x in here)
    assert found["unrivalled"] == sum(x.rivals == 0 and not x.cut for x in here)
    ran = [x for x in here if x.repeats is not None]
    assert counts(found["repeats"]) == ratio(ran, lambda x: x.repeats)


def test_who_is_nearest_by_hand():
    own, far = np.array([2.0, 1.0]), np.array([0.0, 3.0])
    centre = np.array([1.0, 1.0])
    # Less the centre: own (1, 0), far (-1, 2); real (1, 0.1), then (-1, 1).
    assert emulator_world.is_nearest(own, [far], np.array([2.0, 1.1]), centre)
    assert not emulator_world.is_nearest(own, [far], np.array([0.0, 2.0]), centre)
    assert not emulator_world.is_nearest(own, [own], np.array([2.0, 1.1]), centre)  # a tie
    found = nearness(np.array([own, far]), np.array([[2.0, 2.0]]), centre)
    np.testing.assert_allclose(found[:, 0], [1 / np.sqrt(2), 1 / np.sqrt(10)])


def test_rivals_end_elsewhere_and_are_at_most_19():
    pool = emulator_world.draw_pool(3, 4, np.random.default_rng(0))
    assert len(set(pool)) == 40 and all(len(x) == 3 and set(x) <= {0, 1, 2, 3} for x in pool)
    macro = pool[3]
    frames = {x: b"same" if i % 4 == 0 else bytes([i]) for i, x in enumerate(pool)}
    rivals = emulator_world.rivals_of(macro, b"same", frames)
    expected = [x for i, x in enumerate(pool) if i % 4 and i != 3]
    assert rivals == expected[:19] and len(expected) == 29
    every = emulator_world.draw_pool(2, 4, np.random.default_rng(1))
    assert sorted(every) == list(itertools.product(range(4), repeat=2))


def test_states_are_the_same_for_all_and_more_where_macros_apply():
    rng = np.random.default_rng(3)
    applies = np.array(
        [[False] * 6 + [True] * 14, [True] * 20, [False] * 20, [True] * 2 + [False] * 18]
    )
    tried, drawn = emulator_world.choose_states(applies, 5, rng)
    assert drawn.tolist() == [True] * 5 + [False] * 15
    assert tried[:, :5].all()
    assert (tried & applies).sum(axis=1).tolist() == [5, 5, 0, 2]
    assert not (tried & ~drawn & ~applies).any()


def run_of(lives, rewards, terminated=False):
    frames = np.arange(len(lives), dtype=np.uint8)[:, None, None] + 10
    return SequenceRun(
        frames, np.array(rewards, np.float32), np.array(lives, np.int32), terminated,
        np.zeros(128, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lives", "rewards", "terminated", "expected"),
    [
        ([5, 5, 5], [0, 4, 7], False, ([0, 1, 1], 0, False, False)),
        ([5, 4, 4], [1, 0, 7], False, ([1, 0], 1, True, True)),  # a life ends it in its midst
        ([5, 5, 4], [1, 0, 7], False, ([1, 0, 1], 1, False, True)),  # with its last action
        ([5, 0], [1, 0], True, ([1, 0], 5, True, True)),
        ([5, 5, 5], [1, 0, 0], True, ([1, 0, 0], 0, False, True)),
    ],
)
def test_what_a_run_came_to(lives, rewards, terminated, expected):
    first = np.arange(4, dtype=np.uint8)[:, None, None]
    start = SimpleNamespace(state=SimpleNamespace(step=SimpleNamespace(lives=5, observation=first)))
    found = outcomes.outcome(start, run_of(lives, rewards, terminated), 3, Config())  # type: ignore[arg-type]
    assert (found.rewards.tolist(), found.lost, found.cut, found.over) == expected
    stack = [0, 1, 2, 3, 10, 11, 12][: 4 + len(lives)][-4:]
    assert found.observation.ravel().tolist() == stack


def test_returns_by_hand():
    assert emulator_world.returns(np.array([1.0, 0.0, -1.0]), 8.0, 0.5) == 1 - 0.25 + 1.0
    assert is_paid([0.25, 0.26, -0.25], [0, 0, 0], Config()).tolist() == [True, False, True]
    np.testing.assert_array_equal(padded([(1, 2), (3,)], 3), [[1, 2, -1], [3, -1, -1]])
