"""The libraries of a verification: the run's own, the controls, and what they save."""

import itertools
from collections import Counter

import numpy as np

from smz_jax.analysis.verify import tried_libraries as libraries
from smz_jax.analysis.verify.tried_libraries import Library
from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.selection import encode, select
from smz_jax.macros.library.controls import mixed_macros
from tests.support.verify_parts import SETTINGS, library_of, macro_entry, pieces_of


def test_frequent_windows_equal_a_recount_over_text():
    rng = np.random.default_rng(4)
    pieces = pieces_of(rng)
    lengths = [4, 2, 2, 4, 4, 3]
    found = libraries.frequent_windows([x.actions for x in pieces], lengths, SETTINGS)
    assert sorted(map(len, found)) == sorted(lengths) and len(set(found)) == 6
    for length in (2, 3, 4):
        seen = Counter()
        for piece in pieces:
            text = "".join(map(str, piece.actions))
            seen.update(text[i : i + length] for i in range(len(text) - length + 1))
        best = sorted(seen, key=lambda x: (-seen[x], x))
        ours = ["".join(map(str, x)) for x in found if len(x) == length]
        assert ours == best[: lengths.count(length)]
    varied = MacroConfig(include_repeats=False)
    pairs = libraries.frequent_windows([x.actions for x in pieces], [2] * 16, varied)
    assert len({x for x in pairs if len(x) == 2}) == 12 and all(len(set(x)) > 1 for x in pairs)
    assert [len(x) for x in pairs if len(x) > 2] == [3] * 4  # there are no more pairs


def test_the_library_is_what_compresses_then_what_is_frequent():
    known, _ = libraries.split(pieces_of(np.random.default_rng(5)))
    macros = [(0, 1, 0), (2, 2, 3, 1), (3, 3), (1, 2)]
    document = library_of(*map(macro_entry, macros[:3]), macro_entry(macros[3], "refuted"))
    found = libraries.real_library(document, known, 32, False)
    kept = select(known, macros[:3], 4).phrases
    assert kept[0] == (2, 2, 3, 1) and found.macros[: len(kept)] == kept
    assert set(found.macros) == set(macros[:3]) and set(found.status) == {"sound"}
    every = libraries.real_library(document, known, 32, True)
    assert dict(zip(every.macros, every.status, strict=True))[(1, 2)] == "refuted"
    assert libraries.real_library(document, known, 1, False).macros == kept[:1]
    owned = library_of(*(macro_entry(x, slot=i or None) for i, x in enumerate(macros)))
    assert set(libraries.real_library(owned, known, 32, False).macros) == set(macros)
    some = libraries.real_library(owned, known, 32, False, owners_only=True)
    assert set(some.macros) == set(macros[1:])  # of the first no precondition was learned
    wanted = libraries.wanted_lengths
    assert sorted(wanted(found, document, SETTINGS, 9)) == [2, 3, 4]
    empty = Library("macros", (), ())
    assert wanted(empty, library_of(macro_entry((1, 2, 3), "refuted")), SETTINGS, 9) == [3]
    assert wanted(empty, library_of(), SETTINGS, 7) == [2, 3, 4, 5, 6, 2, 3]


def test_controls_have_as_many_macros_of_the_same_lengths_and_save_less():
    rng = np.random.default_rng(6)
    pieces, other = pieces_of(rng, 8), pieces_of(rng, 8, phrase=(0, 1))
    known, held_out = libraries.split(pieces)
    assert len(known) == len(held_out) == 4
    real = Library("macros", ((2, 2, 3, 1), (1, 2, 2, 3), (2, 3)), ("sound",) * 3)
    found = libraries.controls(
        real, [4, 4, 2], known, libraries.split(other)[0], 4, SETTINGS, np.random.default_rng(0)
    )
    names = ["shuffled play", "shuffled macros", "random", "untrained network"]
    assert [x.name for x in found] == names
    counts = [Counter(a for macro in x.macros for a in macro) for x in (real, found[1])]
    assert counts[0] == counts[1]  # in the same lengths
    for library in found:
        assert sorted(map(len, library.macros)) == [2, 4, 4] and len(set(library.macros)) == 3
        assert not set(library.macros) & set(real.macros) or library.name == "untrained network"
    own = libraries.frequent_windows(libraries.split(other)[0], [4, 4, 2], SETTINGS)
    assert found[3].macros == tuple(own)
    saved = libraries.saved_bits(real.macros, known, held_out, 4, 0)
    assert saved is not None and saved.kept == select(known, list(real.macros), 4).phrases
    coded = encode(held_out, saved.kept, 4)
    assert saved.encoding.saved_per_action == (coded.plain_bits - coded.bits) / coded.actions
    assert saved.low is not None and 0 < saved.low <= coded.saved_per_action <= saved.high
    for library in found[:3]:
        control = libraries.saved_bits(library.macros, known, held_out, 4, 0)
        assert control is not None and control.high < saved.low, library
    assert libraries.saved_bits(real.macros, known, [], 4, 0) is None


def test_the_interval_of_saved_bits_is_that_of_draws_that_are_encoded_anew():
    pieces = [piece.actions for piece in pieces_of(np.random.default_rng(8), 16)]
    pieces = [piece[: 20 * (i + 1)] for i, piece in enumerate(pieces)]
    known, held_out = pieces[::2], pieces[1::2]
    macros = [(2, 2, 3, 1), (2, 3), (0, 0)]
    saved = libraries.saved_bits(macros, known, held_out, 4, 0)
    assert saved is not None and saved.low is not None and saved.high is not None
    rng = np.random.default_rng(9)
    draws = rng.integers(len(held_out), size=(300, len(held_out)))
    again = [encode([held_out[i] for i in row], saved.kept, 4).saved_per_action for row in draws]
    low, high = np.quantile(again, (0.025, 0.975))
    assert high - low > 0.05
    np.testing.assert_allclose([saved.low, saved.high], [low, high], atol=0.15 * (high - low))
    one = libraries.saved_bits(macros, known, held_out[:1], 4, 0)
    assert one is not None and one.low is None and one.high is None


def test_shuffled_macros_keep_lengths_and_action_frequencies():
    macros = [(0, 1, 2, 2), (2, 2, 3), (1, 1, 1), (3, 0)]
    found = mixed_macros(macros, [4, 3, 3, 2], np.random.default_rng(0))
    assert list(map(len, found)) == [4, 3, 3, 2] and len(set(found)) == 4
    assert not set(found) & set(macros)
    assert Counter(sum(found, ())) == Counter(sum(macros, ()))
    # Here most orders give one of them, or the same twice.
    ring = [(0, 1), (1, 2), (2, 0)]
    for seed in range(20):
        found = mixed_macros(ring, [2, 2, 2], np.random.default_rng(seed))
        assert len(set(found)) == 3 and not set(found) & set(ring)
    # Of one action nothing else can be made in its length; longer ones can.
    assert mixed_macros([(1, 1)], [2], np.random.default_rng(0)) == []
    assert mixed_macros([(1, 1)], [3], np.random.default_rng(0)) == [(1, 1, 1)]
    assert mixed_macros([], [2], np.random.default_rng(0)) == []


def test_a_perfect_library_is_the_ceiling():
    pieces = [x.actions for x in pieces_of(np.random.default_rng(3))]
    settings = MacroConfig(max_length=4, min_occurrences=5)

    class World:
        def are_deterministic(self, macros):
            return [macro[0] != 1 for macro in macros]

    found = libraries.perfect_macros(pieces, settings, World())
    text = ["".join(map(str, x)) for x in pieces]
    for macro in itertools.chain.from_iterable(
        itertools.product(range(4), repeat=n) for n in (2, 3, 4)
    ):
        spelled = "".join(map(str, macro))
        count = sum(x.startswith(spelled, i) for x in text for i in range(len(x)))
        assert (macro in found) == (count >= 5 and macro[0] != 1), macro
    other_play = [x.actions for x in pieces_of(np.random.default_rng(4), phrase=(0, 1))]
    ceiling = libraries.ceiling(found, other_play, pieces, 4, 0)
    assert ceiling == libraries.saved_bits(found, pieces, pieces, 4, 0)
    assert libraries.ceiling(found, pieces, other_play, 4, 0) == max(
        (libraries.saved_bits(found, x, other_play, 4, 0) for x in (pieces, other_play)),
        key=lambda x: x.encoding.saved_per_action,  # type: ignore[union-attr]
    )
    assert libraries.ceiling(found, pieces, [], 4, 0) is None
    other = libraries.saved_bits(((2, 2, 3, 1), (1, 2)), pieces, pieces, 4, 0)
    assert ceiling is not None and other is not None
    assert ceiling.encoding.saved_per_action >= other.encoding.saved_per_action > 0
