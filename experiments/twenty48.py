"""Stochastic MuZero on 2048: `python -m experiments.twenty48 --help`.

The first benchmark of Antonoglou et al. 2022: a new tile comes at random after every move. Illegal
moves are masked in search, policy target and acting; rewards are the game's own score.
"""

from smz_jax.config.presets import BOARD
from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "twenty48",
        {**BOARD, "env.suite": "pgx", "env.id": "2048"},
        "Stochastic MuZero on 2048 (pgx): plays, searches, learns, finds macros and reports.",
    )
