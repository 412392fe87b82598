"""The macros of a run, as many controls of the same lengths, and what either saves of play."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.coding import LENGTH_BITS, Encoding, symbol_bits, total_bits
from smz_jax.macros.compression.selection import encode, parse, select
from smz_jax.macros.library.controls import random_macros, shuffled

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
    known, held_out = ([x.actions for x in pieces if x.game % 2 == part] for part in (0, 1))
    return known, held_out


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
    chosen = select(known, list(status), len(document["action_names"])).phrases if status else ()
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


def share_out(lengths: Sequence[int], room: Mapping[int, int]) -> Counter[int]:
    """How many macros of each length there will be.

    Args:
        lengths: of the wanted macros.
        room: how many of each length there are.

    Returns:
        As many as are wanted. Where a length has too few, the next longer ones have more, then
        shorter ones; where all are too few, all there are.
    """
    wanted, given, short = Counter(lengths), Counter(), 0
    rising = sorted({*room, *wanted})
    for length in (*rising, *reversed(rising)):
        short += wanted.pop(length, 0)
        more = min(short, room.get(length, 0) - given[length])
        given[length] += more
        short -= more
    return given


def _between(lengths: Sequence[int], settings: MacroConfig) -> range:
    """Lengths from the shortest that is wanted to the longest that a macro may have."""
    return range(min(lengths), max(settings.max_length, *lengths) + 1) if lengths else range(0)


def frequent_windows(
    streams: Iterable[np.ndarray],
    lengths: Sequence[int],
    settings: MacroConfig,
    without: Collection[Macro] = (),
) -> list[Macro]:
    """The most frequent windows of play.

    Args:
        streams: actions `[n]` of each piece of play.
        lengths: of the wanted macros.
        settings: `include_repeats`, `max_length`.
        without: windows that are left out.

    Returns:
        Distinct windows, as many of each length as `share_out` says; the most frequent first. Ties
        go to the order of the actions.
    """
    taken = set(without)
    seen = Counter(
        window
        for actions in (stream.tolist() for stream in streams)
        for length in _between(lengths, settings)
        for window in zip(*(actions[i:] for i in range(length)), strict=False)
        if window not in taken and (settings.include_repeats or len(set(window)) > 1)
    )
    left, found = share_out(lengths, Counter(map(len, seen))), []
    for window in sorted(seen, key=lambda x: (-seen[x], x)):
        if left[len(window)]:
            left[len(window)] -= 1
            found.append(window)
    return found


def other_random_macros(
    lengths: Sequence[int],
    num_actions: int,
    settings: MacroConfig,
    without: Collection[Macro],
    rng: np.random.Generator,
) -> list[Macro]:
    """Random sequences that are none of some; as many of each length as `share_out` says."""
    taken, found = Counter(map(len, set(without))), []
    room = {n: num_actions**n - taken[n] for n in _between(lengths, settings)}
    for length, wanted in share_out(lengths, room).items():
        drawn = random_macros([length] * (wanted + taken[length]), num_actions, rng)
        found += [macro for macro in drawn if macro not in without][:wanted]
    return found


def controls(
    real: Library,
    lengths: Sequence[int],
    known: Sequence[np.ndarray],
    untrained: Sequence[np.ndarray],
    num_actions: int,
    settings: MacroConfig,
    rng: np.random.Generator,
) -> list[Library]:
    """Three libraries of as many macros.

    Those of shuffled play and the random ones are none of the run's own. Where play has too few
    windows, as that of an untrained network which plays one action may, random ones follow.

    Args:
        real: the run's own macros.
        lengths: of the wanted macros.
        known: the agent's play, to be shuffled.
        untrained: play of the untrained network.
        num_actions: A.
        settings: of macros.
        rng: of the draws.
    """
    found = {}
    for name, play, without in (
        (SHUFFLED, shuffled(known, rng), real.macros),
        (RANDOM, (), real.macros),
        (UNTRAINED, untrained, ()),
    ):
        windows = frequent_windows(play, lengths, settings, without)
        short, taken = lengths[len(windows) :], {*without, *windows}
        found[name] = windows + other_random_macros(short, num_actions, settings, taken, rng)
    return [Library(name, tuple(x), ("control",) * len(x)) for name, x in found.items()]


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
    times = rng.multinomial(len(pieces), np.full(len(pieces), 1 / len(pieces)), size=RESAMPLES)

    def bits(symbols: Sequence[np.ndarray], kinds: int) -> tuple[np.ndarray, np.ndarray]:
        counts = times @ np.stack([np.bincount(piece, minlength=kinds) for piece in symbols])
        total, of_symbols = counts.sum(axis=1), symbol_bits(counts).sum(axis=1)
        return np.maximum(total_bits(total, kinds) - of_symbols, 0.0), total

    plain, actions = bits(pieces, num_actions)
    short, _ = bits(parse(pieces, kept, num_actions), num_actions + len(kept))
    dictionary = encoding.dictionary_bits - LENGTH_BITS  # plain play pays for its end too
    return (plain - short - dictionary) / actions
