"""Stochastic MuZero on Space Invaders: `python -m experiments.space_invaders --help`.

The settings are Breakout's; no score on this game is claimed yet (README, results table).
"""

from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "space_invaders",
        {"env.id": "SpaceInvaders"},
        "Stochastic MuZero on Space Invaders: plays, searches, learns, finds macros and reports.",
    )
