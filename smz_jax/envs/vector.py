"""One vector environment for every library whose games reset themselves at their next step."""

from typing import NamedTuple, Protocol

import numpy as np

from smz_jax.envs.frames import FrameStacker
from smz_jax.envs.protocol import GameFault, check_actions
from smz_jax.types import EnvSpec, Timestep


class LaneStep(NamedTuple):
    """What a library gives after a reset or a step; free of its own names and types."""

    frame: np.ndarray  # [B, *frame_shape] newest frame, not written to later
    reward: np.ndarray  # [B] raw
    terminated: np.ndarray  # [B] bool, the game is over
    truncated: np.ndarray  # [B] bool, the time limit is reached
    valid_actions: np.ndarray | None = None  # [B, A] bool; None: all are
    lives: np.ndarray | None = None  # [B] int32, lives left; None: the game has none


class Lanes(Protocol):
    """B games of a library; a lane that ended resets at its next step, ignoring its action."""

    def reset(self) -> LaneStep:
        """Starts a new game in every lane."""
        ...

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane by checked actions, `[B]` int32 in 0..A-1."""
        ...

    def recv(self) -> LaneStep:
        """Waits for the step that was sent; in lane order."""
        ...

    def close(self) -> None:
        """Frees the games."""
        ...


class LanesVectorEnv:
    """`Lanes` behind the protocol of `VectorEnv`.

    An action that the game itself says is invalid is replaced by the lowest valid one, so that a
    constant policy can be played; the search never gives one.
    """

    def __init__(self, lanes: Lanes, spec: EnvSpec, num_envs: int) -> None:
        """Takes open games that match `spec`."""
        self.spec = spec
        self.num_envs = num_envs
        self._lanes: Lanes | None = lanes
        self._in_flight = False
        self._invalid: np.ndarray | None = None

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        _require(not self._in_flight, "reset() before the step sent was received")
        self._stacker = FrameStacker(self.spec.context)
        self._game_over = np.ones(self.num_envs, np.bool_)
        return self._given(self._timestep(self._open().reset()))

    def step(self, actions: np.ndarray) -> Timestep:
        """Steps every lane; see `VectorEnv.step`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane; see `VectorEnv.send`."""
        lanes = self._open()
        _require(self._invalid is not None, "send() before reset()")
        _require(not self._in_flight, "send() before the step sent was received")
        assert self._invalid is not None
        actions = check_actions(actions, self.num_envs, self.spec.num_actions)
        forbidden = self._invalid[np.arange(self.num_envs), actions] > 0
        actions = np.where(forbidden, self._invalid.argmin(axis=1), actions).astype(np.int32)
        lanes.send(actions)
        self._in_flight = True

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        lanes = self._open()
        _require(self._in_flight, "recv() without send()")
        self._in_flight = False
        return self._given(self._timestep(lanes.recv()))

    def close(self) -> None:
        """Frees the games; see `VectorEnv.close`."""
        if self._lanes is not None:
            self._lanes.close()
        self._lanes = None

    def _open(self) -> Lanes:
        if self._lanes is None:
            raise RuntimeError("the environment is closed")
        return self._lanes

    def _given(self, timestep: Timestep) -> Timestep:
        # A copy: who writes into what was given does not change what is played.
        self._invalid = timestep.invalid_actions.copy()
        return timestep

    def _timestep(self, step: LaneStep) -> Timestep:
        is_first = self._game_over
        self._check_finite("observation", step.frame)
        self._check_finite("reward", step.reward)
        reward = np.where(is_first, np.float32(0), step.reward.astype(np.float32))
        terminated = step.terminated & ~is_first
        truncated = step.truncated & ~terminated & ~is_first
        self._game_over = terminated | truncated
        invalid = np.zeros((self.num_envs, self.spec.num_actions), np.float32)
        if step.valid_actions is not None:
            # A game without any valid move is over, or its mask says nothing.
            some = step.valid_actions.any(axis=1, keepdims=True)
            invalid[some & ~step.valid_actions.astype(np.bool_)] = 1
        return Timestep(
            observation=self._stacker.push(step.frame, is_first),
            reward=reward,
            raw_reward=reward,
            terminated=terminated,
            truncated=truncated,
            game_over=self._game_over.copy(),
            is_first=is_first,
            invalid_actions=invalid,
        )

    def _check_finite(self, what: str, values: np.ndarray) -> None:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            rows = ~np.isfinite(values).reshape(self.num_envs, -1).all(axis=1)
            lane = int(np.flatnonzero(rows)[0])
            raise GameFault(
                f"env.id = {self.spec.name!r} is not allowed: its {what} must be finite numbers; "
                f"lane {lane} gave one that is not"
            )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)
