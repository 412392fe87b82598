"""Greedy merging of neighbouring symbols, byte-pair style, towards allowed macros."""

from collections.abc import Sequence

import numpy as np

from smz_jax.macros.compression.coding import BORDER, Piece, phrase_bits, symbol_bits, total_bits


class _Rules:
    """Every allowed merge (left, right) -> target, in the order of target, then left."""

    def __init__(self, allowed: Sequence[bytes], num_actions: int) -> None:
        parts = {
            macro[start:end]
            for macro in allowed
            for start in range(len(macro))
            for end in range(start + 2, len(macro) + 1)
        }
        self.names = [bytes([action + 1]) for action in range(num_actions)] + sorted(parts)
        self.ids = {name: index for index, name in enumerate(self.names)}
        splits = [
            (self.ids[name[:cut]], self.ids[name[cut:]], self.ids[name])
            for name in self.names
            for cut in range(1, len(name))
        ]
        table = np.array(splits, np.int64).reshape(-1, 3)
        self.left, self.right, self.target = table.T
        self._order = np.argsort(self.left * len(self.names) + self.right)
        self._codes = (self.left * len(self.names) + self.right)[self._order]
        # A part that is no macro itself is only a step on the way, and leaves in the end.
        macros = set(allowed)
        self.price = np.array(
            [phrase_bits(len(name), num_actions) if name in macros else 0.0 for name in self.names]
        )

    def find(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """[n] index of the rule for each pair, -1 where there is none."""
        code = np.where((left < 0) | (right < 0), -1, left * len(self.names) + right)
        place = np.minimum(np.searchsorted(self._codes, code), len(self._codes) - 1)
        return np.where(self._codes[place] == code, self._order[place], -1)


def _usable(symbols: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[n] bool, pairs that can be merged together: in x x x only the first (and third ...)."""
    same = np.append(symbols[1:] == symbols[:-1], False)
    place = np.arange(len(symbols))
    starts = np.where(np.append(True, ~same[:-1]), place, 0)
    return (pairs >= 0) & ~(same & ((place - np.maximum.accumulate(starts)) % 2 == 1))


def _gains(
    rules: _Rules, chosen: np.ndarray, uses: np.ndarray, counts: np.ndarray, num_actions: int
) -> np.ndarray:
    """Bits that each merge saves: play before less after, and the dictionary's change."""
    left, right, target = rules.left[chosen], rules.right[chosen], rules.target[chosen]
    twin = left == right
    new_left = counts[left] - np.where(twin, 2, 1) * uses
    new_right = counts[right] - uses
    new = counts[target] == 0
    gone_left = (left >= num_actions) & (new_left == 0)
    gone_right = (right >= num_actions) & (new_right == 0) & ~twin
    total = counts.sum()
    kinds = num_actions + int((counts[num_actions:] > 0).sum())
    new_kinds = kinds + new.astype(np.int64) - gone_left - gone_right
    change = total_bits(total - uses, new_kinds) - total_bits(total, kinds)
    change += symbol_bits(counts[left]) - symbol_bits(new_left)
    change += np.where(twin, 0.0, symbol_bits(counts[right]) - symbol_bits(new_right))
    change += symbol_bits(counts[target]) - symbol_bits(counts[target] + uses)
    change += new * rules.price[target]
    change -= gone_left * rules.price[left] + gone_right * rules.price[right]
    return -change


def merge_pairs(
    pieces: Sequence[Piece],
    parsed: Sequence[Sequence[bytes]],
    allowed: Sequence[bytes],
    num_actions: int,
) -> set[bytes]:
    """Merges the pair that saves most, again and again, until none saves.

    A merge joins two neighbouring symbols everywhere; what they spell must be an allowed macro or
    a part of one. Its saving is exact (the code of `coding.py`), except that parts are
    not charged for their spelling. Ties go to the target, then the left half, that comes first
    in lexicographic order.

    Args:
        pieces: texts and how often each counts.
        parsed: symbols of each piece, actions or parts of allowed macros, and borders.
        allowed: texts of macros.
        num_actions: A.

    Returns:
        The allowed macros that are symbols in the end.
    """
    if not allowed:
        return set()
    rules = _Rules(allowed, num_actions)
    rows = [[rules.ids.get(name, -1) for name in (*names, BORDER)] for names in parsed]
    symbols = np.concatenate([np.array(row, np.int64) for row in rows])
    weight = np.repeat([piece.weight for piece in pieces], [len(row) for row in rows])
    pairs = np.append(rules.find(symbols[:-1], symbols[1:]), -1)
    kinds = len(rules.names)
    counts = np.bincount(symbols + 1, weights=weight, minlength=kinds + 1)[1:].astype(np.int64)
    while True:
        usable = _usable(symbols, pairs)
        uses = np.bincount(pairs[usable], weights=weight[usable], minlength=len(rules.left))
        chosen = np.flatnonzero(uses)
        if not len(chosen):
            break
        uses = uses[chosen].astype(np.int64)
        gains = np.round(_gains(rules, chosen, uses, counts, num_actions), 6)
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        rule = chosen[best]
        left, right, target = rules.left[rule], rules.right[rule], rules.target[rule]
        for symbol, change in ((left, -1), (right, -1), (target, 1)):
            counts[symbol] += change * uses[best]
        at = np.flatnonzero(usable & (pairs == rule))
        symbols[at] = target
        symbols, weight, pairs = (np.delete(x, at + 1) for x in (symbols, weight, pairs))
        at -= np.arange(len(at))
        for place in (at, at[at > 0] - 1):
            pairs[place] = rules.find(symbols[place], symbols[place + 1])
    macros = set(allowed)
    return {rules.names[i] for i in np.flatnonzero(counts) if rules.names[i] in macros}
