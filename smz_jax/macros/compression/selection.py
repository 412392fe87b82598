"""Which macros to keep: those that shorten the description of play the most.

`select` merges neighbouring symbols of play greedily (`merging`), lets the macros so found compete
for play under the code of `coding`, and takes away, one by one, those that are missed least,
down to the library of the fewest bits. The empty library is on that way, so that the result is
never longer than plain play. All allowed macros at once are a second start (in short play no
single merge pays for its macro); the better of the two is merged on, until nothing more is saved.
Then real rewritings decide (`rewriting`): what costs bits by itself beside all others goes, and
what each of the rest saves is measured. Where play times macros is more than `_WORK`, that is done
on every n-th block of play, counted n times.

Macros that the search supports but play has rarely shown may count too: with `visits`, the search
is taken for imagined play. To the pieces of play come pieces that consist of one macro alone, that
of macro m

    round(tree_share x actions of play x visits_m / sum_k(visits_k x length_k)) times,

so that imagined actions are `tree_share` of the played ones. The choice, the order and `saved_bits`
are then those of both together; `encoding` is always of play alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.config.check import require
from smz_jax.macros.compression.coding import (
    Encoding,
    Phrase,
    Play,
    check_phrases,
    check_streams,
    dictionary_bits,
)
from smz_jax.macros.compression.ladder import NOTHING, refine
from smz_jax.macros.compression.merging import merge_pairs
from smz_jax.macros.compression.rewriting import library_bits, rewrite
from smz_jax.storage.documents.macro_form import prefix_share

_ROUNDS = 4
_WORK = 1 << 23
"""Actions times phrases that are rewritten in about a second."""
_BLOCK = 1000
"""Actions."""


class Selection(NamedTuple):
    """A library chosen by compression; phrases in the order of their worth.

    `saved_bits` of a phrase are those that it takes off the description when it joins those before
    it, its own spelling paid; negative where it is of use only beside later ones. They sum to what
    the whole library saves (of play and imagined play).
    """

    phrases: tuple[Phrase, ...]  # the first k of them are a good library of size k
    saved_bits: tuple[float, ...]
    missed_bits: tuple[float, ...]  # by which the description grows without each alone; above 0
    sampled: int  # those bits are of every n-th block of play, counted n times; 1: of all, exact
    encoding: Encoding  # of the played actions under the chosen library
    redundancy: float  # share of the phrases that are the beginning of another phrase
    allowed_redundancy: float  # the same share of all allowed macros


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
    library, play = check_phrases(phrases, num_actions), check_streams(streams, num_actions)
    symbols = rewrite(play, library, num_actions).symbols.astype(np.int32)
    pieces = np.split(symbols, np.flatnonzero(symbols == num_actions + len(library)) + 1)
    return [piece[:-1] for piece in pieces[:-1]]


def _encoding(play: Play, library: Sequence[Phrase], num_actions: int) -> Encoding:
    plain, short = (rewrite(play, phrases, num_actions) for phrases in ([], library))
    uses = short.counts[num_actions:].tolist()
    return Encoding(
        actions=int(plain.counts.sum()),
        symbols=int(short.counts.sum()),
        play_bits=short.bits,
        dictionary_bits=dictionary_bits(library, num_actions),
        plain_bits=plain.bits + dictionary_bits([], num_actions),
        uses=tuple(uses),
        covered=sum(use * len(phrase) for use, phrase in zip(uses, library, strict=True)),
    )


def encode(
    streams: Sequence[np.ndarray], phrases: Sequence[Sequence[int]], num_actions: int
) -> Encoding:
    """Measures play under a given library, e.g. held-out play, or the library of a control.

    Takes and raises what `parse` does; phrases that play does not use are paid for too. The code
    is that of `smz_jax.macros.compression.coding`.

    Returns:
        Bits with and without the library, uses, coverage.
    """
    library, play = check_phrases(phrases, num_actions), check_streams(streams, num_actions)
    return _encoding(play, library, num_actions)


def _imagined(
    actions: int, macros: Sequence[Phrase], visits: Sequence[float], tree_share: float
) -> dict[Phrase, int]:
    """How often each macro that the search supports counts, as the module says."""
    require(len(visits) == len(macros), "visits", visits, f"one number for each of {len(macros)}")
    each = np.asarray(visits, np.float64).reshape(-1)
    allowed = "finite and at least 0"
    require(bool(np.all(np.isfinite(each) & (each >= 0))), "visits", visits, allowed)
    require(0 <= tree_share <= 1e6, "tree_share", tree_share, "in [0, 1e6]")
    spelled = float(np.dot(each, [len(macro) for macro in macros])) if len(macros) else 0.0
    weights = np.rint(tree_share * actions * (each / (spelled or 1.0))).astype(np.int64).tolist()
    return {macro: weight for macro, weight in zip(macros, weights, strict=True) if weight}


def _join(play: Play, imagined: Mapping[Phrase, int], every: int = 1) -> Play:
    """Play, or every n-th block of it counted n times, and a piece for each imagined macro."""
    text, weight = play
    if every > 1 and len(text) >= _BLOCK * every:
        starts = range(0, len(text), _BLOCK * every)
        text = np.concatenate([np.append(text[x : x + _BLOCK], np.uint8(0)) for x in starts])
        weight = np.full(len(text), every)
    texts = [np.array([*macro, -1]) + 1 for macro in imagined]
    weights = [np.full(len(macro) + 1, times) for macro, times in imagined.items()]
    return Play(np.concatenate([text, *texts]).astype(np.uint8), np.concatenate([weight, *weights]))


def _polish(
    play: Play, phrases: Sequence[Phrase], num_actions: int
) -> tuple[list[Phrase], list[float], list[float]]:
    """Drops what costs by itself; gives the rest, what each saves, and by how much it is missed.

    The best of the given phrases come first.
    """

    def measured(left: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Bits of some of the phrases, by how much each is missed, and which is missed least."""
        parts = np.zeros((len(left) + 1, len(phrases)), np.bool_)
        parts[:, left] = ~np.eye(len(left) + 1, len(left), -1, np.bool_)
        bits = library_bits(play, phrases, parts, num_actions)
        missed = bits[1:] - bits[0]
        return float(bits[0]), missed, np.argsort(np.round(missed, 6), kind="stable")

    def joining(order: np.ndarray) -> np.ndarray:
        parts = np.zeros((len(order) + 1, len(order)), np.bool_)
        parts[:, order] = np.tri(*parts.shape, -1, np.bool_)
        return -np.diff(library_bits(play, phrases, parts, num_actions))

    former, worst, least = phrases, 0, np.inf
    while True:
        bits, missed, ranked = measured(np.arange(len(phrases)))
        costly = int((missed <= NOTHING).sum())
        if bits > least + NOTHING:  # they stood in for one another: drop the worst one alone
            phrases, least = [*former[:worst], *former[worst + 1 :]], np.inf
        elif costly:
            former, worst, least = phrases, int(ranked[0]), bits
            phrases = [phrases[i] for i in sorted(ranked[-(-costly // 2) :])]
        else:
            break
    # The best first: again and again the tenth that is missed least then goes to the end.
    left, order = np.arange(len(phrases)), np.zeros(0, np.int64)
    while len(left):
        ranked = left[measured(left)[2]]
        tenth = -(-len(left) // 10)
        order = np.concatenate([ranked[:tenth][::-1], order])
        left = np.sort(ranked[tenth:])
    saved = joining(order)
    if (saved <= 0).any():  # what is of use only beside those that come later comes after them
        order = np.concatenate([order[saved > 0], order[saved <= 0]])
        saved = joining(order)
    return [phrases[i] for i in order.tolist()], saved.tolist(), missed[order].tolist()


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
    actions = int(np.count_nonzero(play.text))
    imagined = {} if visits is None else _imagined(actions, allowed, visits, tree_share)
    joined = _join(play, imagined)
    whole = joined.text.tobytes()
    seen = [macro for macro in sorted(allowed) if bytes(action + 1 for action in macro) in whole]
    library: list[Phrase] = []
    gains, parsed = 0.0, rewrite(joined, [], num_actions)
    proposals = [set(seen)]
    for _ in range(_ROUNDS):
        merged = merge_pairs(parsed, seen, num_actions)
        if not merged <= set(library):
            proposals.append(merged | set(library))
        found = [refine(joined, proposal, num_actions) for proposal in proposals]
        better = max(found, key=lambda refined: sum(refined[1]), default=None)
        if better is None or sum(better[1]) <= gains + NOTHING:
            break
        (library, losses, parsed), proposals = better, []
        gains = sum(losses)
    size = len(play.text) + sum(map(len, imagined))
    every = max(1, -(-size * len(library) // _WORK))
    measured = _join(play, imagined, every)
    phrases, saved, missed = _polish(measured, library, num_actions)
    return Selection(
        phrases=tuple(phrases),
        saved_bits=tuple(saved),
        missed_bits=tuple(missed),
        sampled=every,
        encoding=_encoding(play, phrases, num_actions),
        redundancy=prefix_share(phrases),
        allowed_redundancy=prefix_share(macros),
    )
