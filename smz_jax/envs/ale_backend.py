"""Pool of Atari emulators from ale-py's vector environment, and ALE's names of the actions."""

import ale_py
import numpy as np
from ale_py import roms

from smz_jax.envs.atari import PoolArgs, PoolStep


class AlePool:
    """See `Pool`."""

    def __init__(self, args: PoolArgs) -> None:
        """Opens the pool."""
        self._pool = ale_py.AtariVectorEnv(
            args.rom,
            num_envs=len(args.seeds),
            num_threads=args.num_threads,
            stack_num=1,
            frameskip=args.frame_skip,
            # Draws 0..noop_max-1 frames, of which FIRE takes the place of one.
            noop_max=args.noops + 2 if args.fire_reset and args.noops else args.noops + 1,
            use_fire_reset=args.fire_reset,
            repeat_action_probability=args.sticky,
            # Frames after the reset's no-ops and FIRE; a limit within a skip would cut the skip.
            max_num_frames_per_episode=args.max_episode_steps * args.frame_skip,
            img_height=args.frame_size,
            img_width=args.frame_size,
            reward_clipping=False,
        )
        self._seeds: np.ndarray | None = args.seeds

    def reset(self) -> PoolStep:
        """See `Pool.reset`."""
        frame, info = self._pool.reset(seed=self._seeds)  # pyright: ignore[reportArgumentType]
        self._seeds = None
        zeros = np.zeros(len(frame), np.float32)
        no = np.zeros(len(frame), np.bool_)
        return PoolStep(frame[:, 0], zeros, ended=no, limit=no, lives=info["lives"])

    def step(self, actions: np.ndarray) -> PoolStep:
        """See `Pool.step`."""
        frame, reward, ended, limit, info = self._pool.step(actions)
        reward = reward.astype(np.float32)
        return PoolStep(frame[:, 0], reward, ended=ended, limit=limit, lives=info["lives"])

    def close(self) -> None:
        """See `Pool.close`."""
        self._pool.close()


def minimal_actions(rom: str) -> tuple[str, ...]:
    """Names of a game's minimal action set, in the order both libraries index it.

    Args:
        rom: the ROM's name, e.g. `space_invaders`.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(roms.get_rom_path(rom))  # pyright: ignore[reportArgumentType]
    return tuple(action.name for action in ale.getMinimalActionSet())
