"""Stochastic MuZero on Breakout: `python -m experiments.breakout --help`.

What to expect is in the README's results table: command, commit, seeds, hardware, time and score.
"""

from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "breakout",
        {"env.id": "Breakout"},
        "Stochastic MuZero on Breakout: plays, searches, learns, finds macros and reports.",
    )
