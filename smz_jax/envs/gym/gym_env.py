"""Any Gymnasium environment with discrete actions, played by envpool or by Gymnasium.

Both reset a lane at the step after its end, ignore that step's action and give reward 0. In
Gymnasium the lanes step one after the other in this process (`SyncVectorEnv`). Rewards are as the
environment gives them. `info["action_mask"]` (1 = valid), where an environment gives one, becomes
`Timestep.invalid_actions`; envpool hands none on. See `spaces` for observations and `libraries`
for which library plays what.
"""

import contextlib
import dataclasses
import json
import os
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.gym.libraries import Found, error_text, find, open_envpool, open_single
from smz_jax.envs.protocol import GameFault, lane_seeds
from smz_jax.envs.screens import OpenGame
from smz_jax.envs.vector import LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the environment of `config`; see `make_spec`."""
    found = find(config)
    return EnvSpec(
        name=config.id,
        frame_shape=found.coder.frame_shape,
        context=config.frame_stack,
        frame_dtype=found.coder.frame_dtype,
        action_space=Space(
            found.num_actions, tuple(str(found.first_action + i) for i in range(found.num_actions))
        ),
        frames_per_step=1,
    )


def open_games(
    config: EnvConfig, *, seed: int, num_envs: int, first_lane: int, training: bool
) -> LanesVectorEnv:
    """Opens a vector of games; see `make_env`."""
    del training  # rewards are raw and games are whole in any case
    found = find(config)
    seeds = lane_seeds(seed, num_envs, first_lane)
    lanes = EnvpoolLanes if found.library == "envpool" else GymnasiumLanes
    return LanesVectorEnv(lanes(config, found, seeds), spec_of(config), num_envs)


class EnvpoolLanes:
    """See `Lanes`; envpool's synchronous mode, in lane order."""

    def __init__(self, config: EnvConfig, found: Found, seeds: np.ndarray) -> None:
        """Opens one lane for each of the seeds."""
        self._pool = open_envpool(config, found, seeds)
        self._found, self._num_envs = found, len(seeds)

    def reset(self) -> LaneStep:
        """See `Lanes.reset`."""
        observation, _ = self._pool.reset()
        no = np.zeros(self._num_envs, np.bool_)
        frame = self._found.coder.encode(observation)
        return LaneStep(frame, np.zeros(self._num_envs, np.float32), terminated=no, truncated=no)

    def send(self, actions: np.ndarray) -> None:
        """See `Lanes.send`."""
        self._pool.send(actions + np.int32(self._found.first_action))

    def recv(self) -> LaneStep:
        """See `Lanes.recv`."""
        observation, reward, terminated, truncated, _ = self._pool.recv()
        frame = self._found.coder.encode(observation)
        return LaneStep(frame, reward, terminated=terminated, truncated=truncated)

    def close(self) -> None:
        """See `Lanes.close`."""
        self._pool.close()


class GymnasiumLanes:
    """See `Lanes`; the games step at `recv`, one after the other."""

    def __init__(self, config: EnvConfig, found: Found, seeds: np.ndarray) -> None:
        """Opens one lane for each of the seeds."""

        def make() -> gymnasium.Env:
            return open_single(config, found.name, found.max_episode_steps)

        self._envs = SyncVectorEnv([make] * len(seeds), autoreset_mode=AutoresetMode.NEXT_STEP)
        self._seeds: list[int | None] = [int(seed) for seed in seeds]
        self._found = found

    def _call(self, function: Callable[[], Any]) -> Any:
        """What `function` of the games gives; raises GameFault for whatever they raise."""
        try:
            return function()
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise GameFault(
                f"env.id = {self._found.name!r} failed while it was played: {error_text(error)} "
                f"({last.filename}, line {last.lineno})"
            ) from error

    def reset(self) -> LaneStep:
        """See `Lanes.reset`."""
        observation, info = self._call(lambda: self._envs.reset(seed=self._seeds))
        self._seeds = [None] * len(self._seeds)
        no = np.zeros(len(self._seeds), np.bool_)
        zeros = np.zeros(len(self._seeds), np.float32)
        return self._step(observation, zeros, no, no, info)

    def send(self, actions: np.ndarray) -> None:
        """See `Lanes.send`."""
        self._actions = actions.astype(np.int64) + self._found.first_action

    def recv(self) -> LaneStep:
        """See `Lanes.recv`."""
        return self._step(*self._call(lambda: self._envs.step(self._actions)))

    def render(self) -> np.ndarray:
        """The first lane's picture `[H, W, 3]` uint8; needs kwargs with `render_mode` rgb_array."""
        return np.asarray(self._envs.envs[0].render(), np.uint8)

    def close(self) -> None:
        """See `Lanes.close`."""
        self._envs.close()

    def _step(
        self,
        observation: Any,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        info: dict[str, Any],
    ) -> LaneStep:
        return LaneStep(
            frame=self._found.coder.encode(observation),
            reward=reward.astype(np.float32),
            terminated=terminated.copy(),
            truncated=truncated.copy(),
            valid_actions=self._mask(info),
        )

    def _mask(self, info: dict[str, Any]) -> np.ndarray | None:
        """The lanes' masks; a lane that gives none may play anything."""
        if "action_mask" not in info:
            return None
        lanes, actions = len(self._seeds), self._found.num_actions
        given = info.get("_action_mask", np.ones(lanes, np.bool_))
        mask = np.ones((lanes, actions), np.bool_)
        for lane in np.flatnonzero(given):
            row = np.asarray(info["action_mask"][lane])
            if row.shape != (actions,):
                raise ConfigError(
                    f"env.id = {self._found.name!r} is not allowed: its info['action_mask'] must "
                    f"have shape ({actions},), not {row.shape}"
                )
            mask[lane] = row.astype(np.bool_)
        return mask


def open_game(config: EnvConfig, *, seed: int, screen: bool) -> OpenGame:
    """Opens a game to be watched, by Gymnasium where that has it with the same spaces."""
    drawn, note = dataclasses.replace(config, backend="gymnasium"), "played by Gymnasium"
    try:
        same = spec_of(drawn) == spec_of(config)
    except ConfigError:
        same = False
    if not same:
        note = "played by envpool, which draws nothing"
        env = make_env(config, seed=seed, num_envs=1, training=False)
        return OpenGame(env, None, 25.0, note)
    reason = ""
    if screen:
        kwargs = json.dumps({**config.options, "render_mode": "rgb_array"})
        with_picture = dataclasses.replace(drawn, kwargs=kwargs)
        reason = _why_not_drawn(with_picture)
        drawn = drawn if reason else with_picture
    lanes = GymnasiumLanes(drawn, find(drawn), lane_seeds(seed, 1, 0))
    env = LanesVectorEnv(lanes, spec_of(drawn), 1)
    return OpenGame(env, lanes.render if screen and not reason else None, 25.0, note + reason)


def _why_not_drawn(config: EnvConfig) -> str:
    """An empty text if an environment gives a picture, else `; no picture: ...`.

    Another instance is tried: a reset would cost the game its seed.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame else looks for a display
    try:
        with contextlib.closing(
            GymnasiumLanes(config, find(config), np.ones(1, np.int64))
        ) as lanes:
            lanes.reset()
            shape = lanes.render().shape
    except Exception as error:  # whatever the environment or its drawing library raises
        return f"; no picture of its own: {' '.join(str(error).split())[:200]}"
    is_picture = len(shape) == 3 and shape[2] == 3
    return "" if is_picture else f"; no picture of its own: it is an array of shape {shape}"
