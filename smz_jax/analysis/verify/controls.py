"""The controls that the macros of a run are compared with: as many, of the same lengths."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from smz_jax.analysis.verify.libraries import RANDOM, SHUFFLED, UNTRAINED, Library, Macro
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.controls import random_macros, shuffled


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
    for length in sorted({*room, *wanted}):
        short += wanted[length]
        given[length] = min(short, room.get(length, 0))
        short -= given[length]
    for length in sorted(room, reverse=True):
        more = min(short, room[length] - given[length])
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
    played, taken = [stream.tolist() for stream in streams], set(without)
    seen = Counter(
        window
        for length in _between(lengths, settings)
        for actions in played
        for start in range(len(actions) - length + 1)
        for window in [tuple(actions[start : start + length])]
        if window not in taken and (settings.include_repeats or len(set(window)) > 1)
    )
    ranked = sorted(seen, key=lambda x: (-seen[x], x))
    found = []
    for length, wanted in share_out(lengths, Counter(map(len, ranked))).items():
        found += [window for window in ranked if len(window) == length][:wanted]
    return sorted(found, key=ranked.index)


def other_random_macros(
    lengths: Sequence[int],
    num_actions: int,
    settings: MacroConfig,
    without: Collection[Macro],
    rng: np.random.Generator,
) -> list[Macro]:
    """Random sequences that are none of some; as many of each length as `share_out` says."""
    taken = Counter(map(len, set(without)))
    between = _between(lengths, settings)
    given = share_out(lengths, {n: num_actions**n - taken[n] for n in between})
    found = []
    for length, wanted in given.items():
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

    def filled_up(windows: list[Macro], without: Collection[Macro]) -> list[Macro]:
        short = lengths[len(windows) :]
        taken = {*without, *windows}
        return windows + other_random_macros(short, num_actions, settings, taken, rng)

    mixed = frequent_windows(shuffled(known, rng), lengths, settings, real.macros)
    found = {
        SHUFFLED: filled_up(mixed, real.macros),
        RANDOM: other_random_macros(lengths, num_actions, settings, real.macros, rng),
        UNTRAINED: filled_up(frequent_windows(untrained, lengths, settings), ()),
    }
    return [Library(name, tuple(x), ("control",) * len(x)) for name, x in found.items()]
