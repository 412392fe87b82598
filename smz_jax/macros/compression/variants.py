"""The bits of play under many parts of one library at once: `coding.parse_pieces`, in lockstep.

What a macro is worth beside others takes a rewriting of all play for each macro that is left out.
One after the other that takes a minute; here all parts walk through play together, as rows of one
array. The rewritings are those of `coding.parse_pieces`, tie for tie.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.macros.compression.coding import (
    BORDER,
    ROUNDS,
    UNIT,
    WORTH_A_ROUND,
    Piece,
    dictionary_bits,
    symbol_bits,
    total_bits,
)

_FAR = 1 << 50
"""Costs more than any rewriting."""
_TIES = 16
"""Costs are multiples of it; below it there is room for which size a symbol has."""
_COLUMNS = 2048
"""Lanes times parts that are worked on at once."""
_STEPS = 512


class _Play(NamedTuple):
    """Play in L lanes of T bytes, cut at borders; S symbols: actions, phrases, border, none."""

    symbol: np.ndarray  # [T, R, L] of each size R..1 the symbol that ends there
    weight: np.ndarray  # [T, L] int64, 0 at borders


def _lay_out(
    pieces: Sequence[Piece], texts: Sequence[bytes], num_actions: int, lanes: int
) -> _Play:
    whole = [piece.text.removesuffix(BORDER) + BORDER for piece in pieces]
    text = np.frombuffer(b"".join(whole), np.uint8)
    weight = np.repeat([piece.weight for piece in pieces], [len(x) for x in whole])
    weight = np.where(text > 0, weight, 0)
    ends = np.flatnonzero(text == 0) + 1
    cuts = ends[np.searchsorted(ends, np.arange(1, lanes) * len(text) // lanes)]
    starts = np.unique(np.append(0, cuts[cuts < len(text)]))
    stops = np.append(starts[1:], len(text))
    steps, longest = int((stops - starts).max()), max(map(len, texts))
    padded = np.zeros((steps + longest, len(starts)), np.uint8)
    weights = np.zeros((steps, len(starts)), np.int64)
    for lane, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        padded[longest : longest + stop - start, lane] = text[start:stop]
        weights[: stop - start, lane] = weight[start:stop]
    none = num_actions + len(texts) + 1
    symbol = np.full((steps, longest, len(starts)), none, np.int64)
    code = np.zeros((steps, len(starts)), np.uint64)
    for size in range(1, longest + 1):
        shift = np.uint64(8 * (size - 1))
        code = code | (padded[longest - size + 1 :][:steps].astype(np.uint64) << shift)
        known = {x: num_actions + i for i, x in enumerate(texts) if len(x) == size}
        if size == 1:
            known = {bytes([i + 1]): i for i in range(num_actions)} | {BORDER: none - 1}
        found = {int.from_bytes(x, "big"): index for x, index in known.items()}
        if found:
            keys = np.array(sorted(found), np.uint64)
            place = np.minimum(np.searchsorted(keys, code), len(keys) - 1)
            of = np.array([found[int(key)] for key in keys], np.int64)
            symbol[:, longest - size] = np.where(keys[place] == code, of[place], none)
    return _Play(symbol, weights)


def _counts(play: _Play, costs: np.ndarray) -> np.ndarray:
    """Counts [V, S] of each part's cheapest rewriting under costs [S, V]."""
    steps, sizes, lanes = play.symbol.shape
    kinds, parts = costs.shape
    costs = costs * _TIES
    ties = np.arange(sizes)[:, None, None]  # the longest symbol first
    recent = np.full((sizes + _STEPS, lanes, parts), _FAR * _TIES, np.int64)
    recent[sizes - 1] = 0
    chosen = np.empty((steps, lanes, parts), np.int8)
    at = sizes
    for step in range(steps):
        if at == len(recent):
            recent[:sizes] = recent[-sizes:]
            at = sizes
        least = (recent[at - sizes : at] + costs[play.symbol[step]] + ties).min(axis=0)
        row = least & (_TIES - 1)
        chosen[step] = row
        recent[at] = least - row
        at += 1
    column = np.arange(lanes * parts)
    lane, part = column // parts, column % parts
    chosen = chosen.reshape(steps, -1)
    counts = np.zeros(parts * kinds)
    place = np.full(lanes * parts, steps - 1)
    while len(place):
        row = chosen[place, column]
        key = part * kinds + play.symbol[place, row, lane]
        np.add.at(counts, key, play.weight[place, lane])
        place = place - (sizes - row)
        if (place < 0).any():
            stay = place >= 0
            place, column, lane, part = (x[stay] for x in (place, column, lane, part))
    return counts.reshape(parts, kinds)


def library_bits(
    pieces: Sequence[Piece], texts: Sequence[bytes], parts: np.ndarray, num_actions: int
) -> np.ndarray:
    """Bits of play and dictionary under parts of a library.

    Args:
        pieces: of play.
        texts: the library's K phrases.
        parts: [V, K] bool, the phrases of each part.
        num_actions: A.

    Returns:
        [V] float64: of each part `parse_pieces(pieces, its texts).bits`, and its dictionary's.
    """
    inside = np.asarray(parts, np.bool_)
    spelled = np.array([dictionary_bits([x], num_actions) for x in texts])
    none = dictionary_bits([], num_actions)
    dictionary = none + inside @ (spelled - none)
    kinds = num_actions + inside.sum(axis=1)
    plain = np.zeros(num_actions)
    for piece in pieces:
        counted = np.bincount(np.frombuffer(piece.text, np.uint8), minlength=num_actions + 1)
        plain += piece.weight * counted[1:]
    best = np.maximum(total_bits(plain.sum(), kinds) - symbol_bits(plain).sum(), 0)
    left = np.flatnonzero(inside.any(axis=1))
    if len(left) and plain.sum():
        width = max(1, _COLUMNS // len(left))
        play = _lay_out(pieces, texts, num_actions, width)
        for start in range(0, len(left), _COLUMNS):
            rows = left[start : start + _COLUMNS]
            best[rows] = _rounds(play, inside[rows], kinds[rows], best[rows])
    return best + dictionary


def _rounds(play: _Play, inside: np.ndarray, kinds: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The best of several rewritings, each under the costs that the one before implies."""
    num_actions = int(kinds[0] - inside[0].sum())
    known = np.concatenate(
        [np.ones((len(inside), num_actions), np.bool_), inside], axis=1
    )  # [V, A + K]
    ends = np.array([[0, _FAR]]).repeat(len(inside), 0)  # a border, and no symbol
    price = np.where(known, 1, _FAR)
    best, before = best.copy(), np.full(len(inside), np.inf)
    open_ = np.arange(len(inside))
    for _ in range(ROUNDS):
        # In the first round a border costs 1 as well in `parse_pieces`: the same for all.
        counts = _counts(play, np.concatenate([price, ends[open_]], axis=1).T)[:, :-2]
        bits = total_bits(counts.sum(axis=1), kinds[open_]) - symbol_bits(counts).sum(axis=1)
        bits = np.maximum(bits, 0)
        best[open_] = np.minimum(best[open_], bits)
        going = bits <= before[open_] * (1 - WORTH_A_ROUND)
        open_, counts, bits = open_[going], counts[going], bits[going]
        if not len(open_):
            break
        before[open_] = bits
        total = counts.sum(axis=1) + kinds[open_] / 2
        costs = np.rint(UNIT * np.log2(total[:, None] / (counts + 0.5))).astype(np.int64)
        price = np.where(known[open_], costs, _FAR)
    return best
