"""Stochastic MuZero on CartPole-v1: `python -m experiments.cartpole --help`.

A world without chance: its codes should carry nothing, and 500 is the highest return.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="cartpole",
    family="vector",
    base={"env.suite": "gym", "env.id": "CartPole-v1"},
    description="Stochastic MuZero on CartPole-v1: plays, searches, learns, finds macros and "
    "reports.",
    expects="a mean return of 500, the limit (three seeds; random 21.6), 2.4 minutes on one core",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
