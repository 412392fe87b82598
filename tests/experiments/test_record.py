"""The command that records games: of chance, of a model, and of a person with keys."""

import numpy as np
import pytest

from experiments import record as tool
from smz_jax.analysis.person import window as windows
from smz_jax.config.check import ConfigError
from smz_jax.storage.dataset import INFOS, Dataset
from smz_jax.storage.run_dir import read_config

pytest.importorskip("minari")


@pytest.fixture
def typed(monkeypatch):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["experiments.record", *map(str, words)])
        assert tool.main() == 0

    return run


def test_random_play_is_recorded(tmp_path, typed, capsys):
    words = ["--experiment", "gridworld", "--preset", "tiny", "--total_env_steps", "256"]
    typed("--by", "random", *words, "--out", tmp_path / "r")
    dataset = Dataset(tmp_path / "r")
    assert dataset.rows == 256 and dataset.about["played_by"] == "a random policy"
    actions = np.concatenate([x["actions"] for x in dataset.read()])
    assert np.bincount(actions, minlength=4).min() > 30
    for episode in dataset.read():
        np.testing.assert_allclose(episode["infos"]["action_weights"], 0.25)
    typed("--by", "random", *words, "--min_score", "9", "--out", tmp_path / "all")
    assert "all games are kept" in capsys.readouterr().out
    assert Dataset(tmp_path / "all").rows == 256


def test_a_trained_model_plays_its_own_game(tiny_run, tmp_path, typed):
    lanes = read_config(tiny_run).env.num_envs
    typed("--by", tiny_run, "--total_env_steps", 16 * lanes, "--out", tmp_path / "r")
    dataset = Dataset(tmp_path / "r")
    assert dataset.about["played_by"] == f"the model of {tiny_run.name}"
    assert dataset.about["env"]["kwargs"] == '{"map": "O~G/~S~/G~O"}'
    weights = np.concatenate([x["infos"]["action_weights"] for x in dataset.read()])
    assert np.ptp(weights, axis=1).max() > 0.2


def test_a_person_plays_and_the_best_games_are_kept(tmp_path, typed, monkeypatch, capsys):
    """The keys of four games of the grid, as events of a keyboard."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    keys = iter("wwwa\nddsd\ndd\nswwdda\n")

    def posting(window, show=windows.Window._show):
        show(window)
        if (key := next(keys, None)) is None:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        else:
            code = pygame.K_RETURN if key == "\n" else pygame.key.key_code(key)
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=code))

    monkeypatch.setattr(windows.Window, "_show", posting)
    words = ["--experiment", "gridworld", "--preset", "tiny", "--seed", "5"]
    typed(*words, "--out", tmp_path / "a")
    dataset = Dataset(tmp_path / "a")
    assert dataset.about["played_by"] == "a person" and dataset.about["experiment"] == "gridworld"
    episodes = list(dataset.read())
    assert dataset.episodes == 4 and set(INFOS) <= set(episodes[0]["infos"])
    assert [x["actions"].tolist()[0] for x in episodes] == [0, 1, 1, 2]  # UP, RIGHT, DOWN, LEFT
    whole = [x.is_whole for x in dataset.listed()]  # not those that were left for the next one
    assert whole == [bool(x["terminations"][-1]) for x in episodes] and not all(whole[:-1])
    scores = dataset.scores()
    assert scores == pytest.approx([x["infos"]["reward"].sum() for x in episodes], abs=1e-6)
    assert f"scores {min(scores):g} to {max(scores):g}" in capsys.readouterr().out
    keys = iter("wwwa\nddsd\ndd\nswwdda\n")
    typed(*words, "--out", tmp_path / "b", "--best", "2", "--newest", "3")
    kept = sorted({1, 2, 3} & set(np.argsort(scores, kind="stable")[-2:].tolist()))
    found = list(Dataset(tmp_path / "b").read())
    assert [x["actions"].tolist() for x in found] == [episodes[i]["actions"].tolist() for i in kept]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "env.id = None is not allowed: it must be given: --env.id GAME"),
        (["--env.id", "Breakaut", "--out", "x"], "env.id = 'Breakaut' is not allowed"),
        (["--experiment", "gridworlt", "--out", "x"], "unknown experiment 'gridworlt'; did"),
        (["--experiment", "gridworld"], "out = None is not allowed: it must be given"),
        (["--by", "nowhere", "--out", "x"], "run_dir = 'nowhere' is not allowed"),
        (["--env.id", "Breakout", "--best", "0"], "best = 0 is not allowed: it must be at least 1"),
        (["--env.id", "Breakout", "--resume", "--run_dir", "x"], "resume = True is not allowed"),
        (["--env.id", "x", "--env.suite", "zap", "--out", "x"], "env.suite = 'zap' is not allowed"),
    ],
)
def test_a_mistake_is_one_line(words, message, typed):
    with pytest.raises(ConfigError) as caught:
        typed(*words)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_games_that_cannot_be_played_are_one_line(tmp_path, typed, monkeypatch):
    out = ("--preset", "tiny", "--out", tmp_path / "x")
    with pytest.raises(ConfigError, match="terminal = True is not allowed"):
        typed("--experiment", "gridworld", "--terminal", *out)
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.raises(ConfigError, match="keys = 'JUMP=j' is not allowed"):
        typed("--experiment", "gridworld", "--keys", "JUMP=j", *out)
    with pytest.raises(ConfigError, match="datasets hold no other actions"):
        typed("--experiment", "gym", "--env.id", "Pendulum-v1", *out)
    monkeypatch.setattr(windows.Window, "play", lambda self: None)
    with pytest.raises(ConfigError, match="nothing was played, nothing is written"):
        typed("--experiment", "gridworld", *out)
    assert not (tmp_path / "x").exists()
