"""The table of results: plans, runs that fail, stop and go on, refusals, the command line.

Jobs are a small script, not training: it keeps a run folder as an experiment does.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

import experiments
from experiments.results import __main__ as command_line
from experiments.results.worlds import WORLDS, World, choose
from experiments.sweep import jobs as plans
from experiments.sweep.engines import LocalPool, Machine, this_machine
from experiments.sweep.jobs import (
    Advance,
    check_same,
    describe,
    make_plan,
    newest_row,
    settings_of,
    time_left,
)
from experiments.sweep.runner import Runner
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import read_request
from smz_jax.run import signals
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal

ROOT = Path(__file__).resolve().parents[2]
CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]

# Seed 6 fails after its end, 7 before; seeds 8 and 9 go on until one or two signals, and to their
# end when resumed.
SCRIPT = """
import json, os, signal, sys, time
from smz_jax.config.experiment import Experiment

EXPERIMENT = Experiment("gridworld", "grid", {"env.suite": "grid", "env.id": "GridWorld"})

def play(experiment):
    from smz_jax.config.cli import parse
    from smz_jax.config.process import run_main
    from smz_jax.storage.run_dir import prepare_run_dir
    def main():
        invocation = parse(None, experiment)
        folder, config = prepare_run_dir(invocation), invocation.config
        print("cores", sorted(os.sched_getaffinity(0)), os.environ.get("XLA_FLAGS"), flush=True)
        if config.seed == 7:
            raise RuntimeError("seven is out")
        seen = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: seen.append(number))
        row = {"env_steps": 64, "wall_seconds": 3.0, "learner_steps": 1, "score/mean": 2.0}
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\n")
        patience = {8: 1, 9: 2}.get(config.seed, 0) if not invocation.resume else 0
        while len(seen) < patience:
            time.sleep(0.01)
            if seen:
                (folder / "asked").touch()
        if seen:
            (folder / "saved").touch()
            return 128 + seen[0]
        result = {"mean": 100.0 + config.seed, "games": 4}
        summary = {"finished": True, "evaluation": result, "seconds_total": 60.0, "env_steps": 128}
        (folder / "summary.json").write_text(json.dumps({"preset": invocation.preset, **summary}))
        return 1 if config.seed == 6 else 0
    run_main(main)

if __name__ == "__main__" and sys.argv[1:2] != ["report"]:
    play(EXPERIMENT)
"""
FAKE = World("fake", "made_up", arguments=("--learner.gamma", "0.5"), minutes=1.0)


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A folder with the script as an experiment, in which `python -m` finds it."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    (tmp_path / "experiments" / "made_up.py").write_text(SCRIPT)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, f"{tmp_path}/experiments"])
    monkeypatch.delitem(sys.modules, "experiments.made_up", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    return tmp_path / "out"


def plan(out, seeds, world=FAKE, **options):
    return make_plan([(world, tuple(seeds))], "tiny", out, **options)


MACHINE = Machine(CORES, True, "Abacus")


def run(jobs, machine=MACHINE, stop=None):
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    with Progress(len(jobs), "results", console) as shown:
        found = Runner(jobs, LocalPool(machine), shown).run(StopSignal() if stop is None else stop)
    return {x.job.seed: x for x in found}


def test_runs_what_is_new_and_reports_what_failed(made_up):
    jobs = plan(made_up, (0, 6, 7, 1))
    assert [job.state for job in jobs] == ["new"] * 4
    ended = run(jobs)
    kinds = {seed: x.kind for seed, x in ended.items()}
    assert kinds == {0: "finished", 6: "failed", 7: "failed", 1: "finished"}
    assert ended[6].code == ended[7].code == 1
    log = (made_up / "fake" / "seed7.log").read_text()
    assert "RuntimeError: seven is out" in log
    config = (made_up / "fake" / "seed0" / "config.yaml").read_text()
    assert "gamma: 0.5" in config and "seed: 0" in config
    record = json.loads((made_up / "fake" / "seed0.json").read_text())
    assert (record["cores"], record["processor"]) == (1, "Abacus")


def test_each_job_has_its_own_core_and_one_thread(made_up):
    run(plan(made_up, (0, 1)))
    lines = [(made_up / "fake" / f"seed{seed}.log").read_text() for seed in (0, 1)]
    pinned = [line.split("]")[0] + "]" for line in lines]
    if len(CORES) > 1:
        assert sorted(pinned) == [f"cores [{core}]" for core in CORES]
    assert all("intra_op_parallelism_threads=1" in line for line in lines)
    assert os.sched_getaffinity(0) >= set(CORES)  # this process has its own cores back

    wide = dataclasses.replace(FAKE, name="wide", cores=2)
    run(plan(made_up, (0,), wide))
    first = (made_up / "wide" / "seed0.log").read_text()
    assert first.startswith(f"cores {list(CORES)}")
    assert ("intra_op" in first) == (len(CORES) == 1)
    run(plan(made_up, (1,), wide, single_core=True))
    assert (made_up / "wide" / "seed1.log").read_text().startswith(f"cores [{CORES[0]}]")


def test_what_is_finished_is_not_run_again(made_up):
    run(plan(made_up, (0,)))
    log = (made_up / "fake" / "seed0.log").read_bytes()
    jobs = plan(made_up, (0, 1))
    assert [job.state for job in jobs] == ["finished", "new"]
    assert {x.kind for x in run(jobs).values()} == {"finished"}
    assert (made_up / "fake" / "seed0.log").read_bytes() == log


def test_other_settings_are_refused_in_one_line(made_up):
    run(plan(made_up, (0,)))
    other = dataclasses.replace(FAKE, arguments=("--learner.gamma", "0.75"))
    with pytest.raises(ConfigError, match=r"learner.gamma: 0.5 != 0.75; move it away") as error:
        plan(made_up, (0,), other)
    assert "\n" not in str(error.value) and "seed0" in str(error.value)
    wrong = dataclasses.replace(FAKE, arguments=("--learner.gama", "0.75"))
    with pytest.raises(ConfigError, match=r"cannot be known: .*unknown flag --learner[.]gama"):
        plan(made_up, (0,), wrong)


def test_sigterm_is_passed_on_and_the_run_goes_on_later(made_up):
    def stop_when_it_runs():
        wait_for(made_up / "fake" / "seed8" / "metrics.jsonl")
        busy.append(_refusal(lambda: plan(made_up, (8,))))
        busy.append([job.state for job in plan(made_up, (8, 1), to_list=True)])
        os.kill(os.getpid(), signal.SIGTERM)

    busy = []
    thread = threading.Thread(target=stop_when_it_runs)
    with StopSignal() as stop:
        thread.start()
        ended = run(plan(made_up, (8, 1)), Machine(CORES[:1], True), stop)
    thread.join()
    assert busy == [
        f"fake seed 8 is still running in {made_up}/fake/seed8: wait, or stop it",
        ["running", "new"],
    ]
    assert stop.number == signal.SIGTERM
    assert {seed: (x.kind, x.code) for seed, x in ended.items()} == {
        8: ("stopped", 143),
        1: ("stopped", None),  # it had not begun: there is one core
    }
    assert (made_up / "fake" / "seed8" / "saved").exists()

    jobs = plan(made_up, (8, 1))
    assert [job.state for job in jobs] == ["resume", "new"]
    command = jobs[0].command()
    assert command and command[-1] == "--resume"
    assert {x.kind for x in run(jobs).values()} == {"finished"}


def test_a_list_shows_what_is_running_and_refuses_nothing(made_up, monkeypatch, capsys):
    folder = made_up / "cartpole" / "seed0"
    monkeypatch.setattr(plans, "busy_folders", lambda: {folder.resolve()})
    words = ["results", "--worlds", "cartpole", "--seeds", "0", "1", "--run_dir", str(made_up)]
    monkeypatch.setattr(sys, "argv", [*words, "--list"])
    assert command_line.main() == 0
    listed = capsys.readouterr().out
    assert "cartpole seed 0: running, 1 core" in listed and "cartpole seed 1: to run" in listed
    assert "0 of 2 finished" in listed


def wait_for(path, seconds=30.0):
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)


def _refusal(function):
    try:
        function()
    except ConfigError as error:
        return str(error)
    return "not refused"


def test_a_second_signal_is_passed_on_too(made_up, monkeypatch):
    monkeypatch.setattr(signals, "SAME_PRESS_SECONDS", 0.0)

    def stop_twice():
        for sign in ("metrics.jsonl", "asked"):
            wait_for(made_up / "fake" / "seed9" / sign)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop_twice)
    with StopSignal() as stop:
        thread.start()
        ended = run(plan(made_up, (9,)), stop=stop)
    thread.join()
    assert (ended[9].kind, ended[9].code) == ("stopped", 130)


def test_a_finished_run_without_its_report_gets_it(made_up):
    world = dataclasses.replace(FAKE, extra=("found.json", ("report", "RUN_DIR")))
    jobs = plan(made_up, (0,), world)
    ended = run(jobs)  # the script's report writes nothing: it is not tried for ever
    assert (ended[0].kind, ended[0].reason) == ("failed", "its report was not written")
    assert jobs[0].is_finished()
    command = plan(made_up, (0,), world)[0].command()
    assert command is not None and command[-2:] == ["report", str(made_up / "fake" / "seed0")]
    (made_up / "fake" / "seed0" / "found.json").write_text('{"roc_area": 1}')
    assert plan(made_up, (0,), world)[0].command() is None


def test_the_whole_command(made_up, monkeypatch, capsys):
    """Exit code 1 with a failed job, the others done, table and figure written all the same."""
    cartpole = dataclasses.replace(WORLDS["cartpole"], module="made_up", arguments=())
    monkeypatch.setitem(WORLDS, "cartpole", cartpole)
    words = ["results", "--worlds", "cartpole", "--preset", "tiny", "--run_dir", str(made_up)]
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "0", "2", "7"])
    assert command_line.main() == 1
    out, err = capsys.readouterr()
    assert "failed: cartpole seed 7, exit code 1" in err
    assert "RuntimeError: seven is out" in out
    text = (made_up / "table.md").read_text()
    # 100 and 102: sd sqrt(2), t(0.975, 1) = 12.7062, half = 12.7062.
    assert (
        "101 (88.3 to 114) of 100, 102 |" in text and "0, 2 (2 of 3)" in text and "1.0 min" in text
    )
    assert (made_up / "results.png").exists()
    row = json.loads((made_up / "table.json").read_text())["rows"][0]
    assert row["score"]["mean"] == 101 and row["reached"] is None

    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "0", "2"])
    assert command_line.main() == 0
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "0", "5", "--list"])
    assert command_line.main() == 0
    listed = capsys.readouterr().out
    assert "cartpole seed 0: finished" in listed and "cartpole seed 5: to run" in listed
    assert "1 of 2 finished; about 1:00 for the others" in listed
    assert not (made_up / "cartpole" / "seed5").exists()


def test_settings_are_those_of_the_experiments_themselves(tmp_path):
    """Every world's command is understood by its own module, twins differ in the codes alone."""
    found = {}
    for world in WORLDS.values():
        if (ROOT / "experiments" / f"{world.module}.py").exists() and world.name != "encoders":
            (job,) = make_plan([(world, (5,))], "laptop", tmp_path)
            found[world.name] = settings_of(job)
            assert found[world.name].seed == 5
    for name, config in found.items():
        if (whole := WORLDS[name].twin_of) is not None:
            assert config.network.codebook_size == 1 < found[whole].network.codebook_size
            network = dataclasses.replace(
                config.network, codebook_size=found[whole].network.codebook_size
            )
            assert config.search.collapse_threshold > 0  # else half of its simulations are idle
            search = found[whole].search
            assert dataclasses.replace(config, network=network, search=search) == found[whole]
    assert found["grid-deterministic"].env.kwargs == '{"map": "deterministic"}'
    assert found["2048"].env.id == "2048" and found["pong"].env.id == "Pong"


def test_choice():
    everything = {world.name: tuple(seeds) for world, seeds in choose(None, None, "laptop")}
    assert list(everything) == list(WORLDS)
    assert everything["breakout"] == (0, 1, 2)
    assert everything["pong"] == (0,)
    some = choose(["pong", "2048"], [3, 4], "laptop")
    assert [(world.name, seeds) for world, seeds in some] == [("2048", [3, 4]), ("pong", [3, 4])]
    tiny = choose(None, None, "tiny")
    assert [(world.name, seeds) for world, seeds in tiny] == [("grid-slippery", (0,))]
    for names, seeds, text in (
        (["gird-slippery"], None, "did you mean grid-slippery?"),
        (["pong", "pong"], None, "named once"),
        (None, [1, 1], "named once"),
    ):
        with pytest.raises(ConfigError, match=text):
            choose(names, seeds, "laptop")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--jobs", "0"], "jobs = 0"),
        (["--jobs", "many"], "jobs = 'many'"),
        (["--seeds", "-1"], "seeds = -1"),
        (["--sedes", "1"], "unknown flag --sedes; did you mean --seeds?"),
        (["--run-dir", __file__], "a folder, not a file"),
        (["--table", "--list"], "left out with --list"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_wrong_arguments_get_one_line(words, text):
    with pytest.raises(ConfigError, match=text) as error:
        read_request(command_line.ResultsRequest, words)
    assert "\n" not in str(error.value)


def test_help_teaches():
    command = [sys.executable, "-m", "experiments.results", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    for text in ("--worlds", "--list", "table.md", "ROC area at least 0.99", "encoders (", "tiny"):
        assert text in done.stdout


def test_machine():
    assert this_machine(1, "laptop").cores == CORES[:1]
    assert this_machine(None, "laptop").pins
    for preset in ("gpu", "tiny"):
        assert not this_machine(None, preset).pins
        assert len(this_machine(None, preset).cores) == 1


def test_time_left():
    def job(world, seed):
        return make_plan([(WORLDS[world], (seed,))], "laptop", Path("/nowhere"))[0]

    a, b, c = job("2048", 0), job("2048", 1), job("breakout", 0)
    half = Advance(0.5, 300.0, None)
    # One at half after 300 s: 300 s left and 600 s for the like of it; breakout: 15 min on 2 cores.
    assert time_left([b, c], [(a, half)], [], 2) == (300 + 600 + 2 * 900) / 2
    assert time_left([b], [(a, half)], [], 2) == 600  # no shorter than the longest
    assert time_left([], [], [a], 2) == 0
    assert describe(a, Advance(0.25, 60.0, 12.3456)) == ("2048 seed 0 25%, 3:00 left, score 12.35")


def test_newest_row_of_a_file_that_is_being_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert newest_row(path) == {}
    path.write_text('{"env_steps": 1, "eval/mean": 5}\n{"env_steps": 2}\n{"env_st')
    assert newest_row(path) == {"env_steps": 2, "eval/mean": 5}


def test_saved_settings_are_compared_setting_by_setting(made_up):
    (job,) = plan(made_up, (0,))
    run([job])
    check_same(job)
    with pytest.raises(ConfigError, match="seed: 0 != 1"):
        check_same(dataclasses.replace(job, seed=1))
