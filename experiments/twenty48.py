"""Stochastic MuZero on 2048: `python -m experiments.twenty48 --help`.

The first benchmark of Antonoglou et al. 2022: a new tile comes at random after every move. Illegal
moves are masked in search, policy target and acting; rewards are the game's own score.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="twenty48",
    family="board",
    base={"env.suite": "pgx", "env.id": "2048"},
    description="Stochastic MuZero on 2048 (pgx): plays, searches, learns, finds macros and "
    "reports.",
    expects="a mean score of 5,815 (three seeds that differ much; random 1,088), 11.4 minutes on "
    "one core",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
