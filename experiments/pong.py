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
    expects="about as long as Breakout; -17.9, -17.8 and -18.9 in training (random -20.5), still "
    "rising: 11.9, 19.7 and 19.2 with --total_env_steps 917504, an hour of CPU time",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
