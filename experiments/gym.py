"""Stochastic MuZero on any Gymnasium environment: `python -m experiments.gym --env.id Acrobot-v1`.

The action space may be Discrete, Box, MultiDiscrete, MultiBinary, or a Tuple or Dict of these
(`docs/actions.md`). Observations that are images (see
`smz_jax/envs/gym/gym_ids.py`) suit `--network.family light --env.frame_stack 4`. Without
`--env.id` it plays CartPole.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="gym",
    family="gym",
    base={"env.suite": "gym", "env.id": "CartPole-v1"},
    description="Stochastic MuZero on any Gymnasium environment: --env.id Pendulum-v1, --env.id "
    "FrozenLake-v1 --env.kwargs '{\"is_slippery\": true}', or --env.id my_module:MyEnv-v0.",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
