"""Atari emulators from ale-py: its vector environment, and single ones."""

import dataclasses
import functools
from typing import Any

import ale_py
import numpy as np
from ale_py import roms

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.rom_files import games
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import EnvSpec

_NO_LIMIT = 10**9


def seen(frame: np.ndarray, info: dict[str, Any]) -> LaneStep:
    """What a library's frames `[B, 1, H, W]` show."""
    return LaneStep(frame[:, 0], lives=info["lives"])


class AlePool(Lanes):
    """See `Lanes`.

    ale-py's own time limit is never reached: there it returns a stale last frame, from which a
    truncated game would be bootstrapped.
    """

    def __init__(
        self, config: EnvConfig, seeds: np.ndarray, fire_reset: bool, **picture: Any
    ) -> None:
        """Opens one lane for each of the seeds `[B]`, in 1..2^31-1.

        `picture` overrides ale-py's settings of the frames.
        """
        picture = {"img_height": config.frame_size, "img_width": config.frame_size, **picture}
        pool = ale_py.AtariVectorEnv(
            games(config.backend)[config.id],
            num_envs=len(seeds),
            num_threads=config.num_threads,
            stack_num=1,
            frameskip=config.frame_skip,
            # Draws 0..noop_max-1 frames, of which FIRE takes the place of one.
            noop_max=config.noops + (2 if fire_reset and config.noops else 1),
            use_fire_reset=fire_reset,
            repeat_action_probability=config.sticky,
            max_num_frames_per_episode=_NO_LIMIT,
            reward_clipping=False,
            **picture,
        )
        super().__init__(pool, seen)
        self._seeds: np.ndarray | None = seeds
        self._ended = np.zeros(len(seeds), np.bool_)

    def reset(self) -> LaneStep:
        """See `Lanes.reset`."""
        frame, info = self._pool.reset(seed=self._seeds)
        self._seeds, self._ended = None, np.zeros_like(self._ended)
        return seen(frame, info)

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        """See `Lanes.send`; ale-py steps the resting lanes too."""
        self._cut = over & ~self._ended & ~resting
        self._pool.send(actions)

    def recv(self) -> LaneStep:
        """See `Lanes.recv`."""
        frame, reward, ended, _, info = self._pool.recv()
        if self._cut.any():
            # The step of these lanes is lost; all other lanes only report again.
            frame, info = self._pool.reset(options={"reset_mask": self._cut})
        self._ended = ended & ~self._cut
        return seen(frame, info)._replace(reward=reward, terminated=self._ended)


class AleScreenPool(AlePool):
    """An `AlePool` of one lane that also shows the emulator's own RGB screen; see `Lanes`.

    A second emulator of the same seed is sent the same actions (ale-py draws no-ops and sticky
    actions from the seed alone). Its frame is what `getScreenRGB` gives: the last one of those
    skipped, neither merged nor resized.
    """

    def __init__(self, config: EnvConfig, seeds: np.ndarray, fire_reset: bool) -> None:
        """Opens both."""
        height, width = open_emulator(games(config.backend)[config.id]).getScreenDims()
        config = dataclasses.replace(config, num_threads=1)
        screen = {"img_height": height, "img_width": width, "grayscale": False, "maxpool": False}
        super().__init__(config, seeds, fire_reset)
        self._shown = AlePool(config, seeds, fire_reset, **screen)
        self.screen = np.zeros((height, width, 3), np.uint8)

    def reset(self) -> LaneStep:
        """See `Lanes.reset`."""
        return self._compared(super().reset(), self._shown.reset())

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        """See `Lanes.send`."""
        super().send(actions, over, resting)
        self._shown.send(actions, over, resting)

    def recv(self) -> LaneStep:
        """See `Lanes.recv`."""
        return self._compared(super().recv(), self._shown.recv())

    def close(self) -> None:
        """See `Lanes.close`."""
        super().close()
        self._shown.close()

    def _compared(self, step: LaneStep, shown: LaneStep) -> LaneStep:
        pairs: Any = zip(step[1:], shown[1:], strict=True)
        if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
            raise RuntimeError("two emulators of one seed went apart")
        self.screen = shown.frame[0]
        return step


def open_emulator(rom: str, sticky: float = 0.0, seed: int | None = None) -> ale_py.ALEInterface:
    """A single emulator that plays single frames and says nothing.

    Args:
        rom: the ROM's name, e.g. `space_invaders`.
        sticky: chance that a frame repeats the last action.
        seed: of the sticky actions; unset: ale-py's own.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    if seed is not None:
        ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("frame_skip", 1)
    ale.loadROM(str(roms.get_rom_path(rom)))
    return ale


@functools.lru_cache(maxsize=16)
def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`.

    The actions are the game's minimal set, in the order in which both libraries index it.
    """
    actions = open_emulator(games(config.backend)[config.id]).getMinimalActionSet()
    shape = (config.frame_size, config.frame_size)
    return describe(config, shape, np.uint8, (action.name for action in actions))
