"""Any Gymnasium environment, played by envpool or by Gymnasium.

Both reset a lane at the step after its end, ignore that step's action and give reward 0. In
Gymnasium the lanes step one after the other in this process (`SyncVectorEnv`). Rewards are as the
environment gives them. A mask of the actions (1 = valid), where an environment gives one, becomes
`Timestep.invalid_actions`: `info["action_mask"]` or `info["action_masks"]`,
`info["legal_action_mask"]` of envpool, and one of `observations.MASKS` within an observation. See
`gym_ids` for which library plays what, and `observations`.
"""

import contextlib
import dataclasses
import json
import os
import traceback
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.gym.actions import Listed, each_lane
from smz_jax.envs.gym.gym_ids import Found, find, for_envpool, open_envpool, open_single
from smz_jax.envs.protocol import GameFault, OpenGame, Playable, error_text, lane_seeds
from smz_jax.envs.undisturbed import IN_STEP, close, tell, undisturbed
from smz_jax.envs.vector import Lanes, LaneStep, LanesVectorEnv, describe
from smz_jax.types import EnvSpec, Timestep


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the environment of `config`; see `make_spec`."""
    found = find(config)
    return describe(config, found.coder.frame_shape, found.coder.frame_dtype, found.actions.space)


def open_lanes(config: EnvConfig, seed: int, lanes: range) -> Lanes:
    """Opens a vector of games; see `make_env`."""
    found, seeds = find(config), lane_seeds(seed, lanes)
    if found.library == "gymnasium":
        return _GymnasiumLanes(config, found, seeds)

    def seen(observation: Any, info: dict[str, Any]) -> LaneStep:
        mask = info.get("legal_action_mask")
        if found.coder.mask:
            mask = found.coder.mask(observation)
        return LaneStep(found.coder.encode(observation), valid_actions=mask)

    return Lanes(open_envpool(config, found, seeds), seen, for_envpool(found.actions))


class _GymnasiumLanes(Lanes):
    """See `Lanes`; the games step at `recv`, one after the other."""

    def __init__(self, config: EnvConfig, found: Found, seeds: np.ndarray) -> None:
        def make() -> gymnasium.Env:
            return open_single(config, found.name, found.max_episode_steps)

        self._envs = SyncVectorEnv([make] * len(seeds), autoreset_mode=AutoresetMode.NEXT_STEP)
        self._envs.action_space = Listed()
        self.seed(seeds)
        self._found, self._id = found, config.id

    def seed(self, seeds: np.ndarray) -> None:
        """Gives the lanes the seeds `[B]` of their next reset."""
        self._seeds: list[int | None] = seeds.tolist()

    def keys(self) -> Any:
        """The map of keys that the environment has for Gymnasium's `play`; None: it has none."""
        env = self._envs.envs[0]
        if not env.has_wrapper_attr("get_keys_to_action"):
            return None
        with self._faults():
            return env.get_wrapper_attr("get_keys_to_action")()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Raises GameFault for whatever the games raise."""
        try:
            yield
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise GameFault(
                f"env.id = {self._found.name!r} failed while it was played: {error_text(error)} "
                f"({last.filename}, line {last.lineno})"
            ) from error

    def reset(self) -> LaneStep:
        with self._faults():
            observation, info = self._envs.reset(seed=self._seeds)
        self._seeds = [None] * len(self._seeds)
        self._ended = np.zeros(len(self._seeds), np.bool_)
        frame, mask = self._found.coder.encode(observation), self._mask(observation, info)
        return LaneStep(frame, valid_actions=mask)

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        batch, self._over = self._found.actions.rebuild(actions), over
        self._actions = each_lane(self._envs.single_action_space, batch)
        self._begins = over & ~self._ended & ~resting  # games that the libraries think are running

    def recv(self) -> LaneStep:
        kinds = None if self._over.any() else IN_STEP
        with self._faults(), undisturbed(self._id, kinds):
            observation, reward, terminated, truncated, info = self._envs.step(self._actions)
            begins, begun = self._begins, None
            if begins.any():
                begun = self._envs.reset(options={"reset_mask": begins})
        mask, self._ended = self._mask(observation, info), (terminated | truncated) & ~begins
        if begun:
            observation, first = begun[0], self._mask(*begun)
            if mask is None or first is None:
                mask = mask if first is None else first
            else:
                mask = np.where(begins[:, None], first, mask)
        return LaneStep(self._found.coder.encode(observation), reward, terminated, truncated, mask)

    def render(self) -> np.ndarray:
        """The first lane's picture `[H, W, 3]` uint8; needs kwargs with `render_mode` rgb_array."""
        return np.asarray(self._envs.envs[0].render(), np.uint8)

    def close(self) -> None:
        for env in self._envs.envs:  # one by one: the first that fails would leave the rest open
            close(env, self._id)

    def _mask(self, observation: Any, info: dict[str, Any]) -> np.ndarray | None:
        """The lanes' masks; a lane that gives none in its info plays by its observation's."""
        seen = self._found.coder.mask
        name = "action_mask" if "action_mask" in info else "action_masks"
        if self._found.actions.space.parts:
            if name in info:
                tell(f"env.id = {self._id!r}: info[{name!r}] is not used: masks are of Discrete")
            return None
        if name not in info:
            return seen(observation) if seen else None
        lanes, actions = len(self._seeds), self._found.actions.space.size
        mask = seen(observation) if seen else np.ones((lanes, actions), np.bool_)
        for lane in np.flatnonzero(info.get(f"_{name}", np.ones(lanes, np.bool_))):
            row = np.asarray(info[name][lane])
            if name == "action_masks" and not (
                row.shape == (actions,) and np.isin(row, (0, 1)).all()
            ):
                tell(f"env.id = {self._id!r}: info[{name!r}] is no mask of {actions} actions")
                continue
            if row.shape != (actions,):
                raise ConfigError(
                    f"env.id = {self._found.name!r} is not allowed: its info['action_mask'] must "
                    f"have shape ({actions},), not {row.shape}"
                )
            mask[lane] = row.astype(np.bool_)
        return mask


def open_game(config: EnvConfig, seed: int, screen: bool) -> OpenGame:
    """Opens a game to be watched, by Gymnasium where that has it with the same spaces."""
    return _open(config, seed, screen, training=False)[0]


def open_playable(config: EnvConfig, seed: int) -> Playable:
    """Opens a game for a person, by Gymnasium where that has it with the same spaces."""
    game, env, lanes = _open(config, seed, screen=True, training=True)
    if lanes is None:

        def reopen(number: int) -> Timestep:
            return env.restart(open_lanes(config, seed, range(number, number + 1)))

        return Playable(game, reopen)

    def begin(number: int) -> Timestep:
        # Seeded anew, not opened anew: an environment that is closed may close the window too.
        lanes.seed(lane_seeds(seed, range(number, number + 1)))
        return env.restart()

    return Playable(game, begin, keys=lanes.keys())


def _open(
    config: EnvConfig, seed: int, screen: bool, training: bool
) -> tuple[OpenGame, LanesVectorEnv, "_GymnasiumLanes | None"]:
    """A game, its vector, and the lane that plays it where it is Gymnasium's."""
    drawn, note = dataclasses.replace(config, backend="gymnasium"), "played by Gymnasium"
    same = False
    with contextlib.suppress(ConfigError):
        same = spec_of(drawn) == spec_of(config)
    if not same:
        env = make_env(config, seed=seed, num_envs=1, training=training)
        return OpenGame(env, None, 25.0, "played by envpool, which draws nothing"), env, None
    if screen:
        kwargs = json.dumps({**config.options, "render_mode": "rgb_array"})
        with_picture = dataclasses.replace(drawn, kwargs=kwargs)
        reason = _why_not_drawn(with_picture)
        drawn, note, screen = drawn if reason else with_picture, note + reason, not reason
    lanes = _GymnasiumLanes(drawn, find(drawn), lane_seeds(seed, range(1)))
    env = LanesVectorEnv(lanes, spec_of(drawn), drawn, 1, training)
    return OpenGame(env, lanes.render if screen else None, 25.0, note), env, lanes


def _why_not_drawn(config: EnvConfig) -> str:
    """An empty text if an environment gives a picture, else `; no picture: ...`.

    Another instance is tried: a reset would cost the game its seed.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame else looks for a display
    try:
        lanes = _GymnasiumLanes(config, find(config), np.ones(1, np.int64))
        with contextlib.closing(lanes):
            lanes.reset()
            shape = lanes.render().shape
    except Exception as error:  # whatever the environment or its drawing library raises
        return f"; no picture of its own: {' '.join(str(error).split())[:200]}"
    is_picture = len(shape) == 3 and shape[2] == 3
    return "" if is_picture else f"; no picture of its own: it is an array of shape {shape}"
