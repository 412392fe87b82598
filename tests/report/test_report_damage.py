"""The report of damaged, empty and doubled runs: what is wrong is named, the rest is shown."""

import pytest

from experiments.report import main
from smz_jax.config.check import ConfigError, shorten
from smz_jax.config.process import run_main
from smz_jax.report.build import build_report
from smz_jax.report.data import load_run, load_runs
from tests.report.test_report import draw, edit
from tests.support.fake_run import write_run


def test_damaged_side_files_are_named_not_fatal(tmp_path):
    run = write_run(tmp_path / "breakout" / "a", iterations=5)
    (run / "summary.json").write_text('{"seed": ')
    (run / "macros.json").write_text('{"macros": [{"names": ["FIRE"]}]}')
    (run / "config.yaml").write_text("a: [1")
    text = build_report([run]).read_text()
    for name in ("summary.json", "macros.json", "config.yaml"):
        assert f"{name} is damaged: left out" in text


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"evaluation": 3, "seconds": "x", "macros": []}, "seconds, evaluation, macros"),
        ({"evaluation": {"mean": 3.0, "mean_low": "x"}, "env_steps": "x"}, "env_steps, evaluation"),
        ({"baselines": {"random": {"mean": 1.0}, "constant": [1]}}, "baselines"),
        ({"baselines": {"constant": {"LEFT": 4}}, "versions": 3}, "baselines, versions"),
        ({"seconds": {"search": None}, "seconds_total": [], "learner_steps": True}, None),
    ],
)
def test_half_valid_summary_keeps_its_good_part(tmp_path, change, named):
    run = write_run(tmp_path / "breakout" / "a", iterations=5)
    edit(run, "summary.json", lambda s: s.update(change))
    named = named or "learner_steps, seconds_total, seconds"
    text = build_report([run]).read_text()
    assert f"summary.json is damaged: {named} left out" in text
    assert "Finished:" in text and "0123abc" in text


@pytest.mark.parametrize("macros", [3, {"a": 1}, [3], "x"])
def test_macros_that_are_no_list_are_left_out(tmp_path, macros):
    run = write_run(tmp_path / "breakout" / "a", iterations=5)
    edit(run, "macros.json", lambda m: m.update(macros=macros))
    loaded = load_run(run)
    assert loaded.macros == [] and loaded.problems == ["macros.json is damaged: left out"]


@pytest.mark.parametrize("found", [0, 1])
def test_few_macros_are_counted_in_whole_numbers(tmp_path, found):
    path = write_run(tmp_path / "breakout" / "a", iterations=5)
    run = load_run(path)
    for row in run.rows:
        row.update({k: found for k in row if k.startswith("macros/") and "rate" not in k})
    for name in ("macros_found", "generality", "trees_processed"):
        for axes in draw(name, [run]).axes:
            ticks = axes.get_yticks()
            assert len(ticks) >= 2 and all(tick == round(tick) for tick in ticks)


def test_a_run_named_twice_counts_once(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=3)
    link = tmp_path / "link"
    link.symlink_to(path)
    runs = load_runs([path, link, path / ".." / "a"])
    assert [(run.path, run.label) for run in runs] == [(path, "a")]


def line_of(argv, capsys):
    """What the command says on stderr as it ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: main(argv))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_command_line_answers_bad_folders_in_one_line(tmp_path, capsys):
    finished = write_run(tmp_path / "runs" / "breakout" / "seed0", iterations=3)
    for folder, words in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "holds no metrics.jsonl"),
        (finished.parent, f"did you mean {finished}"),
        (finished / "config.yaml", "it must be the folder of a run"),
    ):
        error = line_of([str(folder)], capsys)
        assert words in error and error.count("\n") == 1
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        error = line_of([str(finished), "--out", str(out)], capsys)
        assert f"out = {shorten(str(out))} is not allowed: it must be a folder" in error
        assert error.count("\n") == 1
    with pytest.raises(ConfigError, match="no run folder"):
        load_runs([])
