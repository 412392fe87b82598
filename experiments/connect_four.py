"""Stochastic MuZero on connect four: `python -m experiments.connect_four --help`.

One network plays both sides. At the end it plays matches against a random player and against an
alpha-beta search of four moves, and its moves are judged in positions that are solved exactly
(`positions` in summary.json): `docs/turns.md`.
"""

from experiments.board import at_the_end
from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="connect_four",
    family="connect_four",
    base={"env.suite": "pgx", "env.id": "connect_four"},
    description="Stochastic MuZero on connect four (pgx), in self-play; scores are results against "
    "a random player.",
    on_finish=at_the_end,
)

if __name__ == "__main__":
    launch(EXPERIMENT)
