"""Pool of Atari emulators from ale-py's vector environment, and ALE's names of the actions."""

import ale_py
import numpy as np
from ale_py import roms

from smz_jax.envs.pool import PoolArgs, PoolStep

_NO_LIMIT = 10**9


class AlePool:
    """See `Pool`.

    The time limit is counted here: at its own, ale-py returns a stale last frame, from which a
    truncated game would be bootstrapped.
    """

    def __init__(self, args: PoolArgs) -> None:
        """Opens the pool."""
        num_envs = len(args.seeds)
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
            img_height=args.frame_size,
            img_width=args.frame_size,
            reward_clipping=False,
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


def minimal_actions(rom: str) -> tuple[str, ...]:
    """Names of a game's minimal action set, in the order in which both libraries index it.

    Args:
        rom: the ROM's name, e.g. `space_invaders`.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(str(roms.get_rom_path(rom)))
    return tuple(action.name for action in ale.getMinimalActionSet())
