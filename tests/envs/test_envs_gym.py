"""Suite gym: spaces against Gymnasium's own, rows against plain loops, both libraries, mistakes."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from experiments.gym import EXPERIMENT
from smz_jax.config import cli, sources
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id, make_env, make_spec
from smz_jax.envs.gym.observations import make_coder
from smz_jax.model.networks import make_networks
from smz_jax.run.loop import train

CORRIDOR = "tests.support.gym_worlds:Corridor-v0"


def gym(env_id, **settings):
    return EnvConfig(suite="gym", id=env_id, frame_stack=1, **settings)


def lane_seeds(seed, lanes):
    words = np.random.SeedSequence(seed).generate_state(lanes).astype(np.int64)
    return [max(int(word % 2**31), 1) for word in words]


# --- spaces -------------------------------------------------------------------------------------

SPACES = [
    (spaces.Box(-2, 2, (3,), np.float64), np.float32),
    (spaces.Box(0, 9, (2, 3), np.int32), np.float32),
    (spaces.Box(0, 255, (7, 7, 3), np.uint8), np.float32),  # too small for an image
    (spaces.Discrete(5), np.bool_),
    (spaces.Discrete(4, start=-2), np.bool_),
    (spaces.MultiDiscrete([2, 4, 3]), np.bool_),
    (spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [-1, 2]]), np.bool_),
    (spaces.MultiBinary((2, 3)), np.bool_),
    (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(32), spaces.Discrete(2))), np.bool_),
    (
        spaces.Dict(
            {
                "z": spaces.Box(-1, 1, (2, 2)),
                "a": spaces.Discrete(3),
                "m": spaces.Tuple((spaces.MultiBinary(2), spaces.Dict({"k": spaces.Discrete(2)}))),
            }
        ),
        np.float32,
    ),
]


@pytest.mark.parametrize(("space", "dtype"), SPACES, ids=lambda x: str(x)[:24])
def test_vectors_are_gymnasiums_own_flattening(space, dtype):
    space.seed(3)
    samples = [space.sample() for _ in range(6)]
    batch = concatenate(space, samples, create_empty_array(space, n=6))
    coder = make_coder(space, 84)
    frames = coder.encode(batch)
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    assert frames.dtype == coder.frame_dtype == dtype
    assert frames.shape[1:] == coder.frame_shape == expected.shape[1:]
    np.testing.assert_array_equal(frames, expected.astype(dtype))
    back = spaces.unflatten(space, frames[2].astype(expected.dtype))
    np.testing.assert_allclose(
        spaces.flatten(space, back), spaces.flatten(space, samples[2]), rtol=1e-6
    )


def test_images_are_grey_and_resized_by_area():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 32, 48, 3), np.uint8)
    frames = make_coder(spaces.Box(0, 255, (32, 48, 3), np.uint8), 16).encode(image)
    assert frames.shape == (3, 16, 16) and frames.dtype == np.uint8
    grey = image @ np.array([0.299, 0.587, 0.114])
    means = grey.reshape(3, 16, 2, 16, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(frames, means, atol=0.51)
    first = make_coder(spaces.Box(0, 255, (3, 32, 48), np.uint8), 16)
    np.testing.assert_array_equal(first.encode(np.moveaxis(image, -1, 1)), frames)
    flat = make_coder(spaces.Box(0, 255, (20, 30), np.uint8), 20).encode(image[:, :20, :30, 0])
    part = image[:, :20, :30, 0].astype(float)
    weights = [[max(0, min(1.5 * i + 1.5, j + 1) - max(1.5 * i, j)) / 1.5 for j in range(30)]
               for i in range(20)]  # fmt: skip
    np.testing.assert_allclose(flat, part @ np.array(weights).T, atol=0.51)


# --- rows ---------------------------------------------------------------------------------------


def plain_loop(seed, actions, limit):
    """One lane of Corridor by hand; rows of (flat observation, reward, over, cut, first, mask)."""
    env = gymnasium.make(CORRIDOR, length=6, max_episode_steps=limit)

    def row(seen, reward, over, cut, first, info):
        flat = spaces.flatten(env.observation_space, seen).astype(np.float32)
        return flat, np.float32(reward), over, cut and not over, first, info["action_mask"]

    seen, info = env.reset(seed=seed)
    rows, ended = [row(seen, 0, False, False, True, info)], False
    for action in actions:
        if ended:
            seen, info = env.reset()
            rows.append(row(seen, 0, False, False, True, info))
            ended = False
            continue
        if not info["action_mask"][action]:
            action = int(np.argmax(info["action_mask"]))
        seen, reward, over, cut, info = env.step(np.int64(3 + action))
        ended = over or cut
        rows.append(row(seen, reward, over, cut, False, info))
    return rows


@pytest.mark.parametrize(("limit", "own"), [(27_000, 9), (4, 4)])
def test_rows_are_those_of_single_environments(limit, own):
    config = gym(CORRIDOR, kwargs='{"length": 6}', max_episode_steps=limit)
    env = make_env(config, seed=11, num_envs=3)
    actions = np.random.default_rng(1).integers(0, 3, (60, 3))
    steps = [env.reset(), *(env.step(row) for row in actions)]
    env.close()
    assert env.spec.action_names == ("3", "4", "5")
    for lane, seed in enumerate(lane_seeds(11, 3)):
        rows = plain_loop(seed, actions[:, lane].tolist(), own)
        for step, (seen, reward, over, cut, first, mask) in zip(steps, rows, strict=True):
            np.testing.assert_array_equal(step.observation[lane, 0], seen)
            assert step.reward[lane] == step.raw_reward[lane] == reward
            assert (step.terminated[lane], step.truncated[lane]) == (over, cut)
            assert (step.is_first[lane], step.game_over[lane]) == (first, over or cut)
            np.testing.assert_array_equal(step.invalid_actions[lane], 1 - mask)
    flags = np.array([(s.terminated.sum(), s.truncated.sum(), s.is_first.sum()) for s in steps])
    assert (flags.sum(axis=0) > 3).all()


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_lanes_do_not_depend_on_their_number(backend):
    config = gym("CartPole-v1", backend=backend)
    actions = np.random.default_rng(1).integers(0, 2, (40, 4))
    whole, part = (
        make_env(config, seed=5, num_envs=4),
        make_env(config, seed=5, num_envs=2, first_lane=2),
    )
    pairs = [(whole.reset(), part.reset())]
    pairs += [(whole.step(row), part.step(row[2:])) for row in actions]
    for a, b in pairs:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x[2:], y)
    assert len({pairs[0][0].observation[lane].tobytes() for lane in range(4)}) == 4


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_both_libraries_play_the_same_cartpole(backend):
    """Each transition against Gymnasium's own physics, from the state that was seen before it."""
    env = make_env(gym("CartPole-v1", backend=backend, max_episode_steps=25), seed=2, num_envs=3)
    judge = gymnasium.make("CartPole-v1")
    judge.reset()
    rng, before, length = np.random.default_rng(0), env.reset(), np.zeros(3, int)
    assert before.is_first.all() and not before.reward.any()
    cut = fell = 0
    for _ in range(120):
        # Mostly balanced by hand, so that some games reach the limit.
        angle, speed = before.observation[:, 0, 2], before.observation[:, 0, 3]
        actions = np.where(rng.random(3) < 0.15, rng.integers(0, 2, 3), angle + 0.3 * speed > 0)
        after = env.step(actions.astype(np.int64))
        for lane in range(3):
            if before.game_over[lane]:
                assert after.is_first[lane] and after.reward[lane] == 0
                assert not (after.terminated[lane] or after.truncated[lane])
                assert np.abs(after.observation[lane]).max() <= 0.05
                length[lane] = 0
                continue
            length[lane] += 1
            judge.unwrapped.state = before.observation[lane, 0].astype(np.float64)
            judge.unwrapped.steps_beyond_terminated = None
            seen, reward, over, _, _ = judge.unwrapped.step(int(actions[lane]))
            np.testing.assert_allclose(after.observation[lane, 0], seen, atol=1e-5)
            assert after.reward[lane] == reward and after.terminated[lane] == over
            assert after.truncated[lane] == (length[lane] == 25 and not over)
            cut, fell = cut + after.truncated[lane], fell + over
        before = after
    assert cut > 1 and (fell > 1 or cut > 8)


def test_kwargs_reach_the_environment():
    env = make_env(gym("FrozenLake-v1", kwargs='{"is_slippery": false}'), seed=0, num_envs=8)
    env.reset()
    step = env.step(np.full(8, 2))  # RIGHT from cell 0
    np.testing.assert_array_equal(step.observation[:, 0].argmax(axis=-1), np.ones(8))
    slippery = make_env(gym("FrozenLake-v1", kwargs='{"is_slippery": true}'), seed=0, num_envs=64)
    slippery.reset()
    cells = slippery.step(np.full(64, 2)).observation[:, 0].argmax(axis=-1)
    assert set(cells) == {0, 1, 4}  # up (stays), right, down


# --- settings and mistakes ----------------------------------------------------------------------


def parse(*argv):
    return cli.parse(list(argv), EXPERIMENT).config


def test_kwargs_from_flags_and_files(tmp_path):
    flag = parse("--env.kwargs", '{"b": [1],   "a": {"c": true}}')
    assert flag.env.options == {"a": {"c": True}, "b": [1]}
    for text in (
        "env: {kwargs: {a: {c: true}, b: [1]}}",
        'env.kwargs: \'{"b":[1],"a":{"c":true}}\'',
    ):
        file = tmp_path / "my.yaml"
        file.write_text(text)
        assert parse("--config", str(file)) == flag
    again = sources.config_from_yaml(sources.config_to_yaml(flag))
    assert again == flag and sources.diff(again, flag) == []
    assert sources.diff(flag, parse()) != []
    file.write_text("env: {suite: pgx, id: 2048}")
    assert parse("--config", str(file)).env.id == "2048"
    assert (flag.env.frames_per_step, EnvConfig().frames_per_step) == (1, 4)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"env_id": "CartPol-v1"}, ["env.id = 'CartPol-v1'", "did you mean", "CartPole-v1"]),
        ({"env_id": "Qqqqqq-v1"}, ["Gymnasium or envpool knows", "CartPole-v1"]),
        ({"env_id": "tests.support.house:Zz-v0"}, ["tests.support.house registers"]),
        ({"env_id": "no_such_module:X-v0"}, ["no_such_module:X-v0", "ModuleNotFoundError"]),
        (
            {"env_id": "tests.support.gym_worlds:Corido-v0"},
            ["did you mean tests.support.gym_worlds:Corridor-v0"],
        ),
        ({"env_id": "tests.support.gym_quits:Any-v0"}, ["can be imported", "SystemExit: 3"]),
        ({"env_id": CORRIDOR, "kwargs": '{"spoil": "init"}'}, ["cannot be opened: SystemExit: 4"]),
        (
            {"env_id": "tests.support.gym_worlds:Odd-v0", "kwargs": '{"action": "text"}'},
            ["the action space of tests.support.gym_worlds:Odd-v0 = 'Text(1, 5", "Discrete"],
        ),
        (
            {"env_id": "tests.support.gym_worlds:Odd-v0", "kwargs": '{"action": "open"}'},
            ["action space", "bounded: number 0 of it lies between -inf and 1"],
        ),
        (
            {"env_id": "tests.support.gym_worlds:Odd-v0",
             "kwargs": '{"action": "", "observation": "text"}'},
            ["observation space", "Text", "MultiBinary"],
        ),
        ({"env_id": "CartPole-v1", "kwargs": '{"no_such": 1}'}, ["no_such", "cannot be opened"]),
        ({"env_id": "CartPole-v1", "kwargs": "[1]"}, ["env.kwargs", "[1]", "JSON object"]),
        ({"env_id": "CartPole-v1", "kwargs": "{1"}, ["env.kwargs", "{1", "JSON object"]),
        ({"env_id": "CartPole-v1", "backend": "ale"}, ["env.backend", "envpool or gymnasium"]),
        *(
            ({"env_id": env_id, "kwargs": f'{{"max_episode_steps": {limit}}}'},
             [f"max_episode_steps = {shown} is not allowed: it must be a whole number above 0"])
            for env_id in ("CartPole-v1", CORRIDOR)
            for limit, shown in ((-5, -5), (0, 0), ('"ten"', "'ten'"), ("true", True))
        ),
        ({"env_id": "CartPole-v1", "kwargs": '{"num_envs": 3}'}, ["env.kwargs.num_envs = 3"]),
        ({"env_id": "CartPole-v1", "kwargs": '{"seed": 7}'}, ["env.kwargs.seed = 7", "left out"]),
        ({"env_id": CORRIDOR, "kwargs": '{"render_mode": "human"}'}, ["kwargs.render_mode"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(settings, parts):
    with pytest.raises(ConfigError) as excinfo:
        check_env_id(gym(**settings))
    message = str(excinfo.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_a_users_own_environment_may_take_what_envpool_may_not():
    check_env_id(gym(CORRIDOR, kwargs='{"seed": 7}'))


def test_one_hots_have_a_limit():
    assert make_coder(spaces.Discrete(65_536), 84).frame_shape == (65_536,)
    for space in (spaces.Discrete(65_537), spaces.MultiDiscrete([65_535, 2])):
        with pytest.raises(ConfigError, match="at most 65,536 numbers") as excinfo:
            make_coder(spaces.Dict({"a": space}), 84)
        assert "\n" not in str(excinfo.value) and str(space) in str(excinfo.value)


def test_an_environment_that_raises_ends_a_run_in_one_line(tmp_path):
    flags = (
        "--preset",
        "tiny",
        "--env.id",
        CORRIDOR,
        "--env.kwargs",
        '{"spoil": "step"}',
        "--rollout.policy",
        "prior",
    )
    outcome = train(parse(*flags, "--eval.no_baselines"), tmp_path)
    message = outcome.fault
    assert message is not None and not outcome.saved and not outcome.finished
    assert message.startswith("the games failed 4 times")  # opened anew three times
    assert "env.id = 'Corridor-v0' failed while it was played: KeyError: 'spoilt" in message
    assert "gym_worlds.py, line " in message and "\n" not in message


def test_numbers_that_are_not_finite_are_named():
    env = make_env(gym(CORRIDOR, kwargs='{"spoil": "nan"}'), seed=0, num_envs=2)
    with pytest.raises(ConfigError, match="observation must be finite numbers; lane 0"):
        env.reset()


def test_networks_for_images_are_refused_where_there_are_none():
    spec = make_spec(gym("CartPole-v1"))
    for name, value in (("family", "light"), ("family", "board")):
        settings = {**parse().network.__dict__, name: value}
        with pytest.raises(ConfigError, match=f"network.{name}.*CartPole-v1 are vectors"):
            make_networks(type(parse().network)(**settings), spec)


def test_more_actions_than_a_macro_can_hold_are_learned_without_macros(tmp_path, capsys):
    flags = ("--preset", "tiny", "--env.id", "tests.support.gym_worlds:Many-v0")
    outcome = train(parse(*flags, "--eval.no_baselines", "--total_env_steps", "64"), tmp_path)
    assert outcome.finished and outcome.env_steps == 64 and outcome.learner_steps > 0
    assert not outcome.library["macros"] and outcome.library["stats"]["transitions_play"] == 0
    out = capsys.readouterr().out
    assert "no macros: there are 1000 actions, and they hold at most 255" in out
    with pytest.raises(ConfigError, match=r"action space .* Discrete, of at most 10000 actions"):
        check_env_id(gym(flags[-1], kwargs='{"actions": 10001}'))
