"""Pool of Atari emulators from ale-py's vector environment, and ALE's names of the actions."""

from typing import Any

import ale_py
import numpy as np
from ale_py import roms

from smz_jax.envs.atari.pool import PoolArgs, PoolStep

_NO_LIMIT = 10**9


class AlePool:
    """See `Pool`.

    The time limit is counted here: at its own, ale-py returns a stale last frame, from which a
    truncated game would be bootstrapped.
    """

    def __init__(self, args: PoolArgs, **picture: Any) -> None:
        """Opens the pool; `picture` overrides ale-py's settings of the frames."""
        num_envs = len(args.seeds)
        picture = {"img_height": args.frame_size, "img_width": args.frame_size, **picture}
        self._pool = ale_py.AtariVectorEnv(
            args.rom,
            num_envs=num_envs,
            num_threads=args.num_threads,
            stack_num=1,
            frameskip=args.frame_skip,
            # Draws 0..noop_max-1 frames, of which FIRE takes the place of one.
            noop_max=args.noops + 2 if args.fire_reset and args.noops else args.noops + 1,
            use_fire_reset=args.fire_reset,
            repeat_action_probability=args.sticky,
            max_num_frames_per_episode=_NO_LIMIT,
            reward_clipping=False,
            **picture,
        )
        self._max_steps = args.max_episode_steps
        self._seeds: np.ndarray | None = args.seeds
        self._zeros = np.zeros(num_envs, np.float32)

    def reset(self) -> PoolStep:
        """See `Pool.reset`."""
        frame, info = self._pool.reset(seed=self._seeds)  # pyright: ignore[reportArgumentType]
        self._seeds = None
        no = np.zeros(len(self._zeros), np.bool_)
        self._elapsed = np.zeros(len(self._zeros), np.int64)
        self._ended = self._limit = no
        return PoolStep(frame[:, 0], self._zeros, ended=no, limit=no, lives=info["lives"])

    def send(self, actions: np.ndarray) -> None:
        """See `Pool.send`."""
        self._pool.send(actions)

    def recv(self) -> PoolStep:
        """See `Pool.recv`."""
        cut = self._limit & ~self._ended
        self._elapsed = np.where(self._limit | self._ended, 0, self._elapsed + 1)
        frame, reward, ended, _, info = self._pool.recv()
        if cut.any():
            # The step of these lanes is lost; all other lanes only report again.
            frame, info = self._pool.reset(options={"reset_mask": cut})
        self._ended = ended & ~cut
        self._limit = self._elapsed >= self._max_steps
        reward = reward.astype(np.float32)
        return PoolStep(
            frame[:, 0], reward, ended=self._ended, limit=self._limit, lives=info["lives"]
        )

    def close(self) -> None:
        """See `Pool.close`."""
        self._pool.close()


class AleScreenPool:
    """An `AlePool` of one lane that also shows the emulator's own RGB screen; see `Pool`.

    A second emulator of the same seed is sent the same actions (ale-py draws no-ops and sticky
    actions from the seed alone). Its frame is what `getScreenRGB` gives: the last one of those
    skipped, neither merged nor resized.
    """

    def __init__(self, args: PoolArgs) -> None:
        """Opens both."""
        height, width = _load(args.rom).getScreenDims()
        args = args._replace(num_threads=1)
        screen = {"img_height": height, "img_width": width, "grayscale": False, "maxpool": False}
        self._pools = (AlePool(args), AlePool(args, **screen))
        self.screen = np.zeros((height, width, 3), np.uint8)

    def reset(self) -> PoolStep:
        """See `Pool.reset`."""
        return self._seen(*(pool.reset() for pool in self._pools))

    def send(self, actions: np.ndarray) -> None:
        """See `Pool.send`."""
        for pool in self._pools:
            pool.send(actions)

    def recv(self) -> PoolStep:
        """See `Pool.recv`."""
        return self._seen(*(pool.recv() for pool in self._pools))

    def close(self) -> None:
        """See `Pool.close`."""
        for pool in self._pools:
            pool.close()

    def _seen(self, step: PoolStep, shown: PoolStep) -> PoolStep:
        for ours, theirs in zip(step[1:], shown[1:], strict=True):
            if not np.array_equal(ours, theirs):
                raise RuntimeError("two emulators of one seed went apart")
        self.screen = shown.frame[0]
        return step


def _load(rom: str) -> ale_py.ALEInterface:
    """A single emulator of a game, which says nothing."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(str(roms.get_rom_path(rom)))
    return ale


def minimal_actions(rom: str) -> tuple[str, ...]:
    """Names of a game's minimal action set, in the order in which both libraries index it.

    Args:
        rom: the ROM's name, e.g. `space_invaders`.
    """
    ale = _load(rom)
    return tuple(action.name for action in ale.getMinimalActionSet())
