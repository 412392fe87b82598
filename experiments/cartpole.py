"""Stochastic MuZero on CartPole-v1: `python -m experiments.cartpole --help`.

A world without chance: its codes should carry nothing, and 500 is the highest return.
"""

from smz_jax.config.presets import VECTOR
from smz_jax.run.launch import launch

if __name__ == "__main__":
    launch(
        "cartpole",
        {**VECTOR, "env.suite": "gym", "env.id": "CartPole-v1"},
        "Stochastic MuZero on CartPole-v1: plays, searches, learns, finds macros and reports.",
    )
