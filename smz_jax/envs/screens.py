"""Single games that can be looked at: opened by a library that draws, where there is one.

envpool draws nothing, so that a game of Atari is played by ale-py and one of suite gym by
Gymnasium, if it has the id with the same spaces. That holds whether or not it is drawn: the same
seed gives the same game.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from smz_jax.config.settings import ConfigError, EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.protocol import VectorEnv, lane_seeds

EMULATOR_HZ = 60
"""Frames of an Atari 2600 in a second."""


class OpenGame(NamedTuple):
    """One lane of whole games."""

    env: VectorEnv
    screen: Callable[[], np.ndarray] | None
    """Gives the picture `[H, W, 3]` uint8 of where the game stands; None: it has none of its own,
    and what is seen can be drawn."""
    steps_per_second: float  # at which a game looks natural
    note: str  # who plays, and why there is no picture


def open_game(config: EnvConfig, *, seed: int, screen: bool) -> OpenGame:
    """Opens one lane of whole games with raw rewards.

    Args:
        config: the environment's settings.
        seed: of the games, see `make_env`.
        screen: whether the library's own picture is wanted.

    Raises:
        ConfigError: as `make_env`.
    """
    if config.suite == "atari":
        config = dataclasses.replace(config, backend="ale")
        if screen:
            return _atari_screen(config, seed)
        env = make_env(config, seed=seed, num_envs=1, training=False)
        return OpenGame(env, None, EMULATOR_HZ / config.frame_skip, "played by ale-py")
    if config.suite == "gym":
        return _gym_game(config, seed, screen)
    env = make_env(config, seed=seed, num_envs=1, training=False)
    return OpenGame(env, None, 4.0, f"played by {'pgx' if config.suite == 'pgx' else 'smz_jax'}")


def _atari_screen(config: EnvConfig, seed: int) -> OpenGame:
    """A game of Atari with the emulator's screen."""
    from smz_jax.envs import check_env_id
    from smz_jax.envs.atari.ale_backend import AleScreenPool
    from smz_jax.envs.atari.env import AtariVectorEnv, pool_args, spec_of

    check_env_id(config)
    spec = spec_of(config)
    pool = AleScreenPool(pool_args(config, spec, lane_seeds(seed, 1, 0)))
    env = AtariVectorEnv(pool, spec, config, 1, training=False)
    return OpenGame(env, lambda: pool.screen, EMULATOR_HZ / config.frame_skip, "played by ale-py")


def _gym_game(config: EnvConfig, seed: int, screen: bool) -> OpenGame:
    """A game of suite gym, by Gymnasium where that has it with the same spaces."""
    from smz_jax.envs.gym.env import GymnasiumLanes, spec_of
    from smz_jax.envs.gym.ids import find
    from smz_jax.envs.vector import LanesVectorEnv

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
    found = find(drawn)
    lanes = GymnasiumLanes(drawn, found, lane_seeds(seed, 1, 0))
    env = LanesVectorEnv(lanes, spec_of(drawn), 1)
    shown = screen and not reason
    return OpenGame(env, lanes.render if shown else None, 25.0, note + reason)


def _why_not_drawn(config: EnvConfig) -> str:
    """An empty text if an environment gives a picture, else `; no picture: ...`.

    Another instance is asked: a reset would cost the game its seed.
    """
    from smz_jax.envs.gym.env import GymnasiumLanes
    from smz_jax.envs.gym.ids import find

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame else looks for a display
    try:
        lanes = GymnasiumLanes(config, find(config), np.ones(1, np.int64))
        try:
            lanes.reset()
            shape = lanes.render().shape
        finally:
            lanes.close()
    except Exception as error:  # whatever the environment or its drawing library raises
        return f"; no picture of its own: {' '.join(str(error).split())[:200]}"
    is_picture = len(shape) == 3 and shape[2] == 3
    return "" if is_picture else f"; no picture of its own: it is an array of shape {shape}"
