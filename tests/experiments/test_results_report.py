"""The table of results and figure: intervals, bounds, twins, worked out by hand on made-up runs."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib.figure import Figure

from experiments.results import finished, twins
from experiments.results import results_report as table
from experiments.results.worlds import ENCODER_VARIANT, WORLDS
from experiments.sweep.jobs import make_plan
from tests.support.fake_run import evaluation, write_run


def test_interval_over_seeds():
    """1, 2, 3: sd 1, t(0.975, 2) = 4.302653 (tables), half = 4.302653 / sqrt(3)."""
    seeds = finished.over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert seeds is not None and seeds.mean == 2 and seeds.values == (1, 2, 3)
    assert (seeds.low, seeds.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    alone = finished.over_seeds([7.0, None, float("nan")])
    assert alone is not None and alone.values == (7.0,)
    assert (alone.mean, alone.low, alone.high) == (7.0, None, None)
    assert finished.over_seeds([None]) is None
    same = finished.over_seeds([4.0, 4.0])
    assert same is not None and (same.low, same.high) == (4, 4)


def test_one_seed_has_the_interval_of_its_games():
    one = finished.over_evaluations([{"mean": 5.0, "mean_low": 4.0, "mean_high": 7.0}, None])
    assert one is not None and dataclasses.asdict(one) == {
        "mean": 5.0, "low": 4.0, "high": 7.0, "over": "games", "values": (5.0,)
    }  # fmt: skip
    assert table.mean_text(one) == "5 (4 to 7)\N{DAGGER}"
    two = finished.over_evaluations([{"mean": 5.0, "mean_low": 4.0}, {"mean": 5.0}])
    assert two is not None and two.over == "seeds"
    assert table.mean_text(two) == "5 (5 to 5)"
    assert table.mean_text(None) == "-"


GRID = {
    "roc_area": 0.995,
    "entropy_error": 0.05,
    "transition_entropy": 0.2,
    "agreement": 0.9,
    "code_perplexity": 8.0,
    "returns": {"optimum": 0.8, "discounted": 0.79, "random": -0.7},
    "open_loop_reward": [0.1, 0.1, 0.1, 0.1],
    "open_loop_value": [0.1, 0.1, 0.1, 0.1],
    "unroll_reward": [0.01, 0.02, 0.03, 0.04],
    "unroll_value": [0.1, 0.2, 0.3, 0.4],
    "unroll_own_value": [0.1, 0.2, 0.3, 0.4],
}


def write_world(out, name, scores, grid=None, random=1.5, **changes):
    """Finished runs of a world; `grid(seed)` gives what differs in its grid.json."""
    for seed, score in enumerate(scores):
        path = write_run(out / name / f"seed{seed}", seed=seed, iterations=25)
        summary = json.loads((path / "summary.json").read_text())
        one = {**evaluation(score, 1.0), "mean": score, "mean_low": score - 1}
        summary |= {"evaluation": {**one, "mean_high": score + 1}, "commit": "0123456789abc"}
        summary["baselines"]["random"] = {"mean": random, "mean_low": 1.0, "mean_high": 2.0}
        summary |= changes
        (path / "summary.json").write_text(json.dumps(summary))
        if grid is not None:
            (path / "grid.json").write_text(json.dumps({**GRID, **grid(seed)}))
        record = {"cores": 1, "processor": "Abacus 9"}
        (out / name / f"seed{seed}.json").write_text(json.dumps(record))


def test_table_of_breakout(tmp_path):
    write_world(tmp_path, "breakout", (4.0, 5.0, 6.0), seconds_total=600.0)
    report = table.make_report(tmp_path)
    (row,) = report.rows
    assert row.score is not None and row.score.mean == 5
    figures = {x.name: x for x in row.figures}
    # 4, 5 and 6 over 1.5, at least 3; the best constant action scores about 3.4.
    ratio = figures["score / random"]
    assert ratio.estimate and ratio.estimate.values == pytest.approx((4 / 1.5, 5 / 1.5, 4))
    assert ratio.reached is True and row.reached is True
    assert figures["above best constant"].reached is None
    header, _, line = table.results_markdown(report).splitlines()[:3]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    half = 4.302653 / math.sqrt(3)
    assert cells[:7] == [
        "Breakout",
        "`python -m experiments.breakout`",
        "0123456",
        "0, 1, 2",
        "1 core of Abacus 9",
        "10.0 min",
        f"5.00 ({5 - half:.2f} to {5 + half:.2f}) of 4.00, 5.00, 6.00",
    ]
    assert cells[7] == "1.50 (1.50 to 1.50)" and cells[8].startswith("LEFT 3.")
    assert cells[9] == "human 30.5 (DQN Zoo, atari_data.py)"
    assert cells[10].startswith("score / random at least 3: 3.33 (")
    # The mean reaches it, the first seed does not: 4 / 1.5.
    assert cells[10].endswith("of 2.67, 3.33, 4, 2 of 3 seeds")
    assert cells[11] == "yes (2 of 3 seeds)"
    assert len(cells) == len(header.strip("|").split("|"))

    write_world(tmp_path, "pong", (-20.0,), random=-20.5)
    report = table.make_report(tmp_path)
    assert "-20.0 (-21.0 to -19.0)\N{DAGGER} |" in table.results_markdown(report)
    assert report.rows[1].reached is None


def test_bounds_are_kept_by_the_mean_over_seeds(tmp_path):
    write_world(
        tmp_path, "grid-slippery", (0.75, 0.77), lambda seed: {"roc_area": 0.98 + seed / 50}
    )
    report = table.make_report(tmp_path)
    (row,) = report.rows
    assert row.reached is None and "not all seeds yet" in table.results_markdown(report)  # 2 of 3
    verdicts = {x.name: x.reached for x in row.figures}
    assert verdicts["return / optimum"] is True  # 0.76 of 0.8: the bound itself, 0.95
    assert verdicts["ROC area"] is True  # 0.98 and 1.00
    assert verdicts["entropy error, nats"] is True
    assert verdicts["code perplexity"] is None and row.optimum == 0.8
    write_world(tmp_path, "grid-deterministic", (0.79,) * 3, lambda _: {"transition_entropy": 0.02})
    row = table.make_report(tmp_path).rows[1]
    verdicts = {x.name: x.reached for x in row.figures}
    assert verdicts["normalised transition entropy"] is False  # required: below
    assert row.reached is False
    unknown = finished.Figure("unknown", None, "above 0", None)
    figures = [x for x in row.figures if x.reached] + [unknown]
    assert finished.all_reached([x.reached for x in figures if x.required]) is None


def test_first_encoder_gradient(tmp_path):
    write_world(tmp_path, "grid-deterministic", (0.79,), lambda _: {})
    with open(tmp_path / "grid-deterministic" / "seed0" / "metrics.jsonl", "w") as file:
        for steps, norm in ((90_000, 0.25), (91_000, 0.0)):
            file.write(json.dumps({"env_steps": steps, "check/encoder_gradient": norm}) + "\n")
    (row,) = table.make_report(tmp_path).rows
    (figure,) = (x for x in row.figures if x.name == "first encoder gradient")
    assert figure.estimate and figure.estimate.values == (0.25,) and figure.reached is True


def worse(factor):
    """A twin's grid.json: larger errors when told, a little different from seed to seed."""

    def of(seed):
        names = ("unroll_reward", "unroll_own_value")
        return {x: [e * factor * (1 + seed / 100) for e in GRID[x]] for x in names}

    return of


@pytest.mark.parametrize(("factor", "reached"), [(1.5, True), (1.0, False)])
def test_twins(tmp_path, factor, reached):
    write_world(tmp_path, "grid-slippery", (0.7, 0.7, 0.7), worse(1.0))
    write_world(tmp_path, "grid-twin", (0.6, 0.6, 0.6), worse(factor))
    report = table.make_report(tmp_path)
    found = {(x.key, x.step): x for x in report.comparisons}
    assert set(found) == {
        (key, step) for key in GRID if "l_" in key or "p_" in key for step in (3, 4)
    }
    one = found["unroll_reward", 3]
    # 0.03 x (1, 1.01, 1.02): mean 0.0303, sd 0.0003, half 4.302653 x 0.0003 / sqrt(3).
    half = 4.302653 * 0.0003 / math.sqrt(3)
    assert one.stochastic is not None and one.stochastic.mean == pytest.approx(0.0303)
    assert one.stochastic.high == pytest.approx(0.0303 + half, abs=1e-8)
    assert one.worse is reached
    assert found["open_loop_reward", 3].worse is False  # equal
    assert [row.reached for row in report.rows if row.world == "grid-twin"] == [reached]
    text = table.markdown(report)
    counted = "in 4 of 4: yes" if reached else "in 0 of 4: no"
    assert f"errors worse, intervals apart, {counted}" in text
    assert "reward error, outcomes encoded" in text
    assert "what chance codes are for" in text


def test_twins_with_other_settings_are_named(tmp_path):
    for name, codes, lanes in (("2048", 32, 32), ("2048-twin", 1, 16)):
        write_world(tmp_path, name, (3000.0,))
        path = tmp_path / name / "seed0" / "config.yaml"
        text = path.read_text().replace("codebook_size: 32", f"codebook_size: {codes}")
        path.write_text(text.replace("num_envs: 32", f"num_envs: {lanes}"))
    (problem,) = table.make_report(tmp_path).problems
    assert problem.endswith("2048/seed0: env.num_envs")
    # A setting that an older run knows nothing of is at its default there.
    assert "reward_sees_afterstate" not in text
    path.write_text(text.replace("network:\n", "network:\n  reward_sees_afterstate: false\n"))
    assert table.make_report(tmp_path).problems == []


def test_one_seed_of_twins_says_nothing(tmp_path):
    write_world(tmp_path, "grid-slippery", (0.7,), worse(1.0))
    write_world(tmp_path, "grid-twin", (0.6,), worse(9.0))
    report = table.make_report(tmp_path)
    assert {x.worse for x in report.comparisons} == {None}
    assert twins.verdict(report.comparisons) is None and twins.verdict([]) is None


def test_an_error_that_is_not_known_stays_in_its_place(tmp_path):
    names = ("open_loop_reward", "open_loop_value", "unroll_reward", "unroll_own_value")
    for name in ("grid-slippery", "grid-twin"):
        some = {key: [None, 0.2, None, 0.4] for key in names}
        write_world(tmp_path, name, (0.7, 0.7), lambda _, some=some: some)
    found = {x.step: x.twin for x in table.make_report(tmp_path).comparisons}
    assert found[3] is None and found[4] is not None and found[4].mean == 0.4


def write_encoders(out, seed, entropies=(0.6, 0.1), **changes):
    """What `experiments.encoders` leaves for one seed."""
    jobs = []
    for sticky, entropy in zip((0.25, 0.0), entropies, strict=True):
        job = {"variant": ENCODER_VARIANT, "sticky": sticky, "seed": seed, "seconds": 600.0}
        ends = {"entropy_low": entropy - 0.05, "entropy_high": entropy + 0.05}
        job |= {"roc": 0.92, "roc_open": 0.95, "code_perplexity": 6.0, "code_gain": 0.3}
        jobs.append({**job, "entropy": entropy, **ends, **changes})
        name = f"{ENCODER_VARIANT}-sticky{sticky:g}-seed{seed}"
        folder = out / "encoders" / f"seed{seed}" / "jobs" / name
        folder.mkdir(parents=True)
        rows = [{"updates": 0, "roc": 0.5 + sticky}, {"updates": 9, "roc": None}]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {"commit": "fedcba9876", "platform": "Abacus", "results": jobs}
    (out / "encoders" / f"seed{seed}" / "results.json").write_text(json.dumps(raw))


def test_encoders(tmp_path, monkeypatch):
    one_seed = dataclasses.replace(WORLDS["encoders"], seeds=(0,))
    monkeypatch.setitem(WORLDS, "encoders", one_seed)
    write_encoders(tmp_path, 0)
    (row,) = table.make_report(tmp_path).rows
    found = {x.name: x.reached for x in row.figures}
    assert found["entropy at sticky 0 / at 0.25"] is True  # 0.1 / 0.6
    assert found["intervals of the two entropies apart"] is True  # 0.15 < 0.55
    assert row.reached is True and row.minutes is not None and row.minutes.mean == 20
    assert row.commits == ["fedcba9"] and row.score is None
    write_encoders(tmp_path, 1, entropies=(0.3, 0.3), roc=0.7)
    report = table.make_report(tmp_path)
    found = {x.name: x.reached for x in report.rows[0].figures}
    assert found["ROC area, sticky 0.25"] is False  # 0.81 on average
    assert found["entropy at sticky 0 / at 0.25"] is False  # (1/6 + 1) / 2
    assert found["intervals of the two entropies apart"] is False  # over two seeds: wide
    assert report.runs["encoders"][0].curve() == ([0], [0.75])
    assert "intervals of the two entropies apart: no" in table.results_markdown(report)
    table.results_figure(report, tmp_path / "results.png")

    path = tmp_path / "encoders" / "seed1" / "results.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "results": raw["results"][:1]}))  # stopped after one
    (job,) = make_plan([(WORLDS["encoders"], (1,))], "laptop", tmp_path)
    command = job.command()
    assert job.state == "resume" and command is not None and "--resume" not in command


def test_encoders_know_the_command():
    """Their own parser takes it, and makes the jobs whose results are read."""
    from experiments.encoders import __main__ as encoders

    (job,) = make_plan([(WORLDS["encoders"], (1,))], "laptop", Path("/nowhere"))
    made = encoders.make_plan(*encoders.read_command(job.arguments())).jobs
    assert [(x.variant, x.sticky, x.seed) for x in made] == [
        (ENCODER_VARIANT, 0.25, 1),
        (ENCODER_VARIANT, 0.0, 1),
    ]


def test_twins_of_2048_stand_side_by_side(tmp_path):
    write_world(tmp_path, "2048", (3000.0,), random=1000.0)
    write_world(tmp_path, "2048-twin", (2000.0,), random=1000.0)
    text = table.markdown(table.make_report(tmp_path))
    assert "| 2048 | score | - | 3,000 (2,999 to 3,001)\N{DAGGER} | 2,000 (" in text
    assert "score / random at least 3: 3\N{DAGGER}" in text and "Guei et al." in text


def test_what_is_doubtful_is_named(tmp_path):
    write_world(tmp_path, "grid-slippery", (0.7, 0.7), lambda _: {})
    (tmp_path / "grid-slippery" / "seed1" / "grid.json").unlink()
    write_run(tmp_path / "cartpole" / "seed0", finished=False)
    write_world(tmp_path, "breakout", (1.0, 2.0))
    path = tmp_path / "breakout" / "seed1" / "config.yaml"
    path.write_text(path.read_text().replace("num_envs: 32", "num_envs: 16"))
    report = table.make_report(tmp_path)
    assert [row.world for row in report.rows] == ["grid-slippery", "breakout"]
    assert len(report.problems) == 2
    assert "seed1: grid.json is missing" in report.problems[0]
    assert "settings unlike those of" in report.problems[1]
    table.write_table(report, tmp_path)
    assert "Left out or doubtful" in (tmp_path / "table.md").read_text()
    assert "Nothing is finished" in table.markdown(table.make_report(tmp_path / "none"))


def test_figure(tmp_path):
    write_world(tmp_path, "grid-slippery", (0.7, 0.75), lambda _: {})
    write_world(tmp_path, "breakout", (4.0, 5.0, 6.0))
    report = table.make_report(tmp_path)
    rows = {row.world: row for row in report.rows}
    assert table.required_score(rows["grid-slippery"]) == pytest.approx(0.95 * 0.8)
    assert table.required_score(rows["breakout"]) == pytest.approx(3 * 1.5)
    one = report.runs["breakout"][0]
    steps, scores = one.curve()
    assert scores[-1] == 4.0 and steps[-1] == 98 * 1024 and steps[0] == 20 * 1024
    for made, path in ((report, "results.png"), (table.make_report(tmp_path / "none"), "none.png")):
        table.results_figure(made, tmp_path / path)
        assert (image.imread(tmp_path / path)[..., :3].min(axis=-1) < 0.9).mean() > 0.003


def test_the_final_evaluation_is_joined_to_an_earlier_step_alone(tmp_path, monkeypatch):
    write_world(tmp_path, "breakout", (4.0, 5.0))
    report = table.make_report(tmp_path)
    courses = iter([([1, 2, 2], [3.0, 4.0, 9.0]), ([1, 2, 3], [3.0, 4.0, 9.0])])
    monkeypatch.setattr(finished.Finished, "curve", lambda one: next(courses))
    axes = Figure().subplots()
    table.draw_world(axes, report.rows[0], report.runs["breakout"])
    same, same_final, later, later_final = (list(line.get_xdata()) for line in axes.lines[:4])
    assert (same, same_final, later, later_final) == ([1, 2], [2], [1, 2, 3], [3])
    assert axes.get_title() in ("breakout", "breakout (required: reached)")
