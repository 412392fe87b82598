"""Stochastic MuZero on a world that hides a cue: `python -m experiments.memory --help`.

The cue is shown at the start and asked for at the end, so that a player has to look back:
`env.frame_stack` must be above the delay. The other such world is CartPole
without velocities: `python -m experiments.cartpole --env.id
smz_jax.envs.gym.memory:CartPolePositions-v1 --network.family lstm --env.frame_stack 4`.
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="memory",
    family="memory",
    base={
        "env.suite": "gym",
        "env.id": "smz_jax.envs.gym.memory:Cue-v0",
        "env.kwargs": '{"delay": 8}',
    },
    description="Stochastic MuZero on a world that hides a cue: --env.kwargs '{\"delay\": 16}' "
    "--network.family transformer.",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
