"""The mirror of a run at Weights & Biases: what arrives; it never holds up or ends a run."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import experiments.sweep.__main__ as sweep
from experiments import track
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import Invocation, RunRequest, parse, read_request
from smz_jax.config.experiment import Experiment
from smz_jax.run import tracker
from smz_jax.run.tracker import Tracker, chosen_service
from smz_jax.storage import wandb_sink
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.run_dir import read_config
from tests.support import fake_wandb
from tests.support.fake_run import write_run
from tests.support.house import ROOT

MANY = 60.0  # seconds: a fault, never a measure


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that puts a fake wandb on the path; gives its folder."""

    def put(how="record"):
        folder = tmp_path / "fake"
        for name in [x for x in sys.modules if x.partition(".")[0] == "wandb"]:
            monkeypatch.delitem(sys.modules, name)
        for name, value in fake_wandb.install(folder, how).items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(folder)
        return folder

    yield put
    sys.modules.pop("wandb", None)


def wait_for(condition):
    end = time.monotonic() + MANY
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def named(calls, name):
    return [arguments for called, arguments in calls if called == name]


def plain(rows):
    return [{name: x for name, x in row.items() if x is not None} for row in rows]


def test_a_run_is_mirrored_while_it_goes_and_to_its_end(tmp_path, fake, capfd):
    folder = fake()
    run = write_run(tmp_path / "sweeps/lr/a/seed0", iterations=3)
    (tmp_path / "sweeps/lr/sweep.json").write_text("{}")
    rows = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(rows[:-40])  # the last row is not whole yet
    with Tracker(run) as mirror:
        wait_for(lambda: len(named(fake_wandb.calls(folder), "log")) == 3)
        with open(run / "metrics.jsonl", "ab") as file:
            file.write(rows[-40:])
        (run / "figures").mkdir()
        (run / "figures/score.png").write_bytes(b"png")
        (run / "report.html").write_text("<p>report</p>")
        mirror.end(0)
    calls = fake_wandb.calls(folder)
    (begun,) = named(calls, "init")
    assert begun["config"]["env"]["id"] == "Breakout" and begun["config"]["seed"] == 0
    assert (begun["group"], begun["job_type"], begun["name"]) == ("lr", "a", "a-seed0")
    assert begun["dir"].startswith("/proc/") and begun["project"] == "smz_jax"
    assert named(calls, "define_metric") == [{"name": "*", "step_metric": "env_steps"}]
    *logged, shown = [x["values"] for x in named(calls, "log")]
    assert logged == plain(read_metrics(run / "metrics.jsonl"))
    assert set(shown) == {"figures/score", "report"}
    (summary,) = named(calls, "summary")
    assert summary["values"]["final/evaluation/games"] == 32
    assert not any("scores" in name for name in summary["values"])
    assert [name for name, _ in calls[-1:]] == ["finish"]
    assert named(calls, "finish") == [{"exit_code": 0}]
    sent = json.loads((run / "track.json").read_text())
    assert sent["rows"] == 4 and sent["ended"] and sent["id"] == begun["id"]
    assert "W&B" not in "".join(capfd.readouterr())


def test_a_resumed_run_keeps_its_id_and_sends_what_is_new(tmp_path, fake):
    folder, run = fake(), write_run(tmp_path / "run", iterations=3)
    whole = (run / "metrics.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (lines[:2], lines):
        (run / "metrics.jsonl").unlink()
        (run / "metrics.jsonl").write_bytes(b"".join(kept))
        with Tracker(run) as mirror:
            mirror.end(130 if len(kept) == 2 else 0)
    calls = fake_wandb.calls(folder)
    first, second = named(calls, "init")
    assert first["id"] == second["id"] and first["resume"] == "allow"
    logged = [x["values"] for x in named(calls, "log")]
    assert [x["env_steps"] for x in logged] == [0, 1024, 2048, 3072]
    assert [x["exit_code"] for x in named(calls, "finish")] == [130, 0]


def test_rows_that_a_resume_cuts_and_writes_again_are_not_sent_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = wandb_sink.RowReader(path)
    assert reader.new() == []
    path.write_bytes(b'{"env_steps": 1}\n{"env_steps": 2}\n{"env')
    assert reader.new() == [(1, {"env_steps": 1}), (2, {"env_steps": 2})]
    other = tmp_path / "other"
    other.write_bytes(b'{"env_steps": 1, "longer": "than what had been read of the file before"}\n')
    other.replace(path)
    ((number, row),) = reader.new()
    assert number == 1 and row["env_steps"] == 1
    with open(path, "ab") as file:
        file.write(b'damaged\n{"env_steps": 9}\n')
    assert reader.new() == [(3, {"env_steps": 9})]
    assert reader.new() == []


@pytest.mark.parametrize("how", ["raise_init", "raise_log", "die_log", "raise_finish"])
def test_a_mirror_that_fails_is_a_line(tmp_path, fake, how, capfd):
    folder, run = fake(how), write_run(tmp_path / "run", iterations=1)
    with Tracker(run) as mirror:
        if how != "raise_finish":
            assert mirror.process is not None and mirror.process.wait(MANY)
        mirror.end(0)
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith("W&B: the run is not mirrored from here on")
    reason = "code -9" if how.startswith("die") else f"RuntimeError: no {how[6:]} today"
    assert reason in err and f"experiments.track {run}" in err
    assert named(fake_wandb.calls(folder), "init")


@pytest.mark.parametrize("how", ["hang_init", "hang_log", "hang_finish"])
def test_a_mirror_that_hangs_is_left_behind(tmp_path, fake, how, capfd, monkeypatch):
    fake(how)
    monkeypatch.setenv("SMZ_TRACK_SECONDS", "1.1")
    run = write_run(tmp_path / "run", iterations=1)
    with Tracker(run) as mirror:
        mirror.end(0)
    assert mirror.process is not None and mirror.process.poll() is None
    assert f"process {mirror.process.pid} goes on by itself" in capfd.readouterr().err
    os.kill(mirror.process.pid, signal.SIGKILL)
    mirror.process.wait(MANY)


def test_a_folder_that_is_renamed_is_followed(tmp_path, fake):
    fake()
    run = write_run(tmp_path / "run", iterations=1, finished=False)
    with Tracker(run) as mirror:
        moved = run.rename(tmp_path / "moved [a@b]")
        mirror.end(0)
    assert mirror.process is not None and mirror.process.wait(MANY) == 0
    assert not run.exists() and json.loads((moved / "track.json").read_text())["rows"] == 2


def test_a_run_that_is_killed_is_sent_as_one_that_failed(tmp_path, fake):
    folder, run = fake(), write_run(tmp_path / "run", iterations=1, finished=False)
    with Tracker(run) as mirror:  # nobody says an exit code
        pass
    assert mirror.process is not None and mirror.process.wait(MANY) == 0
    assert named(fake_wandb.calls(folder), "finish") == [{"exit_code": 1}]


def test_a_start_that_comes_to_nothing_leaves_nothing(tmp_path, fake):
    folder, run = fake(), write_run(tmp_path / "run", iterations=1)
    (run / "metrics.jsonl").unlink()
    before = sorted(run.iterdir())
    with Tracker(run) as mirror:
        mirror.end(2)
    assert sorted(run.iterdir()) == before and fake_wandb.calls(folder) == []


def invocation(*words, **changed) -> Invocation:
    return parse(words, Experiment("gridworld"))


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch, capsys):
    def missing(name):
        raise wandb_sink.PackageNotFoundError(name)

    monkeypatch.setattr(wandb_sink, "version", missing)
    asked = invocation("--preset", "tiny", "--track", "wandb")
    with pytest.raises(ConfigError, match=r"track = 'wandb': wandb is not installed: pip install"):
        chosen_service(asked)
    assert chosen_service(invocation("--preset", "tiny")) is None
    run = write_run(tmp_path / "run", iterations=1)
    with pytest.raises(ConfigError, match="wandb is not installed"):
        track.main([str(run)])
    (run / "track.json").write_text("{}")
    resumed = invocation("--resume", "--run_dir", str(run))
    assert chosen_service(resumed) is None
    assert "not mirrored to W&B as before" in capsys.readouterr().err


def test_a_run_is_resumed_as_before(tmp_path, fake, monkeypatch):
    fake()
    run = write_run(tmp_path / "run", iterations=1)
    words = ("--resume", "--run_dir", str(run))
    assert chosen_service(invocation(*words)) is None
    (run / "track.json").write_text("{}")
    assert chosen_service(invocation(*words)) == "wandb"
    assert chosen_service(invocation(*words, "--track", "none")) is None
    monkeypatch.setenv(tracker.WAIT_VARIABLE, "soon")
    with pytest.raises(ConfigError, match="SMZ_TRACK_SECONDS = 'soon' is not allowed"):
        chosen_service(invocation("--preset", "tiny", "--track", "wandb"))
    assert RunRequest().track is None


def test_finished_runs_are_sent_afterwards(tmp_path, fake, capsys):
    folder = fake()
    one, two = (write_run(tmp_path / x, iterations=2) for x in ("one", "two"))
    (two / "metrics.jsonl").write_text("")
    assert track.main([str(one), str(two)]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and "3 rows, 0 figures to https://wandb.invalid" in out
    assert err.count("no rows") == 1
    assert track.main([str(one)]) == 0 and "sent before" in capsys.readouterr().out
    assert len(named(fake_wandb.calls(folder), "init")) == 1
    assert track.main([str(one), "--again"]) == 0
    first, second = named(fake_wandb.calls(folder), "init")
    assert first["id"] != second["id"]
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        track.main([str(tmp_path)])


def test_a_fault_of_one_run_holds_up_no_other(tmp_path, fake, capsys):
    fake("raise_log")
    runs = [write_run(tmp_path / x, iterations=1) for x in ("one", "two")]
    assert track.main(list(map(str, runs))) == 1
    assert capsys.readouterr().err.count("RuntimeError: no log today\n") == 2


def test_two_processes_do_not_send_one_run(tmp_path, fake, capsys):
    fake()
    run = write_run(tmp_path / "run", iterations=1)
    with wandb_sink.sending(run):
        assert track.main([str(run)]) == 1
    assert "is being sent by another process" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"id": "../x", "rows": 1}', '{"id": "a", "rows": -1}'])
def test_a_damaged_record_begins_a_new_one(tmp_path, text):
    (tmp_path / "track.json").write_text(text)
    sent = wandb_sink.read_sent(tmp_path)
    assert sent.rows == 0 and not sent.ended and len(sent.id) == 8


def test_a_sweep_passes_the_flag_on(tmp_path):
    words = ["gridworld", "--vary", "log_every=1,2", "--preset", "tiny", "--seeds", "0"]
    for more in ((), ("--track", "none")):
        request = read_request(sweep.SweepRequest, [*words, "--run_dir", str(tmp_path), *more])
        jobs = sweep.plan_sweep(request, sweep.find_sweep(request), tmp_path)
        commands = [job.command() for job in jobs]
        assert all(x is not None and x[len(x) - len(more) :] == [*more] for x in commands)


def start(folder, *flags, **environment):
    words = [sys.executable, "-m", "experiments.gridworld", "--preset", "tiny", "--run_dir", folder]
    found = {**os.environ, **environment, "PYTHONPATH": f"{environment.get('FAKE', '')}:{ROOT}"}
    done = subprocess.run([*words, *flags], env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = read_metrics(folder / "metrics.jsonl")
    timed = ("time/", "speed/", "wall_seconds", "cpu_seconds")
    return done.stderr, [{k: x for k, x in r.items() if not k.startswith(timed)} for r in rows]


@pytest.mark.slow
def test_whole_runs_are_the_same_bits_with_and_without(tmp_path):
    """`python -m pytest -m slow tests/run/test_tracker.py`: two minutes."""
    _, alone = start(tmp_path / "alone")
    for how in ("record", "die_log", "hang_log"):
        fake = tmp_path / f"fake_{how}"
        environment = {**fake_wandb.install(fake, how), "FAKE": str(fake), "SMZ_TRACK_SECONDS": "9"}
        run = tmp_path / how
        err, rows = start(run, "--track", "wandb", **environment)
        assert rows == alone
        assert ("W&B:" in err) == (how != "record")
        if how == "record":
            logged = [x["values"] for x in named(fake_wandb.calls(fake), "log")]
            assert logged[:-1] == plain(read_metrics(run / "metrics.jsonl"))
            assert "figures/score" in logged[-1] and "report" in logged[-1]
        if found := re.search(r"process (\d+) goes on", err):
            os.kill(int(found[1]), signal.SIGKILL)


def records(path):
    """The records of an offline file: wandb's messages, in a log as LevelDB's, of 32 KiB blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = path.read_bytes(), 7, [], []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            found.append(Record.FromString(b"".join(parts)))
            parts = []
    return found


def test_wandb_itself_keeps_the_same_values_offline(tmp_path, monkeypatch):
    """The real package, without a network: by its own process beside a run, and afterwards."""
    pytest.importorskip("wandb", reason="pip install '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = write_run(tmp_path / "sweeps/lr/a/seed0", iterations=20)
    (tmp_path / "sweeps/lr/sweep.json").write_text("{}")
    (run / "figures").mkdir()
    from PIL import Image

    Image.new("RGB", (4, 4)).save(run / "figures/score.png")
    (run / "report.html").write_text("<p>report</p>")
    with Tracker(run) as mirror:
        wait_for(lambda: list(run.glob("wandb/offline-run-*/run-*.wandb")))
        run = run.rename(run.with_name("seed 0 [b]"))
        mirror.end(0)
        assert mirror.process is not None and mirror.process.wait(MANY) == 0
    assert not (run.parent / "seed0").exists()
    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found = records(path)
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
         for item in record.history.item}
        for record in found if record.HasField("history")
    ]  # fmt: skip
    own = [{k: x for k, x in row.items() if not k.startswith("_")} for row in history]
    assert own[:-1] == plain(read_metrics(run / "metrics.jsonl"))
    assert {"figures/score/path", "report/path"} <= set(own[-1])
    (metric,) = [r.metric for r in found if r.HasField("metric") and r.metric.glob_name == "*"]
    assert metric.step_metric == "env_steps"
    begun = next(r.run for r in found if r.HasField("run"))
    assert (begun.run_group, begun.job_type, begun.display_name) == ("lr", "a", "a-seed0")
    assert begun.run_id == json.loads((run / "track.json").read_text())["id"]
    config = {x.key: json.loads(x.value_json) for x in begun.config.update}
    own_config = wandb_sink.asdict(read_config(run))
    assert {name: config[name] for name in own_config} == own_config
    assert next(r.exit.exit_code for r in found if r.HasField("exit")) == 0
    media = [x for x in path.parent.joinpath("files/media").rglob("*") if x.is_file()]
    assert {x.suffix for x in media} == {".png", ".html"}


def test_wandb_itself_may_be_killed(tmp_path, monkeypatch, capfd):
    """Its own process beside ours dies, then ours: a line, and the run would go on."""
    pytest.importorskip("wandb", reason="pip install '.[wandb]'")
    import psutil

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SMZ_TRACK_SECONDS", "5")
    run = write_run(tmp_path / "run", iterations=1)
    with Tracker(run) as mirror:
        assert mirror.process is not None
        wait_for(lambda: (run / "track.json").exists())
        core = psutil.Process(mirror.process.pid).children(recursive=True)
        assert core
        for process in core:
            process.kill()
        with open(run / "metrics.jsonl", "ab") as file:
            file.write(b'{"env_steps": 9999}\n')
        mirror.end(0)
    assert "W&B:" in capfd.readouterr().err
    mirror.process.kill()
    mirror.process.wait(MANY)
