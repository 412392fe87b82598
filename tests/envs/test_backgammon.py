"""Backgammon through pgx against its rules in plain Python: moves, dice, turns, signs, replay."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from smz_jax.acting.actor import join_rows
from smz_jax.acting.agent import make_constant_policy, make_random_policy
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.envs.pgx import backgammon
from smz_jax.envs.pgx.backgammon import ACTION_NAMES, counts_of, frame_of
from smz_jax.learning.targets import n_step_targets

LANES, STEPS = 8, 600
CONFIG = EnvConfig(suite="pgx", id="backgammon", frame_stack=1)
START = [2, 0, 0, 0, 0, -5, 0, -3, 0, 0, 0, 5, -5, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, -2]


def legal(board, dice):
    """Actions of who owns the checkers above 0, of any die left; skip where there is none."""
    found = set()
    for die in dice:
        for source in range(25):
            place = 24 if source == 0 else source - 1  # the bar, then the points
            if board[place] <= 0 or (board[24] > 0 and place != 24):
                continue
            end = die - 1 if place == 24 else place + die
            if end < 24:
                fits = board[end] >= -1
            else:
                farthest = min(x for x in range(24) if board[x] > 0)
                fits = farthest >= 18 and board[24] == 0 and (end == 24 or place == farthest)
            if fits:
                found.add(6 * (source + 1) + die - 1)
    return found or {0}


def moved(board, dice, action):
    """The board and the dice left after an action, before any turn passes."""
    board, dice = list(board), list(dice)
    if action == 0:
        return board, []
    place, die = (24 if action < 12 else action // 6 - 2), action % 6 + 1
    end = die - 1 if place == 24 else place + die
    board[place] -= 1
    dice.remove(die)
    if end > 23:
        board[26] += 1
    elif board[end] == -1:
        board[end], board[25] = 1, board[25] - 1
    else:
        board[end] += 1
    return board, dice


def turned(board):
    """The same board from the other side."""
    points, bars, off = board[:24], board[24:26], board[26:]
    return [-x for x in (*points[::-1], *bars[::-1], *off[::-1])]


def dice_of(counts):
    return [die + 1 for die in range(6) for _ in range(counts[28 + die])]


def play(act, steps=STEPS, seed=4):
    """Timesteps of whole games and the actions from each to the next."""
    env = make_env(CONFIG, seed=seed, num_envs=LANES)
    seen, actions = [env.reset()], []
    for count in range(steps):
        actions.append(act(seen[-1], count))
        seen.append(env.step(actions[-1]))
    env.close()
    return seen, actions


@pytest.fixture(scope="module")
def played():
    return play(make_random_policy(0))


def test_a_frame_by_hand_and_back():
    counts = np.array([*START, 1, -2, 3, -4, 0, 0, 4, 0, 1, 0])
    counts[0], counts[5] = 15, -4
    frame = frame_of(counts)
    assert frame.shape == make_spec(CONFIG).frame_shape and frame.dtype == np.uint8
    assert frame[:8].tolist() == [255, 255, 255, 12 * 17, 0, 0, 0, 0]
    assert frame[96:99].tolist() == [255, 17, 3 * 17]  # own bar and off, then the other's points
    assert frame[99 + 20 : 99 + 24].tolist() == [255, 255, 255, 17]
    assert frame[195:198].tolist() == [255, 34, 4 * 17]
    assert frame[198:].reshape(6, 4).sum(axis=1).tolist() == [0, 0, 4 * 255, 0, 255, 0]
    draw = np.random.default_rng(0)
    many = draw.integers(-15, 16, (200, 34))
    many[:, [24, 26]], many[:, [25, 27]] = abs(many[:, [24, 26]]), -abs(many[:, [25, 27]])
    many[:, 28:] = draw.integers(0, 5, (200, 6))
    np.testing.assert_array_equal(counts_of(np.stack([frame_of(x) for x in many])), many)


def test_actions_have_the_names_that_players_write():
    named = {0: "skip", 6: "bar/24", 11: "bar/19", 12: "24/23", 14: "24/21", 150: "1/off"}
    assert {x: ACTION_NAMES[x] for x in named} == named and len(set(ACTION_NAMES)) == 156
    assert ACTION_NAMES[6 * (2 + 21) + 4] == "3/off(5)"


def test_a_roll_has_the_entropy_of_two_dice():
    rolls = [tuple(sorted((a, b))) for a in range(6) for b in range(6)]
    chances = np.unique(rolls, axis=0, return_counts=True)[1] / 36
    assert len(chances) == len(backgammon.ROLLS) == 21
    assert pytest.approx(-(chances * np.log(chances)).sum()) == backgammon.ROLL_ENTROPY


def test_games_follow_the_rules(played):
    seen, actions = played
    points, skips, twice = [], 0, 0
    for before, action, after in zip(seen, actions, seen[1:], strict=False):
        old, new = (counts_of(step.observation[:, 0]).tolist() for step in (before, after))
        for lane in range(LANES):
            board, dice = old[lane][:28], dice_of(old[lane])
            assert sum(max(x, 0) for x in board) == sum(max(-x, 0) for x in board) == 15
            if before.game_over[lane]:
                assert new[lane][:28] == [*START, 0, 0, 0, 0] and after.is_first[lane]
                assert len(set(dice_of(new[lane]))) == 2 and after.player[lane] == 0
                continue
            valid = set(np.flatnonzero(before.invalid_actions[lane] == 0).tolist())
            assert valid == legal(board, dice)
            board, dice = moved(board, dice, int(action[lane]))
            mover, sign = before.player[lane], (1, -1)[before.player[lane]]
            if board[26] == 15:
                home = any(x < 0 for x in board[18:24])
                won = 1 + (board[27] == 0) * (1 + home)
                assert after.terminated[lane] and after.reward[lane] == won
                assert after.raw_reward[lane] == sign * won
                points.append(won)
                continue
            assert not after.terminated[lane] and after.reward[lane] == 0
            passes = not dice
            skips += action[lane] == 0
            twice += not passes
            assert after.player[lane] == mover ^ passes
            assert new[lane][:28] == (turned(board) if passes else board)
            rolled = dice_of(new[lane])
            assert rolled == sorted(dice) if dice else len(rolled) == 4 - 2 * (len({*rolled}) == 2)
    assert len(points) > 10 and max(points) > 1 and min(skips, twice) > 50


def test_the_dice_of_a_turn_are_the_same_whatever_is_played(played):
    """So that a match is played from both sides with the same dice."""
    found = []
    for seen, _ in (played, play(make_constant_policy(0))):
        rolls = {}
        for lane in range(LANES):
            game = turn = 0
            rolls[lane, 0, 0] = dice_of(counts_of(seen[0].observation[lane])[0])
            for before, after in pairwise(seen):
                game, turn = (game + 1, 0) if after.is_first[lane] else (game, turn)
                turn += before.player[lane] != after.player[lane] and not after.is_first[lane]
                dice = dice_of(counts_of(after.observation[lane])[0])
                rolls.setdefault((lane, game, int(turn)), dice)
        found.append(rolls)
    shared = [key for key in found[0] if key in found[1]]
    assert len(shared) > 500 and max(game for _, game, _ in shared) > 0
    assert all(found[0][key] == found[1][key] for key in shared)
    assert len({tuple(x) for x in found[0].values()}) >= 21


def test_returns_keep_their_sign_while_one_player_moves_on(played):
    """Without discount each row's return is the game's points, of who moves in the row."""
    seen, actions = played
    chosen = np.stack(actions, axis=1)
    zeros = np.zeros(chosen.shape, np.float32)
    given = {"action_weights": zeros, "value": zeros, "values": None, "spread": None}
    search = SimpleNamespace(action=chosen, **given)
    rows = join_rows([seen], SimpleNamespace(search=search, transition_entropy=zeros), 0)  # type: ignore
    returns = jax.jit(partial(n_step_targets, td_steps=STEPS, gamma=1.0))
    player = np.stack([step.player for step in seen], axis=1)
    raw = np.stack([step.raw_reward for step in seen[1:]], axis=1)
    checked = 0
    for lane in range(LANES):
        ends = np.flatnonzero(np.asarray(rows.discount[lane]) == 0)
        assert {*np.unique(rows.discount[lane, :, ...])} == {-1.0, 0.0, 1.0}
        begin = 0
        for end in ends:
            part = slice(begin, end + 1)
            length = end + 1 - begin
            pad = (0, 2 * STEPS - length)  # one shape for all
            reward, discount = (np.pad(x[lane, part], pad) for x in (rows.reward, rows.discount))
            z = returns(reward, discount, np.zeros(2 * STEPS, bool), reward * 0)[:length]
            side = np.where(player[lane, part] == 0, 1, -1)
            np.testing.assert_array_equal(z, side * raw[lane, end])
            checked += 1
            begin = end + 2  # the final observation's row is none
    assert checked > 10


def test_a_stored_game_is_played_again(played):
    """The same seed and actions give the same games, whatever lanes are beside."""
    seen, actions = played
    again, _ = play(lambda _, count: actions[count])
    for old, new in zip(seen, again, strict=True):
        for name, x, y in zip(old._fields, old, new, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)
