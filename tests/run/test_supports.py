"""A run says once that its supports do not hold the rewards, and which would."""

from experiments.gym import EXPERIMENT
from smz_jax.config.cli import parse
from smz_jax.report.data import load_run
from smz_jax.report.verdict import find_warnings
from smz_jax.run.loop import train
from smz_jax.storage.metrics import read_metrics

WORLD = "tests.support.gym_worlds:Corridor-v0"


def test_targets_beyond_the_support_are_told_once(tmp_path, capsys):
    flags = ["--preset=tiny", "--env.id", WORLD, "--env.kwargs", '{"pay": 30000}']
    flags += ["--total_env_steps=192", "--network.reward_support=3", "--eval.no_baselines"]
    flags += ["--log_every=1", "--eval.num_games=1", "--eval.max_steps=4", "--eval.no_check_model"]
    train(parse(flags, EXPERIMENT).config, tmp_path / "run")
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
