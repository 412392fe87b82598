"""Runs whose opponent cannot play: all else is evaluated, and what was missing is played later."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.pig import EXPERIMENT
from smz_jax.config.settings import Config
from smz_jax.config.training import EvalConfig
from smz_jax.envs import OpponentFault
from smz_jax.envs.opponents import Contender
from smz_jax.envs.turns import pig_rules
from smz_jax.run import evaluate_and_save
from smz_jax.run.evaluate_and_save import FinalScores, evaluate_final
from smz_jax.run.launch import launch
from smz_jax.storage.metrics import PhaseTimers

FLAGS = ("--preset=tiny", "--eval.opponent=exact", "--total_env_steps=64")
FLAGS += ("--eval.every_env_steps=64", "--eval.num_games=4", "--eval.interim_games=2")


class Quitter:
    """An opponent that dies at its first move."""

    def act(self, turn):
        raise OpponentFault("it died")

    def close(self):
        pass


def test_what_was_played_before_it_failed_is_kept(monkeypatch):
    first, rows = {"games": 64, "mean": 0.5}, []
    answers = iter([first])

    def answer(*args, **options):
        if (found := next(answers, None)) is None:
            raise OpponentFault("it died")
        return found

    config = Config(eval=EvalConfig(noise=0.5, opponent="exact"))
    parts = SimpleNamespace(config=config, timers=PhaseTimers(), steps=lambda iterations: 8)
    writer: Any = SimpleNamespace(write=rows.append)
    session: Any = SimpleNamespace(parts=parts, writer=writer, stopped=lambda: False)
    state: Any = SimpleNamespace(counters=SimpleNamespace(iteration=1))
    monkeypatch.setattr(evaluate_and_save, "make_player", lambda *given: None)
    monkeypatch.setattr(evaluate_and_save, "evaluate", answer)
    fault = "a score against exact is left out: it died"
    assert evaluate_final(session, state) == FinalScores(first, opponent_fault=fault)
    assert rows[0]["eval/mean"] == 0.5


@pytest.mark.usefixtures("shared_by_all_lengths")
def test_a_run_is_whole_without_its_opponent(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def run(contender, *flags):
        with monkeypatch.context() as patch:
            if contender:
                patch.setattr(pig_rules, "opponents_of", lambda config: {"exact": contender})
            with pytest.raises(SystemExit) as ended:
                launch(EXPERIMENT, [*flags, "--run_dir", str(folder)])
        out, err = capsys.readouterr()
        assert ended.value.code == (0 if not err else 2), err
        return out, err, folder.is_dir() and json.loads((folder / "summary.json").read_text())

    missing = Contender(lambda seed: Quitter(), missing="it is not installed")
    _, err, _ = run(missing, *FLAGS)
    assert "not installed" in err and not folder.exists()
    out, _, summary = run(Contender(lambda seed: Quitter()), *FLAGS)
    left_out = "a score against exact is left out: it died"
    assert f"\n{left_out}\n" in out and "an evaluation is left out: it died" in out
    assert summary["finished"] and summary["opponent_fault"] == left_out
    assert summary["evaluation"] is None and summary["baselines"]["random"] is None
    assert summary["matches"]["random"]["games"] == 4 and summary["pig"]
    assert left_out[1:] in (folder / "report.html").read_text()
    out, _, summary = run(missing, "--resume")
    assert "not installed; the run goes on without it" in out
    assert summary["finished"] and "not installed" in summary["opponent_fault"]
    _, _, summary = run(None, "--resume")
    assert summary["evaluation"]["games"] == 4 and summary["opponent_fault"] is None
    assert summary["baselines"]["random"]["games"] == 4
