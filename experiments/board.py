"""Stochastic MuZero on any of pgx's boards for two: `python -m experiments.board --env.id othello`.

Boards are those of `smz_jax/envs/pgx/pgx_games.py`; without `--env.id` it is Othello. The model has
one chance code, as fits boards without dice; backgammon has an experiment of its own.
"""

from pathlib import Path
from typing import Any

from smz_jax.config.check import require
from smz_jax.config.experiment import Experiment
from smz_jax.config.settings import Config
from smz_jax.run.launch import launch


def check(config: Config) -> None:
    """Checks that two play the game; raises ConfigError in one line."""
    from smz_jax.envs import check_env_id, count_players
    from smz_jax.envs.pgx.pgx_games import BOARDS

    check_env_id(config.env)
    allowed = f"a board for two players, {', '.join(BOARDS)}; experiments.twenty48 plays 2048"
    require(count_players(config.env) == 2, "env.id", config.env.id, allowed)


def at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches against who else plays the game, if anyone; of connect four also solved positions."""
    from smz_jax.analysis.rules.positions import positions_at_the_end

    return positions_at_the_end(parts, state, run_dir)


EXPERIMENT = Experiment(
    name="board",
    family="certain",
    base={"env.suite": "pgx", "env.id": "othello"},
    description="Stochastic MuZero on any of pgx's boards for two players, in self-play: --env.id "
    "hex, go_9x9, chess. Scores are results against a random player.",
    check=check,
    on_finish=at_the_end,
)

if __name__ == "__main__":
    launch(EXPERIMENT)
