"""Checks of the model within runs: they are logged, they change nothing, a resumed run has them."""

import dataclasses
import json
import os
import shutil
import signal
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.gridworld import EXPERIMENT, rules_at_the_end, rules_course
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.learning import replay
from smz_jax.learning.diagnose import check_row
from smz_jax.run import evaluate_and_save, loop
from smz_jax.run.ending import finish
from smz_jax.run.evaluate_and_save import Session, check
from smz_jax.run.launch import launch
from smz_jax.run.loop import train
from smz_jax.run.parts import make_parts
from smz_jax.run.state import Counters, RunState, restore
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.files import opened
from smz_jax.storage.metrics import PhaseTimers, read_metrics
from smz_jax.storage.run_dir import read_config

pytestmark = pytest.mark.usefixtures("shared_by_all_lengths")
# Of preset tiny: 32 steps an iteration, learning from 64 on, 2 unroll steps.
CHECKED_AT = [64, 96, 128, 160]  # first updates; checkpoint; evaluation; end
FLAGS = [
    "--preset=tiny",
    "--eval.check_model",
    "--total_env_steps=160",
    "--checkpoint_every_env_steps=96",
    "--eval.every_env_steps=128",
    "--eval.no_baselines",
    "--macro.max_length=2",
    "--macro.head_learning_rate=0.002",
]
TERMS = ("policy", "value", "reward", "afterstate_value", "chance", "commitment", "consistency")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run of the grid world as a user starts it, and the same without checks."""
    checked, plain = (tmp_path_factory.mktemp("runs") / name for name in ("checked", "plain"))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            launch(EXPERIMENT, [*FLAGS, "--run_dir", str(checked)])
        assert ended.value.code == 0
        config = read_config(checked)
        unchecked = dataclasses.replace(config.eval, check_model=False)
        config = dataclasses.replace(config, eval=unchecked)
        # As a worker of a sweep: by a text, outside of the main thread.
        with futures.ThreadPoolExecutor(1) as pool:
            hook = lambda parts, state: 1 / 0  # noqa: E731
            pool.submit(train, config, str(plain), on_check=hook).result()  # type: ignore[arg-type]
        yield checked, plain
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def restored(folders):
    """The checked run's parts, and its state as its last checkpoint holds it."""
    parts = make_parts(read_config(folders[0]), PhaseTimers())
    state, _ = restore(parts, CheckpointStore(folders[0]))
    parts.source.close()
    return parts, state


def rows_of(folder):
    return read_metrics(folder / "metrics.jsonl")


def checks_of(folder):
    return [row for row in rows_of(folder) if any(key.startswith("check/") for key in row)]


def test_every_diagnostic_is_logged(folders):
    rows = checks_of(folders[0])
    assert [row["env_steps"] for row in rows] == CHECKED_AT
    vectors = {"reward_error": 2, "value_error": 3, "consistency": 2, "entropy_histogram": 20}
    scalars = ["code_perplexity", "embedding_variance", "transition_entropy", "agreement"]
    scalars += ["chance_entropy_nats", "encoder_gradient", "gradient_share/code_entropy"]
    names = scalars + [f"gradient_share/{name}" for name in TERMS if name != "continuation"]
    names += [f"{name}_{i}" for name, size in vectors.items() for i in range(size)]
    of_head = "check/precondition/"
    for row in rows:
        assert {key for key in row if key.startswith("check/") and not key.startswith(of_head)} == {
            f"check/{x}" for x in names
        }
        assert {f"{of_head}{x}" for x in ("owners", "windows", "temperature")} <= set(row)
        assert sum(row[f"check/entropy_histogram_{i}"] for i in range(20)) == pytest.approx(1)
        assert np.isfinite([row[f"check/{name}"] for name in names]).all()
        assert {"rules/roc_area", "rules/entropy_error"} <= set(row)
        of_values = {f"calibration/{x}_{i}" for x in ("stored", "real") for i in range(8)}
        kinds = ("stored_by_spread", "real_by_spread")
        of_values |= {f"calibration/{x}_{i}" for x in kinds for i in range(4)}
        assert {key for key in row if key.startswith("calibration/")} == of_values
        kinds = ("rewards_foreseen", "rewards_invented", "effects_known")
        by_step = {f"foresight/{x}_{i}" for x in kinds for i in range(4)}
        assert by_step | {"foresight/value_past_end"} <= set(row)
    evaluation = rows[2]
    assert evaluation["eval/search_faults"] == evaluation["eval/search_all_invalid"] == 0
    assert "eval/mean" in evaluation and evaluation["learner_steps"] > 0


def test_a_run_is_bit_for_bit_the_same_without_checks(folders, restored):
    checked, plain = folders
    assert checks_of(plain) == []

    def told(folder):
        own = ("check/", "calibration/", "foresight/", "rules/")
        own += ("time/", "speed/", "wall_seconds", "cpu_seconds")
        rows = ({k: row[k] for k in row if not k.startswith(own)} for row in rows_of(folder))
        return [row for row in rows if set(row) != {"env_steps"}]

    assert told(checked) == told(plain)
    _, state = restored
    arrays = CheckpointStore(plain).restore("last", state.arrays).state

    def plain_arrays(tree):
        is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
        leaves = jax.tree.leaves(tree)
        return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]

    for ours, theirs in zip(plain_arrays(state.arrays), plain_arrays(arrays), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(state.train.step) == 12


def test_the_summary_has_the_last_check(folders, restored):
    summary = json.loads((folders[0] / "summary.json").read_text())
    last = {k: v for k, v in checks_of(folders[0])[-1].items() if k.startswith("check/")}
    assert check_row(summary["model_check"]) == pytest.approx(last, rel=1e-12)
    # A checkpoint holds all that the check depends on.
    assert check_row(check(*restored)) == last
    assert summary["evaluation"]["search_faults"] == 0


def test_a_grid_world_is_compared_with_its_rules(folders, restored, tmp_path):
    folder = folders[0]
    summary = json.loads((folder / "summary.json").read_text())["rules"]
    grid = json.loads((folder / "grid.json").read_text())
    assert summary.items() <= grid.items()
    assert checks_of(folder)[-1]["rules/entropy_error"] == summary["entropy_error"]
    errors = np.abs(np.subtract(grid["entropy"], grid["true_entropy"]))
    np.testing.assert_allclose(grid["entropy_errors"], errors)
    seen = np.array(grid["visits"]) > 0
    assert errors[seen].mean() == pytest.approx(summary["entropy_error"])
    # The same as what the command `report` makes of the checkpoint.
    again = rules_at_the_end(*restored, tmp_path)["rules"]
    assert set(again) == set(summary)
    assert again.pop("returns") == pytest.approx(summary["returns"])
    for name, numbers in again.items():
        np.testing.assert_allclose(numbers, summary[name], rtol=1e-5, err_msg=name)
    page = (folder / "report.html").read_text()
    assert 'id="grid"' in page and 'id="rules"' in page and "Known rules" in page
    # Another world has no such rules.
    parts, state = restored
    other = dataclasses.replace(parts.config.env, suite="gym", id="CartPole-v1", kwargs="{}")
    parts = parts._replace(config=dataclasses.replace(parts.config, env=other))
    assert rules_course(parts, state) == rules_at_the_end(parts, state, tmp_path) == {}


def test_a_resumed_run_goes_on_with_its_checks(folders):
    folder = folders[0]
    before = checks_of(folder)
    config = dataclasses.replace(read_config(folder), total_env_steps=192)
    outcome = train(config, folder, resume=True, on_check=rules_course)
    rows = checks_of(folder)
    assert rows[: len(before)] == before
    assert [row["env_steps"] for row in rows[len(before) :]] == [192]
    assert check_row(outcome.model_check).items() <= rows[-1].items()
    assert outcome.findings == {}


def test_a_used_folder_is_refused_at_once(folders):
    with pytest.raises(ConfigError, match="a new folder, or resume=True: it holds a run"):
        train(read_config(folders[0]), folders[0])


@pytest.mark.parametrize("mine", [None, "notes.txt", "tensorboard"])
def test_a_start_that_failed_leaves_nothing(tmp_path, monkeypatch, capsys, mine):
    folder = tmp_path / "run"
    if mine:
        folder.mkdir()
        (folder / mine).touch()
    monkeypatch.setattr(replay, "_available_bytes", lambda devices: 1)
    with pytest.raises(SystemExit) as ended:
        launch(EXPERIMENT, ["--preset=tiny", "--run_dir", str(folder)])
    assert ended.value.code == 2 and "GB free" in capsys.readouterr().err
    assert [x.name for x in tmp_path.rglob("*")] == (["run", mine] if mine else [])


def test_games_that_fail_at_once_leave_nothing(tmp_path, monkeypatch, capsys):
    over = SimpleNamespace(fault="the games failed 4 times", env_steps=0)
    monkeypatch.setattr(loop, "train", lambda *_, **__: over)
    with pytest.raises(SystemExit) as ended:
        launch(EXPERIMENT, ["--preset=tiny", "--run_dir", str(tmp_path / "run")])
    assert ended.value.code == 1 and capsys.readouterr().err == "error: the games failed 4 times\n"
    assert not list(tmp_path.iterdir())


def test_a_run_follows_its_folder_and_those_above_it(tmp_path, monkeypatch):
    folder = tmp_path / "project/runs/a"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    store, told = CheckpointStore(Path("runs/a")), SimpleNamespace(message=lambda line: None)
    with opened(Path("runs/a")) as descriptor:
        session = Session(None, Path("runs/a"), store, None, told, None, descriptor)  # type: ignore[arg-type]
        assert session.follow() is session
        (tmp_path / "project").rename(tmp_path / "elsewhere")
        moved = session.follow()
        assert moved.run_dir == store.run_dir == tmp_path / "elsewhere/runs/a"
        assert moved.follow() is moved


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_whose_folder_is_deleted_says_so_and_makes_none(tmp_path, capfd, stopped):
    folder = tmp_path / "runs/a"

    def delete(parts, state):
        shutil.rmtree(folder)
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            deleting = dataclasses.replace(EXPERIMENT, on_check=delete)
            launch(deleting, [*FLAGS, "--run_dir", str(folder)])
    finally:
        signal.signal(signal.SIGTERM, handler)
    out, err = capfd.readouterr()
    assert ended.value.code == 1 and "Go on with" not in out
    line = f"error: {folder} was deleted while the run went on: it cannot be continued"
    assert err.count(line) == 1 and err.strip().count("\n") == 0, err
    assert not folder.exists()


def test_without_its_settings_a_run_has_no_command_that_continues_it(tmp_path, capsys):
    outcome = SimpleNamespace(run_dir=tmp_path, fault=None, signal_number=None)
    assert finish(SimpleNamespace(config=None), outcome) == 1  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {tmp_path}/config.yaml was deleted")
    assert not list(tmp_path.iterdir())


def test_the_best_checkpoint_is_chosen_by_the_evaluations_with_noise(monkeypatch):
    """Of as many games as are set; an equal or a lower mean keeps the former one."""
    noises, kept, means = [], [], iter([1.0, 3.0, 3.0, 2.0, 4.0])

    def played(act, config, *, seed, num_games, should_stop):
        assert num_games == config.eval.interim_games == 7
        return {"mean": next(means)}

    monkeypatch.setattr(evaluate_and_save, "evaluate", played)
    monkeypatch.setattr(evaluate_and_save, "evaluation_row", dict)
    monkeypatch.setattr(
        evaluate_and_save, "make_player", lambda _, state, noise, seed: noises.append(noise)
    )
    monkeypatch.setattr(evaluate_and_save, "keep_best", lambda _, state: kept.append(state))
    config = parse(["--eval.interim_games=7", "--eval.noise=0.5"], EXPERIMENT).config
    parts: Any = SimpleNamespace(config=config, timers=PhaseTimers())
    session: Any = SimpleNamespace(parts=parts, stopped=lambda: False)
    state = RunState(*[None] * len(RunState._fields))._replace(counters=Counters())
    for wanted in (1.0, 3.0, 3.0, 3.0, 4.0):
        state, _ = evaluate_and_save.evaluate_interim(session, state)
        assert state.counters.best == wanted
    assert [x.counters.best for x in kept] == [1.0, 3.0, 4.0] and noises == [0.5] * 5
