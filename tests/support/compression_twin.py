"""Play with planted sequences, and the code of `compression.coding` by its definition."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st


def array(*actions):
    return np.array(actions, np.int32)


def adaptive_bits(symbols, kinds):
    """The Krichevsky-Trofimov code by its definition, symbol after symbol, in exact fractions."""
    seen, probability = Counter(), Fraction(1)
    for index, symbol in enumerate(symbols):
        probability *= Fraction(2 * seen[symbol] + 1, 2 * index + kinds)
        seen[symbol] += 1
    return math.log2(probability.denominator) - math.log2(probability.numerator)


def spelling_bits(phrases, num_actions):
    return 3 + sum(3 + len(phrase) * math.log2(num_actions) for phrase in phrases)


def frequent(streams, lengths, top):
    windows = Counter(
        tuple(stream[start : start + length].tolist())
        for stream in streams
        for length in lengths
        for start in range(len(stream) - length + 1)
    )
    return [macro for macro, _ in windows.most_common(top)]


def planted(seed, pieces=2, low=20, high=120):
    """Play made of three sequences and noise; two of them and four frequent windows as macros."""
    rng = np.random.default_rng(seed)
    num_actions = int(rng.integers(2, 5))
    library = [tuple(rng.integers(num_actions, size=rng.integers(2, 7)).tolist()) for _ in range(3)]

    def piece():
        actions, length = [], rng.integers(low, high)
        while len(actions) < length:
            noise = (int(rng.integers(num_actions)),)
            actions += library[rng.integers(3)] if rng.random() < 0.75 else noise
        return np.array(actions)

    streams = [piece() for _ in range(pieces)]
    macros = sorted({*library[:2], *frequent(streams, range(2, 6), 4)})
    return streams, macros, num_actions


@st.composite
def play(draw):
    num_actions = draw(st.integers(1, 3))
    action = st.integers(0, num_actions - 1)
    motifs = draw(st.lists(st.lists(action, min_size=1, max_size=5), min_size=1, max_size=3))
    piece = st.lists(st.sampled_from(motifs), max_size=20).map(
        lambda parts: list(itertools.chain(*parts))
    )
    streams = [np.array(actions, np.int64) for actions in draw(st.lists(piece, max_size=3))]
    any_macro = st.lists(action, min_size=2, max_size=8).map(tuple)
    likely = [tuple(a + b)[:8] for a in motifs for b in motifs if len(a + b) > 1]
    macro = st.one_of(any_macro, st.sampled_from(likely)) if likely else any_macro
    return streams, draw(st.lists(macro, unique=True, max_size=8)), num_actions


def expand(pieces, phrases, num_actions):
    """The inverse of `parse`: the actions, int32, of each piece of symbols."""
    spelled = [(action,) for action in range(num_actions)] + [tuple(phrase) for phrase in phrases]
    return [
        np.array([action for symbol in piece for action in spelled[symbol]], np.int32)
        for piece in pieces
    ]
