"""Stored values against real returns: by hand, and by a walk through each episode alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from smz_jax.learning.diagnose import (
    CALIBRATION_PARTS,
    SPREAD_PARTS,
    calibration,
    check_row,
    real_returns,
)

NAN = np.nan


def returns_of(reward, discount, is_first, gamma):
    return real_returns(
        *(np.array([x], np.float32) for x in (reward, discount)), np.array([is_first]), gamma
    )[0].tolist()


def test_returns_by_hand():
    # A lost life, a game over with its final observation, a game that was cut off, one of one step.
    reward = [1, 2, 4, 0, 8, 16, 0, 32]
    discount = [1, 0, 0, 1, 1, 1, 1, 0]
    first = [False, False, False, False, True, False, False, True]
    wanted = [1 + 0.5 * 2, 2, 4, NAN, NAN, NAN, NAN, 32]
    np.testing.assert_equal(returns_of(reward, discount, first, 0.5), wanted)
    # The other player's points count the other way; the last row may end its episode.
    found = returns_of([1, 2, 4, 8], [-1, 1, 0, 1], [True, False, False, False], 0.5)
    np.testing.assert_equal(found, [1 - 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4, NAN])


def test_returns_of_three_players_by_hand():
    """Seats 0 and 1 pass, seat 2 moves twice and wins: each row has its own mover's return."""
    reward, discount = [0, 0, 0.25, 1], [-1, -1, 1, 0]
    rewards = [[0, 0, 0], [0, 0, 0], [-0.125, -0.125, 0.25], [-0.5, -0.5, 1]]
    rows = (np.array([x], np.float32) for x in (reward, discount))
    first, player = np.array([[True, False, False, False]]), np.array([[0, 1, 2, 2]])
    found = real_returns(*rows, first, 0.5, player, np.array([rewards], np.float32))
    lost = -0.125 - 0.5 * 0.5
    np.testing.assert_equal(found.tolist(), [[0.25 * lost, 0.5 * lost, 0.25 + 0.5, 1.0]])


def twin(reward, discount, is_first, start, gamma):
    """The return of one row by walking on from it."""
    total, factor = 0.0, 1.0
    for t in range(start, len(reward)):
        if t + 1 < len(reward) and is_first[t + 1]:
            return None
        total += factor * reward[t]
        if discount[t] == 0:
            return total
        factor *= gamma * discount[t]
    return None


@pytest.mark.parametrize(("total", "ring"), [(37, 50), (50, 50), (133, 50)])
def test_parts_are_those_of_a_walk_row_by_row(total, ring):
    """Rows lie around the ring as a replay writes them; those not there are wild."""
    rng = np.random.default_rng(total)
    shape, gamma = (3, total), 0.9
    reward = rng.normal(size=shape).astype(np.float32)
    discount = np.where(rng.random(shape) < 0.1, 0.0, 1.0).astype(np.float32)
    is_first = rng.random(shape) < 0.05
    value = rng.normal(size=shape).astype(np.float32)
    spread = rng.integers(0, 9, shape).astype(np.float32)  # with ties

    def in_ring(x):
        rows = np.full((3, ring, *x.shape[2:]), 99).astype(x.dtype)
        for t in range(total):
            rows[:, t % ring] = x[:, t]
        return rows

    fields = ("reward", "discount", "is_first", "search_value", "search_spread")
    kept = (in_ring(x) for x in (reward, discount, is_first, value, spread))
    experience = SimpleNamespace(rewards=None, **dict(zip(fields, kept, strict=True)))
    state = SimpleNamespace(
        experience=experience, current_index=np.int32(total % ring), is_full=np.bool_(total >= ring)
    )
    found = calibration(state, gamma)
    times = [*range(max(0, total - ring), total)]
    sizes = [len(times) // 8 + (i < len(times) % 8) for i in range(CALIBRATION_PARTS)]
    for i, size in enumerate(sizes):
        part = times[sum(sizes[:i]) : sum(sizes[:i]) + size]
        pairs = [
            (value[b, t], real)
            for b in range(3)
            for t in part
            if (real := twin(reward[b], discount[b], is_first[b], t, gamma)) is not None
        ]
        wanted = np.mean(pairs, axis=0) if pairs else (NAN, NAN)
        got = [found[name][i] for name in ("stored", "real")]
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert np.isfinite(found["real"]).sum() > 5
    known = [
        (spread[b, t], value[b, t], real)
        for b in range(3)
        for t in times
        if (real := twin(reward[b], discount[b], is_first[b], t, gamma)) is not None
    ]
    known.sort(key=lambda x: x[0])  # the nearest first, else as they lie
    sizes = [len(known) // 4 + (i < len(known) % 4) for i in range(SPREAD_PARTS)]
    for i, size in enumerate(sizes):
        wanted = np.mean(known[sum(sizes[:i]) : sum(sizes[:i]) + size], axis=0)[1:]
        got = [found[f"{name}_by_spread"][i] for name in ("stored", "real")]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_an_empty_replay_has_no_parts_that_are_known():
    blank = np.zeros((2, 10), np.float32)
    experience = SimpleNamespace(
        rewards=None,
        reward=blank,
        discount=blank,
        is_first=blank > 0,
        search_value=blank,
        search_spread=blank,
    )
    empty = SimpleNamespace(experience=experience, current_index=np.int32(0), is_full=np.bool_(0))
    row = check_row(calibration(empty, 0.9), "calibration")
    assert list(row)[:9] == [f"calibration/stored_{i}" for i in range(8)] + ["calibration/real_0"]
    assert list(row)[16:] == [
        f"calibration/{x}_by_spread_{i}" for x in ("stored", "real") for i in range(4)
    ]
    assert np.isnan(list(row.values())).all() and len(row) == 24
