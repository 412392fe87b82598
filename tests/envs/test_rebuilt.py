"""Games that are rebuilt on a schedule: what is seen, and that a restored vector is the same."""

import numpy as np
import pytest

from smz_jax.acting.actor import GameScores
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.protocol import GameFault
from smz_jax.envs.rebuilt import MAX_RESTARTS, RebuiltEnv
from smz_jax.envs.vector import LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space
from tests.support.toy_env import CatchEnv

LANES, EVERY = 3, 7


def make(number):
    return CatchEnv(LANES, seed=100 + number)


def play(env, timestep, steps, seed=0):
    """Everything seen over some steps of fixed actions."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(steps):
        timestep = env.step(generator.integers(0, 3, LANES).astype(np.int32))
        found.append(timestep)
    return found


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        for name in x._fields:
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), err_msg=name)


def test_each_rebuild_cuts_the_games_once_and_starts_new_ones():
    env = RebuiltEnv(make, EVERY)
    found = [env.reset(), *play(env, None, 3 * (EVERY + 1))]
    for number, step in enumerate(found):
        position = number % (EVERY + 1)
        assert step.is_first.all() == (position == 0)
        if position == EVERY:
            assert step.game_over.all()
            assert (step.truncated | step.terminated).all()
        elif position:
            assert not step.truncated.any()
    # Other games than before, and those of their own seed.
    assert_same([found[EVERY + 1]], [make(1).reset()])


def test_what_is_seen_between_two_rebuilds_is_what_the_games_show():
    env, plain = RebuiltEnv(make, EVERY), make(0)
    assert_same([env.reset()], [plain.reset()])
    assert_same(play(env, None, EVERY - 1), play(plain, None, EVERY - 1))


@pytest.mark.parametrize("steps", [0, 1, EVERY - 1, EVERY, EVERY + 1, 2 * EVERY + 5])
def test_a_restored_vector_goes_on_as_the_one_that_was_saved(steps):
    env = RebuiltEnv(make, EVERY)
    seen = [env.reset(), *play(env, None, steps)]
    other = RebuiltEnv(make, EVERY)
    assert_same([other.restore(env.state)], [seen[-1]])
    np.testing.assert_array_equal(other.cut, env.cut)
    assert_same(play(other, None, 20, seed=1), play(env, None, 20, seed=1))


def test_scores_of_games_that_were_cut_are_left_out():
    env, scores = RebuiltEnv(make, EVERY), GameScores(LANES)
    steps = [env.reset(), *play(env, None, EVERY)]
    reported = [game for step in steps[:-1] for game in scores.add(step)]
    assert [game[3] for game in scores.add(steps[-1], env.cut)].count(True) == 0
    assert env.cut.any() and (scores.length == 0).all()
    assert all(not game[3] for game in reported)


class Failing:
    """Games that fail at given calls of `recv`."""

    def __init__(self, number, failures):
        self._env, self._failures, self._calls = make(number), failures, 0
        self.spec, self.num_envs, self.closed = self._env.spec, LANES, False

    def __getattr__(self, name):
        return getattr(self._env, name)

    def recv(self):
        self._calls += 1
        if self._calls in self._failures:
            raise OSError("the emulator died")
        return self._env.recv()


def test_games_that_fail_are_opened_anew():
    env = RebuiltEnv(lambda number: Failing(number, {3} if number == 0 else set()), 100)
    env.reset()
    *_, before, cut, first = (env.step(np.zeros(LANES, np.int32)) for _ in range(4))
    np.testing.assert_array_equal(cut.observation, before.observation)
    assert cut.truncated.all() and not cut.reward.any() and first.is_first.all()
    assert env.restarts == 1


def test_games_that_fail_again_and_again_are_given_up():
    env = RebuiltEnv(lambda number: Failing(number, {1}), 100)
    env.reset()
    with pytest.raises(GameFault, match=r"failed 4 times .*: the emulator died"):
        for _ in range(100):
            env.step(np.zeros(LANES, np.int32))
    assert env.restarts == MAX_RESTARTS + 1


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_games_that_failed_are_restored_as_they_were(steps):
    """Saved at the failure, which is the third step of the first games, and after it."""
    env = RebuiltEnv(lambda number: Failing(number, {3} if number == 0 else set()), EVERY)
    seen = [env.reset(), *play(env, None, steps)]
    other = RebuiltEnv(make, EVERY)
    assert_same([other.restore(env.state)], [seen[-1]])
    np.testing.assert_array_equal(other.cut, env.cut)
    assert_same(play(other, None, 20, seed=1), play(env, None, 20, seed=1))
    assert other.restarts == 0


def test_games_that_fail_while_they_are_restored_are_tried_again_and_then_given_up():
    env = RebuiltEnv(make, EVERY)
    seen = [env.reset(), *play(env, None, 5)]
    opened = []

    def failing(times):
        def failing_at_first(number):
            opened.append(number)
            return Failing(number, {2} if 1 < len(opened) <= times + 1 else set())

        opened.clear()
        return RebuiltEnv(failing_at_first, EVERY)

    assert_same([failing(MAX_RESTARTS).restore(env.state)], [seen[-1]])
    with pytest.raises(GameFault, match=r"failed 4 times when the 5 steps .*: the emulator died"):
        failing(MAX_RESTARTS + 1).restore(env.state)
    assert set(opened) == {0}  # other games would be another run


def test_games_that_fail_at_their_first_reset_are_opened_anew():
    class Dying:
        spec, num_envs = make(0).spec, LANES

        def reset(self):
            raise OSError("dead")

        def close(self):
            pass

    env = RebuiltEnv(lambda number: make(number) if number else Dying(), EVERY)
    assert_same([env.reset()], [make(1).reset()])
    assert env.restarts == 1
    with pytest.raises(GameFault, match=r"failed 4 times .*: dead"):
        RebuiltEnv(lambda number: Dying(), EVERY).reset()


def test_games_that_cannot_be_opened_anew_are_given_up():
    def opened(number):
        if number:
            raise OSError("no memory")
        return make(0)

    env = RebuiltEnv(opened, EVERY)
    env.reset()
    with pytest.raises(GameFault, match="no memory"):
        play(env, None, EVERY + 1)
    env.close()


class Nowhere:
    """Lanes of which one gives numbers that are not finite at a given step."""

    def __init__(self, number, what):
        self._what, self._left = what, 3 if number == 0 else -1

    def reset(self):
        return self._step()

    def send(self, actions, over):
        pass

    def recv(self):
        return self._step()

    def close(self):
        pass

    def _step(self):
        self._left -= 1
        no = np.zeros(LANES, np.bool_)
        values = {"frame": np.zeros((LANES, 2), np.float32), "reward": np.ones(LANES, np.float32)}
        if self._left == 0:
            values[self._what].flat[-1] = np.nan
        return LaneStep(**values, terminated=no, truncated=no)


@pytest.mark.parametrize("what", ["frame", "reward"])
def test_numbers_that_are_not_finite_end_the_games_and_reach_nobody(what):
    spec = EnvSpec("nowhere", (2,), 1, np.dtype(np.float32), Space(3, ("a", "b", "c")), 1)
    env = RebuiltEnv(
        lambda number: LanesVectorEnv(Nowhere(number, what), spec, EnvConfig(), LANES, True), 100
    )
    seen = [env.reset(), *(env.step(np.zeros(LANES, np.int32)) for _ in range(4))]
    assert all(np.isfinite(field).all() for step in seen for field in step)
    assert [step.game_over.all() for step in seen] == [False, False, True, False, False]
    assert not seen[2].reward.any() and seen[3].is_first.all() and env.restarts == 1


def test_wrong_actions_are_no_failure_of_the_games():
    env = RebuiltEnv(make, EVERY)
    env.reset()
    with pytest.raises(ConfigError):
        env.step(np.zeros(LANES + 1, np.int32))
    assert env.restarts == 0
