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
    expects="a mean score of 25.5 (seeds 0 to 2: 15.5, 29.5, 31.5; random 1.42), 14 CPU minutes; "
    "32.9 with --total_env_steps 491520, 32 CPU minutes (one seed)",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
