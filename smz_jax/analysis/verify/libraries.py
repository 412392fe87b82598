"""The macros of a run, and what a library saves of the description of play."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.coding import LENGTH_BITS, Encoding, symbol_bits, total_bits
from smz_jax.macros.compression.selection import encode, parse, select

Macro = tuple[int, ...]
REAL, CERTAIN = "macros", "macros, certain only"
"""The run's macros; and the same with certainty as their precondition, without the head."""
SHUFFLED, RANDOM, UNTRAINED = "shuffled play", "random", "untrained network"
RESAMPLES = 1000


class Piece(NamedTuple):
    """Play that no lost life or game's end interrupts; n steps."""

    actions: np.ndarray  # [n] int32
    game: int


class Library(NamedTuple):
    """Macros to be tried."""

    name: str
    macros: tuple[Macro, ...]
    status: tuple[str, ...]  # of each, for the table


def split(pieces: Sequence[Piece]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Actions of every other game, to choose macros by, and of the rest, held out."""
    known = [piece.actions for piece in pieces if piece.game % 2 == 0]
    return known, [piece.actions for piece in pieces if piece.game % 2 == 1]


def real_library(
    document: Mapping[str, Any],
    known: Sequence[np.ndarray],
    limit: int,
    any_status: bool,
    owners_only: bool = False,
) -> Library:
    """The run's sound macros, at most `limit`.

    First those that shorten the description of play the most, then the most frequent ones.

    Args:
        document: as macros.json.
        known: play to choose by.
        limit: macros at most.
        any_status: takes macros of every status.
        owners_only: takes only those that own a slot of the precondition head, unless none does.
    """
    taken = [
        macro
        for macro in document["macros"]
        if (any_status or macro["status"] == "sound") and 2 <= macro["length"] <= 8
    ]
    owners = [x for x in taken if owners_only and x.get("slot") is not None]
    status = {tuple(macro["actions"]): macro["status"] for macro in owners or taken}
    num_actions = len(document["action_names"])
    chosen = select(known, list(status), num_actions).phrases if status else ()
    macros = tuple(dict.fromkeys([*chosen, *status]))[:limit]
    return Library(REAL, macros, tuple(status[macro] for macro in macros))


def wanted_lengths(
    library: Library, document: Mapping[str, Any], settings: MacroConfig, limit: int
) -> list[int]:
    """Lengths of the controls' macros: the library's own.

    Of an empty one, those of the most frequent macros that are not sound; of none, from the
    shortest to the longest in turn.
    """
    shortest = max(settings.min_length, 2)
    lengths = [len(macro) for macro in library.macros] or [
        macro["length"] for macro in document["macros"][:limit] if macro["length"] >= shortest
    ]
    between = range(shortest, max(settings.max_length, shortest) + 1)
    return lengths or [between[i % len(between)] for i in range(limit)]


class Savings(NamedTuple):
    """Bits per action of held-out play that a library saves, its dictionary paid."""

    kept: tuple[Macro, ...]  # those of the library that shorten the play that is known
    encoding: Encoding  # of the held-out play
    low: float | None
    high: float | None  # 95 % interval, by resampling the pieces; None for a single piece


def saved_bits(
    macros: Sequence[Macro],
    known: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    num_actions: int,
    seed: int,
) -> Savings | None:
    """Compresses held-out play with those macros of a library that shorten the play that is known.

    So each library, a control's too, is taken at its best. The seed is that of the resampling.

    Returns:
        None where nothing is held out.
    """
    held_out = [piece for piece in held_out if len(piece)]
    if not held_out:
        return None
    kept = select(known, list(macros), num_actions).phrases if macros else ()
    encoding = encode(held_out, kept, num_actions)
    low = high = None
    if len(held_out) > 1:
        again = _resampled(held_out, kept, encoding, num_actions, np.random.default_rng(seed))
        low, high = (float(x) for x in np.quantile(again, (0.025, 0.975)))
    return Savings(kept, encoding, low, high)


def _resampled(
    pieces: Sequence[np.ndarray],
    kept: Sequence[Macro],
    encoding: Encoding,
    num_actions: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Bits per action saved of as many pieces, drawn with replacement, again and again.

    The pieces are rewritten once, as all of them together: the code depends on counts alone, and to
    rewrite each draw anew would take minutes in the replay of a long run.
    """

    def counts(symbols: Sequence[np.ndarray], kinds: int) -> np.ndarray:
        return np.stack([np.bincount(piece, minlength=kinds) for piece in symbols])

    def bits(counts: np.ndarray) -> np.ndarray:
        of_symbols = symbol_bits(counts).sum(axis=1)
        return np.maximum(total_bits(counts.sum(axis=1), counts.shape[1]) - of_symbols, 0.0)

    chances = np.full(len(pieces), 1 / len(pieces))
    times = rng.multinomial(len(pieces), chances, size=RESAMPLES)
    plain = times @ counts(pieces, num_actions)
    symbols = parse(pieces, kept, num_actions)
    short = times @ counts(symbols, num_actions + len(kept))
    dictionary = encoding.dictionary_bits - LENGTH_BITS  # plain play pays for its end too
    return (bits(plain) - bits(short) - dictionary) / plain.sum(axis=1)
