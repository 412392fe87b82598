"""Stochastic MuZero on Breakout: `python -m experiments.breakout --help`.

What to expect is in docs/results/worlds.md: command, commit, seeds, hardware, time and score.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="breakout",
    family="atari",
    base={"env.id": "Breakout"},
    description="Stochastic MuZero on Breakout: plays, searches, learns, finds macros and reports.",
    expects="a mean score of 9.87 (three seeds, 4.15 to 15.6; random 1.46), 20 to 24 minutes on "
    "one core beside other work",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
