"""Action spaces as numbered actions, and these as the library's own again."""

import collections

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id, make_env
from smz_jax.envs.gym.actions import FARTHEST, each_lane, make_actions

NESTED = spaces.Dict(
    {
        "walk": spaces.Discrete(3, start=-1),
        "arm": spaces.Tuple(
            (
                spaces.Box(np.array([-2, 0.1]), np.array([2, 0.3]), dtype=np.float64),
                spaces.MultiDiscrete([[2, 3]], start=[[5, 0]]),
            )
        ),
        "bits": spaces.MultiBinary((1, 2)),
        "grey": spaces.Box(0, 255, (1,), np.uint8),
    }
)


def every_action(space, bins=3):
    found = make_actions(space, bins, "Test-v0")
    batch = found.rebuild(np.arange(found.space.size, dtype=np.int32))
    return found.space, each_lane(space, batch)


def leaves(value):
    if isinstance(value, dict):
        return [x for part in value.values() for x in leaves(part)]
    return [x for part in value for x in leaves(part)] if isinstance(value, tuple) else [value]


def test_an_action_is_rebuilt_exactly():
    space, rebuilt = every_action(NESTED)
    # The library sorts a dict's keys: arm, bits, grey, walk.
    assert space.sizes == (3, 3, 2, 3, 2, 2, 3, 3) and space.size == 1944 and not space.names
    assert all(NESTED.contains(x) for x in rebuilt)
    assert list(rebuilt[0]) == list(NESTED.spaces)
    kinds = [(x.dtype, x.shape) for x in leaves(rebuilt[0])]
    assert kinds == [(x.dtype, np.shape(x)) for x in leaves(NESTED.sample())]
    assert len({tuple(np.concatenate([np.ravel(x) for x in leaves(y)])) for y in rebuilt}) == 1944
    first, last = leaves(rebuilt[0]), leaves(rebuilt[-1])
    for found, wanted in zip(first, ([-2, 0.1], [[5, 0]], [[0, 0]], [0], -1), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(last, ([2, 0.3], [[6, 2]], [[1, 1]], [255], 1), strict=True):
        np.testing.assert_array_equal(found, wanted)
    # The last part counts fastest.
    assert [leaves(x)[-1] for x in rebuilt[:4]] == [-1, 0, 1, -1]
    assert space.name(1943) == "2 0.3 6 2 1 1 255 1"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8"])
def test_values_of_a_box_reach_its_bounds_and_no_further(dtype):
    low, high = (1, 7) if "int" in dtype else (-0.1, 0.7)
    box = spaces.Box(low, high, (1,), np.dtype(dtype))
    space, rebuilt = every_action(box, bins=5)
    values = np.concatenate(rebuilt)
    assert values.dtype == dtype and values[0] == box.low[0] and values[-1] == box.high[0]
    assert all(box.contains(x) for x in rebuilt) and (np.diff(values.astype(float)) > 0).all()
    wanted = [1, 2, 4, 6, 7] if "int" in dtype else [-0.1, 0.1, 0.3, 0.5, 0.7]
    np.testing.assert_allclose(values.astype(float), wanted, atol=1e-3)
    assert space.is_continuous and not space.names and space.sizes == (5,)
    places = [2 * (x - values[0]) / (values[-1] - values[0]) - 1 for x in values.astype(float)]
    np.testing.assert_allclose(space.parts[0].values, places, atol=1e-3)


def test_the_widest_box_has_finite_places():
    most = np.nextafter(FARTHEST, 0.0)
    part = every_action(spaces.Box(-most, most, (1,), np.float64))[0].parts[0]
    assert part.values == (-1.0, 0.0, 1.0)


def test_whole_numbers_too_large_for_a_float_are_exact():
    ends = np.iinfo(np.int64)
    space, rebuilt = every_action(spaces.Box(ends.min, ends.max, (1,), np.int64), bins=2)
    assert np.concatenate(rebuilt).tolist() == [ends.min, ends.max]
    assert space.parts[0].values == (-1, 1)
    most = np.iinfo(np.uint64).max
    assert np.concatenate(every_action(spaces.Box(0, most, (1,), np.uint64))[1])[-1] == most
    box = spaces.Box(2**60, 2**60 + 2, (1,), np.int64)
    assert every_action(box, bins=9)[0].names == () and every_action(box, bins=9)[0].sizes == (3,)
    assert every_action(box)[0].name(1) == str(2**60 + 1)


def test_whole_numbers_of_a_short_range_are_all_of_them():
    assert every_action(spaces.Box(0, 2, (1,), np.int64), bins=11)[0].sizes == (3,)
    # Between equal bounds, where rounding would leave them.
    found = every_action(spaces.Box(0.1, 0.1, (1,), np.float64), bins=11)
    assert found[0].sizes == (1,) and found[1] == [0.1]


def test_discrete_choices_keep_their_names():
    space, rebuilt = every_action(spaces.Discrete(3, start=4))
    assert space == (3, ("4", "5", "6"), ()) and rebuilt == [4, 5, 6]
    space, rebuilt = every_action(spaces.MultiDiscrete([2, 3]))
    assert space.names == ("0 0", "0 1", "0 2", "1 0", "1 1", "1 2") and not space.is_continuous
    np.testing.assert_array_equal(rebuilt, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Text(5), ["Text", "Box, Discrete"]),
        (spaces.Tuple((spaces.Discrete(2), spaces.Sequence(spaces.Discrete(2)))), ["Sequence"]),
        (spaces.Tuple(()), ["not empty"]),
        (spaces.Dict({}), ["not empty"]),
        (spaces.Box(0, 1, (0,)), ["not empty"]),
        (spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2, 0)))), ["not empty"]),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple(())}), ["not empty"]),
        (spaces.Box(-np.inf, 1, (2,)), ["bounded", "number 0 of it lies between -inf and 1"]),
        (spaces.Box(np.zeros(2), np.array([1, np.inf])), ["number 1", "0 and inf"]),
        (spaces.Box(np.finfo(np.float32).min, 1, (1,)), ["bounded", "between -3.40282e+38 and 1"]),
        (spaces.Box(-np.inf, 1, (1,), np.int8), ["bounded", "between -inf and 1"]),
        (spaces.Box(0, np.inf, (1,), np.int64), ["bounded", "between 0 and inf"]),
        (spaces.Discrete(10_001), ["Discrete, of at most 10000 actions"]),
        # Of these no list could be held.
        (spaces.Discrete(2**60), ["Discrete, of at most 10000 actions"]),
        (spaces.MultiDiscrete([2**60, 2]), ["at most 10000 options, not 1152921504606846978"]),
        (spaces.MultiDiscrete([6_000, 6_000]), ["at most 10000 options, not 12000"]),
        (spaces.MultiDiscrete([900] * 4), ["at most 2^31-1 actions, not 6.56e+11"]),
        (spaces.Box(-1, 1, (20,)), ["at most 2^31-1 actions", "3.49e+09", "fewer env.action_bins"]),
    ],
)
def test_other_spaces_are_refused_in_one_line(space, words):
    with pytest.raises(ConfigError) as raised:
        make_actions(space, 3, "Test-v0")
    line = str(raised.value)
    assert line.startswith("the action space of Test-v0 = ") and "\n" not in line
    assert ("bins" in line) == isinstance(space, spaces.Box) * ("at most" in line)
    assert all(word in line for word in words), line


def test_bounds_that_are_no_numbers_are_refused():
    box = spaces.Box(-1, 1, (1,))
    box.low = np.array([np.nan], np.float32)
    with pytest.raises(ConfigError, match="between nan and 1"):
        make_actions(box, 3, "Test-v0")


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_both_libraries_play_what_was_chosen(backend):
    settings = EnvConfig(
        suite="gym", id="Pendulum-v1", backend=backend, frame_stack=1, action_bins=5
    )
    env = make_env(settings, seed=3, num_envs=2)
    assert env.spec.num_actions == env.spec.num_options == 5 and not env.spec.action_names
    (cos, sin, speed), actions = env.reset().observation[:, 0].T, np.array([0, 3])
    found = env.step(actions).observation[:, 0, 2]
    torque = np.array([-2.0, 1.0])  # Pendulum's equations, by Gymnasium's own text
    np.testing.assert_allclose(found, speed + 0.05 * (15 * sin + 3 * torque), atol=1e-4)
    with pytest.raises(ConfigError, match="actions = 5 is not allowed"):
        env.step(np.array([5, 0]))
    with pytest.raises(ConfigError, match=r"actions.dtype = 'float32'"):
        env.step(np.array([np.nan, 0], np.float32))
    env.close()
    del cos


class Ordered(gymnasium.Env):
    """Pays what the last key of an action says, and takes nothing but its space's own kinds."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Dict(
        collections.OrderedDict(
            z=spaces.Discrete(2), a=spaces.Tuple((spaces.Box(0, 1, ()), spaces.Discrete(3)))
        )
    )

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        first, last = action.values()
        assert list(action) == ["z", "a"] and type(first) is type(last[1]) is np.int64
        assert type(last) is tuple and type(last[0]) is np.ndarray and last[0].shape == ()
        return np.zeros(1, np.float32), 100 * first + 10 * last[0] + last[1], False, False, {}


def test_keys_of_an_action_keep_their_order():
    settings = EnvConfig(suite="gym", id=f"{__name__}:Ordered-v0", frame_stack=1, action_bins=2)
    check_env_id(settings)
    env = make_env(settings, seed=0, num_envs=12)
    env.reset()
    wanted = [100 * z + 10 * x + y for z in (0, 1) for x in (0, 1) for y in (0, 1, 2)]
    np.testing.assert_array_equal(env.step(np.arange(12)).reward, wanted)
    env.close()


class Refuses(gymnasium.Env):
    """Takes nested actions, and none whose box is at its upper bound."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (1,))))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        if action[1][0] == 1:
            raise ValueError("too far:\n out of reach")
        return np.zeros(1, np.float32), float(action[0]), False, False, {"action_mask": [1]}


def test_what_an_environment_refuses_is_told_in_its_own_words():
    settings = EnvConfig(suite="gym", id=f"{__name__}:Refuses-v0", frame_stack=1, action_bins=3)
    check_env_id(settings)
    env = make_env(settings, seed=0, num_envs=2)
    assert env.spec.num_actions == 6 and env.spec.num_options == 5
    first = env.reset()
    assert first.invalid_actions.shape == (2, 5) and not first.invalid_actions.any()
    np.testing.assert_array_equal(env.step(np.array([1, 4])).reward, [0, 1])
    with pytest.raises(ConfigError, match="ValueError: too far: out of reach"):
        env.step(np.array([0, 5]))
    env.close()


gymnasium.register("Ordered-v0", Ordered)
gymnasium.register("Refuses-v0", Refuses)
