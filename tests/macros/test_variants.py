"""The bits of many libraries at once against one rewriting after the other."""

import numpy as np
import pytest
from hypothesis import given, settings

from smz_jax.macros.compression import coding
from smz_jax.macros.compression.variants import library_bits
from tests.support.compression_twin import array, planted, play


def one_by_one(pieces, texts, parts, num_actions):
    found = []
    for part in parts:
        own = [text for text, is_in in zip(texts, part, strict=True) if is_in]
        bits = coding.parse_pieces(pieces, own, num_actions).bits
        found.append(bits + coding.dictionary_bits(own, num_actions))
    return found


@settings(max_examples=60, deadline=None)
@given(play())
def test_any_play_and_any_parts(case):
    streams, macros, num_actions = case
    piece = coding.check_streams(streams, num_actions)
    texts = coding.check_phrases(macros, num_actions)
    pieces = [piece, *(coding.Piece(text, 3) for text in texts[:2])]
    parts = np.random.default_rng(0).random((9, len(texts))) < 0.5
    found = library_bits(pieces, texts, parts, num_actions)
    assert found.tolist() == pytest.approx(one_by_one(pieces, texts, parts, num_actions), abs=1e-6)


@pytest.mark.parametrize(("seed", "count"), [(0, 40), (1, 3), (2, 1)])
def test_long_play_in_lanes(seed, count):
    """Lanes of different lengths, longer than the buffer of recent costs."""
    streams, macros, num_actions = planted(seed, count, 100, 1500)
    piece = coding.check_streams(streams, num_actions)
    texts = coding.check_phrases(macros, num_actions)
    keep = np.ones((len(texts) + 1, len(texts)), bool)
    keep[1:][np.eye(len(texts), dtype=bool)] = False
    found = library_bits([piece], texts, keep, num_actions)
    assert found.tolist() == pytest.approx(one_by_one([piece], texts, keep, num_actions), abs=1e-6)


def test_nothing_to_write_costs_the_dictionary():
    parts = np.array([[True], [False]])
    assert library_bits([coding.check_streams([], 2)], [b"\1\2"], parts, 2).tolist() == [8, 3]
    piece = coding.check_streams([array(0, 0)], 1)
    assert library_bits([piece], [b"\1\1"], parts[1:], 1).tolist() == [3]
