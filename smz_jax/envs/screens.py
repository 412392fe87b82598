"""Single games to be watched: opened by a library that draws, where there is one.

A suite whose module has `open_game(config, *, seed, screen)` opens them itself; `LIBRARY` names who
plays the others. envpool draws
nothing, so that a game of Atari is played by ale-py and one of suite gym by Gymnasium, if it has
the id with the same spaces. That holds whether or not it is drawn: the same seed gives the same
game.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env, suite_module
from smz_jax.envs.protocol import VectorEnv


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
    suite = suite_module(config)
    if hasattr(suite, "open_game"):
        return suite.open_game(config, seed=seed, screen=screen)
    env = make_env(config, seed=seed, num_envs=1, training=False)
    return OpenGame(env, None, 4.0, f"played by {getattr(suite, 'LIBRARY', 'smz_jax')}")
