"""A person at a terminal, which is a real one: a pty."""

import os
import threading
import time

import pytest

from smz_jax.analysis.person.desk import make_desk
from smz_jax.analysis.person.games import PersonGames
from smz_jax.analysis.person.terminal import Terminal, check_terminal, keys_of
from smz_jax.analysis.requests import PersonWay
from smz_jax.config.check import ConfigError
from smz_jax.envs import open_playable
from tests.analysis.test_person_games import settings

WAY = PersonWay(terminal=True)


def test_keys_have_the_names_of_a_window():
    assert list(keys_of("aW \r\x7f\x1b[A\x1bOD\x1b")) == [
        *("a", "w", "space", "return", "backspace", "up", "left", "escape")
    ]
    assert list(keys_of("\x1b[")) == ["escape", "["] and list(keys_of("\x01")) == [""]


def at_terminal(config, typed, monkeypatch, way=WAY):
    """Plays while `typed` comes from the other end of a pty; the games and what was shown."""
    playable = open_playable(config.env, seed=3)
    games = PersonGames(playable)
    desk = make_desk(config, way, playable)
    outer, inner = os.openpty()
    screen = []

    def other_end():
        at, shown = 0, b""
        while True:
            try:
                part = os.read(outer, 65536)
            except OSError:
                return
            shown += part
            screen.append(part.decode("utf-8", "ignore"))
            while shown.count(b"Esc: end") > at:  # it was drawn: the next key
                if at < len(typed):
                    os.write(outer, typed[at].encode())
                at += 1

    thread = threading.Thread(target=other_end, daemon=True)
    with os.fdopen(inner, "r+b", buffering=0) as end:
        text = os.fdopen(os.dup(inner), "w", encoding="utf-8")
        monkeypatch.setattr("sys.stdin", os.fdopen(os.dup(inner), "r", encoding="utf-8"))
        monkeypatch.setattr("sys.stdout", text)
        thread.start()
        check_terminal()
        deadline = time.monotonic() + 120
        Terminal(games, desk, lambda: time.monotonic() > deadline).play()
        monkeypatch.undo()
        text.close()
        assert end
    os.close(outer)
    games.finish()
    playable.game.env.close()
    return games, "".join(screen)


def test_a_key_is_a_move(monkeypatch):
    games, seen = at_terminal(
        settings("gridworld"), ["w", "\x1b[C", "\x7f", "a", "\n", "s", "s", "\x1b"], monkeypatch
    )
    assert games.done[0].rows.action[0, :2].tolist() == [0, 3]
    assert games.done[1].rows.action[0, 0] == 2 and games.number == 2
    assert "W or up = UP" in seen and "@" in seen and "1 step back" in seen
    assert "game 2, step 2" in seen and "1 played before" in seen


def test_many_actions_are_typed(monkeypatch):
    config = settings("board", id="hex")
    typed = ["5", "0", "\r", "9", "\x7f", "999", "\r", "50", "\r", "60", "\r", "\x1b"]
    games, seen = at_terminal(config, typed, monkeypatch)
    assert games.done[0].rows.action[0].tolist() == [50, 60]
    assert "999 is none of the 122 actions" in seen and "50 is not allowed here" in seen
    assert "player 2 moves" in seen and "action: 9" in seen


def test_without_a_terminal_it_is_one_line(monkeypatch):
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(ConfigError, match="terminal = True is not allowed: input and output"):
            check_terminal()
