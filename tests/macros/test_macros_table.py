"""Exactness of keys, the full table and the merge's buffers, against the plain-Python twin."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import PackedWindows, pack, unpack
from smz_jax.macros.mine.table import halve, init_table, merge, table_size
from smz_jax.macros.mine.windows import PlayRows, init_carry, play_windows
from smz_jax.storage.documents.macro_form import MAX_ACTIONS
from tests.support import macro_twin as twin

A = 3


def packed(sequences, rng, weight=1):
    """Windows with the given actions, keys packed byte by byte in plain Python."""
    words = [bytes(a + 1 for a in actions).ljust(8, b"\0") for actions in sequences]
    count = len(sequences)
    return PackedWindows(
        key_high=jnp.array([int.from_bytes(word[:4], "big") for word in words], jnp.uint32),
        key_low=jnp.array([int.from_bytes(word[4:], "big") for word in words], jnp.uint32),
        entropy=jnp.asarray(rng.random(count), jnp.float32),
        reward=jnp.asarray(rng.integers(-3, 4, count), jnp.float32),
        bucket=jnp.asarray(rng.integers(0, 16, count), jnp.int32),
        weight=jnp.full((count,), weight, jnp.int32),
    )


def as_found(sequences, windows):
    fields = (np.asarray(field).tolist() for field in windows[2:])
    return [w for w in zip(sequences, *fields, strict=True) if w[0]]


def test_keys_are_exact_for_18_actions_and_length_8():
    """Sequences equal modulo 2^32 in any Horner code, one-step changes, prefixes, swaps."""
    num_actions, rng = 18, np.random.default_rng(0)
    sequences = set()
    for base in (18, 19, 31, 32):
        for value in rng.integers(0, min(base**8 - 2**33, 18**8), 12):
            for number in (value, value + 2**32, value + 2**33):
                digits = [int(number) // base**i % base for i in range(8)]
                if max(digits) < num_actions:
                    sequences.add(tuple(digits))
    for base in [(17,) * 8, (0,) * 8, tuple(range(8)), (16, 1) * 4]:
        sequences |= {base[:length] for length in range(1, 9)}
        sequences |= {(*base[:i], a, *base[i + 1 :]) for i in range(8) for a in range(num_actions)}
        sequences |= {base[i:] + base[:i] for i in range(8)}
    sequences = sorted(sequences)
    assert len(sequences) > 400
    config = MacroConfig(min_length=1, max_length=8, capacity=1024, num_buckets=16)

    # Through the real extractor: a lane plays each sequence once, then waits for the next row.
    lanes, length = len(sequences), 9
    action = np.zeros((lanes, length), np.int32)
    is_first = np.ones((lanes, length), bool)
    for lane, actions in enumerate(sequences):
        action[lane, : len(actions)] = actions
        is_first[lane, 1 : len(actions) + 1] = False
    zeros = np.zeros((lanes, length), np.float32)
    rows = PlayRows(action, zeros, zeros, zeros + 1, is_first, np.zeros((lanes, length), np.int32))
    longest = MacroConfig(min_length=8, max_length=8, capacity=1024, num_buckets=16)
    extract = jax.jit(lambda rows, carry: play_windows(rows, carry, longest, num_actions))
    windows, _, _ = extract(rows, init_carry(longest, lanes))
    eights = [actions for actions in sequences if len(actions) == 8]
    assert [actions for actions, *_ in twin.as_sorted(windows)] == eights

    table, expected = init_table(config, num_actions), twin.Table(1024)
    merge_one = jax.jit(lambda table, windows: merge(table, windows, played=True, config=config))
    for _ in range(2):
        windows = packed(sequences, rng)
        table = merge_one(table, windows)
        expected.merge(as_found(sequences, windows), played=True)
    expected.assert_equals(table)
    assert int((table.length > 0).sum()) == len(sequences)
    assert np.array_equal(unpack(*pack(table.actions), 8), table.actions)


def test_more_actions_than_a_byte_holds_are_refused():
    with pytest.raises(ConfigError, match="num_actions = 256"):
        init_table(MacroConfig(), 256)


@pytest.mark.parametrize("num_actions", [A, MAX_ACTIONS])
def test_a_flood_of_new_candidates_does_not_evict_established_macros(num_actions):
    config = MacroConfig(capacity=8, num_buckets=16)
    rng = np.random.default_rng(1)
    told = {"config": config, "num_actions": num_actions}
    merge_one = jax.jit(lambda table, windows: merge(table, windows, played=False, **told))
    table, expected = init_table(config, A), twin.Table(8)
    established = [(2, 2, i % 3, i // 3) for i in range(5)]
    every = [(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
    for _ in range(3):
        for sequences in (established * 4, [every[i] for i in rng.permutation(81)[:20]]):
            windows = packed(sequences, rng)
            table = merge_one(table, windows)
            expected.merge(as_found(sequences, windows), played=False)
            expected.assert_equals(table)
    kept = {tuple(row[row >= 0].tolist()) for row in np.asarray(table.actions)}
    assert set(established) <= kept
    assert expected.dropped > 20


@pytest.mark.parametrize("num_actions", [4, MAX_ACTIONS])
def test_every_buffer_of_the_merge_loses_nothing(num_actions):
    """87,000 slots as of a rollout: few, some and all of them filled; one window may be played."""
    config = MacroConfig(capacity=128, num_buckets=16)
    size, rng = 3 * 2**15, np.random.default_rng(2)
    told = {"config": config, "num_actions": num_actions}
    merge_one = jax.jit(lambda table, windows, played: merge(table, windows, played=played, **told))
    every = [tuple(int(d) for d in np.base_repr(i, 4).zfill(5)) for i in range(4**5)]
    for filled in (0, 1, 12288, 12289, 32768, 32769, size):
        sequences = [()] * size
        for slot in rng.permutation(size)[:filled]:
            sequences[slot] = every[int(rng.beta(1, 6) * len(every))]
        windows = packed(sequences, rng)
        played = rng.random(size) < 0.3
        table = merge_one(init_table(config, 4), windows, jnp.asarray(played))
        found = as_found(sequences, windows)
        expected = twin.Table(10**6)
        flags = [flag for flag, actions in zip(played, sequences, strict=True) if actions]
        expected.merge([w for w, flag in zip(found, flags, strict=True) if flag], played=True)
        expected.capacity = 128
        expected.merge([w for w, flag in zip(found, flags, strict=True) if not flag], played=False)
        expected.assert_equals(table)


def test_a_table_for_every_sequence_needs_no_choice():
    """Unset it has 4^2 + 4^3 slots; more sequences than it may have: as many as are allowed."""
    every = MacroConfig(max_length=3)
    assert table_size(every, 4) == 16 + 64 and table_size(every, 1) == 8
    assert table_size(MacroConfig(), 4) == 5456 and table_size(MacroConfig(), 18) == 8192
    assert table_size(MacroConfig(max_length=3, capacity=12), 4) == 12
    rng = np.random.default_rng(0)
    sequences = [tuple(x) for n in (2, 3) for x in itertools.product(range(4), repeat=n)]
    table, expected = init_table(every, 4), twin.Table(10**6)
    told = {"played": True, "config": every, "num_actions": 4}
    merge_one = jax.jit(lambda table, windows: merge(table, windows, **told))
    for _ in range(3):
        picked = [sequences[i] for i in rng.integers(0, 80, 60)]
        windows = packed(picked, rng)
        table = merge_one(table, windows)
        expected.merge(as_found(picked, windows), played=True)
        expected.assert_equals(table)
    assert int(table.dropped) == 0


def test_counts_are_halved_and_means_stay():
    rng = np.random.default_rng(1)
    config = MacroConfig(max_length=2, capacity=8)
    windows = packed([(0, 1)] * 7 + [(1, 1)] * 4 + [(2, 0)], rng)
    played = jnp.arange(12) < 4
    merge_one = jax.jit(lambda table, windows: merge(table, windows, played=played, config=config))
    table = merge_one(init_table(config, 4), windows)
    halved = halve(table)
    assert halved.count[:4].tolist() == [4, 2, 1, 0] and table.count[:4].tolist() == [7, 4, 1, 0]
    assert halved.play_count[:3].tolist() == [2, 0, 0]
    for name in ("entropy_sum", "reward_sum"):
        means = [
            np.asarray(getattr(x, name))[:3] / np.asarray(x.count)[:3] for x in (table, halved)
        ]
        np.testing.assert_allclose(*means, rtol=1e-6)
    assert not np.asarray(halved.entropy_sum)[3:].any()


@pytest.mark.parametrize("num_actions", [4, MAX_ACTIONS])
def test_newcomers_rise_where_counts_are_halved(num_actions):
    """Of 16 slots two are for what is seen now; what stays long enough takes one of the others."""
    config = MacroConfig(max_length=3, capacity=16, halve_every=1)
    rng = np.random.default_rng(0)
    every = [tuple(x) for x in itertools.product(range(4), repeat=2)]

    def make_add(config):
        told = {"played": True, "config": config, "num_actions": num_actions}
        merge_one = jax.jit(lambda table, windows: merge(table, windows, **told))

        def add(table, *sequences):
            padded = [*sequences, *[()] * (160 - len(sequences))]
            return merge_one(table, packed(padded, rng))

        return add

    add = make_add(config)

    def known(table):
        rows = np.asarray(table.actions)
        return [tuple(row[row >= 0].tolist()) for row in rows if row[0] >= 0]

    full = [x for x in every for _ in range(10)]
    table = add(init_table(config, 4), *full)
    # A stranger seen once takes the place of the last that is not seen now.
    table = add(table, (0, 0, 0))
    assert known(table) == sorted([*every[:15], (0, 0, 0)]) and int(table.dropped) == 1
    # Two seen more often: the first stranger leaves, and the least of the old ones.
    table = add(table, *[(1, 1, 1)] * 2, *[(2, 2, 2)] * 2)
    assert known(table) == sorted([*every[:14], (1, 1, 1), (2, 2, 2)])
    # One of them comes again and again: it has risen, and the other leaves before it.
    for _ in range(6):
        table = add(table, *[(2, 2, 2)] * 2)
    table = add(table, (3, 3, 3), (3, 3, 2))
    assert {(2, 2, 2), (3, 3, 3), (3, 3, 2)} <= set(known(table)) and (1, 1, 1) not in known(table)
    # Without it nobody comes in who is not seen more often than the least at once.
    add = make_add(dataclasses.replace(config, halve_every=0))
    assert known(add(add(init_table(config, 4), *full), (0, 0, 0))) == every


def test_unpacked_windows():
    windows = packed([(), (2, 0, 1), (17,) * 8], np.random.default_rng(0), weight=4)
    actions = np.asarray(unpack(windows.key_high, windows.key_low, 8))
    assert actions.tolist() == [[-1] * 8, [2, 0, 1] + [-1] * 5, [17] * 8]
    assert (actions >= 0).sum(axis=1).tolist() == [0, 3, 8]


def test_a_table_of_another_capacity_is_refused():
    table = init_table(MacroConfig(capacity=8), A)
    windows = packed([(1, 2)], np.random.default_rng(0))
    with pytest.raises(ConfigError, match="capacity = 16"):
        merge(table, windows, played=True, config=MacroConfig(capacity=16))
