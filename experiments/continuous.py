"""Stochastic MuZero on worlds whose actions have numbers: `python -m experiments.continuous`.

It plays Pendulum; `--env.id LunarLanderContinuous-v3` and the like play others. Each number of an
action is chosen from `env.action_bins` values (`docs/actions.md`).
"""

from smz_jax.config.experiment import Experiment
from smz_jax.run.launch import launch

EXPERIMENT = Experiment(
    name="continuous",
    family="continuous",
    base={"env.suite": "gym", "env.id": "Pendulum-v1"},
    description="Stochastic MuZero on a Gymnasium environment whose actions have numbers: "
    "--env.id MountainCarContinuous-v0, --env.id LunarLanderContinuous-v3.",
)

if __name__ == "__main__":
    launch(EXPERIMENT)
