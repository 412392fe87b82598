"""Which stored games are kept: `replay.keep`, and the flags of the tools that write datasets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from smz_jax.config.check import Between, Checked, ConfigError, require, shorten

ALL = "all"
FORM = f"{ALL}, or one or more of best:N, newest:N, min_score:X with commas between them"
"""What `read_keep` reads, in words."""


@dataclass(frozen=True)
class Kept(Checked):
    """Which games are kept: those that pass all that is given."""

    best: Annotated[int | None, Between(1)] = None
    """keep the N games with the highest scores (default: all)"""
    newest: Annotated[int | None, Between(1)] = None
    """keep the last N games (default: all)"""
    min_score: Annotated[float | None, Between(-math.inf)] = None
    """keep games that scored so much at least (default: all)"""

    def choose(
        self, scores: Sequence[float], name: str = "what is kept", what: str = "games"
    ) -> list[int]:
        """Numbers of the games that are kept, in their order; of equal scores the newer is better.

        Args:
            scores: of each game, the oldest first.
            name: of the setting, for the message.
            what: the games are, for the message.

        Raises:
            ConfigError: in one line, if there is none.
        """
        count = len(scores)
        ranked = sorted(range(count), key=lambda game: (scores[game], game))
        best = set(ranked[-self.best :] if self.best else ranked)
        first, least = count - (self.newest or count), self.min_score
        found = [
            game
            for game in sorted(best)
            if game >= first and (least is None or scores[game] >= least)
        ]
        limits = {"best": self.best, "newest": self.newest, "min_score": self.min_score}
        given = ", ".join(f"{name} {x}" for name, x in limits.items() if x is not None)
        high = f", scores up to {max(scores):g}" if count else ""
        require(bool(found), name, given, f"such that a game is kept: {count} {what}{high}")
        return found


def read_keep(text: str) -> Kept:
    """What `replay.keep` says: `all`, or as `best:20,min_score:10`.

    Raises:
        ConfigError: in one line, if it is neither.
    """
    kinds = {"best": int, "newest": int, "min_score": float}
    given: dict[str, int | float] = {}
    try:
        for part in () if text == ALL else text.split(","):
            word, _, number = part.strip().partition(":")
            if word in given:
                raise ValueError(word)
            given[word] = kinds[word](number)
        return Kept(**given)  # type: ignore[arg-type]
    except (KeyError, ValueError):  # a ConfigError is one, too
        raise ConfigError(
            f"replay.keep = {shorten(text)} is not allowed: it must be {FORM}"
        ) from None
