"""Vector environments behind one protocol; the only package that imports emulator libraries.

Importing it is cheap (no JAX, no emulator), so that settings can be checked before either loads.
Differences between the two Atari backends, envpool (default) and ale (ale-py's own vector
environment): see `smz_jax/envs/atari/atari_env.py`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.opponents import Contender, OpponentFault, Turn
from smz_jax.envs.protocol import (
    GameFault,
    OpenGame,
    Playable,
    RestingEnv,
    VectorEnv,
    check_actions,
)
from smz_jax.envs.undisturbed import undisturbed

if TYPE_CHECKING:
    from smz_jax.envs.vector import LanesVectorEnv
    from smz_jax.types import EnvSpec, Timestep

__all__ = ["SUITES", "GameFault", "OpenGame", "RestingEnv", "VectorEnv", "check_actions"]
__all__ += ["check_env_id", "check_opponent", "check_two_players", "count_players", "make_env"]
__all__ += ["OpponentFault", "Playable", "Turn", "make_spec", "open_game", "open_playable"]
__all__ += ["opponents_of"]


SUITES = {
    "atari": ("smz_jax.envs.atari.rom_files", "smz_jax.envs.atari.atari_env"),
    "gym": ("smz_jax.envs.gym.gym_ids", "smz_jax.envs.gym.gym_env"),
    "pgx": ("smz_jax.envs.pgx.pgx_games", "smz_jax.envs.pgx.pgx_env"),
    "grid": ("smz_jax.envs.grid.map", "smz_jax.envs.grid.grid_env"),
    "turns": ("smz_jax.envs.turns.pig_rules", "smz_jax.envs.turns.pig_env"),
}
"""The two modules of each suite (`EnvConfig.suite`), which may be one. The first has
`check_id(config)`, where two play also `count_players` and `opponents_of`, and loads no JAX, the
second `spec_of(config)`, `open_lanes(config, seed, lanes)` and, where a library draws,
`open_game(config, seed, screen)` and `open_playable(config, seed)`."""


def check_env_id(config: EnvConfig) -> None:
    """Checks that the environment and its library exist, before JAX loads.

    Raises:
        ConfigError: in one line; names close matches of an unknown id.
    """
    with undisturbed(config.id):
        importlib.import_module(SUITES[config.suite][0]).check_id(config)


def count_players(config: EnvConfig) -> int:
    """How many play the game of `config`; JAX is not loaded for it."""
    suite = importlib.import_module(SUITES[config.suite][0])
    return suite.count_players(config) if hasattr(suite, "count_players") else 1


def check_two_players(config: EnvConfig, name: str, value: str) -> None:
    """Raises ConfigError in one line, for the flag of that name, where not two play the game."""
    players = count_players(config)
    allowed = f"left out in {config.id}: it is for two players, and this game has {players}"
    require(players == 2, name, value, allowed)


def opponents_of(config: EnvConfig) -> dict[str, Contender]:
    """Who plays against the agent beside a random player, by name."""
    suite = importlib.import_module(SUITES[config.suite][0])
    return suite.opponents_of(config) if hasattr(suite, "opponents_of") else {}


def check_opponent(config: EnvConfig, name: str) -> None:
    """Checks that somebody of that name can play against the agent.

    Raises:
        ConfigError: in one line, if the game has nobody of that name.
        OpponentFault: in one line, if it is not installed.
    """
    if name != "random":
        found = opponents_of(config)
        known = ("random", *found)
        require(name in known, "eval.opponent", name, f"one of {', '.join(known)} in {config.id}")
        if found[name].missing:
            raise OpponentFault(f"eval.opponent = {name!r}: {found[name].missing}")


def _games_of(config: EnvConfig) -> Any:
    """The module that opens the games, loaded at its first use; checks the id first."""
    check_env_id(config)
    return importlib.import_module(SUITES[config.suite][1])


def make_env(
    config: EnvConfig,
    *,
    seed: int,
    num_envs: int | None = None,
    first_lane: int = 0,
    training: bool = True,
) -> LanesVectorEnv:
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
    count = config.num_envs if num_envs is None else num_envs
    require(1 <= count <= 4096, "num_envs", count, "in 1..4096")
    require(0 <= seed < 2**63, "seed", seed, "at least 0")
    require(0 <= first_lane <= 4096, "first_lane", first_lane, "in 0..4096")
    lanes = range(first_lane, first_lane + count)
    games = _games_of(config)
    from smz_jax.envs.vector import LanesVectorEnv

    with undisturbed(config.id):
        opened, spec = games.open_lanes(config, seed, lanes), games.spec_of(config)
    return LanesVectorEnv(opened, spec, config, count, training)


def make_spec(config: EnvConfig) -> EnvSpec:
    """Describes the environment of `config` without keeping one open.

    Raises:
        ConfigError: as `make_env`.
    """
    with undisturbed(config.id):
        return _games_of(config).spec_of(config)


def open_game(config: EnvConfig, *, seed: int, screen: bool) -> OpenGame:
    """Opens one lane of whole games with raw rewards, to be watched.

    A suite that has `open_game` opens it by a library that draws, also where nothing is drawn: the
    same seed gives the same game. envpool draws nothing, so that ale-py plays a game of Atari, and
    Gymnasium one of suite gym if it has the id with the same spaces.

    Args:
        config: the environment's settings.
        seed: of the games, see `make_env`.
        screen: whether the library's own picture is wanted.

    Raises:
        ConfigError: as `make_env`.
    """
    suite = importlib.import_module(SUITES[config.suite][1])
    if hasattr(suite, "open_game"):
        with undisturbed(config.id):
            return suite.open_game(config, seed, screen)
    env = make_env(config, seed=seed, num_envs=1, training=False)
    return OpenGame(env, None, 4.0, f"played by {getattr(suite, 'LIBRARY', 'smz_jax')}")


def open_playable(config: EnvConfig, *, seed: int) -> Playable:
    """Opens one lane of the games of training for a person, with its picture where it has one.

    Raises:
        ConfigError: as `make_env`.
    """
    games = _games_of(config)
    if hasattr(games, "open_playable"):
        with undisturbed(config.id):
            return games.open_playable(config, seed)
    env = make_env(config, seed=seed, num_envs=1)
    game = OpenGame(env, None, 4.0, f"the game is that of {getattr(games, 'LIBRARY', 'smz_jax')}")

    def begin(number: int) -> Timestep:
        return env.restart(games.open_lanes(config, seed, range(number, number + 1)))

    return Playable(game, begin)
