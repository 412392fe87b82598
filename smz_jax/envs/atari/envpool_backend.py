"""Pool of Atari emulators from envpool. Its states cannot be cloned."""

import envpool
import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.rom_files import games
from smz_jax.envs.vector import LaneStep


class EnvpoolPool:
    """See `Lanes`."""

    def __init__(self, config: EnvConfig, seeds: np.ndarray, fire_reset: bool) -> None:
        """Opens one lane for each of the seeds `[B]`, in 1..2^31-1."""
        rom = games(config.backend)[config.id]
        name = "".join(part.capitalize() for part in rom.split("_"))
        self._pool = envpool.make_gymnasium(
            f"{name}-v5",
            num_envs=len(seeds),
            seed=seeds,
            num_threads=config.num_threads,
            stack_num=1,
            frame_skip=config.frame_skip,
            # Draws 0..noop_max-1 frames with FIRE, 1..noop_max without; 0 is a segmentation fault.
            noop_max=config.noops + 1 if fire_reset else max(config.noops, 1),
            use_fire_reset=fire_reset,
            repeat_action_probability=config.sticky,
            max_episode_steps=config.max_episode_steps,
            img_height=config.frame_size,
            img_width=config.frame_size,
        )
        self._zeros = np.zeros(len(seeds), np.float32)

    def reset(self) -> LaneStep:
        """See `Lanes.reset`."""
        frame, info = self._pool.reset()
        no = np.zeros(len(self._zeros), np.bool_)
        return LaneStep(frame[:, 0], self._zeros, no, no, lives=info["lives"])

    def send(self, actions: np.ndarray) -> None:
        """See `Lanes.send`."""
        self._pool.send(actions)

    def recv(self) -> LaneStep:
        """See `Lanes.recv`."""
        # In lane order, since its batch holds every lane (envpool's synchronous mode).
        frame, reward, _, limit, info = self._pool.recv()
        ended = info["terminated"].astype(np.bool_)
        return LaneStep(frame[:, 0], reward, ended, limit, lives=info["lives"])

    def close(self) -> None:
        """See `Lanes.close`."""
        self._pool.close()
