"""Boards as they are drawn: the pieces that stand now, each its owner's, whoever is to move."""

import numpy as np
import pytest

from smz_jax.analysis.play.boards import LAYOUTS
from smz_jax.analysis.play.scenes import BASE_COLOURS, make_scene
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.pgx.pgx_games import BOARDS

EMPTY = "." * 9
GAMES = {  # moves, and the board before the last one and after it
    "tic_tac_toe": ([0, 4, 8], "A..\n.B.\n...", "A..\n.B.\n..A"),
    "go_9x9": (  # the stone in the corner was taken
        [1, 0, 9, 80],
        "\n".join([".A.......", "A........", *[EMPTY] * 7]),
        "\n".join([".A.......", "A........", *[EMPTY] * 6, "........B"]),
    ),
    "gardner_chess": (  # a pawn; for each player the own side is below
        [62],
        "rnbqk\nppppp\n.....\nPPPPP\nRNBQK",
        "RNBQK\n.PPPP\nP....\nppppp\nrnbqk",
    ),
    "animal_shogi": (  # a chick takes the other one
        [42],
        "gle\n.c.\n.C.\nELG\nin hand: nothing",
        "GLE\n...\n.C.\nelg\nin hand: C",
    ),
}


def drawn(env_id, moves):
    """The views of a game, and what was seen before each move and after the last one."""
    config = EnvConfig(suite="pgx", id=env_id, frame_stack=1)
    env = make_env(config, seed=0, num_envs=1, training=False)
    seen = [env.reset()]
    for move in moves:
        assert seen[-1].invalid_actions[0, move] == 0
        seen.append(env.step(np.array([move], np.int32)))
    env.close()
    return make_scene(config, env.spec, None), seen


@pytest.mark.parametrize("env_id", GAMES)
def test_pieces_are_those_of_now_and_of_their_owner(env_id):
    moves, before, after = GAMES[env_id]
    scene, seen = drawn(env_id, moves)
    assert [scene.text(x) for x in seen[-2:]] == [before, after]
    assert {int(x.player[0]) for x in seen[-2:]} == {0, 1}
    board = [list(row) for row in before.split("\n") if "in hand" not in row]
    picture = scene.picture(seen[-2])
    side = picture.width / len(board[0])
    for (y, x), name in np.ndenumerate(board):
        colour = picture.getpixel((side * x + 4, side * y + 4))
        assert name == "." or colour == BASE_COLOURS[name in LAYOUTS[env_id].names(1)]


def test_hex_has_its_shape_and_says_who_joins_what():
    """A column from top to bottom wins for A, who is told so; each row is half a cell further."""
    moves = [x for row in range(11) for x in (11 * row + 3, 11 * row + 9)][:-1]
    scene, seen = drawn("hex", moves)
    assert seen[-1].terminated[0] and seen[-1].raw_reward[0] == 1
    *rows, note = str(scene.text(seen[-2])).split("\n")
    assert note == "A joins top and bottom, B left and right"
    assert rows[:-1] == [" " * y + ". . . A . . . . . B ." for y in range(10)]
    assert rows[-1].split() == ["."] * 11


def test_every_board_that_is_seen_in_planes_has_a_layout():
    assert set(LAYOUTS) == set(BOARDS) - {"backgammon"}
    shogi = LAYOUTS["shogi"]
    assert shogi.names(1)[-1] == "+r" and len(shogi.hand) == shogi.hands[1] - shogi.hands[0]
