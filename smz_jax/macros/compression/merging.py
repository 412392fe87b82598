"""Greedy merging of neighbouring symbols, byte-pair style, towards allowed macros."""

from collections.abc import Sequence

import numpy as np

from smz_jax.macros.compression.coding import Phrase, phrase_bits, symbol_bits, total_bits
from smz_jax.macros.compression.rewriting import Rewriting


class _Rules:
    """Every allowed merge (left, right) -> target, in the order of target, then left."""

    def __init__(self, allowed: Sequence[Phrase], num_actions: int) -> None:
        parts = {
            macro[start:end]
            for macro in allowed
            for start in range(len(macro))
            for end in range(start + 2, len(macro) + 1)
        }
        self.names = [*((action,) for action in range(num_actions)), *sorted(parts)]
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
            [phrase_bits(name, num_actions) if name in macros else 0.0 for name in self.names]
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
    symbols = np.stack([rules.left[chosen], rules.right[chosen], rules.target[chosen]], axis=1)
    twin = symbols[:, 0] == symbols[:, 1]
    before = counts[symbols]
    after = before + np.stack([-uses * (1 + twin), -uses * ~twin, uses], axis=1)
    # Phrases that become symbols, less those that are none any more.
    born = np.where(symbols >= num_actions, (after > 0).astype(np.int64) - (before > 0), 0)
    total, kinds = counts.sum(), num_actions + int((counts[num_actions:] > 0).sum())
    grown = total_bits(total - uses, kinds + born.sum(axis=1)) - total_bits(total, kinds)
    shrunk = symbol_bits(after) - symbol_bits(before) - born * rules.price[symbols]
    return shrunk.sum(axis=1) - grown


def merge_pairs(parsed: Rewriting, allowed: Sequence[Phrase], num_actions: int) -> set[Phrase]:
    """Merges the pair that saves most, again and again, until none saves.

    A merge joins two neighbouring symbols everywhere; what they spell must be an allowed macro or
    a part of one. Its saving is exact (the code of `coding.py`), except that parts are
    not charged for their spelling. Ties go to the target, then the left half, that comes first
    in lexicographic order. The phrases of `parsed` are allowed macros or parts of them.

    Returns:
        The allowed macros that are symbols in the end.
    """
    if not allowed:
        return set()
    rules = _Rules(allowed, num_actions)
    known = [*range(num_actions), *(rules.ids[phrase] for phrase in parsed.phrases), -1]
    symbols, weight = np.array(known)[parsed.symbols], parsed.weight
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
