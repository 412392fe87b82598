"""Stochastic MuZero on Pig, a game of two players whose answers are known: `-m experiments.pig`.

A run compares its model with the exact table at its end (`pig` in summary.json), and logs
`pig/...` at each check of its model: `docs/turns.md`.
"""

from pathlib import Path
from typing import Any

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch


def dice_course(parts: Any, state: Any) -> dict[str, float]:
    """What the model takes for chance, for the metrics: at each check of the model."""
    if parts.config.env.suite != "turns" or parts.spec.players > 2:
        return {}
    from smz_jax.analysis.rules.pig_check import check_dice

    found = check_dice(parts, state)
    return {f"pig/{name}": number for name, number in found.items()}


def answers_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches against the best player, and the model and its play against the exact table."""
    from smz_jax.analysis.rules.matches import matches_at_the_end

    found = matches_at_the_end(parts, state, run_dir)
    if parts.config.env.suite != "turns" or parts.spec.players > 2:
        return found
    from smz_jax.analysis.rules.pig_check import check_dice, check_play

    pig = check_dice(parts, state) | check_play(parts, state)
    print(
        f"pig: a move loses {pig['regret']:.4f} of the chance to win; {pig['against_best']:.3f} "
        f"against the best player, whose equal has 0.5; the die's entropy is off by "
        f"{pig['entropy_error']:.3f} nats",
        flush=True,
    )
    return found | {"pig": pig}


EXPERIMENT = Experiment(
    name="pig",
    family="pig",
    base={"env.suite": "turns", "env.id": "Pig"},
    description="Stochastic MuZero on Pig: two players in turn, a die that may pass the turn; "
    "--env.kwargs '{\"goal\": 50}' makes it longer. Scores are results against a random player.",
    on_check=dice_course,
    on_finish=answers_at_the_end,
)

if __name__ == "__main__":
    launch(EXPERIMENT)
