"""Where macros are followed in games."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.view.games import Game
from smz_jax.macros.compression.selection import parse

Actions = tuple[int, ...]


class Span(NamedTuple):
    """A macro followed from its first action to its last."""

    start: int  # step of its first action
    actions: Actions

    @property
    def stop(self) -> int:
        """The step after its last action."""
        return self.start + len(self.actions)


class ShownMacros(NamedTuple):
    """The macros that figures are about, best first."""

    macros: list[dict[str, Any]]  # entries of the library
    of: str  # what they are, for a title


def shown_macros(library: Mapping[str, Any]) -> ShownMacros:
    """The library by compression, then the others by their count; sound ones only, if there are."""
    by_actions = {tuple(macro["actions"]): macro for macro in library["macros"]}
    sound = [macro for macro in library["macros"] if macro["status"] == "sound"]
    allowed = sound or list(by_actions.values())
    phrases = (library.get("selection") or {}).get("phrases", ())
    chosen = [by_actions.get(tuple(phrase["actions"])) for phrase in phrases]
    first = [macro for macro in chosen if macro is not None and macro in allowed]
    rest = sorted((macro for macro in allowed if macro not in first), key=lambda x: -x["count"])
    return ShownMacros(first + rest, "sound macros" if sound else "macros, none of them sound")


def game_pieces(game: Game) -> list[tuple[int, np.ndarray]]:
    """The stretches of a game that macros may lie in, with the step that each begins at."""
    cuts = [0, *(np.flatnonzero(game.ends) + 1).tolist(), len(game.actions)]
    return [(a, game.actions[a:b]) for a, b in itertools.pairwise(cuts) if b > a]


def pieces_of_games(games: Sequence[Game]) -> list[np.ndarray]:
    """The actions of games as uninterrupted pieces, which no lost life lies within."""
    return [actions for game in games for _, actions in game_pieces(game)]


def held_certain(game: Game, start: int, stop: int, threshold: float) -> bool:
    """Whether the model held every transition of the steps from start to before stop certain."""
    return bool(np.all(game.entropy[start:stop] < threshold))


def spans_of(game: Game, macros: Sequence[Actions], num_actions: int) -> list[Span]:
    """One rewriting of a game with macros: the macros that are followed, none over another.

    Args:
        game: to rewrite.
        macros: distinct ones of 2 to 8 actions.
        num_actions: A.
    """
    stretches = game_pieces(game)
    found = []
    parsed = parse([actions for _, actions in stretches], macros, num_actions)
    for (start, _), symbols in zip(stretches, parsed, strict=True):
        for symbol in symbols.tolist():
            actions = macros[symbol - num_actions] if symbol >= num_actions else (symbol,)
            if symbol >= num_actions:
                found.append(Span(start, tuple(actions)))
            start += len(actions)
    return found


def occurrences(game: Game, actions: Actions) -> list[int]:
    """Steps at which a macro's actions begin in a game, within one of its stretches."""
    wanted = np.array(actions, np.int32)
    if len(game.actions) < len(wanted):
        return []
    windows = np.lib.stride_tricks.sliding_window_view(game.actions, len(wanted))
    found = np.flatnonzero(np.all(windows == wanted, axis=1)).tolist()
    return [start for start in found if not game.ends[start : start + len(wanted) - 1].any()]
