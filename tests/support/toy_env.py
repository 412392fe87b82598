"""Catch: a tiny pure-NumPy game behind the environments' protocol, for learning tests.

A ball falls one row per step in a random column; the paddle on the bottom row moves left, stays or
moves right. The game ends when the ball reaches the bottom row: +1 caught, -1 missed. Optimum +1;
a random policy on 10x5 scores about -0.6.
"""

import numpy as np

from smz_jax.envs import check_actions
from smz_jax.types import EnvSpec, Space, Timestep


class CatchEnv:
    """B games of Catch; frames `[B, height, width]` uint8, 255 at ball and paddle."""

    def __init__(self, num_envs: int, seed: int, height: int = 10, width: int = 5) -> None:
        self.num_envs = num_envs
        self.spec = EnvSpec(
            name="Catch",
            frame_shape=(height, width),
            context=1,
            frame_dtype=np.dtype(np.uint8),
            action_space=Space(3, ("LEFT", "STAY", "RIGHT")),
            frames_per_step=1,
        )
        self._height, self._width = height, width
        self._rng = np.random.default_rng(seed)
        self._sent: np.ndarray | None = None
        self._over = np.ones(num_envs, np.bool_)
        self._resting = np.zeros(num_envs, np.bool_)
        self._row = np.zeros(num_envs, np.int64)
        self._ball = np.zeros(num_envs, np.int64)
        self._paddle = np.zeros(num_envs, np.int64)

    def reset(self) -> Timestep:
        self._over[:] = True
        return self._advance(np.ones(self.num_envs, np.int32))

    def step(self, actions: np.ndarray) -> Timestep:
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        assert self._sent is None, "send() before the step sent was received"
        self._sent = check_actions(actions, self.num_envs, 3)

    def rest(self, lanes: np.ndarray) -> None:
        self._resting, self._over = lanes.copy(), self._over | lanes

    def recv(self) -> Timestep:
        assert self._sent is not None, "recv() without send()"
        actions, self._sent = self._sent, None
        return self._advance(actions)

    def close(self) -> None:
        pass

    def _advance(self, actions: np.ndarray) -> Timestep:
        is_first = self._over
        start = self._rng.integers(0, self._width, self.num_envs)
        paddle = np.clip(self._paddle + actions - 1, 0, self._width - 1)
        self._paddle = np.where(is_first, self._width // 2, paddle)
        self._ball = np.where(is_first, start, self._ball)
        self._row = np.where(is_first, 0, self._row + 1)
        self._over = (self._row == self._height - 1) | self._resting
        caught = np.where(self._ball == self._paddle, 1, -1)
        reward = np.where(self._over, caught, 0).astype(np.float32)
        lanes = np.arange(self.num_envs)
        frame = np.zeros((self.num_envs, 1, self._height, self._width), np.uint8)
        frame[lanes, 0, self._height - 1, self._paddle] = 255
        frame[lanes, 0, self._row, self._ball] = 255
        return Timestep(
            observation=frame,
            reward=reward,
            raw_reward=reward,
            terminated=self._over.copy(),
            truncated=np.zeros(self.num_envs, np.bool_),
            game_over=self._over.copy(),
            is_first=is_first,
            invalid_actions=np.zeros((self.num_envs, 3), np.float32),
            player=np.zeros(self.num_envs, np.int32),
        )
