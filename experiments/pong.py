"""Stochastic MuZero on Pong: `python -m experiments.pong --help`.

The settings are Breakout's; no score on this game is claimed yet (README, results table).
"""

from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "pong",
        {"env.id": "Pong"},
        "Stochastic MuZero on Pong: plays, searches, learns, finds macros and reports.",
    )
