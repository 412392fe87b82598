"""The macros of a run, controls of the same lengths, their trials, and what they save of play."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.coding import LENGTH_BITS, Encoding, code_bits
from smz_jax.macros.compression.selection import encode, parse, select
from smz_jax.macros.library.controls import mixed_macros, random_macros, shuffled

Macro = tuple[int, ...]
REAL, CERTAIN = "macros", "macros, certain only"
"""The run's macros; and the same with certainty as their precondition, without the head."""
WITH_HEAD = ", with the head"
"""Ends the name of a control, of which those sequences are left that own a slot of the head."""
SHUFFLED, MIXED = "shuffled play", "shuffled macros"
RANDOM, UNTRAINED = "random", "untrained network"
PERFECT = "perfect library"
RESAMPLES, CANDIDATES = 1000, 1024


class Piece(NamedTuple):
    """Play that no lost life or game's end interrupts; n steps."""

    actions: np.ndarray  # [n] int32
    game: int


class Library(NamedTuple):
    """Macros to be tried."""

    name: str
    macros: tuple[Macro, ...]
    status: tuple[str, ...]  # of each, for the table


class Trial(NamedTuple):
    """A macro, played from one state, against what the model foresaw."""

    state: int  # index of the start state
    cut: bool  # a life or the game ended before its last action: no trial of what it claims
    rivals: int  # sequences of other ends whose foreseen ends were compared; 0: nothing was
    nearest: bool  # of all foreseen ends its own is the nearest to its real end
    told_apart: bool  # of all real ends its own is the nearest to its foreseen end
    paid: bool  # the sum of its rewards is as foreseen
    rewarded: bool  # there was a reward
    lives: int  # lives lost
    gain: float  # discounted rewards and value at the end, less those of the greedy policy
    whole: bool = False  # the whole state at its end is as foreseen; see `whole_state`
    moments: int = 0  # real ends of other moments that its foreseen end was compared with
    beats: tuple[bool | None, ...] = (None,) * 3  # those of each kind; None: there are none
    hidden: int = 0  # further ones that an end of the game hides
    ended: bool = False  # a life or the game ended, at the latest with its last action
    end_foreseen: bool = False  # and the model said so, at that step
    errors: tuple[tuple[float, ...], ...] = ()  # of the probe: foreseen, real, if nothing moved
    repeats: bool | None = None  # the RAM at the end was the same in each run; None: one run
    macro: int = 0  # index in its library
    applies: bool = False  # all transitions are certain by the model, and its head, if any, agrees
    drawn: bool = False  # the state was drawn whether or not the macro applies there

    @property
    def counts(self) -> bool:
        """Whether it says something of what the macro claims."""
        return not self.cut and self.rivals > 0

    @property
    def counts_whole(self) -> bool:
        """Whether it says something of the whole state."""
        return self.ended or self.moments > 0

    @property
    def whole_paid(self) -> bool:
        """The whole state is as foreseen, and pays what is said."""
        return self.whole and self.paid

    @property
    def holds(self) -> bool:
        """Its actions have the effect that the model says, and pay what it says."""
        return self.nearest and self.paid


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
    """The run's sound macros (or those of any status) in macros.json, at most `limit`.

    First those that shorten the description of `known` play the most, then the most frequent ones.
    With `owners_only` those that own a slot of the precondition head, unless none does.
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
    """How many macros of each length there will be: as many as are wanted.

    `room` is how many of each length there are. Where a length has too few, the next longer ones
    have more, then shorter ones; where all are too few, all there are.
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


def count_windows(
    streams: Iterable[np.ndarray], lengths: Iterable[int], settings: MacroConfig
) -> Counter[Macro]:
    """How often each window of some lengths comes in play `[n]` each."""
    return Counter(
        window
        for actions in (stream.tolist() for stream in streams)
        for length in lengths
        for window in zip(*(actions[i:] for i in range(length)), strict=False)
        if settings.include_repeats or len(set(window)) > 1
    )


def perfect_macros(
    held_out: Sequence[np.ndarray], settings: MacroConfig, world: Any
) -> tuple[Macro, ...]:
    """Windows of held-out play that come back and are deterministic, as the world says.

    Those that shorten that very play the most are a perfect library: the ceiling of saved bits. At
    most `CANDIDATES` windows, the most frequent ones, each `macro.min_occurrences` times or more.
    """
    lengths = range(max(settings.min_length, 2), settings.max_length + 1)
    seen = count_windows(held_out, lengths, settings)
    often = [x for x, count in seen.items() if count >= settings.min_occurrences]
    found = sorted(often, key=lambda x: (-seen[x], x))[:CANDIDATES]
    return tuple(x for x, alone in zip(found, world.are_deterministic(found), strict=True) if alone)


def room_for(
    lengths: Sequence[int], num_actions: int, settings: MacroConfig, without: Collection[Macro]
) -> dict[int, int]:
    """How many sequences of each length there are, but for some."""
    taken = Counter(map(len, set(without)))
    return {n: num_actions**n - taken[n] for n in _between(lengths, settings)}


def frequent_windows(
    streams: Iterable[np.ndarray],
    lengths: Sequence[int],
    settings: MacroConfig,
    without: Collection[Macro] = (),
) -> list[Macro]:
    """The most frequent windows of play `[n]` each, but for some; ties go to the actions' order.

    Distinct ones, as many of each length as `share_out` says.
    """
    seen = count_windows(streams, _between(lengths, settings), settings)
    for window in without:
        seen.pop(window, None)
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
    room = room_for(lengths, num_actions, settings, without)
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
    """Four libraries of as many macros, none the run's own but for the untrained network's.

    Shuffled macros have the lengths of the run's, and as often each action. Where play has too few
    windows, as that of an untrained network which plays one action may, random ones follow.
    `known` is play of the agent, `untrained` that of the untrained network.
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
    room = room_for(lengths, num_actions, settings, real.macros)
    wanted = list(share_out(lengths, room).elements()) if real.macros else []
    mixed = mixed_macros(real.macros, wanted, rng)
    short, taken = lengths[len(mixed) :], {*real.macros, *mixed}
    mixed += other_random_macros(short, num_actions, settings, taken, rng)
    found = {SHUFFLED: found.pop(SHUFFLED), MIXED: mixed, **found}
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
    pieces = [piece for piece in held_out if len(piece)]
    if not pieces:
        return None
    kept = select(known, list(macros), num_actions).phrases if macros else ()
    encoding, count = encode(pieces, kept, num_actions), len(pieces)
    if count == 1:
        return Savings(kept, encoding, None, None)
    # As many pieces are drawn with replacement, again and again. They are rewritten once, as all of
    # them together: the code depends on counts alone, and to rewrite each draw anew would take
    # minutes in the replay of a long run.
    rng = np.random.default_rng(seed)
    times = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)

    def bits(symbols: Sequence[np.ndarray], kinds: int) -> np.ndarray:
        counts = np.stack([np.bincount(piece, minlength=kinds) for piece in symbols])
        return code_bits(times @ counts, kinds)

    short = bits(parse(pieces, kept, num_actions), num_actions + len(kept))
    dictionary = encoding.dictionary_bits - LENGTH_BITS  # plain play pays for its end too
    saved = bits(pieces, num_actions) - short - dictionary
    low, high = np.quantile(saved / (times @ [len(x) for x in pieces]), (0.025, 0.975)).tolist()
    return Savings(kept, encoding, low, high)


def ceiling(
    perfect: Sequence[Macro],
    known: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    num_actions: int,
    seed: int,
) -> Savings | None:
    """The most that macros of a perfect library save of held-out play, as `saved_bits`.

    They are chosen by that very play, or by the known one where that saves more: the choice is
    greedy.
    """
    ways = (saved_bits(perfect, by, held_out, num_actions, seed) for by in (held_out, known))
    return max(filter(None, ways), key=lambda x: x.encoding.saved_per_action, default=None)


def is_paid(foreseen: Any, real: Any, config: Config) -> Any:
    """Whether the sum of a macro's rewards is as foreseen, by `macro.reward_threshold`."""
    return np.abs(np.asarray(foreseen) - np.asarray(real)) <= config.macro.reward_threshold
