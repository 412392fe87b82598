"""Stochastic MuZero on tic-tac-toe: `python -m experiments.tictactoe --help`.

One network plays both sides. At the end it plays matches against a random player and against exact
play, and all replies to it are tried: `docs/turns.md`.
"""

from pathlib import Path
from typing import Any

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch


def at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches against exact play, and every line against the agent."""
    from smz_jax.analysis.rules.matches import every_line_at_the_end

    return every_line_at_the_end(parts, state, run_dir)


EXPERIMENT = Experiment(
    name="tictactoe",
    family="tictactoe",
    base={"env.suite": "pgx", "env.id": "tic_tac_toe"},
    description="Stochastic MuZero on tic-tac-toe (pgx), in self-play; scores are results against "
    "a random player.",
    expects="no game of 1,000 lost against exact play, a mean result of 0.91 against a random "
    "player (one seed), 8 minutes on one core",
    on_finish=at_the_end,
)

if __name__ == "__main__":
    launch(EXPERIMENT)
