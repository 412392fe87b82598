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
    expects="a mean score of 11.1 (three seeds, 2.94 to 19.2; random 1.29), 20.7 minutes on "
    "one core",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
