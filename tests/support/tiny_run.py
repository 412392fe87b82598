"""One tiny run of the grid world, trained here, and what the tests of its model need."""

from smz_jax.config.experiment import Experiment, resolve
from smz_jax.config.sources import config_to_yaml
from smz_jax.run.loop import train
from smz_jax.storage.files import write_json

SETTINGS = {
    "experiment": "gridworld",
    "env.suite": "grid",
    "env.id": "GridWorld",
    "env.kwargs": '{"map": "O~G/~S~/G~O"}',  # any policy's games end in different ways
    "env.frame_stack": 1,
    "env.max_episode_steps": 60,
    "network.family": "mlp",
    "macro.min_occurrences": 1,
    "macro.play_threshold": 1.0,
    "macro.tree_threshold": 1.0,
    "macro.head_learning_rate": 2e-3,
    # One lane, so that play can be compared with the evaluation game by game.
    "eval.num_envs": 1,
    "eval.num_games": 6,
    "eval.interim_games": 2,
    "eval.every_env_steps": 64,
    "eval.check_model": False,
    "eval.baselines": True,
}


def make_run(folder):
    """Trains; leaves what `launch` leaves but for the report. Gives the folder."""
    config = resolve(Experiment("gridworld"), "tiny", {}, SETTINGS)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config_to_yaml(config))
    outcome = train(config, folder)
    summary = {
        "env_steps": outcome.env_steps,
        "evaluation": outcome.evaluation,
        "baselines": outcome.baselines,
        "commit": "0123abc",
    }
    write_json(folder / "summary.json", summary)
    return folder
