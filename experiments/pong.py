"""Stochastic MuZero on Pong: `python -m experiments.pong --help`.

What to expect is in the README's results table: command, commit, seeds, hardware, time and score.
"""

from smz_jax.launch import launch

if __name__ == "__main__":
    launch(
        "pong",
        {"env.id": "Pong"},
        "Stochastic MuZero on Pong: plays, searches, learns, finds macros and reports.",
    )
