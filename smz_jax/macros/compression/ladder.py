"""Phrases taken away one by one, the one that is missed least first, at fixed rewritings."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from smz_jax.macros.compression.coding import (
    Parse,
    Piece,
    cheapest,
    parse_pieces,
    phrase_bits,
    symbol_bits,
    symbol_costs,
    total_bits,
)

NOTHING = 1e-6
"""Bits that are a rounding error."""


class Ladder:
    """Takes phrases away one by one; counts stay those of a valid rewriting of all pieces."""

    def __init__(self, counts: Counter[bytes], texts: Sequence[bytes], num_actions: int) -> None:
        self.counts = Counter(counts)
        self.num_actions = num_actions
        self.left = sorted(texts)
        self._spelling: dict[bytes, Counter[bytes]] = {}

    def _respell(self) -> None:
        """How each phrase is written where it is missing: with the others, at least cost."""
        missing = [text for text in self.left if text not in self._spelling]
        costs = symbol_costs(self.counts, self.left, self.num_actions) if missing else {}
        for text in missing:
            own = costs.pop(text)
            self._spelling[text] = Counter(cheapest(text, costs))
            costs[text] = own

    def _losses(self) -> np.ndarray:
        """Bits that the description grows by without each phrase, its spelling refunded."""
        counts = self.counts
        total, kinds = sum(counts.values()), self.num_actions + len(self.left)
        uses = np.array([counts[text] for text in self.left], np.int64)
        sizes = np.array([self._spelling[text].total() for text in self.left])
        grown = total_bits(total - uses + uses * sizes, kinds - 1) - total_bits(total, kinds)
        parts = [
            (row, counts[part], counts[part] + uses[row] * times)
            for row, text in enumerate(self.left)
            for part, times in self._spelling[text].items()
        ]
        row, before, after = np.array(parts, np.int64).T
        shrunk = np.bincount(row, symbol_bits(after) - symbol_bits(before))
        spelling = [phrase_bits(len(text), self.num_actions) for text in self.left]
        return grown + symbol_bits(uses) - shrunk - np.array(spelling)

    def step(self) -> tuple[bytes, float]:
        """Takes away the phrase that is missed least (ties: the first in order)."""
        self._respell()
        losses = self._losses()
        index = int(np.argmin(np.round(losses, 6)))
        text = self.left.pop(index)
        spelling = self._spelling.pop(text)
        uses = self.counts.pop(text, 0)
        for part, times in spelling.items():
            self.counts[part] += uses * times
        self._spelling = {k: v for k, v in self._spelling.items() if text not in v}
        return text, float(losses[index])


def refine(
    pieces: Sequence[Piece], texts: Sequence[bytes], num_actions: int
) -> tuple[list[bytes], list[float], Parse]:
    """Drops phrases until each prefix that is left out would cost: the library, its gains."""
    while True:
        parsed = parse_pieces(pieces, texts, num_actions)
        ladder = Ladder(parsed.counts, texts, num_actions)
        steps = [ladder.step() for _ in texts]
        grown = np.cumsum([0.0, *(loss for _, loss in steps)])
        # The shortest of the libraries that are the best one but for rounding.
        drop = int(np.flatnonzero(grown <= grown.min() + NOTHING)[-1])
        kept = steps[drop:][::-1]
        texts = [text for text, _ in kept]
        if not drop:
            return texts, [loss for _, loss in kept], parsed
