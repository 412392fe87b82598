"""The commands of a dataset, on a run and on random play."""

import numpy as np
import pytest

from experiments import dataset as tool
from experiments.offline import experiment_of
from smz_jax.analysis.recording import read_replay
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.storage.dataset import INFOS, Dataset
from smz_jax.storage.run_dir import read_config

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
    scores = Dataset(tmp_path / "b").scores()
    assert scores == [float(x["rewards"].sum()) for x in episodes] * 2  # a replay has no others
    words = ["--out", tmp_path / "c", "--best", "3", "--min_score", min(scores)]
    typed("merge", tmp_path / "b", *words)
    assert sorted(Dataset(tmp_path / "c").scores()) == sorted(scores)[-3:]
    with pytest.raises(ConfigError, match=r"what is kept = 'min_score 1000\.0' is"):
        typed("merge", tmp_path / "b", "--out", tmp_path / "d", "--min_score", "1000")
    assert not (tmp_path / "d").exists()


def test_offline_takes_the_settings_of_its_dataset(tiny_run, tmp_path, typed):
    typed("export", tiny_run, "--out", tmp_path / "a")
    words = ["--dataset", str(tmp_path / "a"), "--preset", "tiny"]
    config = parse(words, experiment_of(words)).config
    assert config.env == read_config(tiny_run).env
    assert config.replay.capacity == Dataset(tmp_path / "a").rows
    assert config.learner.cut_below == 0.5  # what was played at random counts no further
    words += ["--learner.cut_below", "0"]
    assert parse(words, experiment_of(words)).config.learner.cut_below == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "nowhere"], "run_dir = 'nowhere' is not allowed"),
        (["info", "nowhere"], "dataset = 'nowhere' is not allowed: it must be the folder of a"),
        (["merge", "a"], "out = None is not allowed"),
        (["zap"], "command = 'zap' is not allowed: it must be one of export, info, merge"),
    ],
)
def test_a_mistake_is_one_line(words, message, typed):
    with pytest.raises(ConfigError) as caught:
        typed(*words)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
