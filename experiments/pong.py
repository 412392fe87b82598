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
    expects="about as long as Breakout, -11.9, -15.8 and -17.9 in training (random -20.5), rising: "
    "18.9, 16.1 and -8.4 (three seeds) with --total_env_steps 294912, 20 CPU minutes",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
