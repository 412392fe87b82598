"""Selection by compression against plain-Python twins and all subsets."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from smz_jax.config.check import ConfigError
from smz_jax.macros.compression import coding, ladder, merging
from smz_jax.macros.compression import selection as compression
from smz_jax.macros.compression.rewriting import rewrite
from smz_jax.macros.compression.selection import encode, parse, select
from tests.support.compression_twin import (
    adaptive_bits,
    array,
    frequent,
    planted,
    play,
    spelling_bits,
)


@settings(max_examples=80, deadline=None)
@given(play())
def test_selection_properties(case):
    streams, macros, num_actions = case
    chosen = select(streams, macros, num_actions)
    found = chosen.encoding
    assert set(chosen.phrases) <= set(macros) and len(set(chosen.phrases)) == len(chosen.phrases)
    assert found == encode(streams, chosen.phrases, num_actions)
    assert found.bits <= found.plain_bits
    assert sum(chosen.saved_bits) == pytest.approx(found.plain_bits - found.bits, abs=1e-6)
    assert select(streams, macros[::-1], num_actions) == chosen

    pieces = parse(streams, chosen.phrases, num_actions)
    assert found.play_bits == pytest.approx(
        adaptive_bits(
            [int(x) for piece in pieces for x in piece], num_actions + len(chosen.phrases)
        ),
        abs=1e-6,
    )
    assert found.plain_bits == pytest.approx(
        3 + adaptive_bits([int(x) for s in streams for x in s], num_actions), abs=1e-6
    )
    assert found.dictionary_bits == pytest.approx(spelling_bits(chosen.phrases, num_actions))


def test_no_macro_crosses_a_border():
    """0 1 only ever meets across borders: of no use, however often it would occur."""
    broken = [array(1, 2, 0)] * 50
    assert select(broken, [(0, 1)], 3).phrases == ()
    assert encode(broken, [(0, 1), (2, 0)], 3).uses == (0, 50)
    assert select([np.tile(array(1, 2, 0), 50)], [(0, 1, 2)], 3).phrases == ((0, 1, 2),)


def test_phrases_come_in_the_order_of_their_worth():
    """Two phrases without a common action: the first one alone saves what is said of it."""
    streams = [np.tile(array(3, 4, 5), 12), np.tile(array(0, 1, 2), 40)]
    chosen = select(streams, [(3, 4, 5), (0, 1, 2), (4, 5), (1, 2)], 6)
    assert chosen.phrases == ((0, 1, 2), (3, 4, 5)) and chosen.encoding.uses == (40, 12)
    first = encode(streams, chosen.phrases[:1], 6)
    assert chosen.saved_bits[0] == pytest.approx(first.plain_bits - first.bits)
    assert chosen.saved_bits[1] == pytest.approx(first.bits - chosen.encoding.bits)


def assert_bits_by_encode(chosen, streams, num_actions):
    """What each phrase saves and is missed by, from one `encode` for each part of the library."""
    phrases = list(chosen.phrases)
    bits = [encode(streams, phrases[:k], num_actions).bits for k in range(len(phrases) + 1)]
    assert chosen.saved_bits == pytest.approx((-np.diff(bits)).tolist(), abs=1e-5)
    without = [
        encode(streams, phrases[:k] + phrases[k + 1 :], num_actions).bits - bits[-1]
        for k in range(len(phrases))
    ]
    assert chosen.missed_bits == pytest.approx(without, abs=1e-5)
    assert min(without, default=1.0) > 0, "a phrase costs by itself"


@settings(max_examples=60, deadline=None)
@given(play())
def test_bits_of_each_phrase_are_those_of_encode(case):
    streams, macros, num_actions = case
    assert_bits_by_encode(select(streams, macros, num_actions), streams, num_actions)


@pytest.mark.parametrize("seed", range(8))
def test_bits_of_each_phrase_in_long_play(seed):
    """Many overlapping macros: fixed rewritings say other bits, and keep what costs."""
    streams, macros, num_actions = planted(seed, 8, 100, 900)
    macros = sorted({*macros, *frequent(streams, range(2, 7), 30)})
    chosen = select(streams, macros, num_actions)
    assert chosen.sampled == 1 and len(chosen.phrases) > 2
    assert_bits_by_encode(chosen, streams, num_actions)


def test_much_play_is_measured_on_a_sample(monkeypatch):
    streams, macros, num_actions = planted(1, 30, 300, 900)
    whole = select(streams, macros, num_actions)
    monkeypatch.setattr(compression, "_WORK", sum(map(len, streams)) * len(whole.phrases) // 3)
    found = select(streams, macros, num_actions)
    assert found.sampled >= 3 and set(found.phrases) <= set(whole.phrases)
    assert found.encoding == encode(streams, found.phrases, num_actions)
    assert sum(found.saved_bits) == pytest.approx(sum(whole.saved_bits), rel=0.15)


def best_subset(streams, macros, num_actions):
    subsets = itertools.chain.from_iterable(
        itertools.combinations(macros, size) for size in range(len(macros) + 1)
    )
    return min(encode(streams, subset, num_actions).bits for subset in subsets)


def test_against_all_subsets():
    """Greedy: at most a fifth longer than the best subset, 95 % of its saving over 30 cases."""
    saved = possible = 0.0
    for seed in range(30):
        streams, macros, num_actions = planted(seed)
        found = select(streams, macros, num_actions).encoding
        best = best_subset(streams, macros, num_actions)
        assert best - 1e-6 <= found.bits <= 1.2 * best
        saved += found.plain_bits - found.bits
        possible += found.plain_bits - best
    assert saved >= 0.95 * possible > 0


@pytest.mark.parametrize(
    ("streams", "macros", "num_actions"),
    [
        ([np.tile(array(0, 1, 1), 40)], [(0, 1), (1, 1), (0, 1, 1), (1, 1, 0)], 2),
        (
            [np.tile(array(2, 0, 0, 0, 1), 12)] * 2,
            [(0, 0), (0, 0, 0), (2, 0), (0, 1), (2, 0, 0)],
            3,
        ),
        (
            [np.concatenate([np.tile(array(0, 1, 2), 9), np.tile(array(3, 2, 1, 0), 9)])],
            [(0, 1), (0, 1, 2), (3, 2), (3, 2, 1, 0), (1, 0), (2, 1)],
            4,
        ),
    ],
)
def test_equal_to_the_best_subset(streams, macros, num_actions):
    found = select(streams, macros, num_actions).encoding
    assert found.bits == pytest.approx(best_subset(streams, macros, num_actions))


def twin_merge(streams, allowed, num_actions):
    """Byte-pair merging by rewriting lists and coding them anew for each candidate pair."""
    parts = {m[i:j] for m in allowed for i in range(len(m)) for j in range(i + 2, len(m) + 1)}

    def merged(pair):
        rows = []
        for row in pieces:
            new, at = [], 0
            while at < len(row):
                both = row[at : at + 2] == list(pair)
                new.append(pair[0] + pair[1] if both else row[at])
                at += 2 if both else 1
            rows.append(new)
        return rows

    def bits(rows):
        flat = [symbol for row in rows for symbol in row]
        longer = {symbol for symbol in flat if len(symbol) > 1}
        price = sum(3 + len(s) * math.log2(num_actions) for s in longer if s in allowed)
        return adaptive_bits(flat, num_actions + len(longer)) + price

    pieces = [[(int(action),) for action in stream] for stream in streams]
    while True:
        pairs = {pair for row in pieces for pair in itertools.pairwise(row)}
        now = bits(pieces)
        scored = [
            (-round(now - bits(merged(pair)), 6), pair[0] + pair[1], pair[0])
            for pair in pairs
            if pair[0] + pair[1] in parts
        ]
        if not scored or min(scored)[0] >= 0:
            return {symbol for row in pieces for symbol in row} & set(allowed)
        _, target, left = min(scored)
        pieces = merged((left, target[len(left) :]))


@pytest.mark.parametrize(
    ("seed", "pieces", "low", "high"),
    # In the last three a merge pays only because the half that it uses up need not be spelled.
    [*((seed, 2, 60, 200) for seed in range(10)), *((seed, 1, 40, 120) for seed in (39, 133, 152))],
)
def test_merging_equals_its_twin(seed, pieces, low, high):
    streams, macros, num_actions = planted(seed, pieces, low, high)
    if pieces == 2 and seed % 3 == 0:
        macros = sorted({*macros, (0, 0), (0, 0, 0), (0, 0, 0, 0, 0)})
    allowed = coding.check_phrases(macros, num_actions)
    plain = rewrite(coding.check_streams(streams, num_actions), [], num_actions)
    found = merging.merge_pairs(plain, allowed, num_actions)
    assert found == twin_merge(streams, macros, num_actions)


def test_repeats_are_merged_without_overlap():
    """x x x x x holds two pairs, not four, and a border begins anew."""
    symbols = np.array([0, 0, 0, 0, 0, -1, 0, 0, 1, 1, 1, -1])
    pairs = np.where((symbols == np.append(symbols[1:], -1)) & (symbols >= 0), 7, -1)
    assert np.flatnonzero(merging._usable(symbols, pairs)).tolist() == [0, 2, 6, 8]


@pytest.mark.parametrize("seed", range(5))
def test_taking_phrases_away_keeps_exact_bits(seed):
    """Each loss is the difference of two code lengths, and the last counts are those of play."""
    streams, macros, num_actions = planted(seed)
    phrases = sorted(coding.check_phrases(macros, num_actions))
    counts = rewrite(coding.check_streams(streams, num_actions), phrases, num_actions).counts
    lengths = np.array([1] * num_actions + [len(phrase) for phrase in phrases])

    def bits():
        dictionary = coding.dictionary_bits([phrases[i] for i in left], num_actions)
        return coding.code_bits(counts, num_actions + len(left)) + dictionary

    left = list(range(len(phrases)))
    for gone, loss, after in ladder.take_away(counts, phrases, num_actions):
        before, counts = bits(), after
        left.remove(gone)
        assert counts[num_actions + gone] == 0
        assert bits() - before == pytest.approx(loss, abs=1e-6)
        assert counts @ lengths == sum(map(len, streams))
    assert not left and counts.sum() == sum(map(len, streams))
    plain = Counter(int(action) for stream in streams for action in stream)
    assert {action: count for action, count in enumerate(counts.tolist()) if count} == plain


@pytest.mark.parametrize(
    ("streams", "macros", "num_actions", "bits_per_action"),
    [
        ([], [(0, 1)], 2, 0.0),
        ([array()], [(0, 1)], 2, 0.0),
        ([array(), array(1), array()], [], 2, 4.0),  # 3 bits of an empty dictionary, and one bit
        ([np.zeros(1000, np.int64)], [(0, 0), (0,) * 8], 1, 0.003),
        ([array(0)], [(0, 0)], 1, 3.0),
    ],
)
def test_edges(streams, macros, num_actions, bits_per_action):
    chosen = select(streams, macros, num_actions)
    assert chosen.phrases == () and chosen.saved_bits == () and chosen.redundancy == 0
    assert chosen.encoding.bits_per_action == pytest.approx(bits_per_action)
    assert chosen.encoding.saved_per_action == 0 and chosen.encoding.coverage == 0
    assert [x.tolist() for x in parse(streams, [], num_actions)] == [x.tolist() for x in streams]


def test_play_of_one_action_has_nothing_to_save():
    """1000 times the same of 4 actions costs about 13 bits: less than any phrase's spelling."""
    chosen = select([np.full(1000, 2)], [(2, 2), (2,) * 8], 4)
    assert chosen.phrases == () and chosen.allowed_redundancy == 0.5
    assert chosen.encoding.play_bits == pytest.approx(adaptive_bits([2] * 1000, 4))


def test_redundancy_by_hand():
    share = compression.prefix_share
    assert share([]) == 0 and share([(0, 1), (1, 0)]) == 0
    assert share([(0, 1), (0, 1, 2), (0, 1, 2, 3), (1, 2)]) == 0.5


@pytest.mark.parametrize("visits", [[1.0], [-1.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_bad_visits_are_refused(visits):
    with pytest.raises(ConfigError, match="visits"):
        select([array(0, 1)], [(0, 1), (1, 0)], 2, visits=visits)


def test_visits_weigh_as_imagined_play():
    """1000 played actions, share 0.1: 100 imagined, 3 : 1 visits of lengths 2 and 4."""
    rng = np.random.default_rng(0)
    streams = [rng.integers(4, size=500), rng.integers(4, size=500)]
    macros = [(0, 1), (3, 2, 1, 0)]
    imagined = compression._imagined(1000, macros, [3.0, 1.0], 0.1)
    assert imagined == {(0, 1): 30, (3, 2, 1, 0): 10}  # 3 x 2 + 4 = 10; 30 x 2 + 10 x 4 = 100
    joined = compression._join(coding.check_streams(streams, 4), imagined)
    assert joined.text.tolist()[-8:] == [1, 2, 0, 4, 3, 2, 1, 0]
    assert joined.weight.tolist()[-9:] == [1, *[30] * 3, *[10] * 5]

    alone = select(streams, macros, 4)
    assert alone.phrases == ()
    for visits, share in ((None, 0.1), ([0.0, 0.0], 0.1), ([5.0, 5.0], 0.0)):
        assert select(streams, macros, 4, visits=visits, tree_share=share) == alone
    chosen = select(streams, macros, 4, visits=[0.0, 7.0], tree_share=0.5)
    assert chosen.phrases == ((3, 2, 1, 0),)
    assert chosen.encoding == encode(streams, chosen.phrases, 4)
    imagined = [array(3, 2, 1, 0)] * 125
    both = encode([*streams, *imagined], chosen.phrases, 4)
    assert chosen.saved_bits == pytest.approx((both.plain_bits - both.bits,))
    assert select([], macros, 4, visits=[1.0, 1.0]).phrases == ()
