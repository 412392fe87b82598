"""Phrases taken away one by one, the one that is missed least first, at fixed rewritings."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from smz_jax.macros.compression.coding import Phrase, Play, phrase_bits, symbol_bits, total_bits
from smz_jax.macros.compression.rewriting import (
    FAR,
    Rewriting,
    cheapest,
    lay_out,
    next_costs,
    rewrite,
)

NOTHING = 1e-6
"""Bits that are a rounding error."""


def take_away(
    counts: np.ndarray, phrases: Sequence[Phrase], num_actions: int
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Takes away the phrase that is missed least, again and again (ties: the first in order).

    A phrase that is missing is written with the others, at least cost. `counts [A + K]` are of the
    symbols of a rewriting with the `phrases`, in lexicographic order.

    Yields:
        Index of the phrase; bits that the description grows by without it, its spelling refunded;
        counts [A + K] of a valid rewriting without it.
    """
    size, counts = len(phrases), counts.copy()
    if not size:
        return
    own = num_actions + np.arange(size)
    lengths = np.array([len(phrase) for phrase in phrases])
    text = np.array([action + 1 for phrase in phrases for action in phrase], np.uint8)
    symbol, _ = lay_out(text, np.cumsum(lengths) - lengths, phrases, num_actions)
    symbol[symbol == own] = num_actions + size + 1  # not with itself
    refunds = np.array([phrase_bits(phrase, num_actions) for phrase in phrases])
    spelling = np.zeros((size, len(symbol)), np.int64)
    times = np.zeros_like(spelling)  # of each part of a spelling, at its first place alone
    is_left, missing = np.ones((2, size), np.bool_)
    while is_left.any():
        kinds = num_actions + int(is_left.sum())
        rows = np.flatnonzero(is_left & missing)
        if len(rows):
            costs = np.append(next_costs(counts, kinds), [0, FAR])
            costs[own[~is_left]] = FAR
            found = cheapest(symbol[:, :, rows], costs)
            same = found[:, :, None] == found[:, None, :]
            first = (found >= 0) & (found < num_actions + size)
            first &= same.argmax(axis=2) == np.arange(len(symbol))
            spelling[rows], times[rows] = np.where(first, (found, same.sum(axis=2)), 0)
        left = np.flatnonzero(is_left)
        uses, total = counts[own[left]], counts.sum()
        before = counts[spelling[left]]
        shrunk = symbol_bits(before + uses[:, None] * times[left]) - symbol_bits(before)
        grown = total_bits(total - uses + uses * times[left].sum(axis=1), kinds - 1)
        losses = grown - total_bits(total, kinds) + symbol_bits(uses) - shrunk.sum(axis=1)
        losses -= refunds[left]
        least = int(np.argmin(np.round(losses, 6)))
        gone = int(left[least])
        np.add.at(counts, spelling[gone], uses[least] * times[gone])
        counts[own[gone]] = 0
        is_left[gone] = False
        missing = ((spelling == own[gone]) & (times > 0)).any(axis=1)
        yield gone, float(losses[least]), counts.copy()


def refine(
    play: Play, phrases: Collection[Phrase], num_actions: int
) -> tuple[list[Phrase], list[float], Rewriting]:
    """Drops phrases until each prefix that is left out would cost: the library, its gains."""
    while True:
        phrases = sorted(phrases)
        parsed = rewrite(play, phrases, num_actions)
        steps = list(take_away(parsed.counts, phrases, num_actions))
        grown = np.cumsum([0.0, *(loss for _, loss, _ in steps)])
        # The shortest of the libraries that are the best one but for rounding.
        drop = int(np.flatnonzero(grown <= grown.min() + NOTHING)[-1])
        kept = steps[drop:][::-1]
        phrases = [phrases[i] for i, _, _ in kept]
        if not drop:
            return phrases, [loss for _, loss, _ in kept], parsed
