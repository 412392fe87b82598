"""Stochastic MuZero on Pong: `python -m experiments.pong --help`.

The settings are Breakout's.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="pong",
    family="atari",
    base={"env.id": "Pong"},
    description="Stochastic MuZero on Pong: plays, searches, learns, finds macros and reports.",
    expects="a mean score of -7.0 (one seed; random -20.7), 25.2 minutes on one core",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
