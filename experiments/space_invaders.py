"""Stochastic MuZero on Space Invaders: `python -m experiments.space_invaders --help`.

The settings are Breakout's.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="space_invaders",
    family="atari",
    base={"env.id": "SpaceInvaders"},
    description="Stochastic MuZero on Space Invaders: plays, searches, learns, finds macros and "
    "reports.",
    expects="a mean score of 272 (one seed; always FIRE 285, random 137), 21.4 minutes on one core",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
