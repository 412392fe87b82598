"""Whole runs as a user starts them: what they leave, and that they go on after any stop."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smz_jax.config.sources import config_from_yaml
from smz_jax.storage.metrics import PhaseTimers, read_metrics

ROOT = Path(__file__).resolve().parents[2]
STEPS, LANES, LENGTH = 128, 4, 8  # of the preset tiny
SECONDS = 300


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One compile cache for all runs of this file."""
    return {
        **os.environ,
        "SMZ_COMPILE_CACHE": os.environ.get(
            "SMZ_COMPILE_CACHE", str(tmp_path_factory.mktemp("xla"))
        ),
        "PYTHONPATH": str(ROOT),
    }


def start(environment, folder, *flags, experiment="pong"):
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{experiment}", "--run_dir", str(folder), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder.parent,
    )


def finish(process):
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def wait_for(process, condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def iterations(folder):
    return [row for row in read_metrics(folder / "metrics.jsonl") if "iteration" in row]


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory):
    """A whole run; its folder, stdout and stderr."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(start(environment, folder, "--preset", "tiny"))
    assert code == 0, err
    return folder, out, err


def test_a_run_leaves_everything(finished):
    """A game with six actions."""
    folder, out, _ = finished
    assert config_from_yaml((folder / "config.yaml").read_text()).total_env_steps == STEPS
    assert list((folder / "tensorboard").iterdir()) and list(
        (folder / "checkpoints/last").iterdir()
    )
    assert len(list((folder / "figures").glob("*.png"))) == 19
    assert "data:image/png" in (folder / "report.html").read_text()
    macros = json.loads((folder / "macros.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["macros"] == macros["stats"]
    assert summary["model_check"]["code_perplexity"] >= 1
    assert (summary["env_steps"], summary["env_frames"]) == (STEPS, 4 * STEPS)
    assert summary["evaluation"]["games"] == summary["baselines"]["random"]["games"] == 4
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert macros["action_names"] == names
    assert set(summary["baselines"]["constant"]) == set(names)
    assert json.loads((folder / "baselines.json").read_text()) == summary["baselines"]
    assert sum(summary["seconds"].values()) == pytest.approx(summary["seconds_total"])
    assert "random policy: mean" in out and str(folder / "report.html") in out


def test_metrics_tell_each_iteration(finished):
    rows = iterations(finished[0])
    assert [row["env_steps"] for row in rows] == [32, 64, 96, 128]
    assert [row["learner_steps"] for row in rows] == [0, 3, 6, 9]  # 0.1 x 32 rounded, from 64 on
    assert all(row["loss/total"] is not None for row in rows[1:])
    assert all(row["macros/trees"] > 0 for row in rows)
    assert rows[-1]["macros/trees"] == STEPS
    assert all(row["search/faults"] == row["search/all_invalid"] == 0 for row in rows)


def test_a_second_start_in_the_same_folder_is_refused(finished, environment):
    folder, _, _ = finished
    before = (folder / "metrics.jsonl").read_bytes()
    code, _, err = finish(start(environment, folder, "--preset", "tiny"))
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: run_dir = ")
    assert "--resume" in err and (folder / "metrics.jsonl").read_bytes() == before


def test_a_longer_run_goes_on_with_its_replay(finished, environment):
    folder, _, _ = finished
    before = iterations(folder)
    flags = ("--resume", "--total_env_steps", str(STEPS + 64))
    code, out, err = finish(start(environment, folder, *flags))
    assert code == 0, err
    assert f"resumed at {STEPS} environment steps" in out
    rows = iterations(folder)
    assert rows[: len(before)] == before
    added = rows[len(before) :]
    assert [(row["env_steps"], row["learner_steps"]) for row in added] == [(160, 12), (192, 15)]
    assert [row["iteration"] for row in added] == [5, 6]
    assert added[-1]["macros/trees"] == STEPS + 64  # the counts went on too
    assert [row["wall_seconds"] for row in rows] == sorted(row["wall_seconds"] for row in rows)
    cpu = [row["cpu_seconds"] for row in rows]
    assert cpu == sorted(cpu) and 0 < cpu[0] < cpu[-1]

    from smz_jax.run.parts import make_parts
    from smz_jax.run.state import restore
    from smz_jax.storage.checkpoint import CheckpointStore
    from smz_jax.storage.run_dir import read_config

    parts = make_parts(read_config(folder), PhaseTimers())
    state, _ = restore(parts, CheckpointStore(folder))
    parts.source.close()
    assert int(parts.replay.size(state.replay)) == STEPS + 64
    counters = state.counters
    assert parts.steps(counters.iteration) == STEPS + 64
    assert (int(state.train.step), counters.iteration) == (15, 6)


def test_sigterm_saves_and_the_printed_command_goes_on(environment, tmp_path):
    folder, steps = tmp_path / "run [1]", 512
    flags = ("--preset", "tiny", "--total_env_steps", str(steps), "--eval.no_baselines")
    # No save is under way when the folder is renamed: it would make the former one again.
    flags += ("--checkpoint_every_env_steps", "256")
    mirrored = importlib.util.find_spec("wandb") is not None
    environment = {**environment, "WANDB_MODE": "offline"}
    flags += ("--track", "wandb") if mirrored else ()
    process = start(environment, folder, *flags, experiment="cartpole")
    path = folder / "metrics.jsonl"
    wait_for(process, lambda: path.exists() and b'"iteration": 2' in path.read_bytes())
    folder = folder.rename(tmp_path / "moved [a@b]\\c")  # while it trains
    path = folder / "metrics.jsonl"
    wait_for(process, lambda: b'"iteration": 4' in path.read_bytes())
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 143, err
    assert not (tmp_path / "run [1]").exists() and f"folder is {folder} from here on" in out
    stopped_at = iterations(folder)[-1]["env_steps"]
    assert 64 <= stopped_at < steps
    summary = json.loads((folder / "summary.json").read_text())
    # The row of an iteration whose checks were still to come is written when the run goes on.
    assert not summary["finished"] and summary["env_steps"] - stopped_at in (0, LANES * LENGTH)
    match = re.search(r"Go on with:\s+(.*)", out)
    assert match is not None
    command = shlex.split(match[1])
    assert command[1:] == ["-m", "experiments.cartpole", "--resume", "--run_dir", str(folder)]
    done = subprocess.run(
        [sys.executable, *command[1:]],
        capture_output=True,
        text=True,
        env=environment,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = iterations(folder)
    assert [row["env_steps"] for row in rows] == list(range(32, steps + 1, LANES * LENGTH))
    assert json.loads((folder / "summary.json").read_text())["finished"]
    if mirrored:  # in the moved folder too, and by the resumed run without being told
        sent = json.loads((folder / "track.json").read_text())
        assert sent["rows"] == len(read_metrics(path)) and sent["ended"], err + done.stderr
        assert len(list(folder.glob(f"wandb/offline-run-*/run-{sent['id']}.wandb"))) == 2


def test_ctrl_c_before_the_first_iteration_is_130(finished, environment, tmp_path):
    del finished  # only for its compile cache
    folder = tmp_path / "run"
    process = start(environment, folder, "--preset", "tiny")
    wait_for(process, lambda: (folder / "tensorboard").exists())
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert "Go on with:" in out and "Traceback" not in err
    assert list((folder / "checkpoints/last").iterdir())
