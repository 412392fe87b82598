"""The protocol of every vector environment, and the check of its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from smz_jax.config.check import ConfigError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smz_jax.types import EnvSpec, Timestep


class GameFault(ConfigError):
    """The games gave numbers that are not finite, or failed too often to continue."""


def first_line(error: Exception) -> str:
    """What an error of a library of games says, in one line; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def error_text(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class VectorEnv(Protocol):
    """B games side by side; see `Timestep` for what autoreset and the flags mean."""

    spec: EnvSpec
    num_envs: int

    def reset(self) -> Timestep:
        """Starts a new game in every lane and gives its first observation.

        Raises:
            RuntimeError: if a step that was sent has not been received.
        """
        ...

    def step(self, actions: np.ndarray) -> Timestep:
        """Steps every lane: `send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane; the games run by themselves until `recv`.

        Args:
            actions: `[B]` integers in 0..A-1. A lane whose game is over ignores its action.

        Raises:
            ConfigError: if `actions` has a wrong type, shape or range; nothing is sent then.
            RuntimeError: before `reset`, or if the last step has not been received.
        """
        ...

    def recv(self) -> Timestep:
        """Waits for the step that was sent.

        Returns:
            Arrays in lane order, whichever lane was ready first; later steps never overwrite them.

        Raises:
            RuntimeError: if no step was sent.
        """
        ...

    def close(self) -> None:
        """Frees the emulators; may be called twice."""
        ...


class RestingEnv(VectorEnv, Protocol):
    """Lanes of which some may rest."""

    def rest(self, lanes: np.ndarray) -> None:
        """Says which lanes nobody plays from the next step on, until it is said anew.

        What they show means nothing. A lane that is played again begins a new game.

        Args:
            lanes: `[B]` bool.
        """
        ...


class OpenGame(NamedTuple):
    """One lane of whole games, to be watched."""

    env: VectorEnv
    screen: Callable[[], np.ndarray] | None
    """Gives the picture `[H, W, 3]` uint8 of where the game stands; None: it has none of its own,
    and what is seen can be drawn."""
    steps_per_second: float  # at which a game looks natural
    note: str  # who plays, and why there is no picture


class Playable(NamedTuple):
    """A game of training, lives, clipped rewards and all, that a person plays in one lane."""

    game: OpenGame
    begin: Callable[[int], Timestep]
    """Starts the first game of a lane of the seed, by its number, also in the middle of another."""
    bookmark: Callable[[], Callable[[], None]] | None = None
    """Notes where the game stands, and gives a function that goes back there; None: the library
    cannot, and a game has to be played again from its start."""
    keys: Mapping[Any, int] | None = None
    """Actions by their keys, as Gymnasium's `play` takes them, where the game has such a map."""


def check_actions(actions: Any, num_envs: int, num_actions: int) -> np.ndarray:
    """Checks actions before they reach a library (some abort or hang on wrong ones).

    Args:
        actions: a NumPy or JAX array.
        num_envs: B.
        num_actions: A.

    Returns:
        `[B]` int32; a copy, free to be written to.

    Raises:
        ConfigError: if it is no array of integers, or its shape is not `(B,)`, or a value lies
            outside 0..A-1.
    """
    kind = type(actions).__name__
    require(hasattr(actions, "dtype"), "actions", kind, "an array of integers")
    array = np.asarray(actions)
    require(array.dtype.kind in "iu", "actions.dtype", str(array.dtype), "an integer type")
    require(array.shape == (num_envs,), "actions.shape", array.shape, f"({num_envs},)")
    low, high = int(array.min()), int(array.max())
    worst = low if low < 0 else high
    require(low >= 0 and high < num_actions, "actions", worst, f"in 0..{num_actions - 1}")
    return array.astype(np.int32)


def lane_seeds(seed: int, lanes: range) -> np.ndarray:
    """Seeds of some lanes of a run, for libraries that take a number each.

    Returns:
        `[B]` int64 in 1..2^31-1: 0 means "do not seed" to ale-py. SeedSequence keeps the lanes of
        different runs apart (seed + lane would not).
    """
    seeds = np.random.SeedSequence(seed).generate_state(lanes.stop).astype(np.int64)
    return np.maximum(seeds[lanes.start :] % 2**31, 1)
