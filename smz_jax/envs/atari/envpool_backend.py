"""Pool of Atari emulators from envpool. Its states cannot be cloned."""

import envpool
import numpy as np

from smz_jax.envs.atari.pool import PoolArgs, PoolStep


class EnvpoolPool:
    """See `Pool`."""

    def __init__(self, args: PoolArgs) -> None:
        """Opens the pool."""
        name = "".join(part.capitalize() for part in args.rom.split("_"))
        self._pool = envpool.make_gymnasium(
            f"{name}-v5",
            num_envs=len(args.seeds),
            seed=args.seeds,
            num_threads=args.num_threads,
            stack_num=1,
            frame_skip=args.frame_skip,
            # Draws 0..noop_max-1 frames with FIRE, 1..noop_max without; 0 is a segmentation fault.
            noop_max=args.noops + 1 if args.fire_reset else max(args.noops, 1),
            use_fire_reset=args.fire_reset,
            repeat_action_probability=args.sticky,
            max_episode_steps=args.max_episode_steps,
            img_height=args.frame_size,
            img_width=args.frame_size,
        )
        self._zeros = np.zeros(len(args.seeds), np.float32)

    def reset(self) -> PoolStep:
        """See `Pool.reset`."""
        frame, info = self._pool.reset()
        no = np.zeros(len(self._zeros), np.bool_)
        return PoolStep(frame[:, 0], self._zeros, ended=no, limit=no, lives=info["lives"])

    def send(self, actions: np.ndarray) -> None:
        """See `Pool.send`."""
        self._pool.send(actions)

    def recv(self) -> PoolStep:
        """See `Pool.recv`."""
        # In lane order, since its batch holds every lane (envpool's synchronous mode).
        frame, reward, _, limit, info = self._pool.recv()
        ended = info["terminated"].astype(np.bool_)
        return PoolStep(frame[:, 0], reward, ended=ended, limit=limit, lives=info["lives"])

    def close(self) -> None:
        """See `Pool.close`."""
        self._pool.close()
