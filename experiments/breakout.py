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
    expects="a mean score of 13.3 (three seeds, 12.4 to 14.3; random 1.42), 13 to 14 CPU minutes; "
    "38.6 with --total_env_steps 917504, 63 CPU minutes (one seed)",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
