"""Evidence of macros against a plain-Python twin, an exact model, and bounds by root search."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import (
    CANDIDATE,
    REFUTED,
    SOUND,
    Trials,
    Z,
    count_trials,
    outcomes,
    share_bounds,
    status,
    weigh,
)
from smz_jax.macros.judge.trials import make_replayed, relative_distance
from smz_jax.macros.mine.keys import PackedWindows, pack
from smz_jax.macros.mine.table import init_table, merge
from tests.analysis import test_grid_check as grid

A, B, K = 3, 24, 5
CONFIG = MacroConfig(
    max_length=4, capacity=32, num_buckets=4, play_threshold=0.2, distance_threshold=0.5,
    reward_threshold=0.25, evidence_decay=0.5, min_trials=4, min_occurrences=2,
    sound_share=0.8, certain_share=0.5,
)  # fmt: skip
EVIDENCE = ("windows", "trials", "held", "near", "paid", "agreed")


def random_trials(rng):
    """Values on both sides of each threshold, on the thresholds, and some that are not finite."""
    shape = (B, K)
    error = rng.choice(
        np.array([0.0, 0.125, 0.25, np.nan], np.float32), shape, p=(0.7, 0.1, 0.1, 0.1)
    )
    return Trials(
        action=rng.integers(0, A, shape).astype(np.int32),
        entropy=rng.choice(
            np.array([0, 0.1, 0.2, np.nan], np.float32), shape, p=(0.5, 0.3, 0.1, 0.1)
        ),
        distance=rng.choice(np.array([0.1, 0.5, 0.6, np.nan], np.float32), shape),
        reward_error=error,
        agrees=rng.random(shape) < 0.9,
        valid=np.cumprod(rng.random(shape) < 0.95, axis=1).astype(bool),
    )


def twin(trials, config):
    """Evidence of one pass by action sequence: loops over windows, one length after the other."""
    found = collections.defaultdict(lambda: dict.fromkeys(EVIDENCE, 0))
    for row in range(trials.action.shape[0]):
        for length in range(config.min_length, config.max_length + 1):
            actions = tuple(int(a) for a in trials.action[row, :length])
            if not config.include_repeats and len(set(actions)) == 1:
                continue
            if not trials.valid[row, :length].all():
                continue
            found[actions]["windows"] += 1
            entropy = trials.entropy[row, :length]
            if not all(np.isfinite(h) and h < np.float32(config.play_threshold) for h in entropy):
                continue
            error = float(np.sum(trials.reward_error[row, :length], dtype=np.float32))
            near = bool(trials.distance[row, length - 1] <= np.float32(config.distance_threshold))
            paid = bool(np.isfinite(error) and error <= config.reward_threshold)
            agreed = bool(trials.agrees[row, :length].all())
            counts = found[actions]
            counts["trials"] += 1
            counts["near"] += near
            counts["paid"] += paid
            counts["agreed"] += agreed
            counts["held"] += near and paid and agreed
    return found


def full_table(rng, config):
    """A table whose slots are all taken, by sequences of random play."""
    actions = rng.integers(0, A, (400, config.max_length)).astype(np.int32)
    length = rng.integers(config.min_length, config.max_length + 1, 400)
    actions[np.arange(config.max_length) >= length[:, None]] = -1
    high, low = pack(actions)
    zeros = jnp.zeros(400, jnp.float32)
    windows = PackedWindows(
        high, low, zeros, zeros, jnp.zeros(400, jnp.int32), jnp.ones(400, jnp.int32)
    )
    table = merge(init_table(config, A), windows, played=True, config=config)
    assert (table.length > 0).all() and table.dropped > 0
    return table


def of_macros(table):
    """Evidence by action sequence."""
    host = jax.device_get(table)
    return {
        tuple(int(a) for a in host.actions[i][: host.length[i]]): {
            name: float(getattr(host, name)[i]) for name in EVIDENCE
        }
        for i in np.flatnonzero(host.length)
    }


@pytest.mark.parametrize("repeats", [True, False])
def test_evidence_equals_the_twin(repeats):
    config = dataclasses.replace(CONFIG, include_repeats=repeats)

    @jax.jit
    def step(table, trials):
        return weigh(table, count_trials(table.actions, outcomes(trials, config)), config)

    empty = full_table(np.random.default_rng(0), config)

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        first, second = random_trials(rng), random_trials(rng)
        found = of_macros(step(step(empty, first), second))
        counts = [twin(trials, config) for trials in (first, second)]
        for actions, evidence in found.items():
            for name, value in evidence.items():
                expected = [c[actions][name] if actions in c else 0 for c in counts]
                assert value == 0.5 * expected[0] + expected[1], (actions, name)

    check()


def test_evidence_goes_with_its_macro_through_merges():
    """Slots move with every merge, and go to others where the table is full."""
    rng = np.random.default_rng(1)
    table = full_table(rng, CONFIG)
    numbers = jnp.arange(1, 33, dtype=jnp.float32)
    table = table._replace(**{name: numbers * 10**i for i, name in enumerate(EVIDENCE)})
    before = of_macros(table)
    actions = np.tile(np.array([[2, 2, 2, 2], [0, 1, 0, -1]], np.int32), (40, 1))
    high, low = pack(actions)
    zeros = jnp.zeros(80, jnp.float32)
    windows = PackedWindows(
        high, low, zeros, zeros, jnp.zeros(80, jnp.int32), jnp.ones(80, jnp.int32)
    )
    after = of_macros(merge(table, windows, played=False, config=CONFIG))
    kept = [actions for actions in after if actions in before]
    assert len(kept) >= 30 and all(after[actions] == before[actions] for actions in kept)
    assert all(not any(after[x].values()) for x in after if x not in before)


def test_bounds_solve_their_equation():
    """Wilson's bounds are the shares p with (s / n - p)^2 = z^2 p (1 - p) / n."""
    for successes, trials in ((0, 5), (3, 5), (5, 5), (190, 200), (0.25, 1.5)):
        low, high = (float(x) for x in share_bounds(jnp.float32(successes), jnp.float32(trials)))
        share = successes / trials

        def gap(p, share=share, trials=trials):
            return (share - p) ** 2 - Z**2 * p * (1 - p) / trials

        assert low == pytest.approx(0 if share == 0 else brentq(gap, 1e-12, share - 1e-9), abs=1e-5)
        assert high == pytest.approx(
            1 if share == 1 else brentq(gap, share + 1e-9, 1 - 1e-12), abs=1e-5
        )
    assert [float(x) for x in share_bounds(jnp.float32(0), jnp.float32(0))] == [0, 1]


def test_status_needs_trials_and_a_bound_not_a_mean():
    table = full_table(np.random.default_rng(2), CONFIG)
    trials, held = np.zeros(32, np.float32), np.zeros(32, np.float32)
    # 9 of 10 is above 0.8 in the mean, its bound is not; 3 are too few; and so on.
    for slot, (n, k) in enumerate([(10, 9), (3, 3), (100, 95), (100, 85), (100, 50), (4, 0)]):
        trials[slot], held[slot] = n, k
    table = table._replace(
        windows=trials, trials=trials, held=held, count=jnp.full(32, 2, jnp.int32)
    )
    found = np.asarray(status(table, CONFIG))[:7].tolist()
    assert found == [CANDIDATE, CANDIDATE, SOUND, CANDIDATE, REFUTED, REFUTED, CANDIDATE]
    rare = table._replace(count=jnp.ones(32, jnp.int32))
    assert np.asarray(status(rare, CONFIG))[2] == CANDIDATE
    # Of 100 certain windows among 150 more than half are, by the bound; among 190 by the mean only.
    for windows, state in ((150, SOUND), (190, CANDIDATE), (1000, CANDIDATE)):
        among = table._replace(windows=np.full(32, windows, np.float32))
        assert np.asarray(status(among, CONFIG))[[2, 4]].tolist() == [state, REFUTED]
    anywhere = dataclasses.replace(CONFIG, certain_share=0.0)
    assert np.asarray(status(among, anywhere))[2] == SOUND
    emptied = table._replace(length=jnp.zeros(32, jnp.int32))
    assert not np.asarray(status(emptied, CONFIG)).any()


def test_relative_distance_by_hand():
    real = np.array([[2, 0], [0, 2], [-2, 0], [0, -2], [9, 9]], np.float32)
    foreseen = np.array([[3, 0], [0, -5], [0, 1], [0, 0], [9, 9]], np.float32)
    valid = np.array([True, True, True, True, False])
    found = np.asarray(relative_distance(foreseen, real, valid))
    # The mean of the four is 0, so that the distances from them are 0, 1, 2 and 1: mean 1.
    np.testing.assert_allclose(found[:4], [0, 2, 1, 1], atol=1e-6)


def grid_trials(**changes):
    """Trials of a model of the grid on rows of random play."""
    rows, states = grid.played_rows(lanes=64, length=8, seed=4)
    rows = jax.tree.map(jnp.asarray, rows)
    rules, steps = grid.RULES, np.arange(states.shape[1] - 1)
    after, action = states[:, 1:], np.asarray(rows.action)[:, :-1]
    slot = np.argmax(rules.next_state[states[:, :-1], action] == after[..., None], axis=-1)
    reward = rules.reward[states[:, :-1], action, slot]
    rows = rows._replace(
        reward=jnp.asarray(np.pad(reward, ((0, 0), (0, 1))), jnp.float32),
        discount=jnp.ones_like(rows.reward),
    )
    config = dataclasses.replace(
        grid.CONFIG,
        macro=dataclasses.replace(grid.CONFIG.macro, max_length=4),
        loss=dataclasses.replace(grid.CONFIG.loss, consistency=0.0),
    )
    spec = type("Spec", (), {"context": 1})
    replayed = make_replayed(grid.exact_networks(**changes), config, spec)  # type: ignore[arg-type]
    return jax.device_get(replayed(grid.PARAMS, rows)[0]), rows, states, steps


def test_trials_of_an_exact_model():
    """Where every outcome was the likeliest one it foresaw everything; else the codes differ."""
    found, rows, states, _ = grid_trials()
    rules = grid.RULES
    first = np.asarray(rows.is_first)
    np.testing.assert_array_equal(found.valid, np.cumprod(~first[:, 1:5], axis=1).astype(bool))
    np.testing.assert_array_equal(found.action, np.asarray(rows.action)[:, :4])
    before, after = states[:, :4], states[:, 1:5]
    chances = rules.probability[before, found.action]
    likely = rules.next_state[before, found.action, chances.argmax(axis=-1)]
    as_foreseen = np.cumprod(likely == after, axis=1).astype(bool) & found.valid
    assert 40 < as_foreseen.sum() < as_foreseen.size
    assert found.agrees[as_foreseen].all()
    np.testing.assert_allclose(found.distance[as_foreseen], 0, atol=1e-5)
    np.testing.assert_allclose(found.reward_error[as_foreseen], 0, atol=1e-5)
    astray = (
        found.valid
        & ~as_foreseen
        & np.pad(as_foreseen, ((0, 0), (1, 0)), constant_values=True)[:, :4]
    )
    assert astray.any() and not found.agrees[astray].any()
    assert (found.distance[astray] > 0.5).all()
    # Entropy of the first step: ln 1 or that of the slip, over ln C.
    truth = grid.true_entropy(rules)[before[:, 0], found.action[:, 0]] / np.log(grid.OUTCOMES)
    live = ~rules.terminal[before[:, 0]]
    np.testing.assert_allclose(found.entropy[live, 0], truth[live], atol=1e-5)


def test_trials_tell_wrong_rewards():
    found, *_ = grid_trials(reward_shift=0.5)
    np.testing.assert_allclose(
        found.reward_error[:, 0][found.valid[:, 0] & found.agrees[:, 0]], 0.5, atol=1e-5
    )
