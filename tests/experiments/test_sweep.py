"""Sweeps: variants of files and flags, refusals, runs that fail, the results and the page.

Runs are the small script of `test_results`, not training.
"""

import csv
import errno
import json
import re
import sys
import threading
from pathlib import Path

import psutil
import pytest

from experiments.results.worlds import WORLDS
from experiments.sweep import __main__ as command_line
from experiments.sweep import engines, runner
from experiments.sweep.engines import Machine
from experiments.sweep.jobs import check_all, make_plan, settings_of
from experiments.sweep.sweep_report import LUCK
from experiments.sweep.variants import Variant, make_sweep, read_sweep
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import read_request
from smz_jax.storage.documents.results_json import SWEEP
from tests.experiments.test_results import CORES, ROOT, made_up, plan, run, wait_for  # noqa: F401

GRID = {"experiment": "gridworld", "vary": {"search.num_simulations": [8, 16]}}


def names(tree):
    return [x.name for x in make_sweep(tree, "here").variants]


def test_modes():
    two = {"search.num_simulations": [8, 16], "loss.consistency": [0, 2.0]}
    tree = {"experiment": "gridworld", "vary": two}
    assert names(tree) == [
        f"num_simulations={n},consistency={c}" for n in (8, 16) for c in (0, 2.0)
    ]
    assert names({**tree, "mode": "paired"}) == [
        "num_simulations=8,consistency=0", "num_simulations=16,consistency=2.0",
    ]  # fmt: skip
    alone = make_sweep({**tree, "mode": "one_at_a_time"}, "here")
    assert [(x.name, dict(x.settings)) for x in alone.variants] == [
        ("base", {}),
        ("num_simulations=8", {"search.num_simulations": 8}),
        ("num_simulations=16", {"search.num_simulations": 16}),
        ("consistency=0", {"loss.consistency": 0}),
        ("consistency=2.0", {"loss.consistency": 2.0}),
    ]
    assert alone.base == "base" and make_sweep(tree, "here").base == names(tree)[0]
    assert names({"experiment": "gridworld"}) == ["base"]


def test_named_variants(tmp_path):
    path = tmp_path / "codes.yaml"
    path.write_text(
        "experiment: gridworld\npreset: smoke\nseeds: [3, 4]\nbase: plain\n"
        "settings: {learner.gamma: 0.9}\nvariants:\n"
        "  codes: {}\n"
        "  plain: {network: {codebook_size: 1}, seeds: [5], minutes: 2}\n"
        '  map: {like: plain, env.kwargs: {map: tiny}, search.root: "gumbel"}\n'
    )
    sweep = read_sweep(path)
    codes, plain, other = sweep.variants
    assert (sweep.name, sweep.preset, sweep.base) == ("codes", "smoke", "plain")
    assert codes.settings == {"learner.gamma": 0.9} and list(codes.seeds) == [3, 4]
    assert list(plain.seeds) == [5] and plain.settings["network.codebook_size"] == 1
    assert (other.minutes, list(other.seeds)) == (2, [5])
    assert other.words("smoke")[-4:] == [
        "--env.kwargs", '{"map": "tiny"}', "--search.root", "gumbel"
    ]  # fmt: skip
    assert read_sweep(path, {"vary": {"learner.gamma": ["0.5"]}}).variants[0].name == "gamma=0.5"


def test_the_file_of_the_documentation(tmp_path):
    page = (ROOT / "docs/sweep.md").read_text("utf-8")
    (tmp_path / "codes.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    sweep = read_sweep(tmp_path / "codes.yaml")
    assert [x.name for x in sweep.variants] == ["codes", "one-code", "one-code-gumbel"]
    jobs = make_plan([(x, x.seeds) for x in sweep.variants], "smoke", tmp_path)
    check_all(jobs)
    assert settings_of(jobs[-1]).search.root == "gumbel" and len(jobs) == 15


def test_several_experiments_are_tasks():
    tree = {**GRID, "experiment": ["gridworld", "cartpole"]}
    with pytest.raises(ConfigError, match="normalise lacks cartpole"):
        make_sweep(tree, "here")
    ranges = {"gridworld": [-0.7, 0.9], "cartpole": [20, 500]}
    sweep = make_sweep({**tree, "normalise": ranges}, "here")
    assert [(x.name, x.label) for x in sweep.variants[:2]] == [
        ("num_simulations=8/gridworld", "num_simulations=8"),
        ("num_simulations=8/cartpole", "num_simulations=8"),
    ]


def test_the_table_of_results_is_a_sweep():
    assert all(isinstance(x, Variant) for x in WORLDS.values())
    words = ["experiments/results/worlds.yaml", "--variants", "grid-twin", "pong", "--list"]
    request = read_request(command_line.SweepRequest, words)
    assert [x.name for x in command_line.find_sweep(request).variants] == ["grid-twin", "pong"]


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"vary": {"search.simulations": [1]}}, "unknown setting 'search.simulations' in here"),
        ({"vary": {"seed": [1]}}, "seed = .*given as a key of the sweep"),
        ({"vary": {"learner.gamma": []}}, "learner.gamma = .* a list of values"),
        ({"vary": {"learner.gamma": [1, 1]}}, "listed once"),
        ({"vary": {"env.id": ["ALE/Pong"], "learner.gamma": [1]}, "mode": "grid"}, None),
        ({"vary": {"env.id": ["a b", "a/b"]}}, "id=a-b.* the name of one variant"),
        ({"variants": {"..": {}}}, "variant = '..' is not allowed"),
        ({"seads": [1]}, "unknown key in here: 'seads'; did you mean seeds"),
        ({"seeds": [-1]}, r"seeds\[0\] = -1 is not allowed"),
        ({"preset": "huge"}, "preset = 'huge' is not allowed"),
        ({"base": "none"}, "unknown base 'none'"),
        ({"variants": {"a": {"like": "b"}}}, "like = 'b' is not allowed: .* this is the first"),
        ({"variants": {"a": {}, "b": {"like": "c"}}}, "variant b: like 'c'; there are a"),
        ({"variants": {"a/b": {}}}, "variant = 'a/b' is not allowed"),
        ({"variants": {"a": {"network.codes": 1}}}, "unknown setting .* in here, variant a"),
        ({"variants": {"a": {"cores": 0}}}, "variant a: cores = 0"),
        ({"mode": "paired", "vary": {"learner.gamma": [1], "seed": [1, 2]}}, "seed = "),
        ({"experiment": None}, "experiment = None is not allowed"),
        ({"experiment": []}, r"experiment = \[\] is not allowed: it must be a name, or several"),
        ({"mode": "gridd"}, "mode = 'gridd' .* must be grid, paired, one_at_a_time"),
        ({"vary": ["learner.gamma"]}, "vary = .* must be settings, each with a list of values"),
        ({"variants": {"report.html": {}}}, "variant = 'report.html' .* none of report.html"),
        ({"variants": {"a": {"arguments": ["--run_dir", "x"]}}}, "variant a: arguments.* none of"),
        ({"normalise": {"gridworld": [1, 1]}}, "normalise"),
        ({"normalise": {"gridworld": [2, 1]}}, "it must be .low, high., low below high"),
    ],
)
def test_wrong_files_get_one_line(tree, text):
    if text is None:
        assert names({**GRID, **tree}) == ["id=ALE-Pong,gamma=1"]
        return
    with pytest.raises(ConfigError, match=text) as error:
        make_sweep({"experiment": "gridworld", **tree}, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["gridword"], "did you mean gridworld"),
        (["gridworld", "--vary", "gamma"], "vary = 'gamma' is not allowed"),
        (["gridworld", "--seeds", "0", "0"], "named once"),
        (["gridworld", "--vary", "search.num_simulations=-4"], "num_simulations=-4 seed 0 .*-4"),
        (["gridworld", "--vary", "learner.gamma=0.9,0.90"], "listed once"),
        (
            ["gridworld", "--vary", "log_every=1", "--mode", "one_at_a_time"],
            "base seed 0 and log_every=1 seed 0 would be the same run",
        ),
        (["gridworld", "--variants", "b"], "unknown variant 'b'"),
        (["gym", "--vary", "env.id=Foo-v1"], "id=Foo-v1 seed 0 cannot be run: env.id"),
        (["experiments/results/worlds.yaml"], "variant = 'encoders'"),
        (["offline"], "base seed 0 cannot be known: dataset = None is not allowed"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_runs(words, text, tmp_path):
    words = [*words, "--preset", "tiny", "--run_dir", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match=text) as error:
        command_line.main(words)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.fixture
def sweep(made_up, monkeypatch):  # noqa: F811
    """Runs the command on the script, on real cores; gives the exit code."""
    monkeypatch.setattr(command_line, "experiment_names", lambda: ["made_up"])
    monkeypatch.setattr(engines, "this_machine", lambda jobs, preset: Machine(CORES, True, "A"))

    def call(*words):
        words = ["made_up", "--preset", "tiny", "--run_dir", str(made_up), *words]
        monkeypatch.setattr(sys, "argv", ["sweep", *words])
        return command_line.main(words)

    return call


def test_the_whole_sweep(sweep, made_up, capsys):  # noqa: F811
    words = ["--vary", "learner.gamma=0.5,0.9", "--seeds", "0", "1"]
    assert sweep(*words, "--list") == 0
    listed = capsys.readouterr().out
    assert "gamma=0.5 seed 0: to run, 1 core, about 1 min" in listed
    assert not made_up.exists()
    assert sweep(*words) == 0
    out = capsys.readouterr().out
    assert "gamma=0.9" in out and "2 of 2" in out and "no variant beats the base" in out
    found = SWEEP.read(made_up)
    # Scores are 100 + seed: the variants are equal, pair by pair.
    first, second = found["variants"]
    assert first["iqm"] == 100.5 and (first["iqm_low"], first["iqm_high"]) == (100, 101)
    assert (second["better"], second["difference"]) == (0.5, 0) and first["better"] is None
    rows = list(csv.DictReader((made_up / "sweep.csv").open()))
    assert [(x["variant"], x["seed"], x["score"], x["state"]) for x in rows] == [
        (f"gamma={gamma}", str(seed), str(100.0 + seed), "finished")
        for gamma in (0.5, 0.9) for seed in (0, 1)
    ]  # fmt: skip
    page = (made_up / "report.html").read_text()
    assert page.count("data:image/png") == 3 and "has 2 finished run(s)" in page
    assert LUCK.split("{")[0] not in page  # of two variants nobody is lucky

    # One seed more: what is finished stays, and the report covers all.
    log = (made_up / "gamma=0.5" / "seed0.log").read_bytes()
    assert sweep(*words, "2") == 0
    assert (made_up / "gamma=0.5" / "seed0.log").read_bytes() == log
    assert SWEEP.read(made_up)["variants"][0]["runs"] == 3
    with pytest.raises(ConfigError, match=r"gamma=0.5/seed0 holds a run with other settings"):
        sweep(*words, "--preset", "smoke")
    with pytest.raises(ConfigError, match="holds the sweep made_up-gamma, not made_up: give"):
        sweep("--seeds", "0")


def test_a_failed_run_is_tried_once_more(sweep, made_up, capsys):  # noqa: F811
    assert sweep("--seeds", "0", "7") == 1
    out, err = capsys.readouterr()
    assert out.count("RuntimeError: seven is out") == 2 and out.count("tried once more") == 1
    assert err.startswith("failed: base seed 7, exit code 1")
    states = {x["seed"]: x["state"] for x in SWEEP.read(made_up)["trials"]}
    assert states == {0: "finished", 7: "failed"}
    assert "not finished: base seed 7" in (made_up / "report.html").read_text()


def test_a_run_that_somebody_else_ends_is_continued(sweep, made_up, capsys):  # noqa: F811
    """A signal that the sweep did not send is no wish to stop it."""

    def end_it():
        wait_for(made_up / "base" / "seed8" / "metrics.jsonl")
        (own,) = (x for x in psutil.Process().children(True) if "--run_dir" in x.cmdline())
        own.terminate()

    thread = threading.Thread(target=end_it)
    thread.start()
    assert sweep("--seeds", "8") == 0
    thread.join()
    assert "base seed 8 failed: exit code 143" in capsys.readouterr().out
    assert (made_up / "base" / "seed8" / "saved").exists()
    assert [x["state"] for x in SWEEP.read(made_up)["trials"]] == ["finished"]


def test_a_full_disk_holds_up_no_other_run(sweep, made_up, monkeypatch, capsys):  # noqa: F811
    """The first start finds no room; the same line runs what is left."""
    start = engines.LocalPool.start

    def full(self, job, words):
        if job.seed == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(job.log))
        return start(self, job, words)

    with monkeypatch.context() as once:
        once.setattr(engines.LocalPool, "start", full)
        assert sweep("--seeds", "0", "1") == 1
    assert "failed: base seed 0, [Errno 28] No space left on device" in capsys.readouterr().err
    assert [x["state"] for x in SWEEP.read(made_up)["trials"]] == ["failed", "finished"]
    assert sweep("--seeds", "0", "1") == 0
    assert [x["state"] for x in SWEEP.read(made_up)["trials"]] == ["finished", "finished"]


def test_a_run_that_cannot_be_read_is_a_line_of_the_report(sweep, made_up, capsys):  # noqa: F811
    assert sweep("--seeds", "0") == 0
    (folder,) = (Path(x["folder"]) for x in SWEEP.read(made_up)["trials"])
    summary = json.loads((folder / "summary.json").read_text())
    summary["evaluation"] = None  # its opponent could not play; scores on the way are not final
    (folder / "summary.json").write_text(json.dumps(summary))
    with (folder / "metrics.jsonl").open("a") as rows:
        rows.write('{"env_steps": 9, "eval/mean": 7.0}\n')
    assert sweep("--seeds", "0") == 0
    found = SWEEP.read(made_up)
    assert found["trials"][0]["score"] is None
    assert found["problems"][0] == "base seed 0 has no final score"
    (folder / "metrics.jsonl").unlink()
    assert sweep("--seeds", "0") == 0  # it is finished
    found = SWEEP.read(made_up)
    assert [x["state"] for x in found["trials"]] == ["unreadable"]
    assert found["problems"][-1] == "not finished: base seed 0" and len(found["problems"]) == 2
    assert "unreadable" in (made_up / "sweep.csv").read_text()


def test_runs_wait_for_memory(made_up, monkeypatch):  # noqa: F811
    """Two cores, room for one run: never two at a time, and the largest is recorded."""
    free = engines.psutil.virtual_memory()._replace(available=int(engines.USUAL_BYTES * 1.5))
    monkeypatch.setattr(engines.psutil, "virtual_memory", lambda: free)
    most = []
    show = runner.Runner._show
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(
        runner.Runner, "_show", lambda self: (most.append(len(self._running)), show(self))
    )
    ended = run(plan(made_up, (0, 1)), Machine((CORES[0], CORES[-1] + 1), False))
    assert {x.kind for x in ended.values()} == {"finished"} and set(most) == {1}
    record = json.loads((made_up / "fake" / "seed1.json").read_text())
    assert record["peak_bytes"] > 10**6
