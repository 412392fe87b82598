"""The code of play against hand-computed bits and plain-Python twins; controls."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smz_jax.config.check import ConfigError
from smz_jax.macros.compression import coding
from smz_jax.macros.compression.rewriting import FAR, cheapest, lay_out
from smz_jax.macros.compression.selection import encode, parse, select
from smz_jax.macros.library.controls import random_macros, shuffled
from tests.support.compression_twin import (
    adaptive_bits,
    array,
    expand,
    frequent,
    planted,
    play,
)


def test_bits_by_hand():
    """0 0 0 1: 1/2 x 3/4 x 5/6 x 1/8 = 5/128; as [00] 0 1 of three kinds: 1/3 x 1/5 x 1/7."""
    plain = encode([array(0, 0, 0, 1)], [], 2)
    assert plain.play_bits == pytest.approx(math.log2(128 / 5))
    assert plain.bits == plain.plain_bits == pytest.approx(3 + math.log2(128 / 5))
    assert plain.bits_per_action == pytest.approx((3 + math.log2(128 / 5)) / 4)
    assert plain.saved_per_action == 0 and plain.uses == () and plain.coverage == 0

    counts = [1, 1, 1]
    assert coding.code_bits(counts, 3) == pytest.approx(math.log2(105))
    assert coding.code_bits([2], 4) == pytest.approx(3)  # 1/4 x 1/2
    assert coding.dictionary_bits([(0, 0), (0, 1, 2, 3, 0, 0, 0, 0)], 4) == 3 + (3 + 4) + (3 + 16)


def test_a_library_that_pays_by_hand():
    """0 1 2 3 thirty times: as one symbol of five kinds, 11 + 3 bits of dictionary."""
    streams = [np.tile(array(0, 1, 2, 3), 10)] * 3
    found = encode(streams, [(0, 1, 2, 3)], 4)
    expected = sum(math.log2((index + 2.5) / (index + 0.5)) for index in range(30))
    assert found.play_bits == pytest.approx(expected)
    assert found.dictionary_bits == 14 and found.uses == (30,) and found.coverage == 1
    assert (found.actions, found.symbols, found.covered) == (120, 30, 120)
    assert found.plain_bits == pytest.approx(3 + adaptive_bits([0, 1, 2, 3] * 30, 4))
    assert found.saved_per_action == pytest.approx((found.plain_bits - expected - 14) / 120)
    chosen = select(streams, [(0, 1), (1, 2, 3), (0, 1, 2, 3), (3, 0)], 4)
    assert chosen.phrases == ((0, 1, 2, 3),) and chosen.encoding == found
    assert chosen.saved_bits == pytest.approx((found.plain_bits - found.bits,))


def test_unused_phrases_are_paid_for():
    found = encode([array(0, 1, 0)], [(1, 1), (0, 0, 0)], 2)
    assert found.uses == (0, 0) and found.dictionary_bits == 3 + 5 + 6
    assert found.play_bits == pytest.approx(adaptive_bits([0, 1, 0], 4))
    assert found.saved_per_action < 0


def cheapest_names(text, costs, num_actions):
    """The cheapest rewriting of a text in one lane, as the names of its symbols; -1 is a border."""
    phrases = [name for name in costs if len(name) > 1]
    names = [*((action,) for action in range(num_actions)), *phrases, (-1,)]
    symbol, _ = lay_out(np.array(text, int) + 1, np.zeros(1, int), phrases, num_actions)
    path = cheapest(symbol, np.array([*(costs[name] for name in names), FAR]))
    return [names[symbol] for symbol in path[0] if symbol >= 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_cheapest_rewriting(data):
    """Cost equal to the least over all rewritings; of the same actions; borders kept."""
    text = tuple(data.draw(st.lists(st.integers(-1, 1), max_size=10)))
    phrase = st.lists(st.integers(0, 1), min_size=2, max_size=8).map(tuple)
    symbols = [(-1,), (0,), (1,), *data.draw(st.lists(phrase, unique=True, max_size=5))]
    costs = {symbol: data.draw(st.integers(0, 9)) for symbol in symbols}

    def least(rest):
        if not rest:
            return 0
        return min(costs[s] + least(rest[len(s) :]) for s in symbols if rest[: len(s)] == s)

    found = cheapest_names(text, costs, 2)
    assert sum(found, ()) == text
    assert sum(costs[symbol] for symbol in found) == least(text)


def test_ties_go_to_the_longer_symbol():
    costs = {(-1,): 0, (0,): 1, (0, 0): 2, (0, 0, 0): 3}
    assert cheapest_names((0, 0, 0, 0), costs, 1) == [(0,), (0, 0, 0)]


@settings(max_examples=80, deadline=None)
@given(play())
def test_any_library_decodes_to_the_play(case):
    """Piece by piece, so that no phrase can lie across a border."""
    streams, phrases, num_actions = case
    pieces = parse(streams, phrases, num_actions)
    decoded = expand(pieces, phrases, num_actions)
    assert [x.tolist() for x in decoded] == [x.tolist() for x in streams]
    found = encode(streams, phrases, num_actions)
    uses = Counter(int(x) - num_actions for piece in pieces for x in piece if x >= num_actions)
    assert found.uses == tuple(uses[index] for index in range(len(phrases)))
    assert found.symbols == sum(map(len, pieces)) and found.actions == sum(map(len, streams))
    covered = sum(use * len(phrase) for use, phrase in zip(found.uses, phrases, strict=True))
    assert found.coverage == pytest.approx(covered / max(found.actions, 1))


@pytest.mark.parametrize(
    ("streams", "macros", "num_actions", "message"),
    [
        ([array(0, 4)], [], 4, r"streams\[0\] = 4"),
        ([array(0), array(-1)], [], 4, r"streams\[1\] = -1"),
        ([np.zeros((2, 2), np.int32)], [], 4, "a 1-D array of integers"),
        ([np.zeros(2)], [], 4, "a 1-D array of integers"),
        ([], [(0,)], 4, "2 to 8 actions"),
        ([], [(0,) * 9], 4, "2 to 8 actions"),
        ([], [(0, 4)], 4, "actions in 0..3"),
        ([], [(0, 1), (1, 1), (0, 1)], 4, "distinct"),
        ([], [], 0, "num_actions = 0"),
        ([], [], 256, "num_actions = 256"),
    ],
)
def test_bad_input_is_refused_in_one_line(streams, macros, num_actions, message):
    for function in (select, encode, parse):
        with pytest.raises(ConfigError, match=message) as error:
            function(streams, macros, num_actions)
        assert "\n" not in str(error.value)


def test_real_macros_beat_every_control_on_held_out_play():
    streams, macros, num_actions = planted(3, pieces=8, low=300, high=400)
    train, held_out = streams[:4], streams[4:]
    rng = np.random.default_rng(1)
    real = select(train, macros, num_actions).phrases
    mixed = shuffled(train, rng)
    noise = frequent(mixed, {len(phrase) for phrase in real}, len(real))
    by_chance = random_macros([len(phrase) for phrase in real], num_actions, rng)
    saved = [
        encode(held_out, library, num_actions).saved_per_action
        for library in (real, noise, by_chance)
    ]
    assert saved[0] > 0.1 and saved[0] > max(saved[1:]) + 0.1
    assert select(mixed, frequent(mixed, range(2, 6), 20), num_actions).phrases == ()


def test_shuffling_keeps_each_piece():
    streams = [np.arange(50) % 4, np.full(7, 3), np.array([], np.int64)]
    mixed = shuffled(streams, np.random.default_rng(0))
    for before, after in zip(streams, mixed, strict=True):
        assert before.dtype == after.dtype and sorted(before) == sorted(after)
    assert mixed[0].tolist() != streams[0].tolist()
    again = shuffled(streams, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(mixed, again, strict=True))


def test_random_macros_are_distinct_and_as_many_as_exist():
    rng = np.random.default_rng(0)
    lengths = [5, 2, 2, 8, 2, 2, 2, 2, 3]
    found = random_macros(lengths, 2, rng)
    assert len(set(found)) == len(found)
    assert [len(macro) for macro in found] == [5, 2, 2, 8, 2, 2, 3]
    assert {macro for macro in found if len(macro) == 2} == set(itertools.product((0, 1), repeat=2))
    assert random_macros([3] * 9, 1, rng) == [(0, 0, 0)] and random_macros([], 4, rng) == []
    many = random_macros([4] * 2000, 18, rng)
    share = np.bincount(np.array(many).ravel(), minlength=18) / 8000
    assert len(many) == 2000 and abs(share - 1 / 18).max() < 0.02
    with pytest.raises(ConfigError, match="length = 0"):
        random_macros([0], 4, rng)
