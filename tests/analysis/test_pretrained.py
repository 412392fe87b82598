"""The weights that come with the package: whole, found by name, and as good as is said of them."""

import json

import jax
import numpy as np
import pytest

import smz_jax
from smz_jax.analysis.load import export_run, load_model
from smz_jax.config.check import ConfigError
from smz_jax.envs import make_spec
from smz_jax.model.networks import make_networks
from smz_jax.run.weights import load_weights
from smz_jax.storage.export import read_export
from smz_jax.storage.pretrained import ROOT
from smz_jax.storage.run_dir import began_with, find_weights, split_init_from
from smz_jax.storage.weights import named_weights
from smz_jax.types import TrainState

MOST_BYTES = 8_000_000
CHEAP = {
    "breakout": (4, {"eval.max_steps": 150}),
    "cartpole": (2, {}),
    "gridworld": (64, {}),
    "twenty48": (4, {"eval.max_steps": 250}),
}
"""Games that are played in a few seconds, and their settings: cut short where they are long."""
NAMES = tuple(CHEAP)


def test_each_is_whole_listed_and_of_seed_0():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    listed = smz_jax.pretrained()
    assert folders == set(listed) == set(NAMES)
    for name, said in listed.items():
        found = read_export(ROOT / name)
        about, row = found.about, next(x for x in found.scores if x["when"] == "final")
        assert about["experiment"] == name and about["seed"] == said["seed"] == 0
        assert about["checkpoint"] == "last" and about["commit"].startswith(said["commit"])
        mean = said["evaluation"]["mean"]
        assert row["this_model"] and row["mean"] == pytest.approx(mean, rel=0.3)
        assert said["evaluation"]["games"] == 100 and said["command"].endswith("--seed 0")
        assert sum(path.stat().st_size for path in (ROOT / name).iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_as_well_as_is_said(name):
    """By a few games, cut short where they are long; all 100: the slow test below."""
    said = smz_jax.pretrained()[name]
    games, settings = CHEAP[name]
    found = smz_jax.load(name).changed(settings).evaluate(games)
    assert found["games"] == games
    if settings:  # in part of a game it already scores more than the random policy in a whole one
        assert found["mean"] > said["random"]
    else:
        assert found["mean"] == pytest.approx(said["evaluation"]["mean"], abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_score_over_100_games(name):
    """`python -m pytest -m slow tests/analysis/test_pretrained.py`: minutes, most for Breakout."""
    jax.config.update("jax_disable_most_optimizations", False)
    said = smz_jax.pretrained()[name]["evaluation"]
    found = smz_jax.load(name).evaluate(said["games"])
    assert found["games"] == said["games"]
    assert said["mean_low"] <= found["mean"] <= said["mean_high"]


def test_a_run_begins_with_the_weights_of_an_export(tiny_run, tmp_path):
    model = export_run(tiny_run, tmp_path / "mine", "last")
    weights = find_weights(str(tmp_path / "mine"))
    networks = make_networks(model.config.network, make_spec(model.config.env))
    own = networks.init(jax.random.key(9))
    train = TrainState(own, own, *[None] * (len(TrainState._fields) - 2))  # type: ignore[arg-type]
    train, line = load_weights(model.config, train, *weights)
    for params in (train.params, train.target_params):
        for name, array in named_weights(params).items():
            np.testing.assert_array_equal(array, model.weights[name])
    steps = load_model(tiny_run, "last").about["env_steps"]
    assert line == f"weights of step {steps} of {tmp_path / 'mine'}"


def test_a_run_begins_with_weights_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("cartpole") == (ROOT / "cartpole", "last", None)
    with pytest.raises(ConfigError, match="an export holds one model"):
        find_weights("cartpole@best")
    (tmp_path / "config.yaml").write_text(f"# init_from: {ROOT / 'cartpole'}@last\n")
    assert split_init_from(began_with(tmp_path)) == (ROOT / "cartpole", "last", None)
    (tmp_path / "cartpole").mkdir()  # a folder here wins
    assert split_init_from("cartpole")[0].absolute() == tmp_path / "cartpole"


def test_nothing_is_written_into_the_package(capsys):
    from experiments import macros, verify

    before = {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")}
    for command in (macros, verify):
        with pytest.raises(ConfigError, match="out = None is not allowed: it must be given for"):
            command.main(["breakout"])
    macros.main(["breakout", "--json", "-", "--top", "1"])
    assert json.loads(capsys.readouterr().out)["macros"]
    assert {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")} == before
