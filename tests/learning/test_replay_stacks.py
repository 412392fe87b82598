"""Observations rebuilt from newest frames against the environments' own stacks, bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config import settings as cfg
from smz_jax.learning import replay as rp
from smz_jax.model.observe import shift_windows, stack_observations
from tests.learning.test_replay import make_config, rows_of


def environment_stacks(frames, is_first, F, is_marked=False):
    """The environment's own rule, one frame at a time."""
    stack, count, out = None, 0, []
    for frame, first in zip(frames, is_first, strict=True):
        stack = [frame] * F if first else [*stack[1:], frame]
        count = 1 if first else min(count + 1, F)
        out.append(np.stack([np.full_like(frame, count)] * is_marked + stack))
    return np.stack(out)


@pytest.mark.parametrize(("F", "is_marked"), [(1, False), (2, False), (4, False), (3, True)])
def test_stacks_equal_the_environments_with_borders_in_every_place(F, is_marked):
    layout = F, is_marked
    rebuild = jax.jit(
        lambda frames, first, positions: stack_observations(frames, first, positions, *layout),
        static_argnums=2,
    )
    rng = np.random.default_rng(0)
    W, total = 7 + F, 200
    frames = rng.permutation(np.arange(total * 6, dtype=np.uint16)).reshape(total, 2, 3)
    borders = np.zeros(total, bool)
    borders[0] = True
    # Every pattern of game starts in six neighbouring rows, among them games of one frame.
    patterns = (np.arange(32)[:, None] >> np.arange(6)) & 1
    borders[1 : 1 + patterns.size] = patterns.ravel()[: total - 1].astype(bool)
    truth = environment_stacks(frames, borders, *layout)
    for start in range(total - W):
        window = slice(start, start + W)
        positions = tuple(range(F - 1, W))
        got = rebuild(frames[window], borders[window], positions)
        assert got.dtype == frames.dtype
        np.testing.assert_array_equal(got, truth[window][F - 1 :])
    one = rebuild(frames[:W], borders[:W], (W - 1,))
    np.testing.assert_array_equal(one[0], truth[W - 1])


def test_positions_without_enough_history_are_refused():
    for positions in ((1, 2), (2, 9)):
        with pytest.raises(ValueError, match="lie outside 9 rows"):
            stack_observations(jnp.zeros((9, 2)), jnp.zeros(9, bool), positions, 3)


def test_stacks_from_replay_equal_those_of_real_breakout():
    envs = pytest.importorskip("smz_jax.envs")
    env_config = cfg.EnvConfig(num_envs=2, max_episode_steps=25, frame_size=42)
    env = envs.make_env(env_config, seed=0)
    rng, seen = np.random.default_rng(0), [env.reset()]
    for _ in range(79):
        seen.append(env.step(rng.integers(0, env.spec.num_actions, 2).astype(np.int32)))
    env.close()
    observation = np.stack([t.observation for t in seen], axis=1)
    is_first = np.stack([t.is_first for t in seen], axis=1)
    assert is_first.sum() >= 4
    config = make_config(lanes=2, capacity=2 * 60, min_size=16, length=40, stack=4)
    config = dataclasses.replace(config, env=dataclasses.replace(env_config))
    replay = rp.make_replay(config, env.spec)
    state = replay.init()
    for half in (slice(0, 40), slice(40, 80)):
        rows = rows_of(2, half.start, 40)._replace(
            frame=jnp.asarray(observation[:, half, -1]),
            is_first=jnp.asarray(is_first[:, half]),
            invalid_actions=jnp.zeros((2, 40, env.spec.num_actions), jnp.uint8),
            action_weights=jnp.zeros((2, 40, env.spec.num_actions), jnp.float32),
        )
        state = replay.add_donated(state, rows)
    W = config.window_rows
    positions = tuple(range(3, W))
    rebuild = jax.jit(
        jax.vmap(lambda frames, first: stack_observations(frames, first, positions, 4))
    )
    sample = jax.jit(replay.sample)
    for seed in range(10):
        batch = sample(state, jax.random.key(seed))
        got = np.asarray(rebuild(batch.rows.frame, batch.rows.is_first))
        for i, start in enumerate(np.asarray(batch.rows.reward[:, 0])):
            lane, time = divmod(int(start), 1000)
            np.testing.assert_array_equal(got[i], observation[lane, time + 3 : time + W])


def test_shifts_move_all_frames_of_a_window_alike_and_repeat_the_edge():
    frames = np.random.default_rng(0).integers(0, 256, (200, 2, 5, 4)).astype(np.uint8)
    rows = rows_of(200, 0, 2)._replace(frame=jnp.asarray(frames))
    shift = jax.jit(shift_windows, static_argnums=2)
    got, found = np.asarray(shift(jax.random.key(0), rows, 2).frame), set()
    for window, moved in zip(frames, got, strict=True):
        padded = np.pad(window, ((0, 0), (2, 2), (2, 2)), mode="edge")
        places = [(y, x) for y in range(5) for x in range(5)]
        fits = [p for p in places if (padded[:, p[0] :, p[1] :][:, :5, :4] == moved).all()]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) == 25 and got.dtype == np.uint8
    assert shift_windows(jax.random.key(0), rows, 0) is rows
