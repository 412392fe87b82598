"""Stochastic MuZero on backgammon: `python -m experiments.backgammon --help`.

One network plays both sides, a checker a move; the dice are chance. At its end a run compares what
its model takes for chance with the dice (`dice` in summary.json), and logs `dice/...` at each check
of its model: `docs/turns.md`.
"""

from pathlib import Path
from typing import Any

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch


def dice_course(parts: Any, state: Any) -> dict[str, float]:
    """What the model takes for chance, for the metrics: at each check of the model."""
    if parts.config.env.id != "backgammon":
        return {}
    from smz_jax.analysis.rules.dice_check import check_rolls

    return {f"dice/{name}": number for name, number in check_rolls(parts, state).items()}


def answers_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches against who else plays the game, and the model's chance against the dice."""
    from smz_jax.analysis.rules.dice_check import check_rolls
    from smz_jax.analysis.rules.matches import matches_at_the_end

    found = matches_at_the_end(parts, state, run_dir)
    if parts.config.env.id != "backgammon":
        return found
    return found | {"dice": check_rolls(parts, state)}


EXPERIMENT = Experiment(
    name="backgammon",
    family="backgammon",
    base={"env.suite": "pgx", "env.id": "backgammon"},
    description="Stochastic MuZero on backgammon (pgx), in self-play: dice, one checker a move, no "
    "doubling cube. Scores are points a game against a random player.",
    on_check=dice_course,
    on_finish=answers_at_the_end,
)

if __name__ == "__main__":
    launch(EXPERIMENT)
