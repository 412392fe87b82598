"""Both Atari backends against the libraries themselves and against each other."""

import envpool
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.envs.frames import push_frame

BACKENDS = ("envpool", "ale")


def rollout(steps=200, seed=5, num_envs=4, training=True, policy=None, **settings):
    """All timesteps of a rollout, each field stacked: `[T + 1, B, ...]`; random by default."""
    env = make_env(EnvConfig(**settings), seed=seed, num_envs=num_envs, training=training)
    rng = np.random.default_rng(0)
    timesteps = [env.reset()]
    copies = [timesteps[0].observation.copy()]
    for t in range(steps):
        drawn = rng.integers(0, env.spec.num_actions, 4)[:num_envs]
        timesteps.append(env.step(drawn if policy is None else policy(t, timesteps[-1])))
        copies.append(timesteps[-1].observation.copy())
    env.close()
    for timestep, copied in zip(timesteps, copies, strict=True):  # nothing is ever overwritten
        np.testing.assert_array_equal(timestep.observation, copied)
    return type(timesteps[0])(*(np.stack(field) for field in zip(*timesteps, strict=True)))


def constant(action):
    return lambda _, timestep: np.full(len(timestep.reward), action)


def raw_envpool(game, seeds, **settings):
    return envpool.make_gymnasium(
        f"{game}-v5", num_envs=len(seeds), seed=seeds, stack_num=4, noop_max=1, **settings
    )


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_equal_to_envpool_itself(sticky):
    seed, lanes = 3, 4
    env = make_env(EnvConfig(sticky_prob=sticky), seed=seed, num_envs=lanes)
    seeds = np.random.SeedSequence(seed).generate_state(lanes) % 2**31
    pool = raw_envpool("Breakout", seeds.astype(np.int64), repeat_action_probability=sticky)
    rng = np.random.default_rng(0)
    ours = env.reset()
    stack, info = pool.reset()
    np.testing.assert_array_equal(ours.observation, stack)
    ends = losses = 0
    done, lives = np.zeros(lanes, bool), info["lives"]
    for _ in range(210):
        actions = rng.integers(0, 4, lanes).astype(np.int32)
        executed = np.where(ours.invalid_actions.any(axis=1), 1, actions).astype(np.int32)
        ours = env.step(actions)
        stack, reward, over, _, info = pool.step(executed)
        lost = (info["lives"] < lives) & ~done
        np.testing.assert_array_equal(ours.observation, stack)
        np.testing.assert_array_equal(ours.raw_reward, reward)
        np.testing.assert_array_equal(ours.game_over, over)
        np.testing.assert_array_equal(ours.terminated, lost)
        np.testing.assert_array_equal(ours.is_first, done)
        np.testing.assert_array_equal(ours.invalid_actions.sum(axis=1), 3.0 * (lost & ~over))
        done, lives = over, info["lives"]
        ends, losses = ends + over.sum(), losses + (lost & ~over).sum()
    assert ends >= 2 and losses >= 10
    env.close()


def test_stacks_carry_on_at_a_lost_life_as_envpool_does():
    pool = raw_envpool("Breakout", [1, 2, 3, 4], episodic_life=True)
    rng = np.random.default_rng(1)
    ours = None
    stack, info = pool.reset()
    restarts = games = 0
    done = np.zeros(4, bool)
    for _ in range(260):
        is_first = info["elapsed_step"] == 0  # stays above 0 where only a life was lost
        ours = push_frame(ours, stack[:, -1], is_first, 4)
        np.testing.assert_array_equal(ours, stack)
        restarts, games = restarts + (done & ~is_first).sum(), games + is_first.sum()
        stack, _, done, _, info = pool.step(rng.integers(0, 4, 4).astype(np.int32))
    assert restarts >= 10 and games >= 4 + 2
    pool.close()


@pytest.mark.parametrize(
    ("game", "training", "settings"),
    [
        ("Breakout", True, {}),
        ("Breakout", False, {"sticky_prob": 0.25}),
        ("SpaceInvaders", False, {"max_episode_steps": 130, "num_envs": 2, "steps": 200}),
        ("SpaceInvaders", True, {"steps": 400, "num_envs": 3, "frame_stack": 2}),
    ],
)
def test_ale_equals_envpool(game, training, settings):
    settings = {"id": game, "training": training, "steps": 200, **settings}
    ours, theirs = (rollout(backend=backend, **settings) for backend in BACKENDS)
    ended = ours.terminated & ours.game_over
    for name in ours._fields:
        if name != "observation":
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
    # The libraries merge the last frame of an ended game differently; all others are equal.
    np.testing.assert_array_equal(ours.observation[~ended], theirs.observation[~ended])
    np.testing.assert_array_equal(
        ours.observation[ended][:, :-1], theirs.observation[ended][:, :-1]
    )
    assert ours.game_over.any()
    assert (ours.terminated & ~ours.game_over).any() == training
    assert (ours.raw_reward > 0).any()
    assert np.isin(ours.reward, (-1, 0, 1)).all() == (training or game == "Breakout")


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_limit_counts_agent_steps_and_keeps_the_last_frame(backend):
    settings = {"backend": backend, "steps": 60, "episodic_life": False}
    cut = rollout(max_episode_steps=20, **settings)
    free = rollout(**settings)
    np.testing.assert_array_equal(np.flatnonzero(cut.truncated[:, 0]), [20, 41])
    np.testing.assert_array_equal(np.flatnonzero(cut.is_first[:, 0]), [0, 21, 42])
    np.testing.assert_array_equal(cut.game_over, cut.truncated)
    assert not cut.terminated.any()
    np.testing.assert_array_equal(cut.observation[:21], free.observation[:21])
    np.testing.assert_array_equal(cut.observation[21], cut.observation[0])  # deterministic mode
    assert not cut.raw_reward[cut.is_first].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_action_after_a_game_is_ignored(backend):
    def policy(action):
        return lambda t, _: np.full(2, action if t == 7 else t % 4)

    limits = {"backend": backend, "max_episode_steps": 7, "num_envs": 2, "steps": 12}
    left, right = (rollout(policy=policy(action), **limits) for action in (2, 3))
    for name in left._fields:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fire_is_pressed_at_the_start_and_after_each_life(backend):
    settings = {"backend": backend, "num_envs": 1, "policy": constant(0)}
    played = rollout(steps=130, training=False, **settings)
    assert played.game_over.sum() == 1  # doing nothing, all five balls are lost
    assert played.invalid_actions.any(axis=2).sum() == 4
    np.testing.assert_array_equal(played.invalid_actions.max(axis=(0, 1)), [1, 0, 1, 1])
    idle = rollout(steps=130, fire_on_life_loss=False, **settings)
    assert not idle.terminated.any()
    assert (idle.observation[30:] == idle.observation[30]).all()  # the ball never starts


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_ops_reach_from_none_to_the_number_set(backend):
    def starts(count, lanes):
        env = make_env(EnvConfig(backend=backend, noop_max=count), seed=1, num_envs=lanes)
        frames = env.reset().observation[:, -1]
        env.close()
        return frames

    # Breakout's first frame differs after each of the first no-ops, so that they can be counted.
    chain = np.unique(starts(2, 16), axis=0)
    assert len(chain) == 3
    none = starts(0, 2)
    assert (none == none[0]).all()
    assert (chain == none[0]).all(axis=(1, 2)).sum() == 1
    pool = raw_envpool("Breakout", [1])
    np.testing.assert_array_equal(pool.reset()[0][0, -1], none[0])  # noop_max = 1 is none with FIRE
    pool.close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", [{"id": "MsPacman"}, {"fire_on_life_loss": False}])
def test_games_without_fire_and_any_number_of_no_ops(backend, settings):
    for noops in (0, 5):
        played = rollout(steps=3, num_envs=2, backend=backend, noop_max=noops, **settings)
        assert played.observation.shape == (4, 2, 4, 84, 84)
        assert not played.invalid_actions.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds(backend):
    settings = {"backend": backend, "mode": "stochastic", "steps": 8, "num_envs": 6}
    settings["policy"] = constant(2)  # the same actions in every lane: only chance differs
    first, again, other = (rollout(seed=seed, **settings) for seed in (5, 5, 6))
    for name in first._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name), name)
    assert (first.observation != first.observation[:, :1]).any()  # lanes differ,
    assert (other.observation != first.observation).any()  # runs differ,
    assert (other.observation[:, :-1] != first.observation[:, 1:]).any()  # not by seed + lane
    fewer = rollout(**{**settings, "num_envs": 2})
    np.testing.assert_array_equal(fewer.observation, first.observation[:, :2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lanes_keep_their_order_whichever_is_ready_first(backend):
    """Every few steps all games restart after 0 to 30 no-ops each, so that some lanes take ten
    times as long as others; each lane must be what it is when it plays alone."""
    config = {"backend": backend, "noop_max": 30, "sticky_prob": 0.25, "max_episode_steps": 5}
    steps, lanes = 20, 4
    actions = np.random.default_rng(0).integers(0, 4, (steps, lanes))

    def play(env, mine):
        timesteps = [env.reset()]
        for row in actions[:, mine]:
            env.send(row)
            timesteps.append(env.recv())
        env.close()
        return type(timesteps[0])(*(np.stack(field) for field in zip(*timesteps, strict=True)))

    together = [
        play(make_env(EnvConfig(num_threads=n, **config), seed=2, num_envs=lanes), slice(None))
        for n in (1, 3)
    ]
    for lane in range(lanes):
        env = make_env(EnvConfig(**config), seed=2, num_envs=1, first_lane=lane)
        alone = play(env, slice(lane, lane + 1))
        for name in alone._fields:
            for vector in together:
                expected = getattr(vector, name)[:, lane]
                np.testing.assert_array_equal(getattr(alone, name)[:, 0], expected, name)
    first = together[0].observation[0]
    assert any((first[lane] != first[0]).any() for lane in range(lanes))


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_while_the_games_step(backend):
    env = make_env(EnvConfig(backend=backend), seed=0, num_envs=4)
    env.reset()
    env.send(np.zeros(4, np.int32))
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.recv()


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_actions_never_reach_the_library(backend):
    env = make_env(EnvConfig(backend=backend), seed=0, num_envs=2)
    env.reset()
    for wrong in (np.array([0, 4]), np.array([0]), np.array([0.0, 1.0])):
        with pytest.raises(ConfigError, match="actions"):
            env.step(wrong)
    assert env.step(np.array([0, 3])).observation.shape == (2, 4, 84, 84)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.step(np.array([0, 3]))


def test_action_names_and_numbers():
    plain = ("NOOP", "FIRE", "RIGHT", "LEFT")
    shooter = (*plain, "RIGHTFIRE", "LEFTFIRE")
    for game, names in (("Breakout", plain), ("Pong", shooter), ("SpaceInvaders", shooter)):
        for backend in BACKENDS:
            assert make_spec(EnvConfig(id=game, backend=backend)).action_names == names
    for game in ("MsPacman", "Qbert", "Backgammon", "MontezumaRevenge", "TicTacToe3D"):
        library = envpool.make_spec(f"{game}-v5".replace("3D", "3d")).action_space.n
        assert make_spec(EnvConfig(id=game)).num_actions == library
