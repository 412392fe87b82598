"""Metrics on disk, phase timers and the progress display, against hand-made expectations."""

import io
import json
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from smz_jax.config.check import ConfigError
from smz_jax.report.text import short_count, short_duration
from smz_jax.run.progress import Progress
from smz_jax.run.state import Counters
from smz_jax.storage import files
from smz_jax.storage.metrics import (
    MetricsWriter,
    PhaseTimers,
    newest_games,
    read_metrics,
    score_row,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tensorboard_events(folder) -> list[tuple[int, str, float]]:
    """Step, tag and value of every scalar: the record format read by hand, the payload by proto."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 12 + length + 4
    return found


def test_rows_are_strict_json_and_reach_tensorboard(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"env_steps": np.int32(64), "loss/total": np.float32(0.5), "note": "a"})
    # A reader during the run sees the row at once.
    assert (tmp_path / "metrics.jsonl").read_text().endswith("\n")
    writer.write({"env_steps": 128, "loss/total": float("nan"), "speed": float("inf")})
    writer.close()
    writer.close()

    def no_constant(name):
        raise AssertionError(name)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=no_constant) for line in lines]
    assert rows == [
        {"env_steps": 64, "loss/total": 0.5, "note": "a"},
        {"env_steps": 128, "loss/total": None, "speed": None},
    ]
    assert rows == read_metrics(tmp_path / "metrics.jsonl")
    assert tensorboard_events(tmp_path / "tensorboard") == [(64, "loss/total", 0.5)]


def test_resume_cuts_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 0}\n{"env_steps": 10}\n{"env_steps": 20}\n{"env_ste')
    assert [row["env_steps"] for row in read_metrics(path)] == [0, 10, 20]
    writer = MetricsWriter(tmp_path, resume_at_env_steps=10)
    assert path.read_bytes() == b'{"env_steps": 0}\n{"env_steps": 10}\n'
    writer.write({"env_steps": 15})
    writer.close()
    assert [row["env_steps"] for row in read_metrics(path)] == [0, 10, 15]
    assert [p.name for p in tmp_path.glob(".*.tmp")] == []


def test_rows_of_the_end_are_cut_on_resume_since_it_comes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"env_steps": 10, "baseline/random": 1.0},
        {"env_steps": 20, "iteration": 2, "eval/mean": 3.0},
        {"env_steps": 20, "check/code_perplexity": 4.0},
        {"env_steps": 20, "eval/mean": 5.0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    MetricsWriter(tmp_path, resume_at_env_steps=20).close()  # the run goes on for longer
    assert read_metrics(path) == rows
    MetricsWriter(tmp_path, resume_at_env_steps=20, end_comes_again=True).close()
    assert read_metrics(path) == rows[:2]


def test_a_torn_line_is_cut_also_without_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 0}\n{"env')
    writer = MetricsWriter(tmp_path)
    writer.write({"env_steps": 5})
    writer.close()
    assert [row["env_steps"] for row in read_metrics(path)] == [0, 5]


@pytest.mark.parametrize("bad", [b'{"a": \n', b"[1]\n", b"\xff\x00\n", b"\n\n"])
def test_damage_before_the_last_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 0}\n' + bad + b'{"env_steps": 1}\n')
    with pytest.raises(ConfigError, match="line 2") as error:
        read_metrics(path)
    assert "\n" not in str(error.value)


def test_missing_metrics_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_atomic_write_keeps_the_former_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": np.arange(2), "b": (float("nan"), np.float32(1.5))})
    assert json.loads(path.read_text()) == {"a": [0, 1], "b": [None, 1.5]}

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write_text(path, "half of it")
    assert json.loads(path.read_text())["a"] == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_nested_phases_are_not_counted_twice():
    clock = Clock()
    timers = PhaseTimers(clock)
    with timers("learning"):
        clock.now += 1
        with timers("replay"):
            clock.now += 2
            with timers("compilation"):
                clock.now += 4
        timers.add("compilation", 0.5)
        clock.now += 8
    with timers("learning"):
        clock.now += 16
    # By hand: learning 1 + (8 - 0.5) + 16, replay 2, compilation 4 + 0.5; 31 s passed in all.
    assert timers.seconds["learning"] == 24.5
    assert timers.seconds["replay"] == 2
    assert timers.seconds["compilation"] == 4.5
    assert timers.total == clock.now == 31


def test_timers_survive_an_error_inside_and_refuse_unknown_phases():
    clock = Clock()
    timers = PhaseTimers(clock)
    with pytest.raises(ZeroDivisionError), timers("search"), timers("macros"):
        clock.now += 3
        raise ZeroDivisionError
    assert (timers.seconds["search"], timers.seconds["macros"]) == (0, 3)
    with pytest.raises(KeyError), timers("serach"):
        pass
    timers.add("search", 7.0)
    assert timers.total == 10


def test_cpu_seconds_continue_from_those_before():
    timers = PhaseTimers()
    began = time.process_time()
    while time.process_time() - began < 0.02:
        pass
    time.sleep(0.1)
    assert 0.02 <= timers.cpu_seconds < 0.1
    timers.cpu_before = 100.0
    assert 100.02 <= timers.cpu_seconds < 100.1
    timers.cpu_before = None
    assert timers.cpu_seconds is None


def test_a_checkpoint_without_cpu_seconds_is_read():
    """As they were until November 2026."""
    saved = {**Counters()._asdict(), "seconds": {}}
    assert Counters.from_json({**saved, "cpu_seconds": 7}).cpu_seconds == 7.0
    del saved["cpu_seconds"]
    assert Counters.from_json(saved).cpu_seconds is None


def test_running_scores_forget_old_games():
    games = []
    assert score_row(games) == {"score/count": 0}
    for game in ((100, 1000), (1, 10), (2, 20), (6, 60)):
        games = newest_games(games, [game], window=3)
    assert score_row(games) == {"score/count": 3, "score/mean": 3.0, "episode/length_mean": 30.0}
    again = newest_games(json.loads(json.dumps(games)), window=3)
    assert score_row(again) == score_row(games)
    assert len(newest_games((i, i) for i in range(150))) == 100


ROW = {
    "iteration": 3,
    "speed/env_steps_per_second": 1234.4,
    "score/mean": 2.5,
    "score/count": 7,
    "loss/total": 3.14159,
    "search/transition_entropy": 0.456,
    "macros/total": 17,
}


def test_plain_progress_lines_are_rate_limited():
    clock, out = Clock(), io.StringIO()
    with Progress(1000, "breakout", Console(file=out), clock) as progress:
        progress.status("compiling the search ...")
        assert out.getvalue() == "breakout: compiling the search ...\n"
        for step in range(101):
            clock.now = step * 0.1
            progress.update(step * 5, ROW)
            if step == 0:
                assert len(out.getvalue().splitlines()) == 2
    lines = out.getvalue().splitlines()
    # Lines at 0, 5 and 10 s after the status; none is held back at the end.
    assert len(lines) == 4
    # 50 steps a second, 500 left: 10 s.
    assert lines[-1] == (
        "breakout 50% · 500/1k steps · iteration 3 · steps/s 1,234 · score 2.5 (7 games) · "
        "loss 3.14 · entropy 0.46 · macros 17 · 0:10 ETA 0:10"
    )


def test_the_last_plain_line_is_never_lost():
    clock, out = Clock(), io.StringIO()
    with Progress(100, "pong", Console(file=out), clock) as progress:
        progress.update(10, {})
        clock.now = 1.0
        progress.update(100, {"loss/total": None})
        assert "100%" not in out.getvalue()
    assert "pong 100% · 100/100 steps" in out.getvalue()
    assert "loss" not in out.getvalue()


def test_live_progress_shows_metrics_and_keeps_messages():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress(1000, "break[bold]out", console) as progress:
        progress.status("compiling ...")
        progress.message("saved [checkpoint]")
        progress.update(500, ROW)
    text = out.getvalue()
    for part in ("break[bold]out", "saved [checkpoint]", "500/1k steps", "score 2.5", "50%", "ETA"):
        assert part in text


def test_short_forms():
    assert [short_count(n) for n in (0, 950, 12_300, 1.5e6)] == ["0", "950", "12.3k", "1.5M"]
    assert [short_duration(s) for s in (None, 5, 65, 3725)] == ["?", "0:05", "1:05", "1:02:05"]


def test_neither_metrics_nor_report_imports_jax():
    code = (
        "import sys, smz_jax.storage.metrics, smz_jax.run.progress, smz_jax.report;"
        "import experiments.report;"
        "sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
