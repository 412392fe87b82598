"""Games of a person: their rows are those of the rollout, also after a way back."""

import dataclasses

import jax
import numpy as np
import pytest

from smz_jax.acting.actor import Actor
from smz_jax.analysis.person.games import PersonGames, rows_of
from smz_jax.analysis.recording import decide_at_random
from smz_jax.config.experiment import find_experiment, resolve
from smz_jax.envs import make_env, open_playable
from smz_jax.storage.metrics import PhaseTimers

SEED = 3


def settings(experiment, **flags):
    named = {f"env.{name}": value for name, value in flags.items()}
    return resolve(find_experiment(experiment), "tiny", {}, named)


def opened(config):
    return open_playable(config.env, seed=SEED)


def rollout(config, game, lane):
    """The actor's rows of the actions that were played in a lane's first game."""
    length, backend = game.rows.action.shape[1], config.env.backend
    backend = "gymnasium" if config.env.suite == "gym" else backend
    env = dataclasses.replace(config.env, backend=backend)
    rolled = dataclasses.replace(config.rollout, length=length)
    config = dataclasses.replace(config, env=env, rollout=rolled, total_env_steps=10**6)

    def decide(params, key, count, observation, invalid, *rest):
        found = decide_at_random(params, key, count, observation, invalid, *rest)
        action = game.rows.action[:, int(count)]
        weights = np.eye(invalid.shape[1], dtype=np.float32)[action]
        return found._replace(search=found.search._replace(action=action, action_weights=weights))

    vector = make_env(env, seed=SEED, num_envs=1, first_lane=lane)
    actor = Actor([vector], config, decide, jax.random.key(0), PhaseTimers(), lambda *_: None)
    try:
        return jax.tree.map(np.asarray, actor.next(None).rows)
    finally:
        actor.close()


@pytest.mark.parametrize(
    ("experiment", "flags", "steps"),
    [
        ("breakout", {"mode": "stochastic", "noop_max": 0}, 260),  # lives are lost on the way
        ("breakout", {"max_episode_steps": 40}, 60),
        ("cartpole", {}, 60),
        ("gridworld", {}, 60),
        ("pig", {}, 60),
    ],
)
def test_rows_are_those_of_the_rollout(experiment, flags, steps):
    config = settings(experiment, **flags)
    playable, rng = opened(config), np.random.default_rng(0)
    games = PersonGames(playable, every=7)
    for number in (1, 2):
        for step in range(steps):
            if games.is_over:
                break
            if step in (11, 50):
                before = games.count
                games.undo(9)
                assert games.count == before - 9 and games.number == number
                assert ("from the start" in games.message) == (playable.bookmark is None)
            games.act(int(rng.choice(np.flatnonzero(~games.invalid))))
        games.finish() if number == 2 else games.begin()
    playable.game.env.close()
    for lane, game in enumerate(games.done):
        rows = rollout(config, game, lane)
        of_several = {name for name, x in rows._asdict().items() if x is None}
        assert of_several == set(rows._field_defaults)
        for name in set(rows._fields) - of_several:
            ours, theirs = getattr(game.rows, name), getattr(rows, name)
            assert ours.dtype == theirs.dtype, name
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} of game {lane + 1}")
    if "max_episode_steps" in flags:  # counted from the start, whatever was taken back
        assert [game.raw.shape[1] for game in games.done] == [flags["max_episode_steps"] + 1] * 2
    if flags.get("mode"):
        assert (games.done[0].rows.discount == 0).sum() >= 2  # lost lives end the episode
    rows, raw = rows_of(games.done)
    assert rows.is_first.sum() == 2 and raw.shape == rows.reward.shape
    np.testing.assert_array_equal(rows.action_weights.argmax(-1), rows.action)
    assert not rows.search_value.any() and (rows.action_weights.sum(-1) == 1).all()


def test_a_lost_life_is_undone():
    playable = opened(settings("breakout", mode="stochastic"))
    games = PersonGames(playable, every=15)
    while not games.invalid.any():  # only FIRE is left after a lost life
        games.act(1, replace=True)
    lost, chance = games.count, games.now
    games.undo(45)
    assert not games.invalid.any() and games.count == max(lost - 45, 0)
    while not games.invalid.any():
        games.act(1, replace=True)
    assert games.count == lost  # chance did not change: the same actions lose it again
    np.testing.assert_array_equal(games.now.observation, chance.observation)
    assert not games.act(0) and "not allowed" in games.message and games.count == lost
    assert games.act(0, replace=True)
    games.finish()
    assert games.done[0].rows.action[0, -1] == 1  # what was played is what is stored
    playable.game.env.close()


@pytest.mark.parametrize(
    ("experiment", "flags"), [("cartpole", {}), ("breakout", {"max_episode_steps": 20})]
)
def test_the_end_of_a_game_is_undone(experiment, flags):
    playable = opened(settings(experiment, **flags))
    games = PersonGames(playable)
    while not games.is_over:
        games.act(0)
    length = games.count
    assert not games.act(1) and games.count == length
    games.undo(3)
    assert not games.is_over and games.count == length - 3
    games.act(1)
    games.finish()
    (game,) = games.done
    assert not game.is_whole and game.rows.action.tolist() == [[0] * (length - 3) + [1]]
    assert game.rows.is_first.sum() == 1
    playable.game.env.close()


@pytest.mark.parametrize("place", [1, 2])
def test_what_leads_elsewhere_is_kept(place):
    """A library that does not play the same game twice, or fails at it: the game ends there."""
    playable = opened(settings("gridworld"))
    games = PersonGames(playable)
    for _ in range(3):
        games.act(0)
    there = games._steps[place]
    games._steps[place] = there._replace(reward=there.reward + 1)
    games.undo(1)
    assert [x.rows.action.tolist() for x in games.done] == [[[0, 0, 0]]]
    assert (games.number, games.count) == (2, 0) and "it is kept" in games.message
    playable.game.env.close()


def test_nothing_played_is_nothing_kept():
    playable = opened(settings("gridworld"))
    games = PersonGames(playable)
    games.begin()
    games.undo(5)
    assert games.count == 0 and games.number == 2
    games.act(0)  # of one action there is no step to be stored
    games.finish()
    assert games.done == []
    playable.game.env.close()


def test_bookmarks_are_of_the_library():
    atari, grid = opened(settings("breakout")), opened(settings("gridworld"))
    assert atari.bookmark is not None and grid.bookmark is None
    assert atari.game.screen is not None and atari.game.steps_per_second == 15
    for one in (atari, grid):
        one.game.env.close()
