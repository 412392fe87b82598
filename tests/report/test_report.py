"""The report of made-up runs: whole, unfinished, damaged, several; numbers worked out by hand."""

import base64
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image

from smz_jax.report import style
from smz_jax.report.build import build_report
from smz_jax.report.data import group_seeds, load_run, load_runs, macro_name
from smz_jax.report.panels import PANELS
from smz_jax.report.plot import draw_panel
from smz_jax.report.verdict import _judgement, find_warnings, meaning, progress_text, score_text
from smz_jax.storage.estimate import Estimate
from tests.support.fake_run import CONFIG, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "breakout" / "seed0")


@pytest.fixture(scope="module")
def page(finished):
    return build_report([finished]).read_text()


def edit(path, name, change):
    """Rewrites a JSON file of a run folder after `change` was applied to it."""
    value = json.loads((path / name).read_text())
    change(value)
    (path / name).write_text(json.dumps(value))


def draw(name, runs):
    """The figure of that name."""
    return draw_panel(PANELS[name], runs)


def append_row(path, row):
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"env_steps": 200_000, **row}) + "\n")


def test_every_figure_is_a_picture_with_ink(finished, page):
    names = {path.stem for path in (finished / "figures").glob("*.png")}
    assert (
        names == {panel.name for panel in PANELS.values() if panel.shown([load_run(finished)])}
        and len(names) == 19
    )
    for path in (finished / "figures").glob("*.png"):
        pixels = image.imread(path)
        assert pixels.shape[1] == style.WIDTH * style.DPI
        assert (pixels[..., :3].min(axis=-1) < 0.9).mean() > 0.005


def test_page_is_self_contained_and_shows_the_very_figures(finished, page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 19 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "http" not in page and "<script" not in page
    first = base64.b64decode(sources[0].split(",", 1)[1])
    assert first == (finished / "figures" / "score.png").read_bytes()


def test_page_tells_the_summary(finished, page):
    summary = json.loads((finished / "summary.json").read_text())
    agent, random = summary["evaluation"]["scores"], summary["baselines"]["random"]["scores"]
    assert f'<p class="big">{sum(agent) / len(agent):.2f}' in page
    assert f"{np.mean(agent) / np.mean(random):.2f} times the random policy" in page
    assert "it has learned to play" in page
    assert "best constant action (LEFT)" in page and "agent, sticky actions" in page
    assert "338.2</td><td>38.0%" in page  # search: 0.38 of 890 s
    assert "0123abc" in page and "codebook_size: 32" in page and "<details>" in page
    assert "Take care" not in page


def test_macro_rankings(finished, page):
    macros = json.loads((finished / "macros.json").read_text())["macros"]
    for title, best in (
        ("Most frequent", max(macros, key=lambda m: m["count"])),
        ("Most deterministic", min(macros, key=lambda m: m["mean_entropy"])),
        ("Most general", max(macros, key=lambda m: (m["generality"], m["count"]))),
    ):
        table = page.split(f"<h3>{title}</h3>")[1].split("</table>")[0]
        row = re.findall(r"<tr>(.*?)</tr>", table, re.S)[1]
        assert f"<td>{macro_name(best)}</td><td>{best['count']:,}</td>" in row


def test_macro_names_fold_repeats():
    assert macro_name({"names": ["FIRE", "RIGHT", "RIGHT", "FIRE"]}) == "FIRE → RIGHT ×2 → FIRE"  # noqa: RUF001


def test_report_works_at_any_time(tmp_path, request):
    early = write_run(tmp_path / "breakout" / "early", iterations=1, finished=False)
    text = build_report([early]).read_text()
    assert "Unfinished" in text and "No learner step" in text
    assert "No game has been finished" in text
    empty = tmp_path / "breakout" / "empty"
    empty.mkdir()
    (empty / "metrics.jsonl").touch()
    assert "Nothing has been evaluated yet" in build_report([empty]).read_text()

    request.getfixturevalue("unrendered")
    killed = write_run(tmp_path / "breakout" / "killed", iterations=50, finished=False)
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 51, "env_st')
    text = build_report([killed]).read_text()
    # 50 iterations of 1,024 steps out of 100,000; the evaluation at iteration 40.
    assert "51.2k environment steps" in text and "(51% of the run)" in text
    assert f"scores {1.6 + 7.4 * 40 / 98:.2f}" in text and "agent at 40.96k steps" in text


def test_everything_from_a_run_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>$_{$'
    run = write_run(tmp_path / "breakout" / "_$a<b>", iterations=4, experiment=evil)
    edit(run, "macros.json", lambda m: m["macros"][0].update(names=[evil], count=10**6))
    edit(run, "summary.json", lambda s: s.update(platform=evil, versions={evil: evil}))
    edit(run, "summary.json", lambda s: s["baselines"]["constant"].update({evil: {"mean": 99.0}}))
    other = write_run(tmp_path / "breakout" / "b", seed=1, iterations=4, experiment="c")
    for runs in ([run], [run, other]):
        text = build_report(runs).read_text()
        assert "<script" not in text and "_$a<b>" not in text
        assert "&lt;script&gt;" in text


def test_several_runs_share_one_report(finished, tmp_path):
    runs = [finished] + [
        write_run(tmp_path / "breakout" / name, iterations=20, **settings)
        for name, settings in (
            ("seed1", {"seed": 1, "score": 5.0}),
            ("resnet", {"network": {"family": "resnet", "codebook_size": 32}}),
        )
    ]
    before = (finished / "report.html").stat().st_mtime_ns if page else 0
    text = build_report(runs, tmp_path / "both").read_text()
    assert (finished / "report.html").stat().st_mtime_ns == before
    assert len(list((tmp_path / "both" / "figures").glob("*.png"))) == 19
    assert "breakout: 3 runs" in text and "mean of 2 seeds, breakout" in text
    loaded = load_runs(runs)
    assert [[run.label for run in group] for group in group_seeds(loaded)] == [
        ["seed0", "seed1"],
        ["resnet"],
    ]
    means = [run.summary["evaluation"]["mean"] for run in loaded[:2]]
    assert f"{sum(means) / 2:.2f} (extremes {min(means):.2f} to {max(means):.2f})" in text


def test_equal_names_get_labels_of_their_own(tmp_path):
    folders = ("pong", "breakout", "old/pong")
    paths = [write_run(tmp_path / name / "seed0", iterations=3) for name in folders]
    labels = [run.label for run in load_runs(paths)]
    assert labels == ["pong/seed0", "breakout/seed0", "pong/seed0 (2)"]


def test_different_games_are_not_compared(tmp_path):
    paths = [
        write_run(tmp_path / name / "a", iterations=3, env={"id": name})
        for name in ("Pong", "Breakout")
    ]
    runs = load_runs(paths)
    assert "cannot be compared" in find_warnings(runs)[-1]
    labels = draw("score", runs).axes[0].get_legend_handles_labels()[1]
    assert not any("random" in label for label in labels)


def test_score_figure_draws_the_recorded_numbers(finished):
    run = load_run(finished)
    axes = draw("score", [run]).axes[0]
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    random = np.mean(run.summary["baselines"]["random"]["scores"])
    assert by_label[f"random policy: {random:.2f}"].get_ydata()[0] == pytest.approx(random)
    evaluations = by_label["evaluation, 95 % interval"]
    assert list(evaluations.lines[0].get_xdata()) == [20480, 40960, 61440, 81920]
    low, high = evaluations.lines[2][0].get_segments()[0][:, 1]
    mean = 1.6 + 7.4 * 20 / 98
    assert (low, high) == pytest.approx((mean - 1.1, mean + 1.2))
    assert by_label["final evaluation, 95 % interval"].lines[0].get_xdata()[0] == 98 * 1024


def test_a_final_evaluation_that_is_also_a_row_is_drawn_once(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=40)
    append_row(
        path, {"eval/mean": json.loads((path / "summary.json").read_text())["evaluation"]["mean"]}
    )
    axes = draw("score", [load_run(path)]).axes[0]
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    assert list(by_label["evaluation, 95 % interval"].lines[0].get_xdata()) == [20480, 40960]


def test_entropy_figure_has_both_thresholds(finished):
    axes = draw("transition_entropy", [load_run(finished)]).axes[0]
    assert {text.get_text() for text in axes.texts} == {
        "played games: certain below 0.2",
        "search trees: certain below 0.4",
    }
    heights = {line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"}
    assert heights == {0.2, 0.4}


def test_mean_over_seeds_and_smoothing_by_hand():
    # Common stretch 10..20; at 10: (2 + 5) / 2, at 15: (3 + 6) / 2, at 20: (4 + 7) / 2.
    curves_of_seeds = [([0, 10, 20], [0, 2, 4]), ([10, 15, 20, 30], [5, 6, 7, 9])]
    x, y = style.mean_curve(curves_of_seeds)
    assert (x, y) == ([10, 15, 20], [3.5, 4.5, 5.5])
    assert style.mean_curve([([1], [1])]) == ([], [])
    # Windows of five: at the ends only the neighbours that exist.
    values = np.array([0, 10, 20, 30, 40, 50], np.float64)
    np.testing.assert_allclose(style.running_mean(values), [10, 15, 20, 30, 35, 40])


@pytest.mark.parametrize(
    ("agent", "constant", "words"),
    [
        ((1.0, 0.5, 1.5), (0, 0, 0), "no better than random: it has not learned"),
        ((2.2, 1.9, 2.5), (0, 0, 0), "intervals overlap"),
        ((4.0, 3.5, 4.5), (5, 4, 6), "holding one button"),
        ((4.0, 3.5, 4.5), (3.4, 3, 3.8), "within its interval"),
        ((4.0, 3.5, 4.5), (3, 2.9, 3.1), "it has learned to play"),
    ],
)
def test_judgement(agent, constant, words):
    assert words in _judgement(Estimate(*agent), Estimate(1.6, 1.2, 2.0), Estimate(*constant))


def test_meaning_with_negative_scores(tmp_path):
    run = load_run(write_run(tmp_path / "pong" / "a", iterations=3))
    run.summary["evaluation"] = {"mean": -15.0, "mean_low": -16.0, "mean_high": -14.0}
    run.summary["baselines"] = {"random": {"mean": -20.5, "mean_low": -21.0, "mean_high": -20.0}}
    for row in run.rows:
        row.pop("baseline/constant/LEFT", None)
    text = meaning(run)
    assert (
        "-15.0 (-16.0 to -14.0)" in text and "5.50 above the random policy's score (-20.5)" in text
    )
    assert progress_text(run).startswith("Finished: 100.4k environment steps, 401.4k frames")
    assert score_text(None) == "-"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"model/code_perplexity": 1.2}, "collapsed to one code"),
        ({"macros/dropped": 12}, "12 entries were dropped"),
        ({"macros/total": 1024}, "table is full"),
        ({"macros/certain_rate_tree": 1.0}, "100% of the transitions in search trees"),
        ({"macros/certain_rate_play": 0.0}, "0% of the transitions in played games"),
        ({"loss/total": None}, "not finite"),
        (
            {"learner/rewards_cut": 0.125, "learner/reward_reach": 161.0},
            "Up to 12.5% of an iteration's reward targets lie beyond network.reward_support = 300 "
            "and are cut to its end; in a new run --network.reward_support 161 would hold those",
        ),
        (
            {"learner/values_cut": 1.0, "learner/value_reach": 5001.0},
            "Up to 100% of an iteration's value targets lie beyond network.value_support = 300 "
            "and are cut to its end; in a new run the largest one, 5,000, would not hold them",
        ),
    ],
)
def test_warnings_are_raised_by_what_deserves_them(tmp_path, row, words):
    path = write_run(tmp_path / "breakout" / "a", iterations=40)
    assert not [text for text in find_warnings([load_run(path)]) if words in text]
    append_row(path, row)
    assert [text for text in find_warnings([load_run(path)]) if words in text]


def test_plain_muzero_has_no_dead_codebook(tmp_path):
    settings = {**CONFIG["network"], "codebook_size": 1}
    path = write_run(tmp_path / "breakout" / "a", iterations=5, network=settings)
    append_row(path, {"model/code_perplexity": 1.0})
    assert not [text for text in find_warnings([load_run(path)]) if "collapsed" in text]


def test_no_gate_of_macros_is_told_of_where_there_can_be_none(tmp_path):
    path, told = write_run(tmp_path / "breakout" / "a", iterations=5), []
    for names in (["NOOP", "FIRE"], [], [str(x) for x in range(256)]):
        edit(path, "macros.json", lambda x, names=names: x.update(macros=[], action_names=names))
        told.append([x for x in find_warnings([load_run(path)]) if "No macro is sound" in x])
    assert told[0] and not told[1] and not told[2]


def test_cut_games_are_told(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=40)
    edit(path, "summary.json", lambda s: s["evaluation"].update(cut_share=0.125, games=8))
    text = " ".join(find_warnings([load_run(path)]))
    assert "12.5% of the evaluation games were cut off" in text and "only 8 games" in text


def test_command_line(finished, tmp_path):
    command = [sys.executable, "-m", "experiments.report"]
    done = subprocess.run(
        [*command, str(finished), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "19 figures" in done.stdout and (tmp_path / "report.html").exists()
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "examples:" in helped.stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
