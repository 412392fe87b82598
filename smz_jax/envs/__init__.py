"""Vector environments behind one protocol; the only package that imports emulator libraries.

Importing it is cheap (no JAX, no emulator), so that settings can be checked before either loads.
Differences between the two Atari backends, envpool (default) and ale (ale-py's own vector
environment): see `smz_jax/envs/atari/atari_env.py`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.protocol import GameFault, VectorEnv, check_actions

if TYPE_CHECKING:
    from smz_jax.types import EnvSpec

__all__ = ["SUITES", "GameFault", "VectorEnv", "check_actions", "check_env_id", "make_env"]
__all__ += ["make_spec", "suite_module"]


class Suite(NamedTuple):
    """Where the parts of a suite are; both may be one module."""

    ids: str  # module with `check_id(config)`; loads no JAX
    games: str  # module with `spec_of(config)` and `open_games(config, *, seed, num_envs, ...)`


SUITES = {
    "atari": Suite("smz_jax.envs.atari.rom_files", "smz_jax.envs.atari.atari_env"),
    "gym": Suite("smz_jax.envs.gym.libraries", "smz_jax.envs.gym.gym_env"),
    "pgx": Suite("smz_jax.envs.pgx.pgx_games", "smz_jax.envs.pgx.pgx_env"),
    "grid": Suite("smz_jax.envs.grid.map", "smz_jax.envs.grid.grid_env"),
}
"""Suites by name (`EnvConfig.suite`). `games` may also have `open_game`, see `envs/screens.py`."""


def suite_module(config: EnvConfig) -> ModuleType:
    """The module that opens the games of `config.suite`, loaded at its first use."""
    return importlib.import_module(SUITES[config.suite].games)


def check_env_id(config: EnvConfig) -> None:
    """Checks that the environment and its library exist, before JAX loads.

    Raises:
        ConfigError: in one line; names close matches of an unknown id.
    """
    importlib.import_module(SUITES[config.suite].ids).check_id(config)


def make_env(
    config: EnvConfig,
    *,
    seed: int,
    num_envs: int | None = None,
    first_lane: int = 0,
    training: bool = True,
) -> VectorEnv:
    """Opens a vector of games.

    Args:
        config: the environment's settings.
        seed: at least 0; the same seed gives the same games, and lane i's games do not depend on
            the number of lanes.
        num_envs: B; `config.num_envs` if None.
        first_lane: the vector plays the games of lanes first_lane to first_lane + B - 1, so that
            several vectors of one seed share no game.
        training: False gives whole games and raw rewards whatever the settings say: no episodic
            life, no reward clipping.

    Returns:
        A vector environment; call `reset` first and `close` last.

    Raises:
        ConfigError: if the game is unknown or its library is missing.
    """
    lanes = config.num_envs if num_envs is None else num_envs
    require(1 <= lanes <= 4096, "num_envs", lanes, "in 1..4096")
    require(0 <= seed < 2**63, "seed", seed, "at least 0")
    require(0 <= first_lane <= 4096, "first_lane", first_lane, "in 0..4096")
    check_env_id(config)
    return suite_module(config).open_games(
        config, seed=seed, num_envs=lanes, first_lane=first_lane, training=training
    )


def make_spec(config: EnvConfig) -> EnvSpec:
    """Describes the environment of `config` without keeping one open.

    Raises:
        ConfigError: as `make_env`.
    """
    check_env_id(config)
    return suite_module(config).spec_of(config)
