"""Boards of two players through pgx, and the players that were not trained."""

import functools

import numpy as np
import pytest

from experiments.board import EXPERIMENT
from smz_jax.acting.agent import make_random_policy
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import Turn, check_env_id, count_players, make_env, make_spec, opponents_of
from smz_jax.envs.pgx import board_players
from smz_jax.envs.pgx.board_players import WON, best_moves, drop, look_ahead


def board(env_id):
    return EnvConfig(suite="pgx", id=env_id, frame_stack=1)


def player(env_id, name):
    """An opponent as a function of frames."""
    opponent = opponents_of(board(env_id))[name].make(0)
    return lambda frames: opponent.act(Turn(frames, np.zeros((len(frames), 1)), np.arange(0)))


def winner(cells):
    """1 or 2 where that one has a line in `cells`, else 0."""
    for line in board_players.LINES:
        if cells[line[0]] and len({cells[x] for x in line}) == 1:
            return cells[line[0]]
    return 0


def test_tic_tac_toe_follows_its_rules_from_the_side_of_who_moves():
    env, act = make_env(board("tic_tac_toe"), seed=2, num_envs=8), make_random_policy(0)
    assert env.spec.players == 2 and env.spec.frame_shape == (3, 3, 2)
    last, boards = env.reset(), [[0] * 9 for _ in range(8)]
    ends = {1.0: 0, 0.0: 0}
    for count in range(60):
        actions = act(last, count)
        step = env.step(actions)
        for lane, cells in enumerate(boards):
            if last.game_over[lane]:
                boards[lane] = [0] * 9
                assert step.is_first[lane] and step.player[lane] == 0
                continue
            mover = int(last.player[lane])
            assert mover == sum(map(bool, cells)) % 2  # player 0 begins, whomever pgx drew
            own, other = (last.observation[lane, 0, ..., x].ravel() for x in (0, 1))
            np.testing.assert_array_equal(own, [x == mover + 1 for x in cells])
            np.testing.assert_array_equal(other, [x == 2 - mover for x in cells])
            np.testing.assert_array_equal(last.invalid_actions[lane], np.array(cells) > 0)
            cells[actions[lane]] = mover + 1
            over = winner(cells) > 0 or all(cells)
            assert step.terminated[lane] == over
            assert step.reward[lane] == (1 if winner(cells) else 0)
            assert step.raw_reward[lane] == {0: 0, 1: 1, 2: -1}[winner(cells)]
            if over:
                ends[float(step.reward[lane])] += 1
            else:
                assert step.player[lane] == 1 - mover
        last = step
    assert min(ends.values()) > 2
    env.close()


def test_exact_play_is_minimax():
    @functools.cache
    def value(cells, mover):
        if winner(cells):
            return -1
        if all(cells):
            return 0
        after = ((*cells[:x], mover, *cells[x + 1 :]) for x in range(9) if not cells[x])
        return max(-value(x, 3 - mover) for x in after)

    draw, act = np.random.default_rng(0), player("tic_tac_toe", "exact")
    assert best_moves(0, 0) == (0, tuple(range(9)))
    checked = 0
    while checked < 300:
        stones = draw.permutation(9)[: draw.integers(0, 9)]
        cells = tuple(int(1 + list(stones).index(x) % 2) if x in stones else 0 for x in range(9))
        if winner(cells) or all(cells):
            continue
        mover = 1 + len(stones) % 2
        own, other = (sum(1 << x for x in range(9) if cells[x] == y) for y in (mover, 3 - mover))
        best, moves = best_moves(own, other)
        worth = {x: -value((*cells[:x], mover, *cells[x + 1 :]), 3 - mover)
                 for x in range(9) if not cells[x]}  # fmt: skip
        assert best == max(worth.values())
        assert moves == tuple(x for x, y in worth.items() if y == best)
        planes = np.array([[x == mover, x == 3 - mover] for x in cells]).reshape(1, 3, 3, 2)
        assert act(planes)[0] in moves
        checked += 1


def has_four(stones):
    grid = np.array([stones >> cell & 1 for cell in range(42)]).reshape(6, 7)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y, x in np.ndindex(6, 7):
            line = [(y + k * dy, x + k * dx) for k in range(4)]
            if all(0 <= b < 6 and 0 <= a < 7 and grid[b, a] for b, a in line):
                return True
    return False


def plain_look_ahead(own, other, depth):
    """Minimax without cuts, a board of lists at its leaves."""
    if depth == 0:
        return board_players._threes(own, other) - board_players._threes(other, own)
    values = []
    for column in range(7):
        if (cell := drop(own | other, column)) >= 0:
            after = own | 1 << cell
            value = WON + depth if has_four(after) else -plain_look_ahead(other, after, depth - 1)
            values.append(value)
    return max(values, default=0)


def test_alpha_beta_is_minimax():
    draw = np.random.default_rng(1)
    for _ in range(12):
        sides = [0, 0]
        for number in range(draw.integers(4, 24)):
            cell = drop(sides[0] | sides[1], int(draw.integers(7)))
            stones = sides[number % 2] | 1 << max(cell, 0)
            if cell >= 0 and not has_four(stones):
                sides[number % 2] = stones
        for depth in (1, 2, 3):
            got, column = look_ahead(*sides, depth, -WON * 10, WON * 10)
            assert got == plain_look_ahead(*sides, depth)
            assert drop(sides[0] | sides[1], column) >= 0


def test_three_in_a_line_by_hand():
    """The bottom row: three of one's own, the fourth free on the right; a fourth one wins."""
    row = [1 << 35 + x for x in range(7)]
    own, other = row[0] | row[1] | row[2], 1 << 28 | 1 << 29
    assert board_players._threes(own, other) == 1 and board_players._threes(own, row[3]) == 0
    act = player("connect_four", "alpha_beta")
    frames = np.zeros((2, 42, 2), bool)
    for cell in (35, 36, 37):
        frames[0, cell, 0] = frames[1, cell, 1] = True
    frames[0, [28, 29], 1] = frames[1, [28, 29], 0] = True
    assert act(frames.reshape(2, 6, 7, 2)).tolist() == [3, 3]  # it wins; it keeps the other from it


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("tictactoe", "did you mean tic_tac_toe"),
        ("sparrow_mahjong", "for two who see the whole board"),
        ("kuhn_poker", "for two who see the whole board"),
    ],
)
def test_other_games_are_refused(env_id, message):
    with pytest.raises(ConfigError, match=message):
        check_env_id(board(env_id))
    assert count_players(board("backgammon")) == 2 and count_players(board("2048")) == 1


def test_the_experiment_of_boards_is_for_two_players():
    for env_id, message in (
        ("2048", "env.id = '2048' .* a board for two players, .*; experiments.twenty48 plays 2048"),
        ("othelo", "did you mean othello"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(["--env.id", env_id], EXPERIMENT)
    assert parse(["--env.id", "hex"], EXPERIMENT).config.env.id == "hex"


def test_a_game_says_whether_it_has_dice():
    assert make_spec(board("backgammon")).has_dice and not make_spec(board("connect_four")).has_dice
