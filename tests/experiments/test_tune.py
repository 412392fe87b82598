"""Tuning: spaces and their refusals, studies that several workers share, the report.

A run is a formula of its settings, not training, and takes place in this process.
"""

import csv
import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="pip install '.[tune]'")

from experiments.gridworld import EXPERIMENT
from experiments.sweep import runner, sweep_figures
from experiments.tune import __main__ as command_line
from experiments.tune import tune_figures
from experiments.tune.space import Axis, check_space, read_space
from experiments.tune.study import FULL_TRIALS, Study, best_of
from experiments.tune.trials import MOST_FAILED, Tuner
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.run.progress import Progress
from smz_jax.storage.run_dir import prepare_run_dir

SPACE = """
preset: tiny
seeds: [0, 1, 2]
settings: {learner.learning_rate: 0.5, search: {root: gumbel}}
space:
  learner.learning_rate: {low: 1e-5, high: 1.0, log: true}
  search.root: [gumbel, puct]
"""


def score_of(config):
    """Highest, 100, at a learning rate of 0.01 and with PUCT; seed by seed a tenth less."""
    off = abs(math.log10(config.learner.learning_rate) + 2)
    return 100 - 20 * off - 5 * (config.search.root != "puct") - 0.1 * config.seed


class Ended:
    """A process that has ended."""

    def __init__(self, words, code):
        self.words, self._code = words, code

    def poll(self):
        return self._code

    def signal(self, number):
        pass

    def memory(self):
        return 0

    def where(self):
        return "here"


class Here:
    """An engine: runs are formulas. `stop_at`: the number of the run at which Ctrl-C is pressed."""

    slots, lack = 2, ""

    def __init__(self, stop_at=None, wrong=lambda config: False):
        self.started, self._stop_at, self._wrong = [], stop_at, wrong

    def fits(self, job):
        return True

    def book(self, peak):
        pass

    def close(self):
        pass

    def start(self, job, words):
        invocation = parse(words[3:], EXPERIMENT)
        folder, config = prepare_run_dir(invocation), invocation.config
        self.started.append(job.name)
        job.log.touch()
        if len(self.started) == self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
            return Ended(words, 143)
        if self._wrong(config):
            return Ended(words, 1)
        result = {"mean": score_of(config), "games": 4}
        summary = {"finished": True, "evaluation": result, "env_steps": 128, "seconds_total": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps({"env_steps": 128}) + "\n")
        (folder / "summary.json").write_text(json.dumps({"preset": "tiny", **summary}))
        return Ended(words, 0)


@pytest.fixture
def tune(tmp_path, monkeypatch):
    """Runs the command in a folder with a space, on an engine; gives the exit code."""
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)

    def call(*words, engine=None, draws=False):
        with monkeypatch.context() as undo:
            for module in () if draws else (tune_figures, sweep_figures):
                undo.setattr(module, "draw_all", lambda *a: [])
            return tuned(words, engine)

    def tuned(words, engine):
        words = ["gridworld", "--space", "space.yaml", "--run_dir", "out", *words]
        monkeypatch.setattr(command_line, "open_engine_of", lambda *a: engine or Here())
        monkeypatch.setattr(sys, "argv", ["tune", *words])
        return command_line.main(words)

    return call


def read(text=SPACE, preset=None, seeds=None):
    path = Path("space.yaml")
    path.write_text(text)
    return read_space(path, "gridworld", preset, seeds)


def rows():
    return list(csv.DictReader(Path("out/trials.csv").open()))


def test_the_whole_study(tune, capsys):
    words = ["--trials", "14", "--fresh_seeds", "7", "8"]
    assert tune(*words, draws=True) == 0
    out, found = capsys.readouterr().out, rows()
    assert [x["trial"] for x in found] == [*map(str, range(14))]
    assert found[0]["state"] == "complete" and float(found[0]["learner.learning_rate"]) == 0.5
    given_up = [x for x in found if x["state"] == "given up"]
    complete = [x for x in found if x["state"] == "complete"]
    assert given_up and len(complete) >= FULL_TRIALS and len(given_up) + len(complete) == 14
    assert all(int(x["seeds"]) < 3 for x in given_up) and {x["seeds"] for x in complete} == {"3"}
    best = max(complete, key=lambda x: float(x["score"]))
    # Of a trial on all seeds the mean is that of seed 1, by the formula.
    off = abs(math.log10(float(best["learner.learning_rate"])) + 2)
    by_hand = 100 - 20 * off - 5 * (best["search.root"] != "puct") - 0.1
    assert float(best["score"]) == pytest.approx(by_hand)
    ran = sum(int(x["seeds"]) for x in found)  # of 128 steps each
    page = Path("out/report.html").read_text()
    assert f"spared {128 * (42 - ran) / 1000:.4g}k more, {(42 - ran) / 42:.0%} of" in page
    assert page.count("data:image/png") == 4 and "fresh/report.html" in page
    assert "the best of 14" in page and "On 2 fresh seeds its settings have" in out

    config = parse(["--config", "out/best.yaml"], EXPERIMENT).config
    assert config.learner.learning_rate == float(best["learner.learning_rate"])
    assert config.search.root == best["search.root"] and config.total_env_steps == 128
    fresh = json.loads(Path("out/fresh/sweep.json").read_text())
    assert {(x["variant"], x["seed"]) for x in fresh["trials"]} == {
        (name, seed) for name in ("default", "best") for seed in (7, 8)
    }
    means = {x["variant"]: x["mean"] for x in fresh["variants"]}
    assert means["default"] == pytest.approx(100 - 20 * math.log10(50) - 5 - 0.75)
    assert means["best"] == pytest.approx(by_hand + 0.1 - 0.75)

    # The same line runs nothing again; --trials may be raised, nothing else be changed.
    engine = Here()
    assert tune(*words, engine=engine) == 0 and engine.started == [] and rows() == found
    assert tune("--trials", "15", "--fresh_seeds", "7", "8", engine=engine) == 0
    assert engine.started[0] == "trial014 seed 0" and rows()[:14] == found
    with pytest.raises(ConfigError, match=r"seeds = \[4\] is not allowed: it must be that of the"):
        tune("--seeds", "4")
    with pytest.raises(ConfigError, match="pruner = 'none' is not allowed"):
        tune("--pruner", "none")


def test_a_study_that_is_continued_may_find_another_best(tune):
    ends = []
    for trials in ("3", "14"):
        assert tune("--trials", trials, "--fresh_seeds", "9") == 0
        ends.append({x.name for x in Path("out/fresh").iterdir() if x.is_dir()} - {"default"})
    first, both = ends
    assert len(first) == 1 and len(both) == 2 and first < both
    (newest,) = both - first
    assert f"{newest} has the highest mean score of 14" in Path("out/report.html").read_text()


def test_without_pruning_all_seeds_run(tune):
    assert tune("--trials", "8", "--pruner", "none", "--fresh_seeds", "9") == 0
    assert [(x["state"], x["seeds"]) for x in rows()] == [("complete", "3")] * 8
    assert "spared 0 more, 0% of" in Path("out/report.html").read_text()


def test_a_study_that_was_stopped_is_gone_on_with(tune, capsys, monkeypatch):
    """The trials of one that was stopped twice are those of one that was not."""
    words = ["--trials", "10", "--fresh_seeds", "9", "--pruner", "none"]
    one = Here()
    one.slots = 1
    assert tune(*words, engine=one) == 0
    whole = rows()
    Path("out").rename("whole")
    for number in (5, 4):
        stopped = Here(stop_at=number)
        stopped.slots = 1
        assert tune(*words, engine=stopped) == 143
    assert "stopped after 2 of 10 trials. Continue with:" in capsys.readouterr().out
    shown = []
    monkeypatch.setattr(Progress, "step", lambda _, text, done, live="": shown.append((done, text)))
    polls = iter([None])  # once the first process is seen while it runs
    monkeypatch.setattr(Ended, "poll", lambda self: next(polls, self._code))
    last = Here()
    last.slots = 1
    assert tune(*words, engine=last) == 0
    done, text = shown[0]  # what was done before counts, and what may follow is foreseen
    assert done == 7 and text.startswith("7 finished, 0 waiting, at most ETA ")
    # The fifth run was the second one of trial 1, the fourth after it the third of trial 2.
    assert last.started[0] == "trial002 seed 1" and last.started[1] == "trial002 seed 2"
    assert [{**x, "folder": ""} for x in rows()] == [{**x, "folder": ""} for x in whole]


def test_several_workers_share_a_study(tune, tmp_path):
    space = read()
    folder = tmp_path / "out"
    with Study(folder, space) as one, Study(folder, space) as two:
        most_each = [1] * 2 + [5] * 6
        asked = [study.ask(most) for study, most in zip((one, two) * 4, most_each, strict=True)]
        assert [x and x.number for x in asked] == [0, None, 1, 2, 3, 4, None, None]
        assert [x.number for x in one.own()] == [0, 1, 3]
        assert [x.number for x in two.others()] == [0, 1, 3]
        one.report(0, [1.0, 2.0, 3.0])
        assert [x.number for x in two.others()] == [1, 3]
        assert two.trials()[0].means == (1.0, 1.5, 2.0) and two.trials()[0].state == "complete"
        # A worker that comes while others are at work takes nothing from them.
        with Study(folder, space) as three:
            assert three.own() == []
        one._open.close()  # as if its process had been killed
        with Study(folder, space) as four:
            assert [x.number for x in four.own()] == [1, 3]
    # A killed worker's last line was half written: the journal is whole up to it.
    with (folder / "study.log").open("a") as file:
        file.write('{"op_code":5,"wor')
    with Study(folder, space) as five:
        assert five.ask(6) is not None
    assert len(Study(folder, space).trials()) == 6


def test_a_trial_is_given_up_only_between_seeds_and_below_the_best_third(tune, tmp_path):
    with Study(tmp_path / "out", read()) as study:
        trials = [study.ask(9) for _ in range(9)]
        for number, score in enumerate((10.0, 20.0, 30.0)):
            assert study.report(number, [score] * 3) == "complete"
        assert study.report(3, [0.0]) == "running"  # of four complete trials there are three
        assert study.report(3, [0.0, 0.0, 40.0]) == "complete"
        assert study.trials()[3].means == (0.0, 0.0, 40 / 3)
        # After one seed the four had 0, 10, 20 and 30: the upper third begins at 20.1.
        assert study.report(4, [20.0]) == "pruned"
        assert study.report(5, [20.2]) == "running"
        assert study.report(5, [20.2, 20.2]) == "running"
        # After two they had 0, 10, 20 and 30 again: luck with the first seed is no longer enough.
        assert study.report(6, [90.0]) == "running"
        assert study.report(6, [90.0, -60.0]) == "pruned"
        best = best_of(study.trials())
        assert best and best.number == 2 and len(trials) == 9


def test_wrong_trials_fail_and_do_not_stop_the_rest(tune, capsys):
    low = Here(wrong=lambda config: config.learner.learning_rate < 1e-3)
    assert tune("--trials", "8", "--fresh_seeds", "9", engine=low) == 0
    found = rows()
    failed = [x for x in found if x["state"] == "failed"]
    assert failed and all(float(x["learner.learning_rate"]) < 1e-3 for x in failed)
    assert all("exit code 1" in x["fault"] for x in failed)
    # Each was tried twice, and another trial came in its place.
    assert low.started.count(f"trial{int(failed[0]['trial']):03d} seed 0") == 2
    assert len(found) == 8 and f"{len(failed)} failed" in Path("out/report.html").read_text()

    Path("out").rename("former")
    none = Here(wrong=lambda config: True)
    with pytest.raises(ConfigError, match=f"the first {MOST_FAILED} trials failed, the last one"):
        tune("--trials", "20", engine=none)


def test_settings_that_do_not_go_together_fail_before_they_run(tune, tmp_path):
    text = SPACE.replace("settings: {", "settings: {macro.max_length: 6, ")
    space = read(text + "  macro.min_length: [2, 5]\n  macro.max_length: [3, 6]\n")
    check_space(space)  # one by one they are allowed
    told = []
    with Study(tmp_path / "out", space) as study:
        jobs = Tuner(study, space, tmp_path / "trials", 16, told.append).begin(16)
        trials = study.trials()
    chosen = [(x.chosen["macro.min_length"], x.chosen["macro.max_length"]) for x in trials]
    assert (5, 3) in chosen and len(trials) == 16
    states = ["failed" if pair == (5, 3) else "running" for pair in chosen]
    assert [x.state for x in trials] == states
    assert len(jobs) == states.count("running") and len(told) == states.count("failed")
    assert "macro.min_length" in told[0] and "\n" not in told[0]


def test_a_default_outside_of_its_range_is_no_trial(tune, capsys):
    Path("space.yaml").write_text(SPACE.replace("rate: 0.5", "rate: 2.5"))
    assert tune("--trials", "5", "--fresh_seeds", "9") == 0
    text = "the default is no trial, as it is outside of its range: learner.learning_rate = 2.5"
    assert text in capsys.readouterr().out
    assert all(float(x["learner.learning_rate"]) <= 1.0 for x in rows())


def test_axes():
    rate = Axis("learner.learning_rate", low=1e-5, high=1.0, log=True)
    assert rate.holds(0.5) and not rate.holds(2.0) and not rate.holds(None)
    flags = Axis("macro.include_repeats", (True, False))
    assert flags.holds(True) and not flags.holds(1)
    assert Axis("search.num_simulations", low=4, high=16, step=4).text() == "4 to 16 in steps of 4"


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ("learner.rate: [1, 2]", "unknown setting 'learner.rate'"),
        ("seed: [1, 2]", "seed = 'given' is not allowed"),
        ("learner.gamma: 0.9", "a list of values, or a range as"),
        ("learner.gamma: {low: 0.5}", "given low and high"),
        ("learner.gamma: {low: 0.5, high: 0.9, lag: 1}", "unknown key in .*did you mean log"),
        ("learner.gamma: {low: 0.9, high: 0.5}", "low is below its high"),
        ("learner.gamma: {low: 0.0, high: 0.5, log: true}", "above 0, as log is true"),
        ("learner.gamma: {low: 0.1, high: 0.5, log: true, step: 0.1}", "left out, as log"),
        ("learner.gamma: {low: a, high: 0.5}", "low = 'a' is not allowed"),
        ("learner.gamma: [0.9]", "two values or more"),
        ("learner.gamma: [0.9, 0.90]", "listed once"),
        ("learner.batch_size: {low: 1.5, high: 4}", "whole numbers"),
        ("search.root: {low: 1, high: 2}", "this setting is no number"),
        ("learner.gamma: {low: 0.5, high: 2.0}", "learner.gamma=2.0 seed 0 .*gamma = 2.0"),
        ("search.root: [puct, pact]", "search.root=pact seed 0 .*'pact' is not allowed"),
    ],
)
def test_wrong_spaces_get_one_line(tmp_path, monkeypatch, space, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=text) as error:
        check_space(read(f"preset: tiny\nspace:\n  {space}\n"))
    assert "\n" not in str(error.value) and os.listdir() == ["space.yaml"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["gridword", "--space", "space.yaml"], "unknown experiment 'gridword'; did you mean"),
        (["gridworld"], "space = None is not allowed: it must be given"),
        (["gridworld", "--space", "none.yaml"], "space = 'none.yaml' is not allowed"),
        (["gridworld", "--space", "space.yaml", "--fresh_seeds", "2"], "fresh_seeds = "),
        (["gridworld", "--space", "space.yaml", "--report"], "the folder of a study, to report"),
        (["gridworld", "--space", "space.yaml", "--trials", "0"], "trials = 0"),
    ],
)
def test_wrong_requests_get_one_line(tune, words, text):
    with pytest.raises(ConfigError, match=text) as error:
        command_line.main(words)
    assert "\n" not in str(error.value) and not Path("runs").exists()


def test_without_optuna_there_is_one_line(tune, monkeypatch):
    from experiments.tune import study

    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs Optuna: pip install '\.\[tune\]'"):
        tune("--trials", "1")
    assert not Path("out").exists()
