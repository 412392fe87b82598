"""The worlds whose newest observation does not tell all."""

import gymnasium
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env, make_spec

CUE = "smz_jax.envs.gym.memory:Cue-v0"


@pytest.mark.parametrize("delay", [1, 4])
def test_the_cue_is_paid_for_at_the_end_alone(delay):
    env = gymnasium.make(CUE, delay=delay)
    cues = []
    for game in range(20):
        cue, _ = env.reset(seed=game)
        seen, rewards, over = [], [], False
        while not over:
            observation, reward, over, cut, _ = env.step(game % 2)
            seen.append(observation)
            rewards.append(reward)
            assert not cut
        assert seen == [2] * (delay - 1) + [3, 2]
        assert rewards == [0] * delay + [float(cue == game % 2)]
        cues.append(cue)
    assert 4 < sum(cues) < 16


def test_marks_count_where_frames_are_bits():
    config = EnvConfig(suite="gym", id=CUE, kwargs='{"delay": 3}', frame_stack=3, mark_start=True)
    env = make_env(config, seed=1, num_envs=1)
    steps = [env.reset(), *(env.step(np.ones(1, np.int32)) for _ in range(5))]
    assert env.spec.frame_dtype == steps[0].observation.dtype == np.int8
    assert [x.observation[0, 0].tolist() for x in steps] == [[n] * 4 for n in (1, 2, 3, 3, 3, 1)]
    shown = [np.flatnonzero(x.observation[0, -1]).tolist() for x in steps]
    assert shown[1:5] == [[2], [2], [3], [2]] and shown[0] in ([0], [1])


def test_a_delay_that_is_none_is_one_line():
    with pytest.raises(ConfigError, match=r"delay = 0 is not in 1\.\.1000"):
        make_spec(EnvConfig(suite="gym", id=CUE, kwargs='{"delay": 0}'))


def test_velocities_are_hidden_and_the_stack_says_where_the_game_began():
    hidden = EnvConfig(
        suite="gym", id="smz_jax.envs.gym.memory:CartPolePositions-v1", frame_stack=4,
        mark_start=True,
    )  # fmt: skip
    plain = EnvConfig(suite="gym", id="CartPole-v1", backend="gymnasium", frame_stack=1)
    one, other = (make_env(config, seed=3, num_envs=2) for config in (hidden, plain))
    steps = [(one.reset(), other.reset())]
    for _ in range(30):
        steps.append((one.step(np.zeros(2, np.int32)), other.step(np.zeros(2, np.int32))))
    count = np.zeros(2)
    for seen, whole in steps:
        assert one.spec.observation_shape == seen.observation.shape[1:] == (5, 2)
        np.testing.assert_array_equal(seen.observation[:, -1], whole.observation[:, 0, [0, 2]])
        np.testing.assert_array_equal(seen.truncated | seen.terminated, whole.game_over)
        count = np.where(seen.is_first, 1, np.minimum(count + 1, 4))
        np.testing.assert_array_equal(seen.observation[:, 0], count[:, None].repeat(2, axis=1))
    assert sum(seen.is_first.sum() for seen, _ in steps) > 4
