"""Stochastic MuZero on any game that ALE has: `python -m experiments.atari --env.id MsPacman`.

Without `--env.id` it plays Breakout.
"""

from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "atari",
        {},
        "Stochastic MuZero on any Atari game by name, e.g. --env.id MsPacman; unset: Breakout.",
    )
