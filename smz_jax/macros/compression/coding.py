"""How many bits it takes to write down play, without and with a library of phrases.

The code, exactly. Play is a list of pieces (uninterrupted stretches of actions, A actions); the
lengths of the pieces, in actions, are known to both sides. A library is K distinct phrases of 2 to
8 actions. Play is rewritten as symbols, each an action or a phrase, no phrase across a border, and
the sequence of n symbols of all pieces is sent by the adaptive code of Krichevsky and Trofimov
(1981): a symbol that was seen c times among the i symbols before it costs

    -log2((c + 1/2) / (i + (A + K) / 2)) bits,

which needs no table of frequencies and whose sum depends on the counts alone. The dictionary is
sent first: for each phrase its length (one of 2..8, or "no more": 3 bits) and its spelling (length
x log2 A bits), and the closing "no more". The empty library pays these 3 bits too.

Which of the many rewritings is sent: see `rewriting`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln

from smz_jax.config.check import require
from smz_jax.macros.mine.keys import MAX_LENGTH, check_num_actions

MIN_LENGTH = 2
LENGTH_BITS = 3.0
"""One of eight: a length in 2..8, or the dictionary's end."""

Phrase = tuple[int, ...]


class Play(NamedTuple):
    """Pieces of play, one after the other."""

    text: np.ndarray  # [N] uint8, `action + 1` as in the keys; 0, a border, closes each piece
    weight: np.ndarray  # [N] int64, how often each action counts


class Encoding(NamedTuple):
    """Play under a fixed library, measured in bits. Ratios over no actions are 0."""

    actions: int  # of play
    symbols: int  # that play was rewritten as
    play_bits: float  # of these symbols
    dictionary_bits: float  # of the library
    plain_bits: float  # of the same play under the empty library, its dictionary included
    uses: tuple[int, ...]  # of each phrase, in the order of the library
    covered: int  # actions inside phrases

    @property
    def bits(self) -> float:
        """Play and dictionary."""
        return self.play_bits + self.dictionary_bits

    @property
    def bits_per_action(self) -> float:
        """With the library, its dictionary included."""
        return self.bits / self.actions if self.actions else 0.0

    @property
    def plain_bits_per_action(self) -> float:
        """Without the library."""
        return self.plain_bits / self.actions if self.actions else 0.0

    @property
    def saved_per_action(self) -> float:
        """Bits per action that the library saves, its dictionary paid; negative if it costs."""
        return self.plain_bits_per_action - self.bits_per_action

    @property
    def coverage(self) -> float:
        """Share of the actions that lie inside phrases."""
        return self.covered / self.actions if self.actions else 0.0


def check_phrases(phrases: Sequence[Sequence[int]], num_actions: int) -> list[Phrase]:
    """Checks phrases: distinct sequences of 2 to 8 actions in 0..A-1, A in 1..255.

    Raises:
        ConfigError: in one line, where a phrase is too short, too long, unknown or given twice.
    """
    check_num_actions(num_actions)
    allowed = f"{MIN_LENGTH} to {MAX_LENGTH} actions in 0..{num_actions - 1}"
    for phrase in phrases:
        known = all(0 <= action < num_actions for action in phrase)
        fits = MIN_LENGTH <= len(phrase) <= MAX_LENGTH
        require(known and fits, "macro", tuple(phrase), allowed)
    found = [tuple(map(int, phrase)) for phrase in phrases]
    for phrase, count in Counter(found).items():
        require(count == 1, "macros", f"{phrase} {count} times", "distinct")
    return found


def check_streams(streams: Sequence[np.ndarray], num_actions: int) -> Play:
    """Checks played actions: 1-D integer arrays of actions in 0..A-1, A in 1..255.

    Raises:
        ConfigError: in one line, where an array is not 1-D, not of integers, or out of range.
    """
    check_num_actions(num_actions)
    parts = [np.zeros(0, np.uint8)]
    for index, stream in enumerate(streams):
        actions, name = np.asarray(stream), f"streams[{index}]"
        if actions.size:
            shaped = actions.ndim == 1 and actions.dtype.kind in "iu"
            require(shaped, name, f"{actions.dtype} {actions.shape}", "a 1-D array of integers")
            low, high = int(actions.min()), int(actions.max())
            extreme = low if low < 0 else high
            require(0 <= extreme < num_actions, name, extreme, f"in 0..{num_actions - 1}")
        parts.append(np.append(actions.astype(np.uint8) + np.uint8(1), np.uint8(0)))
    text = np.concatenate(parts)
    return Play(text, np.ones(len(text), np.int64))


def symbol_bits(counts: np.ndarray) -> np.ndarray:
    """log2 Gamma(n + 1/2) / Gamma(1/2): what a symbol of count n takes off the code length."""
    return (gammaln(np.asarray(counts, np.float64) + 0.5) - gammaln(0.5)) / np.log(2.0)


def total_bits(total: np.ndarray | float, kinds: np.ndarray | float) -> np.ndarray:
    """log2 Gamma(n + S/2) / Gamma(S/2) of n symbols over an alphabet of S."""
    half = np.asarray(kinds, np.float64) / 2
    return (gammaln(total + half) - gammaln(half)) / np.log(2.0)


def code_bits(counts: Any, kinds: np.ndarray | int) -> np.ndarray:
    """Length of the Krichevsky-Trofimov code of symbols with counts [..., n]; those left out are 0.

    `kinds` is the size of the alphabet S = A + K, at least 1; [...] or the same for all.

    Returns:
        log2 [Gamma(n + S/2) / Gamma(S/2)] - sum_s log2 [Gamma(n_s + 1/2) / Gamma(1/2)], in bits.
    """
    each = np.asarray(counts, np.float64)
    # One kind of symbol alone carries nothing; the two terms leave a rounding error.
    return np.maximum(total_bits(each.sum(-1), kinds) - symbol_bits(each).sum(-1), 0.0)


def phrase_bits(phrase: Phrase, num_actions: int) -> float:
    """Dictionary cost of a phrase: its length and its spelling."""
    return LENGTH_BITS + len(phrase) * float(np.log2(num_actions))


def dictionary_bits(phrases: Sequence[Phrase], num_actions: int) -> float:
    """Dictionary cost of a library, its end included."""
    return LENGTH_BITS + sum(phrase_bits(phrase, num_actions) for phrase in phrases)
