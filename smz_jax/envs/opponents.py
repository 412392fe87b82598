"""Who plays against the agent: the interface of players that no one here trained."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from smz_jax.envs.protocol import GameFault


class OpponentFault(GameFault):
    """A program from outside is missing, or failed again when it was started anew."""


class Turn(NamedTuple):
    """What an opponent is shown: the lanes in which it is to move, no others."""

    frames: np.ndarray  # [N, *frame_shape], the newest, as who moves sees it
    invalid: np.ndarray  # [N, O] float32, 1 = invalid
    lanes: np.ndarray  # [N] int, their numbers, by which it may remember games


class Opponent(Protocol):
    """A player of one side of many games; it draws by a seed of its own."""

    def act(self, turn: Turn) -> np.ndarray:
        """Actions `[N]` int32, each of them valid.

        Raises:
            OpponentFault: in one line, if it cannot play on.
        """
        ...

    def close(self) -> None:
        """Frees what it holds; may be called twice."""
        ...


class ByFrames:
    """An opponent that needs no more than the newest frame, and remembers nothing."""

    def __init__(self, choose: Callable[[np.ndarray], np.ndarray]) -> None:
        """Takes a function from frames `[N, *frame_shape]` to actions `[N]`."""
        self._choose = choose

    def act(self, turn: Turn) -> np.ndarray:
        """See `Opponent.act`."""
        return self._choose(turn.frames)

    def close(self) -> None:
        """Nothing to free."""


class Contender(NamedTuple):
    """An opponent that a game has by name."""

    make: Callable[[int], Opponent]
    """From a seed."""
    missing: str = ""
    """Why it cannot play on this machine, in one line; empty: it can."""
    is_slow: bool = False
    """It plays only by request, not at the end of every run."""
