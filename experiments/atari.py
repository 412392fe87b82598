"""Stochastic MuZero on any game that ALE has: `python -m experiments.atari --env.id MsPacman`.

Without `--env.id` it plays Breakout.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="atari",
    family="atari",
    description="Stochastic MuZero on any Atari game by name, e.g. --env.id MsPacman; unset: "
    "Breakout.",
    expects="about half an hour on two cores that do other work too; the score depends on the game",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
