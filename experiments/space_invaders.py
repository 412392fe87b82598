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
    expects="about as long as Breakout; 247 (one seed; always FIRE 285, random 138); 445 "
    "(three seeds) with --total_env_steps 458752, half an hour",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
