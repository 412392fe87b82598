"""What a backend must offer: a pool of emulators that step together."""

from typing import NamedTuple, Protocol

import numpy as np


class PoolStep(NamedTuple):
    """What a pool of emulators gives after `reset` or a step."""

    frame: np.ndarray  # [B, H, W] uint8, newest frame
    reward: np.ndarray  # [B] float32, raw
    ended: np.ndarray  # [B] bool, the emulator's game is over
    limit: np.ndarray  # [B] bool, the time limit is reached
    lives: np.ndarray  # [B] int32, lives left


class Pool(Protocol):
    """B emulators; a lane with `ended` or `limit` resets at its next step, ignoring its action."""

    def reset(self) -> PoolStep:
        """Starts a new game in every lane."""
        ...

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane by checked actions, `[B]` int32, and returns at once."""
        ...

    def recv(self) -> PoolStep:
        """Waits for the step that was sent; in lane order, whichever lane is ready first."""
        ...

    def close(self) -> None:
        """Frees the emulators."""
        ...


class PoolArgs(NamedTuple):
    """What a backend needs to open its pool."""

    rom: str  # e.g. space_invaders
    seeds: np.ndarray  # [B] int64 in 1..2^31-1, one per lane
    noops: int  # largest number of random no-op frames at a game's start
    fire_reset: bool  # press FIRE at a game's start
    sticky: float  # chance of repeating the last action
    frame_skip: int
    frame_size: int
    max_episode_steps: int  # agent steps
    num_threads: int
