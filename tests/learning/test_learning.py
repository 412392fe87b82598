"""The whole learner learns: a bandit whose rewards are known, and Catch with search."""

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import make_decide
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import LearnerConfig, ReplayConfig, RolloutConfig
from smz_jax.learning.learner import TrainStep, init_train_state
from smz_jax.learning.replay import make_replay
from smz_jax.model.networks import make_networks
from smz_jax.storage.metrics import PhaseTimers, newest_games, score_row
from smz_jax.types import EnvSpec, Space, Trajectory
from tests.support.toy_env import CatchEnv

REWARDS = np.array([-1.0, 0.5, 2.0], np.float32)


def bandit_config(lanes, steps):
    return Config(
        total_env_steps=lanes * steps,
        env=EnvConfig(num_envs=lanes, frame_stack=1),
        network=NetworkConfig(
            family="mlp",
            embedding_size=16,
            hidden_size=16,
            codebook_size=4,
            value_support=2,
            reward_support=2,
            encoder_noise=0.0,
            encoder_input="embedding",
            # Only two frames exist: statistics over a batch of equal ones would be degenerate.
            embedding_norm="layer",
            input_norm=False,
        ),
        rollout=RolloutConfig(length=steps),
        replay=ReplayConfig(capacity=2 * lanes * steps, min_size=lanes * steps, prioritised=False),
        learner=LearnerConfig(
            batch_size=32,
            unroll_steps=1,
            td_steps=1,
            learning_rate=1e-2,
            learning_rate_end=1e-3,
            warmup_steps=10,
            weight_decay=0.0,
            updates_per_env_step=300 / (lanes * steps),
        ),
    )


def test_model_learns_the_rewards_of_a_bandit():
    """Each game is one uniformly random action: rows alternate between a start and an end."""
    lanes, steps = 8, 40
    rng = np.random.default_rng(0)
    spec = EnvSpec("bandit", (2,), 1, np.dtype(np.float32), Space(3, ("a", "b", "c")), 1)
    config = bandit_config(lanes, steps)
    networks = make_networks(config.network, spec)
    replay = make_replay(config, spec)
    start = np.broadcast_to(np.arange(steps) % 2 == 0, (lanes, steps))
    action = rng.integers(0, 3, (lanes, steps))
    rows = Trajectory(
        frame=np.stack([start, ~start], axis=-1).astype(np.float32),
        action=action.astype(np.int32),
        reward=np.where(start, REWARDS[action], 77.0).astype(np.float32),
        discount=np.where(start, 0.0, 1.0).astype(np.float32),
        is_first=start,
        invalid_actions=np.zeros((lanes, steps, 3), np.uint8),
        action_weights=np.full((lanes, steps, 3), 1 / 3, np.float32),
        search_value=np.full((lanes, steps), 55.0, np.float32),
        search_spread=np.zeros((lanes, steps), np.float32),
        transition_entropy=np.zeros((lanes, steps), np.float32),
        target_step=np.zeros((lanes, steps), np.int32),
    )
    memory = replay.add_donated(replay.init(), jax.tree.map(jnp.asarray, rows))
    state = init_train_state(networks, config, jax.random.key(0))
    train_step = TrainStep(networks, replay, config, spec)
    for _ in range(config.updates_per_iteration):
        state, memory, _ = train_step(state, memory)

    @jax.jit
    def predict(params):
        root = jnp.tile(networks.representation(params, jnp.asarray([[[1.0, 0.0]]])), (3, 1))
        afterstate = networks.afterstate_dynamics(params, root, jnp.arange(3))
        sigma, q = networks.afterstate_prediction(params, afterstate)
        code = jax.nn.one_hot(jnp.argmax(sigma, -1), 4)
        _, reward = networks.dynamics(params, afterstate, code)
        _, value = networks.prediction(params, root)
        return networks.reward_of(reward), networks.value_of(q), networks.value_of(value)[0]

    reward, q, value = predict(state.params)
    np.testing.assert_allclose(reward, REWARDS, atol=0.1)
    np.testing.assert_allclose(q, REWARDS, atol=0.1)
    # The head fits the mean of the transformed returns over the actions that were really played.
    played = REWARDS[action[start]]
    h = np.mean(np.sign(played) * (np.sqrt(np.abs(played) + 1) - 1) + 0.001 * played)
    assert h > 0
    np.testing.assert_allclose(value, (h + 1) ** 2 - 1, atol=0.15)


def catch_config():
    return Config(
        total_env_steps=10_240,
        env=EnvConfig(num_envs=16, frame_stack=1),
        network=NetworkConfig(
            family="mlp",
            embedding_size=64,
            hidden_size=64,
            codebook_size=4,
            value_support=5,
            reward_support=2,
            encoder_noise=0.0,
            encoder_input="embedding",
        ),
        search=SearchConfig(num_simulations=12, q_epsilon=0.1),
        rollout=RolloutConfig(length=16),
        replay=ReplayConfig(capacity=10_240, min_size=512),
        learner=LearnerConfig(
            batch_size=64,
            unroll_steps=2,
            td_steps=5,
            gamma=0.97,
            updates_per_env_step=0.5,
            schedule_steps=500,
        ),
    )


def test_catch_is_learned_with_search():
    """A low board: from about -0.5 to 0.8 and more over the last 100 games, within 10,240 steps."""
    config = catch_config()
    env = CatchEnv(num_envs=16, seed=0, height=6)
    networks, replay = make_networks(config.network, env.spec), make_replay(config, env.spec)
    state = init_train_state(networks, config, jax.random.key(0))
    memory = replay.init()
    train_step = TrainStep(networks, replay, config, env.spec)
    actor = Actor(
        [env],
        config,
        make_decide(networks, config, env.spec, policy="search"),
        jax.random.key(1),
        PhaseTimers(),
        watch=lambda _: None,
    )
    ended, history = [], []
    while actor.count * 16 < config.total_env_steps and (not history or history[-1] <= 0.85):
        rows, games, *_ = actor.next(state.params)
        ended = newest_games(ended, games)
        memory = replay.add_donated(memory, rows)
        history.append(score_row(ended).get("score/mean", -1.0))
        if actor.count * 16 >= config.replay.min_size:
            for _ in range(config.updates_per_iteration):
                state, memory, _ = train_step(state, memory)
    early = history[4]  # 1,280 steps in, about 210 games
    assert early < 0.0, f"random play should score about -0.5: {history}"
    assert history[-1] > 0.8, history
    assert train_step.program._cache_size() == 1
