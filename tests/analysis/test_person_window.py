"""A window with real events of keys, under SDL's dummy display."""

import os
import sys
from dataclasses import replace as replaced

import numpy as np
import pytest

from smz_jax.analysis.person import desk as desks
from smz_jax.analysis.person import window as windows
from smz_jax.analysis.person.games import PersonGames
from smz_jax.analysis.requests import PersonWay
from smz_jax.config.check import ConfigError
from smz_jax.envs import open_playable
from tests.analysis.test_person_games import rollout, settings

pygame = pytest.importorskip("pygame")
FAST = PersonWay(fps=1000.0, undo_seconds=0.1)


@pytest.fixture(autouse=True)
def dummy(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def post(words):
    """Posts `+key` and `-key` as events of a keyboard, and `quit`."""
    for word in words.split():
        if word == "quit":
            pygame.event.post(pygame.event.Event(pygame.QUIT))
            continue
        kind = pygame.KEYDOWN if word[0] == "+" else pygame.KEYUP
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(word[1:])))


def play(config, script, way=FAST, stop=lambda: False):
    """Plays in a window: events by game and step, or by what is told, posted once it is drawn."""
    playable = open_playable(config.env, seed=3)
    games = PersonGames(playable, every=5)
    desk = desks.make_desk(config, way, playable)
    script, drawn = dict(script), []

    def picture(now):
        told = desks.told(games, window._is_paused)
        drawn.append((games.number, games.count, told))
        if pygame.display.get_surface() is not None:  # else the size of a picture is asked for
            post(script.pop((games.number, games.count), "") + " " + script.pop(told, ""))
        if len(drawn) > 5000:
            post("quit")
        return desk.picture(now)

    window = windows.Window(games, desk._replace(picture=picture), stop)
    window.play()
    games.finish()
    playable.game.env.close()
    assert not script, "all of it was played"
    return games, drawn


def actions(game):
    return game.rows.action[0].tolist()


def test_held_keys_are_the_rows_of_the_rollout():
    """Breakout in real time: taps, two keys, a way back, a pause, two games."""
    config = settings("breakout", mode="stochastic", noop_max=0)
    script = {
        (1, 0): "+space",
        (1, 1): "-space +left",
        (1, 4): "+d",  # pressed later than LEFT, which is still held
        (1, 6): "-d",
        (1, 7): "-left",
        (1, 9): "+right -right",  # shorter than a step
        (1, 12): "+return",
        (2, 0): "+return +a",  # a game without a step is not left
        (2, 3): "-a +escape",
    }
    games, drawn = play(config, script)
    left, right = 3, 2
    expected = [1, left, left, left, right, right, left, 0, 0, right, 0, 0]
    assert [actions(game) for game in games.done] == [expected, [left] * 3]
    assert drawn[0][2] == "a key of an action starts it"
    for lane, game in enumerate(games.done):
        for ours, theirs in zip(game.rows, rollout(config, game, lane), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_pause_and_the_way_back():
    script = {
        (1, 0): "+d",
        (1, 8): "-d +p",
        (1, 20): "-a +backspace",
        "6 steps back; paused: any action goes on": "quit",
    }
    looks = []

    def stop():
        """Looks often at the paused game, which stands still, and goes on."""
        looks.append(1)
        if len(looks) == 100:
            post("+a")
        return False

    way = PersonWay(fps=60.0, undo_seconds=0.1)
    games, drawn = play(settings("breakout"), script, way, stop)
    assert drawn.count((1, 8, "paused: any action goes on")) == 1 and drawn[-1][1] == 14
    assert actions(games.done[0]) == [2] * 8 + [3] * 6


def test_a_game_that_waits_steps_once_a_key():
    script = {
        (1, 0): "+w -w",
        (1, 1): "+z +p +right -right",  # the first two are keys of no action
        (1, 2): "+w -w",
        (1, 3): "+backspace",
        "1 step back, played again from the start": "quit",
    }
    games, drawn = play(settings("gridworld"), script)
    assert [count for _, count, _ in drawn if count][:4] == [1, 2, 3, 2]
    assert actions(games.done[0]) == [0, 1]


def test_a_key_that_is_held_goes_on(monkeypatch):
    monkeypatch.setattr(windows, "REPEAT_AFTER", 0.0)
    games, _ = play(settings("cartpole"), {(1, 0): "+right", (1, 5): "quit"})
    assert actions(games.done[0])[:5] == [1] * 5


def test_the_last_game_ends_it_and_a_signal_too():
    way = replaced(FAST, games=2)
    script = {
        (1, 0): "+up -up +up",
        (1, 2): "+return",
        (2, 0): "+up -up +up",
        (2, 2): "+return",
    }
    games, _ = play(settings("gridworld"), script, way)
    assert games.number == 2 and len(games.done) == 2
    games, _ = play(settings("gridworld"), {}, stop=lambda: True)
    assert games.done == []


def test_every_action_is_on_the_panel():
    config = settings("breakout", id="Seaquest")
    playable = open_playable(config.env, seed=0)
    games = PersonGames(playable)
    desk = desks.make_desk(config, FAST, playable)
    panel = desks.DeskPanel(desk)
    height = panel.least_height
    plain, lit = (np.asarray(panel.draw(games, False, x, height)) for x in (None, 17))
    changed = np.flatnonzero((plain != lit).any(axis=(1, 2)))
    assert changed.size and changed[-1] < height - 100 and changed[-1] - changed[0] < 25
    playable.game.env.close()


def test_no_window_is_one_line(monkeypatch):
    windows.check_window()
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    with pytest.raises(ConfigError, match=r"no display for a window \(nothing not available\)"):
        windows.check_window()
    monkeypatch.delenv("SDL_VIDEODRIVER")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="play with --terminal, or under xvfb-run"):
        windows.check_window()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[record\]'"):
        windows.check_window()


def test_who_draws_without_a_display_does_not_hide_the_window(monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER")
    with windows.own_driver():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    assert "SDL_VIDEODRIVER" not in os.environ and sys.modules["pygame"] is pygame
