"""Which macros to keep: those that shorten the description of play the most.

`select` merges neighbouring symbols of play greedily (`merging`), lets the macros so found compete
for play under the code of `coding`, and takes away, one by one, those that are missed least,
down to the library of the fewest bits. The empty library is on that way, so that the result is
never longer than plain play. All allowed macros at once are a second start (in short play no
single merge pays for its macro); the better of the two is merged on, until nothing more is saved.

Macros that the search supports but play has rarely shown may count too: with `visits`, the search
is taken for imagined play. To the pieces of play come pieces that consist of one macro alone, that
of macro m

    round(tree_share x actions of play x visits_m / sum_k(visits_k x length_k)) times,

so that imagined actions are `tree_share` of the played ones. The choice, the order and `saved_bits`
are then those of both together; `encoding` is always of play alone.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from smz_jax.config import require
from smz_jax.macro_file import prefix_share
from smz_jax.macros.coding import (
    Encoding,
    Parse,
    Phrase,
    Piece,
    cheapest,
    check_phrases,
    check_streams,
    dictionary_bits,
    parse_pieces,
    phrase_bits,
    symbol_bits,
    symbol_costs,
    to_phrase,
    total_bits,
)
from smz_jax.macros.merging import merge_pairs

_ROUNDS = 4
_NOTHING = 1e-6


@dataclasses.dataclass(frozen=True)
class Selection:
    """A library chosen by compression; phrases in the order of their worth."""

    phrases: tuple[Phrase, ...]
    """The chosen macros; the first k of them are a good library of size k."""
    saved_bits: tuple[float, ...]
    """Of each: bits that it takes off the description when it joins those before it, its own
    spelling paid. They sum to what the whole library saves (of play and imagined play)."""
    encoding: Encoding
    """Of the played actions under the chosen library; `uses` in the order of `phrases`."""
    redundancy: float
    """Share of the phrases that are the beginning of another phrase."""
    allowed_redundancy: float
    """The same share of all allowed macros."""


def parse(
    streams: Sequence[np.ndarray], phrases: Sequence[Sequence[int]], num_actions: int
) -> list[np.ndarray]:
    """Rewrites play with a library.

    Args:
        streams: 1-D integer arrays of actions in 0..A-1, one for each uninterrupted piece of play.
        phrases: the library: distinct sequences of 2 to 8 actions.
        num_actions: A, in 1..255.

    Returns:
        For each piece its symbols, int32: an action a in 0..A-1, or A + k for phrase k.

    Raises:
        ConfigError: in one line, on actions, shapes or phrases other than these.
    """
    texts, play = check_phrases(phrases, num_actions), check_streams(streams, num_actions)
    ids = {bytes([action + 1]): action for action in range(num_actions)}
    ids.update({text: num_actions + index for index, text in enumerate(texts)})
    symbols = parse_pieces([play], texts, num_actions).symbols[0]
    flat = np.array([ids.get(symbol, -1) for symbol in symbols], np.int32)
    ends = np.flatnonzero(flat < 0)
    return [piece[piece >= 0] for piece in np.split(flat, ends[:-1])] if len(ends) else []


def expand(
    pieces: Sequence[np.ndarray], phrases: Sequence[Sequence[int]], num_actions: int
) -> list[np.ndarray]:
    """The inverse of `parse`: the actions, int32, of each piece of symbols."""
    spelled = [(action,) for action in range(num_actions)] + [tuple(phrase) for phrase in phrases]
    return [
        np.array([action for symbol in piece for action in spelled[symbol]], np.int32)
        for piece in pieces
    ]


def _encoding(play: Piece, parsed: Parse, texts: Sequence[bytes], num_actions: int) -> Encoding:
    plain = parse_pieces([play], [], num_actions)
    uses = tuple(parsed.counts[text] for text in texts)
    return Encoding(
        actions=sum(plain.counts.values()),
        symbols=sum(parsed.counts.values()),
        play_bits=parsed.bits,
        dictionary_bits=dictionary_bits(texts, num_actions),
        plain_bits=plain.bits + dictionary_bits([], num_actions),
        uses=uses,
        covered=sum(use * len(text) for use, text in zip(uses, texts, strict=True)),
    )


def encode(
    streams: Sequence[np.ndarray], phrases: Sequence[Sequence[int]], num_actions: int
) -> Encoding:
    """Measures play under a given library, e.g. held-out play, or the library of a control.

    Args:
        streams: 1-D integer arrays of actions in 0..A-1, one for each uninterrupted piece of play.
        phrases: the library: distinct sequences of 2 to 8 actions. Those that play does not use
            are paid for too.
        num_actions: A, in 1..255.

    Returns:
        Bits with and without the library, uses, coverage. The code is that of
        `smz_jax.macros.coding`.

    Raises:
        ConfigError: in one line, on actions, shapes or phrases other than these.
    """
    texts, play = check_phrases(phrases, num_actions), check_streams(streams, num_actions)
    return _encoding(play, parse_pieces([play], texts, num_actions), texts, num_actions)


def _imagined(
    play: Piece, texts: Sequence[bytes], visits: Sequence[float] | None, tree_share: float
) -> list[Piece]:
    """One piece for each macro that the search supports, weighted as the module says."""
    if visits is None:
        return []
    require(len(visits) == len(texts), "visits", visits, f"one number for each of {len(texts)}")
    each = np.asarray(visits, np.float64).reshape(-1)
    allowed = "finite and at least 0"
    require(bool(np.all(np.isfinite(each) & (each >= 0))), "visits", visits, allowed)
    require(0 <= tree_share <= 1e6, "tree_share", tree_share, "in [0, 1e6]")
    spelled = float(np.dot(each, [len(text) for text in texts])) if len(texts) else 0.0
    if spelled == 0:
        return []
    actions = len(play.text) - play.text.count(0)
    weights = np.rint(tree_share * actions * (each / spelled)).astype(np.int64).tolist()
    return [Piece(text, weight) for text, weight in zip(texts, weights, strict=True) if weight]


class _Ladder:
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


def _refine(
    pieces: Sequence[Piece], texts: Sequence[bytes], num_actions: int
) -> tuple[list[bytes], list[float], Parse]:
    """Drops phrases until each prefix that is left out would cost: the library, its gains."""
    while True:
        parsed = parse_pieces(pieces, texts, num_actions)
        ladder = _Ladder(parsed.counts, texts, num_actions)
        steps = [ladder.step() for _ in texts]
        grown = np.cumsum([0.0, *(loss for _, loss in steps)])
        # The shortest of the libraries that are the best one but for rounding.
        drop = int(np.flatnonzero(grown <= grown.min() + _NOTHING)[-1])
        kept = steps[drop:][::-1]
        texts = [text for text, _ in kept]
        if not drop:
            return texts, [loss for _, loss in kept], parsed


def select(
    streams: Sequence[np.ndarray],
    macros: Sequence[Sequence[int]],
    num_actions: int,
    *,
    visits: Sequence[float] | None = None,
    tree_share: float = 0.1,
) -> Selection:
    """The subset of the macros that shortens the description of play the most (greedily).

    Args:
        streams: 1-D integer arrays of actions in 0..A-1, one for each uninterrupted piece of play;
            no macro crosses a border.
        macros: the allowed ones: distinct sequences of 2 to 8 actions, in any order.
        num_actions: A, in 1..255.
        visits: of the search, for each macro, at least 0; None (or all 0): play alone decides.
        tree_share: imagined actions per played action, where there are visits.

    Returns:
        The chosen macros with uses and savings. Without visits `encoding.bits` is at most
        `encoding.plain_bits`.

    Raises:
        ConfigError: in one line, on actions, shapes, macros or visits other than these.
    """
    allowed, play = check_phrases(macros, num_actions), check_streams(streams, num_actions)
    pieces = [play, *_imagined(play, allowed, visits, tree_share)]
    seen = [text for text in sorted(allowed) if any(text in piece.text for piece in pieces)]
    best: tuple[list[bytes], list[float], Parse] = [], [], parse_pieces(pieces, [], num_actions)
    proposals = [set(seen)]
    for _ in range(_ROUNDS):
        merged = merge_pairs(pieces, best[2].symbols, seen, num_actions)
        if not merged <= set(best[0]):
            proposals.append(merged | set(best[0]))
        found = [_refine(pieces, sorted(texts), num_actions) for texts in proposals]
        better = max(found, key=lambda library: sum(library[1]), default=best)
        if sum(better[1]) <= sum(best[1]) + _NOTHING:
            break
        best, proposals = better, []
    texts, saved, parsed = best
    alone = parse_pieces([play], texts, num_actions) if len(pieces) > 1 else parsed
    return Selection(
        phrases=tuple(to_phrase(text) for text in texts),
        saved_bits=tuple(saved),
        encoding=_encoding(play, alone, texts, num_actions),
        redundancy=prefix_share([to_phrase(text) for text in texts]),
        allowed_redundancy=prefix_share([tuple(macro) for macro in macros]),
    )
