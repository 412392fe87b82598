"""The commands of a dataset, on a run and on random play."""

import numpy as np
import pytest

from experiments import dataset as tool
from smz_jax.analysis.recording import read_replay
from smz_jax.config.check import ConfigError
from smz_jax.storage.dataset import INFOS, Dataset

pytest.importorskip("minari")


def call(*words, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiments.dataset", *map(str, words)])
    assert tool.main() == 0


@pytest.fixture
def typed(monkeypatch):
    return lambda *words: call(*words, monkeypatch=monkeypatch)


def test_the_replay_of_a_run_is_in_its_dataset(tiny_run, tmp_path, typed, capsys):
    typed("export", tiny_run, "--out", tmp_path / "a")
    typed("info", tmp_path / "a")
    found = capsys.readouterr().out
    assert f"played by: {tiny_run.name}, " in found and "actions: UP, RIGHT, DOWN, LEFT" in found
    rows, episodes = read_replay(tiny_run).rows, list(Dataset(tmp_path / "a").read())
    assert rows.is_first[:, 0].all()  # nothing is lost: each lane began a game there
    for name in INFOS:
        joined = np.concatenate([x["infos"][name] for x in episodes])
        np.testing.assert_array_equal(joined, getattr(rows, name).reshape(joined.shape))
    typed("merge", tmp_path / "a", tmp_path / "a", "--out", tmp_path / "b")
    assert Dataset(tmp_path / "b").rows == 2 * rows.reward.size


def test_random_play_is_recorded(tmp_path, typed):
    words = ["--experiment", "gridworld", "--preset", "tiny", "--total_env_steps", "256"]
    typed("record", *words, "--out", tmp_path / "r")
    dataset = Dataset(tmp_path / "r")
    assert dataset.rows == 256 and dataset.about["played_by"] == "a random policy"
    actions = np.concatenate([x["actions"] for x in dataset.read()])
    assert np.bincount(actions, minlength=4).min() > 30
    for episode in dataset.read():
        np.testing.assert_allclose(episode["infos"]["action_weights"], 0.25)


def test_a_trained_model_plays_its_own_game(tiny_run, tmp_path, typed):
    lanes = tool.read_config(tiny_run).env.num_envs
    typed("record", "--by", tiny_run, "--total_env_steps", 16 * lanes, "--out", tmp_path / "r")
    dataset = Dataset(tmp_path / "r")
    assert dataset.about["played_by"] == f"the model of {tiny_run.name}"
    assert dataset.about["env"]["kwargs"] == '{"map": "O~G/~S~/G~O"}'
    weights = np.concatenate([x["infos"]["action_weights"] for x in dataset.read()])
    assert np.ptp(weights, axis=1).max() > 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["record", "--out", "x"], "experiment = None is not allowed: it must be given, or --by"),
        (["record", "--experiment", "gridworlt", "--out", "x"], "experiment = 'gridworlt' is not"),
        (["record", "--experiment", "gridworld"], "out = None is not allowed: it must be given"),
        (["record", "--by", "nowhere", "--out", "x"], "run_dir = 'nowhere' is not allowed"),
        (["export", "nowhere"], "run_dir = 'nowhere' is not allowed"),
        (["info", "nowhere"], "dataset = 'nowhere' is not allowed: it must be the folder of a"),
        (["merge", "a"], "out = None is not allowed"),
        (["zap"], "command = 'zap' is not allowed: it must be one of export, record, info, merge"),
    ],
)
def test_a_mistake_is_one_line(words, message, typed):
    with pytest.raises(ConfigError) as caught:
        typed(*words)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
