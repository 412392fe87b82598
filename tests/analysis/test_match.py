"""A person against a model, with scripted lines: Pig and tic-tac-toe by rule, what is typed."""

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import evaluate, play
from smz_jax.analysis.person import match
from smz_jax.analysis.person.match import backgammon_text, pig_text, play_match
from smz_jax.analysis.requests import EvaluateRequest, PlayRequest
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.envs import make_env
from smz_jax.envs.pgx.backgammon import frame_of

TIC_TAC_TOE = EnvConfig(suite="pgx", id="tic_tac_toe", frame_stack=1)
PIG = EnvConfig(suite="turns", id="Pig", kwargs='{"goal": 6}', frame_stack=1)


class Lowest:
    """An agent that plays the lowest action that is allowed, and expects a half."""

    decision = SimpleNamespace(search=SimpleNamespace(value=np.array([0.5])))

    def __call__(self, timestep, count):
        return timestep.invalid_actions.argmin(axis=1)


def at_the_board(monkeypatch, env, typed, games=1):
    """Plays what is typed, and nothing after it; gives the results and all that was shown.

    A line of bytes cannot be decoded.
    """
    shown, lines = [], iter(typed)

    @contextlib.contextmanager
    def opened(model, seed, max_steps):
        vector = make_env(env, seed=seed, num_envs=1, training=False)
        yield SimpleNamespace(game=SimpleNamespace(env=vector), agent=Lowest())
        vector.close()

    def ask(prompt):
        shown.append(prompt)
        try:
            line = next(lines)
            return line if isinstance(line, str) else str(line, "utf-8")
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(match, "open_player", opened)
    config = Config(env=env, experiment="game")
    model = SimpleNamespace(config=config, about={"checkpoint": "best"})
    request = PlayRequest(Path(), games=games, seed=3, against="me")
    return play_match(model, request, ask, shown.append), "\n".join(shown)  # type: ignore


def test_the_person_begins_and_then_the_model(monkeypatch):
    """The model takes 0, 1, 2, ...: 6 4 2 is a line for the person, 3 4 5 is one too late."""
    typed = ["6", "0", " 4 ", "?", "2", "3", "4", "8"]
    scores, shown = at_the_board(monkeypatch, TIC_TAC_TOE, typed, games=2)
    assert scores == [1.0, -1.0]
    assert "'0' is not allowed here" in shown and "allowed: 2, 3, 5, 7, 8" in shown
    assert "game 1: you win, +1" in shown and "game 2: you lose, -1" in shown
    assert "the model plays 0 (it expects +0.50)" in shown
    assert "game 1: you begin, your pieces are A" in shown
    assert "game 2: the model begins, your pieces are B" in shown
    # The person is A in the first game, B in the second, from its own side the same all the time.
    assert "B..\n...\nA.." in shown and "A..\n...\n..." in shown


@pytest.mark.parametrize("typed", [["q"], [], ["6", "Quit"]])
def test_a_person_may_end_it(monkeypatch, typed):
    scores, shown = at_the_board(monkeypatch, TIC_TAC_TOE, typed)
    assert scores == [] and shown.endswith("ended")


def test_a_game_that_is_cut_off_has_no_result(monkeypatch):
    short = dataclasses.replace(TIC_TAC_TOE, max_episode_steps=2)
    scores, shown = at_the_board(monkeypatch, short, ["6", "5"], games=2)
    assert scores == [] and "a draw" not in shown
    assert "game 1: cut off by the time limit, no result" in shown
    assert "game 2: cut off by the time limit, no result" in shown


def test_bytes_that_are_no_text_are_a_wrong_move(monkeypatch):
    scores, shown = at_the_board(monkeypatch, TIC_TAC_TOE, [b"\xff", "6", "4", "2"])
    assert scores == [1.0] and shown.count("what was typed is no text") == 1


def test_pig_in_words(monkeypatch):
    scores, shown = at_the_board(monkeypatch, PIG, ["hold"] + ["roll"] * 200)
    assert len(scores) == 1 and "you 0, the model 0 of 6; in this turn 0" in shown
    assert "HOLD, ROLL" in shown and "the model plays HOLD" in shown
    frame = np.zeros((3, 6), np.uint8)
    frame[0, 4] = frame[1, 2] = frame[2, 1] = 255
    assert pig_text(frame.ravel()) == "you 4, the model 2 of 6; in this turn 1"


def test_a_board_of_backgammon_in_words():
    start = [2, 0, 0, 0, 0, -5, 0, -3, 0, 0, 0, 5, -5, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, -2]
    text = backgammon_text(frame_of(np.array([*start, 1, -2, 3, 0, 0, 1, 0, 0, 1, 0])))
    upper, first, second, lower, beside = text.splitlines()
    assert upper.split() == list(map(str, range(13, 25)))
    assert lower.split() == list(map(str, range(12, 0, -1)))
    assert first.split() == ["5o", *"...", "3x", ".", "5x", *"....", "2o"]
    assert second.split() == ["5x", *"...", "3o", ".", "5o", *"....", "2x"]
    assert beside == "bar: you 1, the model 2; off: you 3, the model 0; dice 2 5"


def test_what_does_not_go_together_is_a_line(monkeypatch):
    with pytest.raises(ConfigError, match="for two players, and this game has 1"):
        at_the_board(monkeypatch, EnvConfig(suite="pgx", id="2048", frame_stack=1), [])
    three = dataclasses.replace(PIG, kwargs='{"goal": 20, "players": 3}')
    for module in (evaluate, play):
        monkeypatch.setattr(module, "check_folder", lambda *_: Config(env=three))
    for call in (
        lambda: evaluate.evaluate(EvaluateRequest(Path(), opponent="random")),
        lambda: play.play(PlayRequest(Path(), against="me")),
    ):
        with pytest.raises(ConfigError, match="for two players, and this game has 3"):
            call()
    for name, value in {"terminal": True, "fps": 2.0}.items():
        with pytest.raises(ConfigError, match="left out with --against"):
            PlayRequest(Path(), against="me", **{name: value})  # type: ignore
