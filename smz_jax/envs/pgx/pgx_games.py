"""The games of pgx for one player and for two: known without loading pgx, which needs JAX."""

import difflib
import importlib.util
from functools import partial

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.opponents import Contender

ACTIONS: dict[str, tuple[str, ...]] = {
    "2048": ("LEFT", "UP", "RIGHT", "DOWN"),
    "minatar-asterix": (),
    "minatar-breakout": (),
    "minatar-freeway": (),
    "minatar-seaquest": (),
    "minatar-space_invaders": (),
}
"""Games for one player and the names of their actions; where there are none, their numbers."""
BOARDS = (
    *("animal_shogi", "backgammon", "chess", "connect_four", "gardner_chess", "go_9x9", "go_19x19"),
    *("hex", "othello", "shogi", "tic_tac_toe"),
)
"""Games that two players play in turn, both seeing all there is."""
OTHERS = ("bridge_bidding", "kuhn_poker", "leduc_holdem", "sparrow_mahjong")
"""Games with hidden cards, or with more players."""


def check_id(config: EnvConfig) -> None:
    """Checks that the game exists and that pgx is installed.

    Raises:
        ConfigError: in one line, with near matches of an unknown name.
    """
    known = (*ACTIONS, *BOARDS)
    close = difflib.get_close_matches(config.id, known, n=1, cutoff=0.5)
    hint = f", did you mean {close[0]}?" if close else ""
    allowed = f"one of pgx's games, {', '.join(known)}{hint}"
    if config.id in OTHERS:
        allowed = "a game for one player, or for two who see the whole board"
    require(config.id in known, "env.id", config.id, allowed)
    require(config.kwargs == "{}", "env.kwargs", config.kwargs, "left out in suite pgx")
    if importlib.util.find_spec("pgx") is None:
        raise ConfigError("pgx is not installed: run `pip install pgx`")


def count_players(config: EnvConfig) -> int:
    """Players of the game."""
    return 2 if config.id in BOARDS else 1


def opponents_of(config: EnvConfig) -> dict[str, Contender]:
    """Who plays against the agent beside chance, by name."""
    from smz_jax.envs.pgx import board_players, gnubg

    if config.id == "tic_tac_toe":
        return {"exact": Contender(board_players.make_tic_tac_toe_player)}
    if config.id == "connect_four":
        return {"alpha_beta": Contender(board_players.make_connect_four_player)}
    if config.id != "backgammon":
        return {}
    missing = "" if gnubg.find_program() else gnubg.HOW_TO
    return {
        f"gnubg{plies}": Contender(partial(gnubg.Gnubg, plies), missing, is_slow=plies > 0)
        for plies in (0, 2)
    }
