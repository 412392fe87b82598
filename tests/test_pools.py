"""Two pools of real games: repeatable bit for bit, the games of one pool, resumed."""

import dataclasses

import jax
import numpy as np
import pytest

from smz_jax.checkpoint import CheckpointStore
from smz_jax.config import Config, EnvConfig, NetworkConfig, RolloutConfig, SearchConfig
from smz_jax.envs import make_env
from smz_jax.metrics import PhaseTimers
from smz_jax.run import Run

LANES, T = 4, 14


def make_config(**env) -> Config:
    default = Config()
    return dataclasses.replace(
        default,
        env=EnvConfig(
            num_envs=LANES,
            mode="stochastic",
            frame_size=36,
            max_episode_steps=5,  # games restart within a rollout, each after its own no-ops
            **env,
        ),
        network=NetworkConfig(
            family="mlp", embedding_size=8, hidden_size=8, codebook_size=4, value_support=5,
            reward_support=5,
        ),
        search=SearchConfig(num_simulations=3),
        rollout=RolloutConfig(length=T, pools=2),
        replay=dataclasses.replace(default.replay, capacity=1024, min_size=100),
        learner=dataclasses.replace(default.learner, batch_size=2, updates_per_env_step=0.0),
        macro=dataclasses.replace(default.macro, capacity=64, bucket_warmup_steps=8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return Run(make_config(), PhaseTimers())


def play(run, config):
    """A rollout in newly opened games; the run's programs are compiled once for all."""
    run.close_games()
    run.config = config
    run.open_games(config.seed)
    rows, _ = run.actor.rollout(run.train_state.params)
    run.miner.end_rollout(rows)
    return jax.device_get(rows)


@pytest.fixture(scope="module")
def rows(run):
    return play(run, make_config())


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("env", [{}, {"num_threads": 1}, {"num_threads": 5}])
def test_a_rollout_repeats_bit_for_bit(run, rows, env):
    assert_same(play(run, make_config(**env)), rows)


def test_the_other_backend_takes_turns_too(run):
    first = play(run, make_config(backend="ale"))
    assert_same(play(run, make_config(backend="ale", num_threads=1)), first)


def test_the_games_are_those_of_one_pool(run, rows):
    """Splitting the lanes changes no lane's game: no-ops and sticky actions are the same."""
    config = make_config()
    assert [env.num_envs for env in run.envs] == [LANES // 2] * 2
    env = make_env(config.env, seed=config.seed)
    step = env.reset()
    for t in range(T):
        np.testing.assert_array_equal(rows.frame[:, t], step.observation[:, -1])
        np.testing.assert_array_equal(rows.is_first[:, t], step.is_first)
        step = env.step(rows.action[:, t])
    env.close()
    for lane in range(1, LANES):
        assert (rows.frame[0] != rows.frame[lane]).any()
    np.testing.assert_array_equal(np.flatnonzero(rows.is_first[-1]), [0, 6, 12])


def test_a_run_with_two_pools_goes_on(run, rows, tmp_path):
    store = CheckpointStore(tmp_path)
    run.actor.count = T
    run.save(store, tmp_path)
    resumed = Run(make_config(), PhaseTimers())
    resumed.restore(store)
    assert resumed.env_steps == LANES * T
    assert_same(resumed.miner.state, run.miner.state)
    row = resumed.iterate()
    resumed.close_games()
    assert row["env_steps"] == 2 * LANES * T and np.isfinite(row["search/value"])
    assert row["macros/trees"] == run.miner.totals.trees + LANES * T
    assert int(resumed.replay.size(resumed.replay_state)) == LANES * T
    assert resumed.decide._cache_size() == 1  # one program for both pools
