"""A lane of Atari games in an emulator that goes back: for games that a person plays."""

from collections.abc import Callable

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.emulator import Emulator
from smz_jax.envs.protocol import lane_seeds
from smz_jax.envs.vector import Lanes, LaneStep, fire_index


class EmulatorLane(Lanes):
    """See `Lanes`; each game is the first one of the lane `number`, of envpool's frames.

    No-ops at a game's start are drawn here: envpool's own draws are out of reach.
    """

    def __init__(self, config: EnvConfig, seed: int) -> None:
        """Opens the emulator; raises ConfigError as `Emulator` does."""
        self._emulator = Emulator(config)
        self.spec = self._emulator.spec
        self._config, self._seed, self.number = config, seed, 0

    def reset(self) -> LaneStep:
        """Starts the first game of the lane."""
        (seed,) = lane_seeds(self._seed, range(self.number, self.number + 1)).tolist()
        most, has_fire = self._config.noops, fire_index(self._config, self.spec) is not None
        least = 0 if has_fire else 1  # as envpool
        noops = int(np.random.default_rng(seed).integers(least, max(most, least) + 1))
        self._emulator.reset(seed, noops)
        return self._seen()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        """See `Lanes.send`; the step is made at `recv`."""
        self._action, self._over = int(actions[0]), bool(over[0])

    def recv(self) -> LaneStep:
        """Makes the step that was sent."""
        if self._over:
            return self.reset()
        self._emulator.step(self._action)
        return self._seen()

    def close(self) -> None:
        """Nothing to free."""

    def screen(self) -> np.ndarray:
        """The console's picture `[H, W, 3]` uint8."""
        return self._emulator.screen()

    def bookmark(self) -> Callable[[], None]:
        """Gives a function that goes back to where the emulator is now."""
        state = self._emulator.clone()

        def go_back() -> None:
            self._emulator.restore(state)

        return go_back

    def _seen(self) -> LaneStep:
        step = self._emulator.now
        return LaneStep(
            step.frame[None],
            np.array([step.reward], np.float32),
            np.array([step.terminated]),
            lives=np.array([step.lives], np.int32),
        )
