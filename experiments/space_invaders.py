"""Stochastic MuZero on Space Invaders: `python -m experiments.space_invaders --help`.

What to expect is in the README's results table: command, commit, seeds, hardware, time and score.
"""

from smz_jax.launch import launch

if __name__ == "__main__":
    launch(
        "space_invaders",
        {"env.id": "SpaceInvaders"},
        "Stochastic MuZero on Space Invaders: plays, searches, learns, finds macros and reports.",
    )
