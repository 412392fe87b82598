"""Play rewritten with a library, or with many parts of one library at once.

Which of the many rewritings is sent: the one of the fewest symbols, then the cheapest one under
the costs that the counts of the former imply, again and again; the best of these, or of plain play.

Play is cut at borders into lanes. All lanes, and all parts of a library, walk through play
together, as rows of one array: one part after the other would take a minute.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.macros.compression.coding import Phrase, Play, code_bits, dictionary_bits

FAR = 1 << 50
"""Costs more than any rewriting."""
_ROUNDS = 4
_WORTH_A_ROUND = 1e-3
_UNIT = 1 << 16
_TIES = 16
"""Costs are multiples of it; below it there is room for which size a symbol has."""
_COLUMNS = 2048
"""Lanes times parts that are worked on at once."""
_BLOCK = 1 << 17
"""Costs that are read at once."""


class Rewriting(NamedTuple):
    """Play as S = A + K symbols: A actions, K phrases; S is a border."""

    phrases: Sequence[Phrase]
    symbols: np.ndarray  # [n] int64, a border after each piece
    weight: np.ndarray  # [n] int64, how often each symbol counts
    counts: np.ndarray  # [S] int64
    bits: float  # of the symbols; the dictionary apart


def lay_out(
    text: np.ndarray, starts: np.ndarray, phrases: Sequence[Phrase], num_actions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Text cut into L lanes of at most T bytes; the longest phrase has R actions.

    Returns:
        [T, R, L] int64, of each size R..1 the symbol that ends there, S + 1 for none; after a
        lane's end there are borders. [L, T] bool, where a lane has text.
    """
    lengths = np.diff(np.append(starts, len(text)))
    inside = np.arange(lengths.max()) < lengths[:, None]
    longest, border = max(map(len, phrases), default=1), num_actions + len(phrases)
    padded = np.zeros((len(starts), longest + inside.shape[1]), np.uint64)
    padded[:, longest:][inside] = text
    padded = np.ascontiguousarray(padded.T)
    names = [*((action,) for action in range(num_actions)), *phrases, (-1,)]
    words = [int.from_bytes(bytes(action + 1 for action in name), "big") for name in names]
    ids = np.array(sorted(range(len(names)), key=words.__getitem__))
    keys, sizes = np.array(words, np.uint64)[ids], np.array([len(name) for name in names])[ids]
    code = np.zeros(inside.T.shape, np.uint64)
    symbol = np.empty((len(code), longest, len(starts)), np.int64)
    for size in range(1, longest + 1):
        code |= padded[longest - size + 1 :][: len(code)] << np.uint64(8 * (size - 1))
        place = np.minimum(np.searchsorted(keys, code), len(keys) - 1)
        known = (keys[place] == code) & (sizes[place] == size)
        symbol[:, longest - size] = np.where(known, ids[place], border + 1)
    return symbol, inside


def _walk(symbol: np.ndarray, costs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The cheapest rewritings (Viterbi) under whole costs [S + 2, V]; ties go to the longer symbol.

    Yields:
        Places, lanes, parts and symbols of some of the rewritings' symbols, the last ones first.
    """
    (steps, sizes, lanes), parts = symbol.shape, costs.shape[1]
    costs = np.ascontiguousarray(costs * _TIES)
    block = max(1, min(steps, _BLOCK // max(1, sizes * lanes * parts)))
    recent = np.full((sizes + block, lanes, parts), FAR * _TIES, np.int64)
    recent[sizes - 1] = 0
    least = np.empty((block, lanes, parts), np.int64)
    chosen = np.empty((steps, lanes * parts), np.int8)
    ties = np.arange(sizes)[:, None, None]  # the longest symbol first
    for start in range(0, steps, block):
        prices = costs[symbol[start : start + block]] + ties
        for at, price in enumerate(prices):
            price += recent[at : at + sizes]
            np.minimum.reduce(price, axis=0, out=least[at])
            np.bitwise_and(least[at], -_TIES, out=recent[sizes + at])
        done = least[: len(prices)] & (_TIES - 1)
        chosen[start : start + block] = done.reshape(len(prices), -1)
        recent[:sizes] = recent[len(prices) :][:sizes]
    column = np.arange(lanes * parts if steps else 0)
    lane, part = np.divmod(column, max(1, parts))
    place = np.full(len(column), steps - 1)
    while len(place):
        row = chosen[place, column]
        yield place, lane, part, symbol[place, row, lane]
        place = place - (sizes - row)
        if place.min() < 0:
            stay = place >= 0
            place, column, lane, part = (x[stay] for x in (place, column, lane, part))


def cheapest(symbol: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The rewriting of least total cost of `symbol [T, R, L]`; ties go to the longer last symbol.

    `costs [S + 2]` of each symbol, a border and none are whole numbers, so that ties are ties on
    every machine.

    Returns:
        [L, T] int64, the symbol that ends at each place, -1 for none.
    """
    path = np.full((symbol.shape[2], len(symbol)), -1, np.int64)
    for place, lane, _, found in _walk(symbol, costs[:, None]):
        path[lane, place] = found
    return path


def next_costs(counts: np.ndarray, kinds: np.ndarray | int) -> np.ndarray:
    """What each symbol would cost next, in units of 2^-16 bits, after counts [..., S]."""
    total = counts.sum(-1) + kinds / 2
    return np.rint(_UNIT * np.log2(total[..., None] / (counts + 0.5))).astype(np.int64)


def _in_lanes(
    play: Play, lanes: int, phrases: Sequence[Phrase], num_actions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Play in so many lanes, or fewer, of about the same length: as `lay_out`, and weights."""
    borders = np.append(0, np.flatnonzero(play.text[:-1] == 0) + 1)
    place = np.searchsorted(borders, np.arange(lanes) * len(play.text) // lanes)
    starts = np.unique(borders[np.minimum(place, len(borders) - 1)])
    symbol, inside = lay_out(play.text, starts, phrases, num_actions)
    weight = np.zeros(inside.shape, np.int64)
    weight[inside] = play.weight
    return symbol, inside, weight


def _plain_counts(play: Play, num_actions: int) -> np.ndarray:
    return np.bincount(play.text, play.weight, num_actions + 1)[1:]


def _best(
    symbol: np.ndarray, weight: np.ndarray, parts: np.ndarray, plain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best rewriting with parts [V, K] of a library; that of plain play has counts `plain`.

    Returns:
        Bits [V] and the costs [V, S + 2] under which the rewriting is the cheapest one.
    """
    size, kinds = len(parts), len(plain) + parts.sum(axis=1)
    known = np.pad(parts, ((0, 0), (len(plain), 0)), constant_values=True)
    ends = np.array([[0, FAR]]).repeat(size, 0)  # a border, and no symbol
    costs = np.concatenate([np.where(known, 1, FAR), ends], axis=1)
    best, before = code_bits(plain, kinds), np.full(size, np.inf)
    best_costs = costs.copy()
    best_costs[:, len(plain) : -2] = FAR
    left = np.arange(size)
    for _ in range(_ROUNDS):
        counts = np.zeros(costs[left].size)
        for place, lane, part, found in _walk(symbol, costs[left].T):
            np.add.at(counts, part * costs.shape[1] + found, weight[lane, place])
        counts = counts.reshape(costs[left].shape)[:, :-2]
        bits = code_bits(counts, kinds[left])
        better = bits < best[left]
        best[left[better]], best_costs[left[better]] = bits[better], costs[left[better]]
        improves = bits <= before[left] * (1 - _WORTH_A_ROUND)
        left, counts, bits = left[improves], counts[improves], bits[improves]
        if not len(left):
            break
        before[left] = bits
        costs[left, :-2] = np.where(known[left], next_costs(counts, kinds[left]), FAR)
    return best, best_costs


def library_bits(
    play: Play, phrases: Sequence[Phrase], parts: np.ndarray, num_actions: int
) -> np.ndarray:
    """Bits of play and dictionary under parts [V, K] bool of a library of K phrases.

    Returns:
        [V] float64: of each part `rewrite(play, its phrases).bits`, and its dictionary's.
    """
    parts = np.asarray(parts, np.bool_)
    spelled = np.array([dictionary_bits([phrase], num_actions) for phrase in phrases])
    none = dictionary_bits([], num_actions)
    plain = _plain_counts(play, num_actions)
    best = code_bits(plain, num_actions + parts.sum(axis=1))
    left = np.flatnonzero(parts.any(axis=1))
    if len(left) and plain.sum():
        lanes = max(1, _COLUMNS // len(left))
        symbol, _, weight = _in_lanes(play, lanes, phrases, num_actions)
        for start in range(0, len(left), _COLUMNS):
            rows = left[start : start + _COLUMNS]
            best[rows], _ = _best(symbol, weight, parts[rows], plain)
    return best + (none + parts @ (spelled - none))


def rewrite(play: Play, phrases: Sequence[Phrase], num_actions: int) -> Rewriting:
    """Rewrites play with a library, as the module says."""
    size = num_actions + len(phrases)
    symbols = np.where(play.text > 0, play.text.astype(np.int64) - 1, size)
    if phrases:
        symbol, inside, weight = _in_lanes(play, _COLUMNS, phrases, num_actions)
        every = np.ones((1, len(phrases)), np.bool_)
        _, costs = _best(symbol, weight, every, _plain_counts(play, num_actions))
        symbols = cheapest(symbol, costs[0])[inside]
    kept = symbols >= 0
    symbols, weight = symbols[kept], play.weight[kept]
    counts = np.bincount(symbols, weight, size + 1)[:size].astype(np.int64)
    # Summed in the order in which symbols come: the last bit of a sum depends on it.
    kinds, first = np.unique(symbols, return_index=True)
    used = kinds[np.argsort(first)]
    bits = float(code_bits(counts[used[used < size]], size))
    return Rewriting(phrases, symbols, weight, counts, bits)
