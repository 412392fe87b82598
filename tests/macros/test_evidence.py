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
from scipy.stats import binom, false_discovery_control

from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import (
    CANDIDATE,
    REFUTED,
    SOUND,
    Trials,
    Z,
    chance_of_more,
    count_trials,
    discoveries,
    expected_false,
    judge,
    outcomes,
    share_bounds,
    status,
    weigh,
)
from smz_jax.macros.judge.trials import make_replayed, nearest_in_time, relative_distance
from smz_jax.macros.mine.keys import PackedWindows, pack
from smz_jax.macros.mine.table import init_table, merge
from tests.analysis import test_grid_check as grid

A, B, K = 3, 24, 5
CONFIG = MacroConfig(
    max_length=4, capacity=32, num_buckets=4, play_threshold=0.2, distance_threshold=0.5,
    reward_threshold=0.25, evidence_decay=0.5, min_trials=4, min_occurrences=2,
    sound_share=0.8, certain_share=0.5,
)  # fmt: skip
EVIDENCE = ("windows", "squares", "trials", "held", "near", "paid", "agreed", "ends")


def random_trials(rng, knows_ends=True):
    """Values on both sides of each threshold, on the thresholds, and some that are not finite."""
    shape = (B, K)
    error = rng.choice(
        np.array([0.0, 0.125, -0.125, 0.25, np.nan], np.float32), shape, p=(0.6, 0.1, 0.1, 0.1, 0.1)
    )
    real, over = rng.random(shape) < 0.95, rng.random(shape) < 0.1
    before = np.pad(over, ((0, 0), (1, 0)))[:, :-1]
    valid = np.cumprod(real & ~before, axis=1).astype(bool)
    foreseen = np.where(over, rng.random(shape) < 0.6, rng.random(shape) < 0.03)
    return Trials(
        action=rng.integers(0, A, shape).astype(np.int32),
        entropy=rng.choice(
            np.array([0, 0.1, 0.2, np.nan], np.float32), shape, p=(0.5, 0.3, 0.1, 0.1)
        ),
        distance=rng.choice(np.array([0.1, 0.5, 0.6, np.nan], np.float32), shape),
        nearest=rng.random(shape) < 0.8,
        reward_error=error,
        agrees=rng.random(shape) < 0.9,
        valid=valid,
        ended=over & valid,
        foreseen_end=foreseen if knows_ends else None,
    )


def judged(trials, row, length, config):
    """A window of a row: its known actions, whether it is a trial, and its gates; None: none."""
    ends = [k + 1 for k in range(length) if trials.ended[row, k]]
    known = ends[0] if ends else length
    if known == length and not trials.valid[row, :length].all():
        return None
    error = float(np.sum(trials.reward_error[row, :known], dtype=np.float32))
    near = bool(trials.distance[row, length - 1] <= np.float32(config.distance_threshold))
    near = near and bool(trials.nearest[row, length - 1])
    if trials.foreseen_end is None:
        ends_so = known == length
        near = near or known < length
    else:
        foreseen = [k + 1 for k in range(length) if trials.foreseen_end[row, k]]
        ends_so = foreseen[:1] == ends[:1]
        near = near or bool(ends)
    certain = all(
        np.isfinite(h) and h < np.float32(config.play_threshold)
        for h in trials.entropy[row, :known]
    )
    gates = {
        "near": near,
        "paid": bool(np.isfinite(error) and abs(error) <= config.reward_threshold),
        "agreed": bool(trials.agrees[row, :known].all()),
        "ends": ends_so,
    }
    return tuple(int(a) for a in trials.action[row, :known]), certain, gates


def twin(trials, config, played, weights):
    """Evidence of one pass by action sequence: loops over windows, one length after the other."""
    found = collections.defaultdict(lambda: dict.fromkeys(EVIDENCE, 0.0))
    for row in range(trials.action.shape[0]):
        for length in range(config.min_length, config.max_length + 1):
            window = judged(trials, row, length, config)
            if window is None:
                continue
            known, certain, gates = window
            if not config.include_repeats and len(known) == length and len(set(known)) == 1:
                continue
            spoken = [m for m in played if len(m) == length and m[: len(known)] == known]
            for macro in spoken:
                weight = weights[row] * (played[macro] + 1) / sum(played[m] + 1 for m in spoken)
                counts = found[macro]
                counts["windows"] += weight
                counts["squares"] += weight**2
                if certain:
                    counts["trials"] += weight
                    counts["held"] += weight * all(gates.values())
                    for name, passed in gates.items():
                        counts[name] += weight * passed
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
    """With repeats the model also foresees ends, without them it knows of none."""
    config = dataclasses.replace(CONFIG, include_repeats=repeats)
    empty = full_table(np.random.default_rng(0), config)
    empty = empty._replace(play_count=empty.play_count % 3)

    @jax.jit
    def step(table, trials, weights):
        found = outcomes(trials, config)
        counts = count_trials(table.actions, table.play_count, found, weights)
        return weigh(table, counts, config)

    host = jax.device_get(empty)
    played = {
        tuple(int(a) for a in host.actions[i][: host.length[i]]): int(host.play_count[i])
        for i in range(32)
    }
    seen = set()

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        first, second = (random_trials(rng, knows_ends=repeats) for _ in range(2))
        weights = rng.choice(np.array([0.25, 1.0, 3.0], np.float32), (2, B))
        found = of_macros(step(step(empty, first, weights[0]), second, weights[1]))
        both = zip((first, second), weights, strict=True)
        counts = [twin(trials, config, played, x.tolist()) for trials, x in both]
        for actions, evidence in found.items():
            for name, value in evidence.items():
                expected = [c[actions][name] if actions in c else 0 for c in counts]
                total = 0.5 * expected[0] + expected[1]
                assert value == pytest.approx(total, rel=1e-5), (actions, name)
                seen.add((name, total > 0, total == round(total)))

    check()
    assert {(name, True, False) for name in EVIDENCE} <= seen


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
    table = table._replace(squares=table.windows)
    found = np.asarray(status(table, CONFIG))[:7].tolist()
    assert found == [CANDIDATE, CANDIDATE, SOUND, CANDIDATE, REFUTED, REFUTED, CANDIDATE]
    rare = table._replace(count=jnp.ones(32, jnp.int32))
    assert np.asarray(status(rare, CONFIG))[2] == CANDIDATE
    # Of 100 certain windows among 150 more than half are, by the bound; among 190 by the mean only.
    for windows, state in ((150, SOUND), (190, CANDIDATE), (1000, CANDIDATE)):
        wide = np.full(32, windows, np.float32)
        among = table._replace(windows=wide, squares=wide)
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


def test_nearest_in_time_by_hand():
    """One window on a circle, in degrees; its centre is put into the middle by a second one."""
    degrees = np.array([0, 10, 20, 30, 40, 60])
    real = np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=-1)
    real = np.stack([real, -real], axis=1)  # [6, 2, 2]
    foreseen = np.deg2rad([10, 24, 26, 39])
    foreseen = np.stack([np.cos(foreseen), np.sin(foreseen)], axis=-1)[:, None]
    foreseen = np.concatenate([foreseen, -foreseen], axis=1)
    exists = np.ones((6, 2), bool)

    def ask(exists, **same):
        found = np.zeros((6, 2), bool)
        again = lambda o: jnp.asarray(same.get(f"after_{o}", found)[: 6 - o])  # noqa: E731
        return np.asarray(nearest_in_time(foreseen, real, jnp.asarray(exists), again))

    # The ends lie at 10, 20, 30 and 40; 26 degrees are nearer to the 30 than to 20, two before.
    assert ask(exists).tolist() == [[True, True]] * 4
    foreseen[1:3] = -foreseen[1:3]
    assert ask(exists)[:, 0].tolist() == [True, False, False, True]
    foreseen[1:3] = foreseen[2:0:-1] * -1  # 26 where 20 came, 24 where 30 came
    assert ask(exists)[:, 0].tolist() == [True, False, False, True]
    # Where the nearer one shows the same, or is of another game, it is no rival.
    same = np.zeros((6, 2), bool)
    same[2] = True
    assert ask(exists, after_1=same)[:, 0].tolist() == [True, True, True, True]
    exists[3:, 0] = False
    assert ask(exists)[:, 0].tolist() == [True, True, False, True]
    # Four steps on: 59 where 10 came is nearer to the 60, and to nothing one or two steps on.
    exists[3:, 0] = True
    foreseen[0] = np.array([[np.cos(1.03), np.sin(1.03)]])
    real[2:4, :] = real[:1]
    assert not ask(exists)[0, 0]
    exists[5] = False
    foreseen[0] = real[1]
    assert ask(exists)[0, 0]


def test_a_chance_and_the_correction_are_scipys():
    """Binomial tails, and Benjamini-Hochberg by adjusted p-values."""
    for n, k in ((25, 25), (25, 23), (200, 190), (1000, 920), (300, 297), (40, 0), (3, 1)):
        expected = binom.sf(k - 1, n, 0.9)
        found = float(chance_of_more(jnp.float32(k), jnp.float32(n), 0.9))
        assert found == pytest.approx(expected, rel=0.03, abs=1e-7)
    # By hand: of 4, the limits are 0.0125, 0.025, 0.0375 and 0.05; the third is below its own.
    p_values = jnp.array([0.037, 0.012, 0.03, 0.9, 0.001], jnp.float32)
    tested = jnp.array([True, True, True, True, False])
    assert np.asarray(discoveries(p_values, tested, 0.05)).tolist() == [True] * 3 + [False] * 2
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = (rng.random(30) ** 3).astype(np.float32)
        tested = rng.random(30) < 0.8
        expected = np.zeros(30, bool)
        expected[tested] = false_discovery_control(p_values[tested]) <= 0.1
        np.testing.assert_array_equal(discoveries(jnp.asarray(p_values), tested, 0.1), expected)
    assert not np.asarray(discoveries(jnp.ones(3), jnp.zeros(3, bool), 1.0)).any()


def test_many_candidates_need_more_than_the_bound():
    """One of 30 whose bound is high enough: by chance, unless it is the only one."""
    table = full_table(np.random.default_rng(2), CONFIG)._replace(count=jnp.full(32, 2, jnp.int32))
    trials = np.full(32, 100.0, np.float32)
    held = np.full(32, 80.0, np.float32)
    held[3], trials[4:6], held[4:6] = 88, 0, 0
    counted = {"windows": trials, "squares": trials, "trials": trials, "held": held}
    found = judge(table._replace(**counted), CONFIG)
    assert float(found.held_low[3]) >= CONFIG.sound_share
    assert int(found.tested.sum()) == 30 and not np.asarray(found.discovered).any()
    assert not (np.asarray(found.status) == SOUND).any() and expected_false(found, CONFIG) == 0
    alone = judge(table._replace(**counted), dataclasses.replace(CONFIG, false_share=1.0))
    assert np.flatnonzero(np.asarray(alone.status) == SOUND).tolist() == [3]
    assert float(expected_false(alone, dataclasses.replace(CONFIG, false_share=1.0))) == 1.5
    held[:10] = 98
    many = judge(table._replace(**{**counted, "held": held}), CONFIG)
    chosen = np.flatnonzero(np.asarray(many.status) == SOUND).tolist()
    assert chosen == [0, 1, 2, 3, 6, 7, 8, 9]
    assert float(expected_false(many, CONFIG)) == pytest.approx(0.05 * 8)
    # Weights: 100 windows, half of weight 1.5 and half of 0.5, say as much as 80 equal ones.
    uneven = {**counted, "held": held, "squares": np.float32(125) / 100 * trials}
    assert float(judge(table._replace(**uneven), CONFIG).effective[3]) == pytest.approx(80)
    halves = {**uneven, "squares": trials / 4}
    assert float(judge(table._replace(**halves), CONFIG).effective[3]) == 100


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
    spec = type("Spec", (), {"context": 1, "is_marked": False})
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
    # Against a wall what follows shows the same as what came before.
    assert found.nearest[as_foreseen].all() and (before == after)[as_foreseen].any()
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


def test_a_lost_life_and_a_cut_game_are_told_apart():
    """Ends by the rules as rows have them, foreseen by the exact model or not at all."""
    rows, states = grid.played_rows(lanes=64, length=8, seed=4)
    over = grid.RULES.terminal[states[:, 1:]] & ~grid.RULES.terminal[states[:, :-1]]
    discount = np.pad(1.0 - over, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float32)
    rows = jax.tree.map(jnp.asarray, rows._replace(discount=discount))
    macro = dataclasses.replace(grid.CONFIG.macro, max_length=4)
    config = dataclasses.replace(grid.CONFIG, macro=macro)
    loss = dataclasses.replace(grid.CONFIG.loss, consistency=0.0)
    config = dataclasses.replace(config, loss=loss)
    spec = type("Spec", (), {"context": 1, "is_marked": False})
    terminal = jnp.asarray(grid.RULES.terminal, jnp.float32)
    networks = grid.exact_networks()._replace(discount=lambda params, state: 1 - state @ terminal)
    replayed = jax.jit(make_replayed(networks, config, spec))  # type: ignore[arg-type]
    found = jax.device_get(replayed(grid.PARAMS, rows)[0])
    ended = over[:, :4] & found.valid
    np.testing.assert_array_equal(found.ended, ended)
    assert ended.any() and not found.valid[:, 1:][ended[:, :-1]].any()
    agreed = np.cumprod(found.agrees, axis=1).astype(bool)
    assert found.foreseen_end[ended & agreed].all() and (ended & agreed).any()
    assert not found.foreseen_end[found.valid & agreed & ~ended].any()
    # A trial may end with a turn and does not span it.
    rows = rows._replace(discount=rows.discount.at[:, 1].multiply(-1))
    turned = jax.device_get(replayed(grid.PARAMS, rows)[0])
    np.testing.assert_array_equal(turned.valid[:, :2], found.valid[:, :2])
    np.testing.assert_array_equal(turned.ended[:, :2], found.ended[:, :2])
    assert found.valid[:, 2].any() and not turned.valid[:, 2:].any()


def test_trials_tell_wrong_rewards():
    found, *_ = grid_trials(reward_shift=0.5)
    np.testing.assert_allclose(
        found.reward_error[:, 0][found.valid[:, 0] & found.agrees[:, 0]], 0.5, atol=1e-5
    )
