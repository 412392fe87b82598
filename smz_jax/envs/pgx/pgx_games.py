"""The games of pgx that one player plays, by name: known without loading pgx, which needs JAX."""

import difflib
import importlib.util

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig

ACTIONS: dict[str, tuple[str, ...]] = {
    "2048": ("LEFT", "UP", "RIGHT", "DOWN"),
    "minatar-asterix": (),
    "minatar-breakout": (),
    "minatar-freeway": (),
    "minatar-seaquest": (),
    "minatar-space_invaders": (),
}
"""Names of the actions; where there are none, their numbers."""


def check_id(config: EnvConfig) -> None:
    """Checks that the game exists and that pgx is installed.

    Raises:
        ConfigError: in one line, with near matches of an unknown name.
    """
    close = difflib.get_close_matches(config.id, ACTIONS, n=1, cutoff=0.5)
    hint = f", did you mean {close[0]}?" if close else ""
    allowed = f"one of pgx's games for one player, {', '.join(ACTIONS)}{hint}"
    require(config.id in ACTIONS, "env.id", config.id, allowed)
    require(config.kwargs == "{}", "env.kwargs", config.kwargs, "left out in suite pgx")
    if importlib.util.find_spec("pgx") is None:
        raise ConfigError("pgx is not installed: run `pip install pgx`")
