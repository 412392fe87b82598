"""Games that are rebuilt on a schedule: what is seen, and that a restored vector is the same.

With `extra` 0 no game outlives its vector's period.
"""

import numpy as np
import pytest

from smz_jax.acting.actor import GameScores
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.protocol import GameFault
from smz_jax.envs.rebuilt import (
    MAX_RESTARTS,
    GamesState,
    RebuiltEnv,
    join_states,
    own_state,
)
from smz_jax.envs.vector import LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space, Timestep
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
    env = RebuiltEnv(make, EVERY, extra=0)
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
    env, scores = RebuiltEnv(make, EVERY, extra=0), GameScores(LANES)
    steps = [env.reset(), *play(env, None, EVERY)]
    reported = [game for step in steps[:-1] for game in scores.add(step)]
    assert [game[3] for game in scores.add(steps[-1], env.cut)].count(True) == 0
    assert env.cut.any() and (scores.length == 0).all()
    assert all(not game[3] for game in reported)


def lengths(number, lane, game):
    """Steps of a game; at most those that are never cut off."""
    return 1 + (11 * number + 17 * lane + 7 * game) % (3 * (EVERY + 1))


class KnownEnv:
    """Games of known lengths, which show all that they depend on; lanes that rest stand still."""

    def __init__(self, number, lengths):
        self.spec = EnvSpec("known", (5,), 1, np.dtype(np.int32), Space(3, ("a", "b", "c")), 1)
        self.num_envs, self._number, self._lengths = LANES, number, lengths
        # Game, age, the lane's hidden state, and whether its next step begins a game.
        self._lanes = [[0, 0, 0, False] for _ in range(LANES)]
        self._resting, self.is_closed = np.zeros(LANES, np.bool_), False

    def reset(self):
        return self._timestep([True] * LANES)

    def rest(self, lanes):
        self._resting = lanes.copy()
        for state, rests in zip(self._lanes, lanes, strict=True):
            state[3] |= bool(rests)

    def send(self, actions):
        self._actions = actions

    def step(self, actions):
        self.send(actions)
        return self.recv()

    def recv(self):
        assert not self.is_closed
        begins = [state[3] for state in self._lanes]
        for lane, (game, age, hidden, begin) in enumerate(self._lanes):
            if self._resting[lane]:
                continue
            hidden = hidden if begin else (31 * hidden + int(self._actions[lane]) + 1) % 251
            self._lanes[lane] = [game + begin, 0 if begin else age + 1, hidden, False]
        return self._timestep(begins)

    def close(self):
        self.is_closed = True

    def _timestep(self, is_first):
        over = np.zeros(LANES, np.bool_)
        for lane, state in enumerate(self._lanes):
            over[lane] = state[1] == self._lengths(self._number, lane, state[0])
            state[3] |= bool(over[lane])
        frame = [[self._number, lane, *state[:3]] for lane, state in enumerate(self._lanes)]
        no = np.zeros(LANES, np.bool_)
        return Timestep(
            observation=np.array(frame, np.int32)[:, None],
            reward=np.ones(LANES, np.float32),
            raw_reward=np.ones(LANES, np.float32),
            terminated=over,
            truncated=no,
            game_over=over.copy(),
            is_first=np.array(is_first),
            invalid_actions=np.zeros((LANES, 3), np.float32),
            player=np.zeros(LANES, np.int32),
        )


def twin(lengths, lane, actions, extra):
    """What a lane shows at each step, whether a game is over, was cut off, begins; one by one."""
    period, number, game, age, hidden, over = EVERY + 1, 0, 0, 0, 0, False
    found = []
    for step in range(len(actions) + 1):
        first = step == 0 or over
        if over and number != step // period:  # it comes at the opening, or begins another game
            number, game, age, hidden = step // period, int(step % period > 0), 0, 0
        elif over:
            game, age = game + 1, 0
        elif step > 0:
            age, hidden = age + 1, (31 * hidden + int(actions[step - 1]) + 1) % 251
        ended = age == lengths(number, lane, game)
        is_due = (step + 1) % period == 0
        cut = not ended and is_due and number + extra <= step // period
        over = ended or cut
        found.append(([number, lane, game, age, hidden], over, cut, first))
    return found


@pytest.mark.parametrize("extra", [0, 1, 3])
@pytest.mark.parametrize("kind", ["whole", "endless"])
def test_lanes_move_to_the_newest_games_when_theirs_are_over(kind, extra):
    of = lengths if kind == "whole" else lambda number, lane, game: 5 if lane == 1 else 10**6
    opened = []

    def known(number):
        opened.append(KnownEnv(number, of))
        return opened[-1]

    env = RebuiltEnv(known, EVERY, extra)
    actions = np.random.default_rng(0).integers(0, 3, (200, LANES)).astype(np.int32)
    seen, cuts = [env.reset()], [env.cut]
    for row in actions:
        seen.append(env.step(row))
        cuts.append(env.cut)
        assert sum(not one.is_closed for one in opened) <= extra + 2
    for lane in range(LANES):
        expected = twin(of, lane, actions[:, lane], extra)
        found = [
            (x.observation[lane, 0].tolist(), x.game_over[lane], cut[lane], x.is_first[lane])
            for x, cut in zip(seen, cuts, strict=True)
        ]
        assert found == expected
    assert np.any(cuts) == (kind == "endless" or extra < 3)
    np.testing.assert_array_equal([x.truncated for x in seen], cuts)
    assert len(opened) == 1 + 200 // (EVERY + 1)


def test_a_vector_of_several_ages_is_restored_at_every_step():
    env = RebuiltEnv(lambda number: KnownEnv(number, lengths), EVERY)
    actions = np.random.default_rng(0).integers(0, 3, (120, LANES)).astype(np.int32)
    seen, states = [env.reset()], [env.state]
    for row in actions:
        seen.append(env.step(row))
        states.append(env.state)
    several = 0
    for step, state in enumerate(states[:90]):
        assert [x.shape for x in state] == [x.shape for x in states[0]]
        several += len(set(state.entered // (EVERY + 1))) > 1
        other = RebuiltEnv(lambda number: KnownEnv(number, lengths), EVERY)
        assert_same([other.restore(state)], [seen[step]])
        more = actions[step : step + 30]
        assert_same([other.step(row) for row in more], seen[step + 1 : step + 1 + len(more)])
        for ours, theirs in zip(other.state, states[step + len(more)], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert several > 40


SHORT = {"mode": "stochastic", "noop_max": 3, "frame_skip": 20, "frame_size": 16}
SUITES = {
    "envpool": EnvConfig(id="Breakout", max_episode_steps=50, **SHORT),
    "ale": EnvConfig(id="Breakout", backend="ale", max_episode_steps=50, **SHORT),
    "gym": EnvConfig(suite="gym", id="CartPole-v1"),
    "gymnasium": EnvConfig(suite="gym", id="CartPole-v1", backend="gymnasium"),
    "grid": EnvConfig(suite="grid", id="GridWorld", max_episode_steps=40),
    "pgx": EnvConfig(suite="pgx", id="minatar-breakout"),
}


SLOW = ("ale", "pgx")


@pytest.mark.parametrize(
    "suite", [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in SUITES]
)
def test_games_of_every_suite_are_whole_and_restored(suite):
    """A lane shows the same where it plays alone: it depends on no other, and on no waiting."""
    config, every, count = SUITES[suite], 20, 2

    def rebuilt(lanes):
        def open_games(number):
            return make_env(config, seed=number, num_envs=len(lanes), first_lane=lanes[0])

        return RebuiltEnv(open_games, every)

    env, alone, states = rebuilt(range(count)), rebuilt(range(1, 2)), []
    actions = np.random.default_rng(0).integers(0, env.spec.num_actions, (45, count))
    seen, one = [env.reset()], [alone.reset()]
    for row in actions:
        states.append(env.state)
        seen.append(env.step(row))
        one.append(alone.step(row[1:2]))
        assert not env.cut.any()
    assert_same(one, [Timestep(*(field[1:2] for field in step)) for step in seen])
    over, first = (np.array([getattr(x, name) for x in seen]) for name in ("game_over", "is_first"))
    np.testing.assert_array_equal(first[1:], over[:-1])
    if config.suite == "gym":  # CartPole begins near the middle, and at rest
        assert all(np.abs(step.observation[step.is_first]).max(initial=0) <= 0.05 for step in seen)
    several = [len(set(state.entered // (every + 1))) > 1 for state in states]
    stop = several.index(True) + 1
    other = rebuilt(range(count))
    assert_same([other.restore(states[stop])], [seen[stop]])
    assert_same([other.step(row) for row in actions[stop:]], seen[stop + 1 :])
    for games in (env, alone, other):
        games.close()


def test_the_lanes_of_several_processes_are_one_vector_and_are_dealt_again():
    config, every = EnvConfig(suite="grid", id="GridWorld"), 5

    def rebuilt(first, lanes):
        def open_games(number):
            return make_env(config, seed=number, num_envs=lanes, first_lane=first)

        return RebuiltEnv(open_games, every)

    whole, parts = rebuilt(0, 4), [rebuilt(0, 2), rebuilt(2, 2)]
    actions = np.random.default_rng(0).integers(0, whole.spec.num_actions, (60, 4))
    for env in (whole, *parts):
        env.reset()
    oldest, last = set(), None
    for row in actions:
        last = whole.step(row)
        for env, own in zip(parts, (row[:2], row[2:]), strict=True):
            env.step(own)
        states = [env.state for env in parts]
        oldest.add(int(states[0].number) - int(states[1].number))
        joined = join_states(GamesState(*(np.stack(x) for x in zip(*states, strict=True))), every)
        for name in ("number", "failures", "failed", "count", "entered"):
            np.testing.assert_array_equal(getattr(joined, name), getattr(whole.state, name), name)
        assert [x.dtype for x in joined] == [x.dtype for x in whole.state]
    assert len(oldest) > 1, "one of them had closed a vector that the other still played"
    other, own = rebuilt(0, 4), rebuilt(1, 2)
    assert_same([other.restore(joined)], [last])
    mid = Timestep(*(field[1:3] for field in last))
    assert_same([own.restore(own_state(joined, slice(1, 3)))], [mid])
    more = play_rows(whole, actions)
    assert_same(play_rows(other, actions), more)
    mids = [Timestep(*(field[1:3] for field in step)) for step in more]
    assert_same(play_rows(own, actions[:, 1:3]), mids)


def play_rows(env, actions):
    return [env.step(row) for row in actions]


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


@pytest.mark.parametrize(
    ("failing", "failure", "steps"), [(0, 3, 3), (0, 3, 4), (0, 3, 5), (1, 1, 9), (1, 1, 10)]
)
def test_games_that_failed_are_restored_as_they_were(failing, failure, steps):
    """Saved at the failure, a step of the first games or of the next ones, and after it."""
    failures = {failing: {failure}}
    env = RebuiltEnv(lambda number: Failing(number, failures.get(number, set())), EVERY)
    seen = [env.reset(), *play(env, None, steps)]
    other = RebuiltEnv(make, EVERY)
    assert_same([other.restore(env.state)], [seen[-1]])
    np.testing.assert_array_equal(other.cut, env.cut)
    assert_same(play(other, None, 20, seed=1), play(env, None, 20, seed=1))
    assert other.restarts == 0 and env.restarts == 1


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
        play(env, None, EVERY + 2)
    env.close()


class Nowhere:
    """Lanes of which one gives numbers that are not finite at a given step."""

    def __init__(self, number, what):
        self._what, self._left = what, 3 if number == 0 else -1

    def reset(self):
        return self._step()

    def send(self, actions, over, resting):
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
