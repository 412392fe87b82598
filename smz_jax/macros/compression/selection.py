"""Which macros to keep: those that shorten the description of play the most.

`select` merges neighbouring symbols of play greedily (`merging`), lets the macros so found compete
for play under the code of `coding`, and takes away, one by one, those that are missed least,
down to the library of the fewest bits. The empty library is on that way, so that the result is
never longer than plain play. All allowed macros at once are a second start (in short play no
single merge pays for its macro); the better of the two is merged on, until nothing more is saved.
Then real rewritings decide (`variants`): what costs bits by itself beside all others goes, and
what each of the rest saves is measured. Where play times macros is more than `_WORK`, that is done
on every n-th block of play, counted n times.

Macros that the search supports but play has rarely shown may count too: with `visits`, the search
is taken for imagined play. To the pieces of play come pieces that consist of one macro alone, that
of macro m

    round(tree_share x actions of play x visits_m / sum_k(visits_k x length_k)) times,

so that imagined actions are `tree_share` of the played ones. The choice, the order and `saved_bits`
are then those of both together; `encoding` is always of play alone.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from smz_jax.config.check import require
from smz_jax.macros.compression.coding import (
    BORDER,
    Encoding,
    Parse,
    Phrase,
    Piece,
    check_phrases,
    check_streams,
    dictionary_bits,
    parse_pieces,
    to_phrase,
)
from smz_jax.macros.compression.ladder import NOTHING, refine
from smz_jax.macros.compression.merging import merge_pairs
from smz_jax.macros.compression.variants import library_bits
from smz_jax.storage.documents.macros import prefix_share

_ROUNDS = 4
_WORK = 1 << 23
"""Actions times phrases that are rewritten in about a second."""
_BLOCK = 1000
"""Actions."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """A library chosen by compression; phrases in the order of their worth."""

    phrases: tuple[Phrase, ...]
    """The chosen macros; the first k of them are a good library of size k."""
    saved_bits: tuple[float, ...]
    """Of each: bits that it takes off the description when it joins those before it, its own
    spelling paid; negative where it is of use only beside later ones. They sum to what the whole
    library saves (of play and imagined play)."""
    missed_bits: tuple[float, ...]
    """Of each: bits that the description grows by if it alone is left out; more than 0."""
    sampled: int
    """Those bits are of every n-th block of play, counted n times; 1: of all play, exact."""
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
        `smz_jax.macros.compression.coding`.

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


def _measured(pieces: Sequence[Piece], phrases: int) -> tuple[list[Piece], int]:
    """Pieces for `_polish`: all, or every n-th block counted n times; and n."""
    size = sum(len(piece.text) for piece in pieces)
    every = max(1, -(-size * phrases // _WORK))
    if every == 1:
        return list(pieces), 1
    found = []
    for piece in pieces:
        if len(piece.text) < _BLOCK * every:
            found.append(piece)
            continue
        starts = range(0, len(piece.text), _BLOCK * every)
        blocks = [piece.text[start : start + _BLOCK] for start in starts]
        found.append(Piece(BORDER.join(blocks), piece.weight * every))
    return found, every


def _polish(
    pieces: Sequence[Piece], texts: Sequence[bytes], num_actions: int
) -> tuple[list[bytes], list[float], list[float]]:
    """Drops what costs by itself; gives the rest, what each saves, and by how much it is missed.

    Args:
        pieces: to be rewritten.
        texts: a library, the best phrases first.
        num_actions: A.
    """
    texts, former, worst, least = list(texts), list(texts), 0, np.inf
    while True:
        size = len(texts)
        parts = np.concatenate([np.ones((1, size)), 1 - np.eye(size)]).astype(np.bool_)
        bits = library_bits(pieces, texts, parts, num_actions)
        if bits[0] > least + NOTHING:  # they stood in for one another: drop the worst one alone
            texts, least = former[:worst] + former[worst + 1 :], np.inf
            continue
        missed = bits[1:] - bits[0]
        ranked = np.argsort(np.round(missed, 6), kind="stable")
        costly = int((missed <= NOTHING).sum())
        if not costly:
            break
        former, worst, least = texts, int(ranked[0]), bits[0]
        gone = set(ranked[: -(-costly // 2)].tolist())
        texts = [text for index, text in enumerate(texts) if index not in gone]

    def joining(order: np.ndarray) -> np.ndarray:
        parts = np.zeros((size + 1, size), np.bool_)
        parts[:, order] = np.tri(size + 1, size, -1, np.bool_)
        return -np.diff(library_bits(pieces, texts, parts, num_actions))

    # The best first: again and again the tenth that is missed least then goes to the end.
    left, last = np.arange(size), np.zeros(0, np.int64)
    while len(left):
        parts = np.zeros((len(left) + 1, size), np.bool_)
        parts[:, left] = True
        parts[np.arange(1, len(left) + 1), left] = False
        bits = library_bits(pieces, texts, parts, num_actions)
        ranked = left[np.argsort(np.round(bits[1:] - bits[0], 6), kind="stable")]
        tenth = -(-len(left) // 10)
        last = np.concatenate([ranked[:tenth][::-1], last])
        left = np.sort(ranked[tenth:])
    order = last
    saved = joining(order)
    if (saved <= 0).any():  # what is of use only beside those that come later comes after them
        order = np.concatenate([order[saved > 0], order[saved <= 0]])
        saved = joining(order)
    return [texts[i] for i in order], saved.tolist(), missed[order].tolist()


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
        found = [refine(pieces, sorted(texts), num_actions) for texts in proposals]
        better = max(found, key=lambda library: sum(library[1]), default=best)
        if sum(better[1]) <= sum(best[1]) + NOTHING:
            break
        best, proposals = better, []
    measured, every = _measured(pieces, len(best[0]))
    texts, saved, missed = _polish(measured, best[0], num_actions)
    return Selection(
        phrases=tuple(to_phrase(text) for text in texts),
        saved_bits=tuple(saved),
        missed_bits=tuple(missed),
        sampled=every,
        encoding=_encoding(play, parse_pieces([play], texts, num_actions), texts, num_actions),
        redundancy=prefix_share([to_phrase(text) for text in texts]),
        allowed_redundancy=prefix_share([tuple(macro) for macro in macros]),
    )
