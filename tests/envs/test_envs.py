"""What a step means (scripted emulators), checks of actions and names, frame stacks, the toy game.

Real emulators: test_envs_atari.py.
"""

import importlib.util
import subprocess
import sys
from typing import get_args, get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import SUITES, check_actions, check_env_id, make_env, make_spec
from smz_jax.envs.atari import rom_files
from smz_jax.envs.frames import push_frame, push_frames
from smz_jax.envs.vector import LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space
from tests.support.toy_env import CatchEnv

SPEC = EnvSpec("Scripted", (1,), 2, np.dtype(np.uint8), Space(3, ("NOOP", "FIRE", "LEFT")), 4)


def test_the_settings_name_the_suites_of_the_registry():
    assert get_args(get_type_hints(EnvConfig)["suite"]) == tuple(SUITES)


class ScriptedPool:
    """One lane: (reward, lives, ended, limit) per step; the frame is the step's number."""

    def __init__(self, rows):
        self.rows, self.index, self.actions = [(0, 3, False, False), *rows], 0, []

    def _row(self):
        reward, lives, ended, limit = self.rows[self.index]
        frame = np.full((1, 1), self.index, np.uint8)
        reward, lives = np.array([reward], np.float32), np.array([lives], np.int32)
        return LaneStep(frame, reward, np.array([ended]), np.array([limit]), lives=lives)

    def reset(self):
        self.index = 0
        return self._row()

    def send(self, actions, over, resting):
        self.actions.append(int(actions[0]))

    def recv(self):
        self.index += 1
        return self._row()

    def close(self):
        pass


def play(rows, actions, training=True, **settings):
    pool = ScriptedPool(rows)
    env = LanesVectorEnv(pool, SPEC, EnvConfig(**settings), 1, training)
    steps = [env.reset()] + [env.step(np.array([action])) for action in actions]
    return pool, steps


def column(steps, name):
    return [getattr(step, name)[0].tolist() for step in steps]


def test_the_score_of_a_game_is_that_of_player_0():
    """A reward is of who moved before the step; that of a reset counts for nobody."""
    rows = [(1, 3, False, False), (2, 3, False, False), (4, 3, True, False)]
    pool = ScriptedPool([*rows, (8, 3, False, False)])
    players = [0, 1, 1, 0, 0]

    def row():
        step = ScriptedPool._row(pool)
        return step._replace(lives=None, player=np.array(players[pool.index : pool.index + 1]))

    pool._row = row
    env = LanesVectorEnv(pool, SPEC, EnvConfig(), 1, True)
    steps = [env.reset()] + [env.step(np.array([0])) for _ in range(4)]
    assert column(steps, "player") == players
    assert column(steps, "reward") == [0, 1, 2, 4, 0]
    assert column(steps, "raw_reward") == [0, 1, -2, -4, 0]


LIFE_LOST_THEN_OVER = [
    (7, 3, False, False),
    (0, 2, False, False),  # a life lost
    (-2, 2, False, False),
    (0, 3, False, False),  # a bonus life is no loss
    (4, 0, True, False),  # the game ends; fewer lives, but no life-loss signal of its own
    (5, 3, False, False),  # the reset: whatever the library reports here counts for nothing
    (0, 2, False, False),
]


def test_training_step_flags_by_hand():
    pool, steps = play(LIFE_LOST_THEN_OVER, [2, 2, 2, 2, 2, 2, 2])
    no, yes = False, True
    assert column(steps, "terminated") == [no, no, yes, no, no, yes, no, yes]
    assert column(steps, "game_over") == [no, no, no, no, no, yes, no, no]
    assert column(steps, "truncated") == [no] * 8
    assert column(steps, "is_first") == [yes, no, no, no, no, no, yes, no]
    assert column(steps, "reward") == [0, 1, 0, -1, 0, 1, 0, 0]
    assert column(steps, "raw_reward") == [0, 7, 0, -2, 0, 4, 0, 0]
    only_fire = [1.0, 0.0, 1.0]
    free = [0.0, 0.0, 0.0]
    expected = [free, free, only_fire, free, free, free, free, only_fire]
    assert column(steps, "invalid_actions") == expected
    assert pool.actions == [2, 2, 1, 2, 2, 2, 2]  # LEFT became FIRE after the lost life
    # Stacks: the first frame repeats at a game's start only (frames are numbered by step).
    stacks = [step.observation[0, :, 0].tolist() for step in steps]
    assert stacks == [[0, 0], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [6, 6], [6, 7]]


def test_writing_into_a_given_mask_changes_no_action():
    pool = ScriptedPool(LIFE_LOST_THEN_OVER)
    env = LanesVectorEnv(pool, SPEC, EnvConfig(), 1, True)
    env.reset()
    for _ in range(3):
        env.step(np.array([2])).invalid_actions[:] = 0.0
    assert pool.actions == [2, 2, 1]


def test_evaluation_has_whole_games_and_raw_rewards_but_still_presses_fire():
    pool, steps = play(LIFE_LOST_THEN_OVER, [2] * 7, training=False)
    assert column(steps, "terminated") == [False] * 5 + [True, False, False]
    assert column(steps, "reward") == column(steps, "raw_reward") == [0, 7, 0, -2, 0, 4, 0, 0]
    assert pool.actions == [2, 2, 1, 2, 2, 2, 2]


def test_settings_turn_life_loss_clipping_and_fire_off():
    pool, steps = play(
        LIFE_LOST_THEN_OVER,
        [2] * 7,
        episodic_life=False,
        clip_rewards=False,
        fire_on_life_loss=False,
    )
    assert column(steps, "terminated") == [False] * 5 + [True, False, False]
    assert column(steps, "reward") == [0, 7, 0, -2, 0, 4, 0, 0]
    assert pool.actions == [2] * 7
    assert not any(step.invalid_actions.any() for step in steps)


@pytest.mark.parametrize(
    ("row", "terminated", "truncated"),
    [
        ((0, 4, False, True), False, True),  # the limit alone, and the reset's 3 lives are no loss
        ((0, 0, True, True), True, False),  # the game's end on the same step wins
        ((0, 2, False, True), True, False),  # so does a lost life: the value after it is 0
    ],
)
def test_time_limit(row, terminated, truncated):
    pool, steps = play([row, (0, 3, False, False)], [2, 2])
    last, first = steps[1:]
    assert (last.terminated[0], last.truncated[0]) == (terminated, truncated)
    assert last.game_over[0]
    assert not last.invalid_actions.any()
    assert first.is_first[0]
    assert not (first.terminated[0] or first.game_over[0])
    assert pool.actions == [2, 2]  # no FIRE: the lane resets instead


def test_calls_in_a_wrong_order_are_answered_and_do_no_harm():
    """Where a library would hang or mix up steps; each wrong call leaves the game as it was."""
    pool = ScriptedPool([(1, 3, False, False), (2, 3, False, False), (3, 3, False, False)])
    env = LanesVectorEnv(pool, SPEC, EnvConfig(clip_rewards=False), 1, True)
    with pytest.raises(RuntimeError, match=r"send\(\) before reset\(\)"):
        env.send(np.array([0]))
    env.reset()
    with pytest.raises(RuntimeError, match=r"recv\(\) without send\(\)"):
        env.recv()
    with pytest.raises(ConfigError, match="actions = 9"):
        env.send(np.array([9]))
    given = np.array([2])
    env.send(given)
    given[0] = 7  # the caller's array is the caller's again
    for wrong in (env.send, env.step):
        with pytest.raises(RuntimeError, match=r"send\(\) before the step sent was received"):
            wrong(np.array([0]))
    with pytest.raises(RuntimeError, match=r"reset\(\) before the step sent was received"):
        env.reset()
    assert env.recv().reward.tolist() == [1.0] and env.step(np.array([0])).reward.tolist() == [2.0]
    with pytest.raises(RuntimeError, match=r"recv\(\) without send\(\)"):
        env.recv()
    assert pool.actions == [2, 0]
    env.close()
    for call in (env.reset, env.recv, lambda: env.send(np.array([0]))):
        with pytest.raises(RuntimeError, match="the environment is closed"):
            call()


@pytest.mark.parametrize("is_marked", [False, True])
def test_frame_stacker_against_lists(is_marked):
    rng = np.random.default_rng(0)
    stack = None
    lanes, counts, stacks = [[], []], [0, 0], []
    for step in range(20):
        frame = rng.integers(0, 256, (2, 4, 5)).astype(np.uint8)
        is_first = rng.random(2) < 0.3
        stack = push_frame(stack, frame, is_first, 3, is_marked)
        stacks.append((stack[0], is_first[0]))
        frame_before = frame.copy()
        frame[:] = 0  # the library may reuse its buffer
        for lane, history in enumerate(lanes):
            if step == 0 or is_first[lane]:
                history[:] = [frame_before[lane]] * 3
            history[:] = [*history[1:], frame_before[lane]]
            counts[lane] = 1 if step == 0 or is_first[lane] else min(counts[lane] + 1, 3)
            mark = [np.full((4, 5), counts[lane])] * is_marked
            np.testing.assert_array_equal(stack[lane], mark + history)
        assert not stack.flags.writeable
    # Several frames of one game at once.
    games = "".join("01"[int(first)] for _, first in stacks)
    start = games.index("00000")
    frames = np.stack([stack[-1] for stack, _ in stacks[start : start + 5]])
    for n in range(5):
        after = push_frames(stacks[start][0], frames[1 : n + 1], is_marked)
        np.testing.assert_array_equal(after, stacks[start + n][0])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1], "actions = 'list' is not allowed: it must be an array of integers"),
        (np.array([0.0, 1.0]), "actions.dtype = 'float64'"),
        (np.array([True, False]), "actions.dtype = 'bool'"),
        (np.array([0]), r"actions.shape = \(1,\) is not allowed: it must be \(2,\)"),
        (np.array([[0, 1]]), r"actions.shape = \(1, 2\)"),
        (np.array([0, 4]), r"actions = 4 is not allowed: it must be in 0\.\.3"),
        (np.array([-1, 0]), "actions = -1"),
        (np.array([0, 2**40]), "actions = 1099511627776"),
    ],
)
def test_wrong_actions_are_named_in_one_line(actions, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_actions(actions, 2, 4)
    assert "\n" not in str(error.value)


def test_good_actions_are_copied_as_int32():
    for given in (np.array([3, 0]), np.array([3, 0], np.uint8), jnp.array([3, 0])):
        checked = check_actions(given, 2, 4)
        assert checked.dtype == np.int32
        assert checked.tolist() == [3, 0]
        checked[0] = 1  # must not write through
        assert np.asarray(given)[0] == 3


@pytest.mark.parametrize(
    ("game", "hint"),
    [
        ("Breakot", "did you mean Breakout"),
        ("breakout", "did you mean Breakout"),
        ("ALE/Space_Invaders-v5", "did you mean SpaceInvaders"),
        ("QbertNoFrameskip-v4", "did you mean Qbert"),
        ("???", "such as Breakout"),
        ("Combat", "one of the"),  # its ROM needs two players; loading it ends the process
    ],
)
@pytest.mark.parametrize("backend", ["envpool", "ale"])
def test_unknown_game_is_named_with_close_matches(backend, game, hint):
    config = EnvConfig(id=game, backend=backend)
    for check in (check_env_id, make_spec, lambda c: make_env(c, seed=0)):
        with pytest.raises(ConfigError, match=r"env\.id") as error:
            check(config)
        assert hint in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_libraries_say_what_would_work(monkeypatch):
    real = importlib.util.find_spec

    def without(*names):
        return lambda name, *rest: None if name in names else real(name, *rest)

    monkeypatch.setattr(rom_files.importlib.util, "find_spec", without("envpool"))
    with pytest.raises(ConfigError, match=r"--env\.backend ale"):
        make_env(EnvConfig(), seed=0)
    check_env_id(EnvConfig(backend="ale"))
    monkeypatch.setattr(rom_files.importlib.util, "find_spec", without("ale_py"))
    with pytest.raises(ConfigError, match="pip install ale-py"):
        check_env_id(EnvConfig(backend="ale"))


def test_checking_a_name_loads_nothing_heavy():
    code = (
        "import sys; from smz_jax.envs import check_env_id;"
        "from smz_jax.config.settings import EnvConfig;"
        "check_env_id(EnvConfig()); check_env_id(EnvConfig(backend='ale'));"
        "print([m for m in ('jax', 'envpool', 'ale_py', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_toy_game_rules():
    env = CatchEnv(num_envs=64, seed=0)
    step = env.reset()
    assert step.is_first.all()
    assert step.observation.shape == (64, *env.spec.observation_shape)
    scores, lengths, length = [], [], np.zeros(64, int)
    for _ in range(100):
        ball = np.argmax(step.observation[:, 0, :9].max(axis=1), axis=1)
        paddle = np.argmax(step.observation[:, 0, 9], axis=1)
        over = step.game_over
        step = env.step((1 + np.sign(ball - paddle)).astype(np.int32))
        np.testing.assert_array_equal(step.is_first, over)
        length = np.where(step.is_first, 0, length + 1)
        scores.extend(step.raw_reward[step.game_over])
        lengths.extend(length[step.game_over])
    assert len(scores) == 64 * 10
    assert set(scores) == {1.0}
    assert set(lengths) == {9}
    rng = np.random.default_rng(1)
    steps = [env.step(rng.integers(0, 3, 64)) for _ in range(500)]
    rewards = np.concatenate([step.reward[step.game_over] for step in steps])
    # P(caught): the paddle's random walk from the middle against a uniform column is 1/5.
    assert abs(rewards.mean() - (2 / 5 - 1)) < 0.06
