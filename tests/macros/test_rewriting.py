"""The bits of many libraries at once against one rewriting after the other."""

import numpy as np
import pytest
from hypothesis import given, settings

from smz_jax.macros.compression import coding
from smz_jax.macros.compression.rewriting import library_bits, rewrite
from tests.support.compression_twin import array, planted, play


def one_by_one(whole, phrases, parts, num_actions):
    found = []
    for part in parts:
        own = [phrase for phrase, is_in in zip(phrases, part, strict=True) if is_in]
        bits = rewrite(whole, own, num_actions).bits
        found.append(bits + coding.dictionary_bits(own, num_actions))
    return found


@settings(max_examples=60, deadline=None)
@given(play())
def test_any_play_and_any_parts(case):
    streams, macros, num_actions = case
    phrases = coding.check_phrases(macros, num_actions)
    played = coding.check_streams([*streams, *map(np.array, phrases[:2])], num_actions)
    thrice = np.arange(len(played.text)) >= sum(len(stream) + 1 for stream in streams)
    whole = played._replace(weight=np.where(thrice, 3, 1))
    parts = np.random.default_rng(0).random((9, len(phrases))) < 0.5
    found = library_bits(whole, phrases, parts, num_actions)
    assert found.tolist() == pytest.approx(one_by_one(whole, phrases, parts, num_actions), abs=1e-6)


@pytest.mark.parametrize(("seed", "count"), [(0, 40), (1, 3), (2, 1)])
def test_long_play_in_lanes(seed, count):
    """Lanes of different lengths, longer than the buffer of recent costs."""
    streams, macros, num_actions = planted(seed, count, 100, 1500)
    whole = coding.check_streams(streams, num_actions)
    phrases = coding.check_phrases(macros, num_actions)
    keep = np.ones((len(phrases) + 1, len(phrases)), bool)
    keep[1:][np.eye(len(phrases), dtype=bool)] = False
    found = library_bits(whole, phrases, keep, num_actions)
    assert found.tolist() == pytest.approx(one_by_one(whole, phrases, keep, num_actions), abs=1e-6)


def test_nothing_to_write_costs_the_dictionary():
    parts = np.array([[True], [False]])
    assert library_bits(coding.check_streams([], 2), [(0, 1)], parts, 2).tolist() == [8, 3]
    whole = coding.check_streams([array(0, 0)], 1)
    assert library_bits(whole, [(0, 0)], parts[1:], 1).tolist() == [3]
