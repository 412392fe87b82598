"""This project's games as stable-baselines3 steps them: what ends begins anew at once."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from smz_jax.acting.actor import GameScores
from smz_jax.envs import GameFault, VectorEnv
from smz_jax.storage.metrics import newest_games
from smz_jax.types import EnvSpec, Timestep

MOST_FORCED = 1000
"""Steps of a lane without a choice, one after the other."""


class LaneGames:
    """Games of one lane each, B of them, that need no step of their own to begin anew.

    A vector of several lanes could reset one only by stepping the others. Where a game is over, or
    only one action is valid (FIRE after a lost life), the step is made here: the learner sees no
    transition that its action had no part in.
    """

    def __init__(self, lanes: Sequence[VectorEnv]) -> None:
        """Takes vectors of one lane."""
        self._lanes = lanes
        self._scores = [GameScores(1) for _ in lanes]
        self.games: list[tuple[float, int]] = []
        """Raw score and length of the newest whole games."""

    def reset(self) -> np.ndarray:
        """Starts every lane; gives `[B, F, ...]`."""
        return np.concatenate([self._begin(i, env.reset()) for i, env in enumerate(self._lanes)])

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Steps every lane.

        Args:
            actions: `[B]` integers.

        Returns:
            Observations `[B, F, ...]`, the first of the next episode where one ended; rewards `[B]`
            float32; whether an episode ended, `[B]` bool; and for each lane where one did
            `terminal_observation` and `TimeLimit.truncated`.
        """
        for env, action in zip(self._lanes, actions, strict=True):
            env.send(np.array([action], np.int32))
        steps = [self._count(i, env.recv()) for i, env in enumerate(self._lanes)]
        ended = np.array([bool(step.terminated[0] | step.truncated[0]) for step in steps])
        infos: list[dict[str, Any]] = [{} for _ in steps]
        for i in np.flatnonzero(ended):
            infos[i]["terminal_observation"] = steps[i].observation[0]
            infos[i]["TimeLimit.truncated"] = bool(steps[i].truncated[0])
        seen = [
            self._begin(i, step) if over else step.observation
            for i, (step, over) in enumerate(zip(steps, ended, strict=True))
        ]
        rewards = np.array([step.reward[0] for step in steps], np.float32)
        return np.concatenate(seen), rewards, ended, infos

    def close(self) -> None:
        """Closes the games."""
        for env in self._lanes:
            env.close()

    def _begin(self, lane: int, step: Timestep) -> np.ndarray:
        """The first observation, `[1, F, ...]`, in which the lane has a choice."""
        for _ in range(MOST_FORCED):
            valid = np.flatnonzero(step.invalid_actions[0] == 0)
            if not step.game_over[0] and len(valid) != 1:
                return step.observation
            action = np.array([valid[0] if len(valid) else 0], np.int32)
            step = self._count(lane, self._lanes[lane].step(action))
        raise GameFault(f"lane {lane} has had no choice for {MOST_FORCED} steps")

    def _count(self, lane: int, step: Timestep) -> Timestep:
        ended = self._scores[lane].add(step)
        self.games = newest_games(self.games, [(score, length) for _, score, length, _ in ended])
        return step


def make_vec_env(games: LaneGames, spec: EnvSpec, num_envs: int) -> Any:
    """The games as a `VecEnv` of stable-baselines3, whose types are not known without it."""
    base: Any = importlib.import_module("stable_baselines3.common.vec_env").VecEnv
    spaces = importlib.import_module("gymnasium.spaces")

    class Games(base):
        def reset(self) -> np.ndarray:
            return games.reset()

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = actions

        def step_wait(self) -> Any:
            return games.step(self._actions)

        def close(self) -> None:
            games.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * num_envs  # render_mode, which alone is read

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError

        def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
            raise NotImplementedError

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * num_envs

    frames = spaces.Box(0, 255, spec.observation_shape, np.uint8)
    return Games(num_envs, frames, spaces.Discrete(spec.num_actions))
