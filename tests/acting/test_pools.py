"""Two pools in turn: the fixed schedule; real games that repeat bit for bit, and resume."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from smz_jax.acting import actor as rollout
from smz_jax.acting.actor import Actor
from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import RolloutConfig
from smz_jax.envs import make_env
from smz_jax.run.loop import iterate
from smz_jax.run.parts import make_parts, open_games
from smz_jax.run.state import fresh_state, make_store, restore, save
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, SearchOutput
from tests.acting import test_rollout as toy
from tests.support.toy_env import CatchEnv

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
def run(shared_programs):
    """Parts and state of a run, to be played with."""
    parts = make_parts(make_config(), PhaseTimers())
    return SimpleNamespace(parts=parts, state=fresh_state(parts), steps=0)


def play(run, config):
    """A rollout in newly opened games; the run's programs are compiled once for all."""
    parts, state = run.parts, run.state
    parts.source.close()
    key = jax.random.split(jax.random.key(config.seed), 3)[2]
    source = open_games(config, parts.decide, key, PhaseTimers(), parts.miner.watch)
    run.parts = parts._replace(source=source)
    parts.miner.begin(state.macros, run.steps)
    rows = source.next(state.train.params).rows
    macros, run.stats, _ = parts.miner.end_rollout(rows)
    run.state, run.steps = state._replace(macros=macros), run.steps + T
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
    assert [env.num_envs for env in run.parts.source.envs] == [LANES // 2] * 2
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
    store = make_store(make_config(), tmp_path)
    play(run, make_config())
    counters = run.state.counters._replace(count=T, iteration=1, macro_totals=run.stats)
    state = run.state._replace(counters=counters)
    save(run.parts, state, store, tmp_path)
    parts = make_parts(make_config(), PhaseTimers())
    resumed, _ = restore(parts, store)
    assert parts.steps(resumed.counters.iteration) == LANES * T
    assert_same(resumed.macros, run.state.macros)
    resumed, row = iterate(parts, resumed)
    parts.source.close()
    assert row["env_steps"] == 2 * LANES * T and np.isfinite(row["search/value"])
    assert row["macros/trees"] == run.stats.trees + LANES * T
    assert int(parts.replay.size(resumed.replay)) == LANES * T
    assert parts.decide._cache_size() == 1  # one program for both pools


def test_each_of_two_pools_plays_as_if_it_were_alone():
    """Lanes in the order of the pools, each with its own half of the key."""
    config = toy.toy_config(temperature_end=1.0)
    both, games, decisions = toy.play(config, seeds=(5, 6))
    assert both.frame.shape == (2 * toy.B, 2 * toy.T, 10, 5) and len(decisions) == 2 * 2 * toy.T
    keys = jax.random.split(jax.random.key(1))
    first, first_games, _ = toy.play(config, seeds=(5,), key=keys[0])
    second, second_games, _ = toy.play(config, seeds=(6,), key=keys[1])
    assert_same(jax.tree.map(lambda x: x[: toy.B], both), first)
    assert_same(jax.tree.map(lambda x: x[toy.B :], both), second)
    assert sorted(games) == sorted(first_games + second_games)
    assert_same(toy.play(config, seeds=(5, 6))[0], both)


def test_two_pools_share_no_randomness():
    """The same games twice, at first seen alike: only the keys can make the actions differ."""
    rows, _, _ = toy.play(
        toy.toy_config(policy="prior", epsilon=1.0, epsilon_end=1.0), seeds=(5, 5)
    )
    np.testing.assert_array_equal(rows.frame[: toy.B, 0], rows.frame[toy.B :, 0])
    assert 0.15 < (rows.action[: toy.B] == rows.action[toy.B :]).mean() < 0.55  # 1/3 by chance


class Recorder:
    """Stands for games and device: notes who is asked for what, and answers when asked."""

    def __init__(self, events, name):
        self.events, self.name, self.inner = events, name, CatchEnv(1, 0)
        self.num_envs, self.spec = 1, self.inner.spec

    def reset(self):
        self.events.append(f"reset {self.name}")
        return self.inner.reset()

    def send(self, actions):
        self.events.append(f"send {self.name}")
        self.inner.send(actions)

    def recv(self):
        self.events.append(f"recv {self.name}")
        return self.inner.recv()


class Action:
    """An action that is still being searched for."""

    def __init__(self, events, name):
        self.events, self.name = events, name

    def __array__(self, dtype=None, copy=None):
        self.events.append(f"fetch {self.name}")
        return np.ones(1, np.int32)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "X",
            "reset X, search X, fetch X, send X, watch, recv X, search X, fetch X, send X, watch, "
            "recv X",
        ),
        (
            "XY",
            # Each search is dispatched while the other pool's games step, and each pool's games
            # step while the other is searched for; nothing is received twice.
            "reset X, search X, reset Y, fetch X, send X, search Y, recv X, fetch Y, send Y, "
            "watch, search X, recv Y, fetch X, send X, search Y, recv X, fetch Y, send Y, watch, "
            "recv Y",
        ),
    ],
)
def test_the_schedule_is_fixed(monkeypatch, names, expected):
    events = []
    order = iter(names * 2)

    def decide(*_):
        name = next(order)
        events.append(f"search {name}")
        count = np.zeros(1, np.int32)
        search = SearchOutput(Action(events, name), None, None, None, count, count)
        return Decision(search, None, None)

    monkeypatch.setattr(rollout, "_stack", lambda pools: pools[0][0])
    monkeypatch.setattr(rollout, "join_rows", lambda *_: None)
    actor = Actor(
        [Recorder(events, name) for name in names],
        toy.toy_config(length=2),
        decide,
        jax.random.key(0),
        PhaseTimers(),
        lambda *decisions: events.append("watch"),
    )
    actor.next(None)
    assert ", ".join(events) == expected


def test_pools_that_do_not_fit_are_named_in_one_line():
    with pytest.raises(ConfigError, match=r"rollout\.pools = 3 is not allowed: it must be 1 or 2"):
        RolloutConfig(pools=3)
    with pytest.raises(ConfigError, match=r"rollout\.pools = 2 .* a divisor of env\.num_envs = 3"):
        toy.toy_config(pools=2)
