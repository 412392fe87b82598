"""Suite pgx: 2048 against its rules in plain Python, masks, ends, limits, lanes."""

import numpy as np
import pytest

from smz_jax.acting.agent import make_constant_policy, make_random_policy
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id, make_env, make_spec

LANES = 3


def pgx(env_id="2048", **settings):
    return EnvConfig(suite="pgx", id=env_id, frame_stack=1, **settings)


def board_of(observation):
    """One-hot planes `[4, 4, 31]` to the 4x4 exponents, 0 where a cell is empty."""
    planes = np.asarray(observation)
    assert (planes.sum(axis=-1) == 1).all()
    return planes.argmax(axis=-1)


def slide(board, action):
    """The board after a move, before the new tile, and the points: rules of the game."""
    turned = np.rot90(board, action)
    rows, points = [], 0
    for row in turned:
        tiles, merged = [int(x) for x in row if x], []
        while tiles:
            tile = tiles.pop(0)
            if tiles and tiles[0] == tile:
                tiles.pop(0)
                tile += 1
                points += 2**tile
            merged.append(tile)
        rows.append(merged + [0] * (4 - len(merged)))
    return np.rot90(np.array(rows), -action), points


@pytest.fixture(scope="module")
def played():
    """Timesteps of whole random games, with the actions that led from each to the next."""
    env = make_env(pgx(), seed=3, num_envs=LANES)
    act, steps, actions = make_random_policy(0), [env.reset()], []
    for count in range(400):
        actions.append(act(steps[-1], count))
        steps.append(env.step(actions[-1]))
    env.close()
    return steps, actions


def test_2048_follows_its_rules(played):
    steps, actions = played
    ends = new_tiles = 0
    for before, action, after in zip(steps, actions, steps[1:], strict=False):
        for lane in range(LANES):
            board, new = board_of(before.observation[lane, 0]), board_of(after.observation[lane, 0])
            if before.game_over[lane]:
                assert after.is_first[lane] and after.reward[lane] == 0
                assert (new > 0).sum() == 2 and new.max() <= 2
                continue
            moved, points = slide(board, int(action[lane]))
            assert (moved != board).any(), "an illegal move was played"
            assert after.reward[lane] == after.raw_reward[lane] == points
            assert ((new != moved).sum(), moved[new != moved].sum()) == (1, 0)
            assert new[new != moved][0] in (1, 2)
            new_tiles += new[new != moved][0] == 1
            stuck = all((slide(new, a)[0] == new).all() for a in range(4))
            assert after.terminated[lane] == after.game_over[lane] == stuck
            assert not (after.truncated[lane] or after.is_first[lane])
            ends += stuck
    assert ends >= 3 and 0.8 < new_tiles / (400 * LANES) < 0.97


def test_invalid_actions_are_the_moves_that_change_nothing(played):
    steps, _ = played
    masked = 0
    for step in steps:
        for lane in range(LANES):
            board = board_of(step.observation[lane, 0])
            blocked = [float((slide(board, a)[0] == board).all()) for a in range(4)]
            if step.game_over[lane]:
                blocked = [0.0] * 4
            np.testing.assert_array_equal(step.invalid_actions[lane], blocked)
            masked += sum(blocked)
    assert masked > 100


def test_a_constant_policy_is_never_illegal():
    env = make_env(pgx(), seed=1, num_envs=LANES)
    step, act, ends = env.reset(), make_constant_policy(0), 0
    for count in range(150):
        step = env.step(act(step, count))
        assert (step.reward >= 0).all()  # pgx gives -1 for an illegal move, and ends the game
        ends += step.game_over.sum()
    assert ends < 10


def test_limit_truncates_and_lanes_do_not_depend_on_their_number():
    config = pgx(max_episode_steps=7)
    whole = make_env(config, seed=4, num_envs=3)
    part = make_env(config, seed=4, num_envs=1, first_lane=2)
    pairs = [(whole.reset(), part.reset())]
    for _ in range(30):
        pairs.append((whole.step(np.ones(3, np.int64)), part.step(np.ones(1, np.int64))))
    for a, b in pairs:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x[2:], y)
    cut = [step.truncated.tolist() for step, _ in pairs]
    assert cut == [[i % 8 == 7] * 3 for i in range(31)]
    firsts = [step.is_first.tolist() for step, _ in pairs]
    assert firsts == [[i % 8 == 0] * 3 for i in range(31)]
    tiles = [
        [(board_of(pairs[i][0].observation[k, 0]) > 0).sum() for k in range(3)] for i in (8, 16)
    ]
    assert tiles == [[2] * 3] * 2
    starts = [pairs[i][0].observation[lane].tobytes() for i in (0, 8, 16) for lane in range(3)]
    assert len(set(starts)) > 5


def test_spec_and_mistakes():
    spec = make_spec(pgx())
    assert (spec.frame_shape, spec.frame_dtype, spec.frames_per_step) == ((4, 4, 31), np.bool_, 1)
    assert spec.action_names == ("LEFT", "UP", "RIGHT", "DOWN")
    assert make_spec(pgx("minatar-breakout")).frame_shape == (10, 10, 4)
    for bad, part in ((pgx("2084"), "did you mean 2048?"), (pgx(kwargs='{"a": 1}'), "left out")):
        with pytest.raises(ConfigError, match=part):
            check_env_id(bad)
