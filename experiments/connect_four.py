"""Stochastic MuZero on connect four: `python -m experiments.connect_four --help`.

One network plays both sides. At the end it plays matches against a random player and against an
alpha-beta search of four moves: `docs/turns.md`.
"""

from pathlib import Path
from typing import Any

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="connect_four",
    family="turns",
    base={"env.suite": "pgx", "env.id": "connect_four"},
    description="Stochastic MuZero on connect four (pgx), in self-play; scores are results against "
    "a random player.",
)


def at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches against alpha-beta."""
    from smz_jax.analysis.rules.matches import matches_at_the_end

    return matches_at_the_end(parts, state, run_dir)


if __name__ == "__main__":
    launch(EXPERIMENT, on_finish=at_the_end)
