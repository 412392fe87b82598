"""Runs of a Gymnasium world: resumed, made longer; told that the supports hold too little."""

import dataclasses

import pytest

from experiments.gym import EXPERIMENT
from smz_jax.config.cli import parse
from smz_jax.report.data import load_run
from smz_jax.report.verdict import find_warnings
from smz_jax.run.loop import train
from smz_jax.storage.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("shared_by_all_lengths")
FLAGS = ["--preset=tiny", "--env.id", "tests.support.gym_worlds:Corridor-v0"]
FLAGS += ["--env.kwargs", '{"length": 5, "pay": 30000}', "--network.reward_support=3"]
FLAGS += ["--log_every=1", "--eval.no_baselines", "--eval.no_check_model"]


def make_config(steps):
    return parse([*FLAGS, "--total_env_steps", str(steps)], EXPERIMENT).config


def test_a_run_is_stopped_and_resumed(tmp_path):
    config = make_config(64)
    assert train(config, tmp_path).env_steps == 64
    longer = dataclasses.replace(config, total_env_steps=128)
    outcome = train(longer, tmp_path, resume=True)
    assert (outcome.env_steps, outcome.finished) == (128, True)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "iteration" in row]
    assert [row["env_steps"] for row in rows] == [32, 64, 96, 128]
    assert rows[-1]["env_frames"] == 128 and rows[-1]["learner_steps"] > rows[1]["learner_steps"]
    assert outcome.evaluation["cut_share"] == 0.0  # its own limit, 9 steps, is an end
    assert outcome.evaluation["length_mean"] <= 9


def test_targets_beyond_the_support_are_told_once(tmp_path, capsys):
    train(make_config(192), tmp_path / "run")
    rows = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss/total" in x]
    assert len(rows) > 2 and all(0.5 < row["learner/rewards_cut"] <= 1 for row in rows)
    assert all(0 < row["learner/values_cut"] <= 1 for row in rows)
    told = [line for line in capsys.readouterr().out.splitlines() if "targets lie beyond" in line]
    assert len(told) == 2
    need = rows[0]["learner/reward_reach"]
    assert 30 < need <= 205  # the transform of 33,000 is 213.7
    assert "network.reward_support = 3 and are cut to its end" in told[0]
    assert f"--network.reward_support {need:.0f} would hold those seen so far" in told[0]
    assert "network.value_support = 60" in told[1]
    run = load_run(tmp_path / "run")
    run.config = {"network": {"reward_support": 3, "value_support": 60}}
    most = max(row["learner/reward_reach"] for row in rows)
    found = [text for text in find_warnings([run]) if "targets lie beyond" in text]
    assert len(found) == 2 and f"reward_support {most:.0f} would hold" in found[0]
