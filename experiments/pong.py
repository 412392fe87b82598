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
    expects="about as long as Breakout; the score was not measured with these settings (-7.0 on "
    "one seed with those of commit 1aea381; random -20.7)",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
