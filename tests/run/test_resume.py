"""A run that is stopped and gone on with ends as one that never was: every bit of its state."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.envs.protocol import GameFault
from smz_jax.run import loop
from smz_jax.run.loop import train
from smz_jax.run.parts import make_parts
from smz_jax.run.state import (
    abstract_state,
    fresh_state,
    make_store,
    played_part,
    restore,
    save,
)
from smz_jax.run.weights import load_weights
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.metrics import PhaseTimers, read_metrics
from smz_jax.storage.run_dir import versions
from smz_jax.storage.weights import named_weights

pytestmark = pytest.mark.usefixtures("shared_programs")
STEPS = 320
PARTS = "tests.support.gym_worlds:Composed-v0"
TIMES = ("time/", "speed/", "wall_seconds", "cpu_seconds")


def make_config(experiment="gridworld", *flags):
    """Ten iterations; games are rebuilt in the middle of the third, the fifth, ..."""
    base = {"env.suite": "grid", "env.id": "GridWorld", "env.max_episode_steps": 27_000}
    experiments = {
        "gridworld": Experiment("gridworld", "grid", base),
        "breakout": Experiment("breakout", "atari", {"env.id": "Breakout"}),
        "parts": Experiment("parts", "gym", {"env.suite": "gym", "env.id": PARTS}),
    }
    common = ("--total_env_steps", str(STEPS), "--checkpoint_every_env_steps", "96")
    common += ("--env.rebuild_every", "19", "--eval.every_env_steps", "128")
    common += ("--macro.bucket_warmup_steps", "128")
    common += ("--macro.head_learning_rate", "0.002", "--macro.head_every", "2")
    argv = ["--preset", "tiny", *common, *flags]
    return parse(argv, experiments[experiment]).config


# Targets are reanalysed in a ring that wraps in the fifth iteration.
GRID = make_config("gridworld", "--network.family", "mlp", "--network.no_input_norm",
                   "--reanalyse.ratio", "0.5", "--replay.capacity", "128",
                   "--network.jump_length", "2", "--learner.jump_every", "2",
                   "--search.collapse_threshold", "0.5", "--search.jump_collapses",
                   "--network.gain_slots", "4", "--search.macros", "--rollout.execute_macros",
                   "--macro.head_learning_rate", "1e-3")  # fmt: skip
STICKY = make_config("breakout", "--env.mode", "stochastic", "--eval.no_check_model",
                     "--eval.no_baselines", "--reanalyse.ratio", "0.5",
                     "--reanalyse.order", "sampled", "--reanalyse.mode", "chance")  # fmt: skip

# Drawn candidates of a choice and a number.
DRAWN = make_config("parts", "--env.kwargs", '{"kind": "mixed"}', "--search.sampled_actions", "8",
                    "--network.number_policy", "gaussian", "--reanalyse.ratio", "0.5",
                    "--eval.no_check_model", "--eval.no_baselines")  # fmt: skip


def run_to(config, folder, monkeypatch, stop_after=None, *, resume=False):
    """Trains, and sends itself SIGTERM in the middle of a number of iterations."""
    iterate, done = loop.iterate, []

    def watched(parts, state):
        done.append(1)
        if len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(parts, state)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "iterate", watched)
        return train(config, folder, resume=resume)


def plain(x):
    is_key = hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def state_of(config, folder):
    """All that the last checkpoint holds, by name; and the counters but the seconds."""
    parts = make_parts(config, PhaseTimers())
    parts.source.close()
    wanted = abstract_state(parts)
    found = make_store(config, folder).restore(
        "last", wanted.arrays, experience=played_part(wanted.replay.experience)
    )
    assert found.step == STEPS and found.rows is not None
    leaves = jax.tree_util.tree_flatten_with_path((found.state, found.rows))[0]
    extra = {name: value for name, value in found.extra.items() if "seconds" not in name}
    return {jax.tree_util.keystr(path): plain(x) for path, x in leaves}, extra


def told(folder):
    """Rows of metrics without times, by steps: a baseline may be measured after the resume."""
    rows = sorted(read_metrics(folder / "metrics.jsonl"), key=lambda row: row["env_steps"])
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that were never stopped, made once for each configuration."""
    made = {}

    def of(config, monkeypatch):
        if config not in made:
            folder = tmp_path_factory.mktemp("whole")
            assert run_to(config, folder, monkeypatch).finished
            made[config] = (state_of(config, folder), told(folder), folder)
        return made[config]

    return of


def assert_goes_on(config, folder, whole, monkeypatch, stops, *, resume=False, forget=None):
    for number, stop_after in enumerate([*stops, None]):
        if number and forget:
            forget()
        outcome = run_to(config, folder, monkeypatch, stop_after, resume=resume or number > 0)
        assert outcome.finished == (stop_after is None)
    (expected, counters), rows, _ = whole(config, monkeypatch)
    found, found_counters = state_of(config, folder)
    assert list(found) == list(expected) and found_counters == counters
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert told(folder) == rows


@pytest.mark.parametrize("stops", [[4], pytest.param([1, 3], marks=pytest.mark.slow)])
def test_a_stopped_run_of_the_grid_goes_on_bit_for_bit(
    tmp_path, whole, shared_programs, monkeypatch, stops
):
    assert_goes_on(GRID, tmp_path, whole, monkeypatch, stops, forget=shared_programs)
    (_, counters), rows, _ = whole(GRID, monkeypatch)
    assert all("rollout/macro_steps" in row for row in rows if "iteration" in row)
    assert [row["reanalyse/rows"] for row in rows if "reanalyse/rows" in row] == [16] * 9
    assert counters["cursor"] % 32 not in (0, counters["count"] % 32)


def test_a_stopped_run_that_draws_candidates_goes_on_bit_for_bit(
    tmp_path, whole, shared_programs, monkeypatch
):
    assert_goes_on(DRAWN, tmp_path, whole, monkeypatch, [4], forget=shared_programs)


def test_rows_that_were_reanalysed_after_a_save_are_in_the_next(tmp_path):
    parts = make_parts(GRID, PhaseTimers())
    state, store, saved = fresh_state(parts), make_store(GRID, tmp_path), []
    for number in range(1, 6):
        state, _ = loop.iterate(parts, state)
        if number > 3:
            save(parts, state, store, tmp_path)
            saved.append(jax.tree.map(np.array, state.replay.experience))
    parts.source.close()
    steps = [rows.target_step for rows in saved]
    renewed = (steps[0] != steps[1]).any(axis=0)
    assert renewed[:8].all() and renewed[8:].sum() == 4  # the rows 0 to 7 were played meanwhile
    found, _ = restored(GRID, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.replay.experience, saved[1])
    shutil.rmtree(CheckpointStore(tmp_path).path("last", 160))
    found, _ = restored(GRID, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.replay.experience, saved[0])


@pytest.mark.slow
def test_a_stopped_run_with_sticky_actions_goes_on_bit_for_bit(
    tmp_path, whole, shared_programs, monkeypatch
):
    """envpool's generators are out of reach: the games since the last rebuild are played again."""
    assert_goes_on(STICKY, tmp_path, whole, monkeypatch, [5], forget=shared_programs)


@pytest.mark.slow
@pytest.mark.parametrize("config", [GRID, STICKY], ids=["grid", "sticky"])
@pytest.mark.parametrize("seed", range(5))
def test_stopped_at_random_points(tmp_path, whole, shared_programs, monkeypatch, config, seed):
    stop = int(np.random.default_rng(seed).integers(1, 10))
    assert_goes_on(config, tmp_path, whole, monkeypatch, [stop], forget=shared_programs)


def test_a_damaged_checkpoint_is_walked_back_from_and_the_end_is_the_same(
    tmp_path, whole, monkeypatch, capsys
):
    run_to(GRID, tmp_path, monkeypatch, 8)
    newest = CheckpointStore(tmp_path).steps("last")[-1]
    manifest = CheckpointStore(tmp_path).path("last", newest) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert_goes_on(GRID, tmp_path, whole, monkeypatch, [], resume=True)
    assert "is damaged: manifest.json" in capsys.readouterr().out


def test_a_finished_run_that_is_resumed_says_the_same_again(tmp_path, whole, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch)
    assert_goes_on(GRID, tmp_path, whole, monkeypatch, [], resume=True)


def test_a_run_whose_checkpoints_are_gone_is_not_started_over(tmp_path, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match=r"no checkpoint is left .* came to 320 steps"):
        train(GRID, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch, 2)
    other = dataclasses.replace(GRID, learner=dataclasses.replace(GRID.learner, gamma=0.5))
    parts = make_parts(other, PhaseTimers())
    with pytest.raises(ConfigError, match=r"learner.gamma: 0.95 in it, 0.5 here"):
        restore(parts, make_store(other, tmp_path))
    parts.source.close()


def begun(config):
    """Parts of a run whose games are closed again, and its fresh state."""
    parts = make_parts(config, PhaseTimers())
    parts.source.close()
    return parts, fresh_state(parts)


def restored(config, folder):
    parts = make_parts(config, PhaseTimers())
    state, notes = restore(parts, make_store(config, folder))
    parts.source.close()
    return state, notes


def check_weights(params, source):
    """Those of the source, the jump's too; but nothing is believed of the jump yet."""
    ours, theirs = dict(params), dict(source.train.params)
    jump, before = ours.pop("jump"), theirs.pop("jump")
    pair = (ours, jump["weights"]), (theirs, before["weights"])
    jax.tree.map(np.testing.assert_array_equal, *pair)
    assert float(before["yes"]) != 1 == float(jump["yes"])
    assert not np.any(jump["gains"]["usable"]) and np.all(jump["gains"]["actions"] == -1)


def test_weights_of_another_run(tmp_path, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch, 5)
    other = dataclasses.replace(GRID, seed=7, total_env_steps=64)

    def of_network(**changed):
        changed = dataclasses.replace(other.network, **changed)
        return dataclasses.replace(other, network=changed)

    fresh = begun(other)[1].train
    source, _ = restored(GRID, tmp_path)

    def check(train):
        check_weights(train.params, source)
        check_weights(train.target_params, source)
        for name in ("opt_state", "head", "jump"):
            pair = getattr(fresh, name), getattr(train, name)
            jax.tree.map(np.testing.assert_array_equal, *pair)

    train, line = load_weights(other, fresh, tmp_path, "last", None)
    assert line == f"weights of step 160 of {tmp_path} with its jump"
    check(train)
    _, line = load_weights(other, fresh, tmp_path, "best", None)
    assert line.startswith("weights of step 128 of ")
    _, line = load_weights(of_network(encoder_noise=0.5), fresh, tmp_path, "last", None)
    assert line.endswith("with its jump (network.encoder_noise: 1.0 in it, 0.5 here)")
    # A jump of other shapes is learned anew, beside the model that comes along.
    longer = begun(of_network(jump_length=3))[1].train
    train, line = load_weights(of_network(jump_length=3), longer, tmp_path, "last", None)
    assert line == f"weights of step 160 of {tmp_path} (network.jump_length: 2 in it, 3 here)"
    jax.tree.map(np.testing.assert_array_equal, longer.params["jump"], train.params["jump"])
    pair = train.params["params"], source.train.params["params"]
    jax.tree.map(np.testing.assert_array_equal, *pair)
    wide = begun(of_network(hidden_size=24))[1].train
    with pytest.raises(ConfigError, match=r"is of another model: .* is \['float32'"):
        load_weights(of_network(hidden_size=24), wide, tmp_path, "last", None)
    # So of an export.
    about = {"config": GRID, "about": {"env_steps": 160}}
    export = SimpleNamespace(weights=named_weights(source.train.params), **about)
    monkeypatch.setattr("smz_jax.run.weights.is_export", lambda folder: True)
    monkeypatch.setattr("smz_jax.run.weights.read_export", lambda folder: export)
    check(load_weights(other, fresh, tmp_path, "last", None)[0])


def test_weights_that_a_run_began_with_outlive_a_kill_before_its_first_save(
    tmp_path, monkeypatch, capsys
):
    run_to(GRID, tmp_path / "source", monkeypatch, 5)
    config = dataclasses.replace(GRID, seed=7, total_env_steps=64, checkpoint_every_env_steps=64)

    def killed(parts, state):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "iterate", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", weights=(tmp_path / "source", "last", None))
    assert not (tmp_path / "run" / "checkpoints").exists()
    seen = []

    def stopped(parts, state):
        seen.append(state.train.params)
        raise GameFault("enough")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "iterate", stopped)
        train(config, tmp_path / "run", resume=True, weights=(tmp_path / "source", "last", None))
    source, _ = restored(GRID, tmp_path / "source")
    check_weights(seen[0], source)
    assert "weights of step 160" in capsys.readouterr().out


def test_a_resume_that_is_refused_leaves_the_summary(tmp_path, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch, 5)
    (tmp_path / "summary.json").write_text("{}")
    for manifest in tmp_path.glob("checkpoints/last/*/manifest.json"):
        manifest.write_bytes(manifest.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="no good checkpoint is left"):
        train(GRID, tmp_path, resume=True)
    assert (tmp_path / "summary.json").exists()


def test_other_versions_are_told_of(tmp_path, monkeypatch):
    run_to(GRID, tmp_path, monkeypatch, 2)
    monkeypatch.setattr("smz_jax.run.state.versions", lambda: {**versions(), "jax": "0.0.1"})
    store = make_store(GRID, tmp_path)
    parts = make_parts(GRID, PhaseTimers())
    _, notes = restore(parts, store)
    there = versions()["jax"]
    assert notes == [
        f"not bit for bit, the checkpoint is of other versions: jax: {there!r} in it, '0.0.1' here"
    ]
    parts.source.close()


def test_the_same_seed_in_two_processes(tmp_path, whole, monkeypatch):
    """The second process is a new one: another start, another hash seed, the cache of programs."""
    (one, counters), rows, here = whole(GRID, monkeypatch)
    script = (
        "import jax; from pathlib import Path; from tests.run.test_resume import GRID, train;"
        "jax.config.update('jax_disable_most_optimizations', True);"
        "from smz_jax.run.devices import prepare_jax;"
        "prepare_jax(fast=True);"
        f"train(GRID, Path({str(tmp_path / 'there')!r}))"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=root, check=True)
    other, other_counters = state_of(GRID, tmp_path / "there")
    assert counters == other_counters
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)
    assert rows == told(tmp_path / "there")
    for name in ("macros.json", "baselines.json"):
        assert (here / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
