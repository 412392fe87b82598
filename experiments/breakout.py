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
    expects="a mean score of 8.11 (one seed, 5.54 to 12.0; random 1.46), 30 minutes on two cores "
    "that did other work too",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
