"""Figures of the model: what they draw are the recorded numbers; several runs; damage."""

import json
import re

import numpy as np
import pytest
import yaml
from matplotlib import image

from smz_jax.report import bars, curves, panels
from smz_jax.report.build import build_report
from smz_jax.report.data import load_run, load_runs
from smz_jax.report.macro_tables import precondition_lines
from smz_jax.report.model_panels import NO_CHECK
from smz_jax.report.style import Group, make_groups
from smz_jax.report.verdict import find_warnings
from tests.report.test_report import append_row, draw, edit
from tests.support.fake_run import SHARES, add_rules, check_entries, write_run

CHECKED = [20480, 40960, 61440, 81920]  # each 20th of 98 iterations of 1,024 steps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(write_run(tmp_path_factory.mktemp("runs") / "breakout" / "seed0"))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two seeds of one setting, and a run of another."""
    folder = tmp_path_factory.mktemp("runs") / "breakout"
    return load_runs(
        [
            write_run(folder / "a"),
            write_run(folder / "b", seed=1, iterations=60),
            write_run(folder / "c", iterations=20, network={"family": "resnet"}),
        ]
    )


def by_label(axes):
    return dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))


def expected(name, steps):
    return [check_entries(x // 1024 / 98)[name] for x in steps]


def test_vectors_are_read_in_order(run):
    found = run.vectors("check/value_error")
    assert [steps for steps, _ in found] == CHECKED
    entries = check_entries(40 / 98)
    assert found[1][1] == [entries[f"check/value_error_{i}"] for i in range(4)]
    assert run.vectors("check/nothing") == []


def test_health_has_a_dot_for_each_check(run):
    for axes, name in zip(
        draw("model", [run]).axes, ("code_perplexity", "agreement", "embedding_variance"),
        strict=False,
    ):  # fmt: skip
        dots = next(line for line in axes.lines if line.get_linestyle() == "None")
        assert list(dots.get_xdata()) == CHECKED
        np.testing.assert_allclose(dots.get_ydata(), expected(f"check/{name}", CHECKED))
        assert axes.get_ylim()[1] > max(dots.get_ydata())
    (legend,) = draw("model", [run]).legends
    assert "check of one batch, without noise" in [text.get_text() for text in legend.get_texts()]
    note = draw("model", [run]).axes[0].texts[0]
    assert note.get_text() == "1 = collapsed" and note.get_va() == "bottom"  # above the line


@pytest.mark.usefixtures("unrendered")
def test_captions_say_how_large_the_batch_of_a_check_is(tmp_path):
    settings = {"learner": {"batch_size": 32, "unroll_steps": 2}}
    text = build_report([write_run(tmp_path / "a" / "b", iterations=4, **settings)]).read_text()
    words = "of one batch (32 windows of 2 steps): small differences are noise"
    assert text.count(words) == 4  # two captions, each an alternative text too


def test_unroll_errors_are_the_recorded_ones(run):
    figure = draw("unroll_errors", [run])
    last = check_entries(80 / 98)
    for column, (name, first) in enumerate(
        (("value_error", 0), ("reward_error", 1), ("consistency", 1))
    ):
        now, course = figure.axes[column], figure.axes[3 + column]
        steps = list(range(first, 4))
        assert list(now.lines[0].get_xdata()) == steps
        wanted = [last[f"check/{name}_{i}"] for i in range(len(steps))]
        np.testing.assert_allclose(now.lines[0].get_ydata(), wanted)
        lines = by_label(course)
        assert list(lines) == ["root" if step == 0 else f"step {step}" for step in steps]
        for i, line in enumerate(lines.values()):
            assert list(line.get_xdata()) == CHECKED
            np.testing.assert_allclose(line.get_ydata(), expected(f"check/{name}_{i}", CHECKED))


def test_unroll_errors_of_several_runs(several):
    figure = draw("unroll_errors", several)
    value, course = figure.axes[0], figure.axes[3]
    labels = ["breakout, mean of seeds 0, 1", "c"]
    assert list(by_label(value)) == list(by_label(course)) == labels
    both = [check_entries(80 / 98), check_entries(60 / 98)]
    wanted = [np.mean([row[f"check/value_error_{i}"] for row in both]) for i in range(4)]
    np.testing.assert_allclose(by_label(value)[labels[0]].get_ydata(), wanted)
    # One curve, the mean over the steps, as far as both seeds have come.
    line = by_label(course)[labels[0]]
    assert list(line.get_xdata()) == CHECKED[:3]
    wanted = [np.mean(expected_vector) for expected_vector in (
        [check_entries(share)[f"check/value_error_{i}"] for i in range(4)]
        for share in (20 / 98, 40 / 98, 60 / 98)
    )]  # fmt: skip
    np.testing.assert_allclose(line.get_ydata(), wanted)


def test_many_unroll_steps_get_some_lines(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=4)
    for steps in (1000, 2000):
        row = {f"check/value_error_{i}": float(i) for i in range(33)}
        append_row(path, {"env_steps": steps, **row})
    course = draw("unroll_errors", [load_run(path)]).axes[3]
    shown = list(by_label(course))
    assert len(shown) == curves.MOST_STEPS and shown[0] == "root" and shown[-1] == "step 32"


def test_the_jump_stands_beside_the_steps_of_the_model(run, several, tmp_path):
    path = write_run(tmp_path / "breakout" / "jumps", iterations=20)
    names = ("reward_error", "paid", "invented", "value_error", "near")
    for row in (1, 2):  # the newest counts
        series = [f"jump/{name}{suffix}" for name in names for suffix in ("", "_stepped")]
        every = [f"{name}_{i}" for name in series for i in range(3)]
        append_row(path, {key: row * (n + 1) / 100 for n, key in enumerate(every)})
    plots = draw("jump", [load_run(path)]).axes
    assert len(plots) == len(names)
    for number, axes in enumerate(plots):
        jump, steps = (by_label(axes)[x] for x in ("jump", "the model's steps"))
        assert list(jump.get_xdata()) == list(steps.get_xdata()) == [1, 2, 3]
        first = 2 * (6 * number + 1) / 100
        np.testing.assert_allclose(jump.get_ydata(), [first, first + 0.02, first + 0.04])
        np.testing.assert_allclose(steps.get_ydata(), [first + 0.06, first + 0.08, first + 0.1])
    assert not panels.PANELS["jump"].shown([run])
    assert plots[0].get_title() and not any("nothing" in x.get_text() for x in plots[0].texts)
    bare = write_run(tmp_path / "breakout" / "bare", iterations=20)
    append_row(bare, {f"jump/near{suffix}_0": 0.5 for suffix in ("", "_stepped")})
    (only,) = draw("jump", [load_run(bare)]).axes  # no rewards: plots without data are left out
    assert only.get_title() == plots[-1].get_title()
    other = write_run(tmp_path / "breakout" / "c", seed=1, network={"family": "resnet"})
    assert len(draw("jump", [load_run(path), load_run(other)]).axes[0].lines) == 2


def test_what_searches_did_with_jumps_is_shown_where_it_was_measured(run, tmp_path):
    path = write_run(tmp_path / "breakout" / "macros", iterations=20)
    for name in ("search/macro_simulations", "search/depth", "search/calls_jump", "gains/share"):
        append_row(path, {"env_steps": 100, name: 0.5})
    plots = draw("planning", [load_run(path)]).axes
    assert [axes.get_title() for axes in plots if axes.lines][:2] == [
        "through a macro",
        "depth in steps of the game",
    ]
    assert not panels.PANELS["planning"].shown([run])


def test_runs_with_other_unroll_steps_share_no_mean(run, tmp_path):
    other = write_run(tmp_path / "breakout" / "other", iterations=20)
    append_row(other, {f"check/value_error_{i}": 9.0 for i in range(6)})
    group = Group("x", "k", "-", [run, run, load_run(other)])
    assert curves.last_vectors(group, "check/value_error").shape == (2, 4)
    assert curves.last_vectors(Group("x", "k", "-", []), "check/value_error").shape == (0, 0)


def test_entropy_histogram_is_the_last_check(run, several):
    axes = draw("entropy_hist", [run]).axes[0]
    bars = by_label(axes)["last check"]
    wanted = [check_entries(80 / 98)[f"check/entropy_histogram_{i}"] for i in range(20)]
    np.testing.assert_allclose([bar.get_height() for bar in bars], wanted)
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    np.testing.assert_allclose(middles, (np.arange(20) + 0.5) / 20)
    first = by_label(axes)["first check"].get_data().values
    np.testing.assert_allclose(
        first, [check_entries(20 / 98)[f"check/entropy_histogram_{i}"] for i in range(20)]
    )
    outlines = by_label(draw("entropy_hist", several).axes[0])
    assert set(outlines) >= {"breakout, mean of seeds 0, 1", "c"}


def test_gradient_shares_are_stacked(run, several, tmp_path):
    axes = draw("gradient_shares", [run]).axes[0]
    areas = by_label(axes)
    # In the losses' own order; one that is always 0 is left out.
    assert list(areas) == ["policy", "value", "reward", "chance", "code entropy"]
    below = 0.0
    for name, area in areas.items():
        corners = area.get_paths()[0].vertices
        heights = corners[np.isclose(corners[:, 0], CHECKED[1]), 1]
        above = below + SHARES[name.replace(" ", "_")]
        assert (heights.min(), heights.max()) == pytest.approx((below, above))
        below = above
    assert below == pytest.approx(1.0)
    assert [axes.get_title() for axes in draw("gradient_shares", several).axes] == ["a", "b", "c"]
    once = load_run(write_run(tmp_path / "breakout" / "once", iterations=20))
    bars = draw("gradient_shares", [once]).axes[0].containers
    assert [bar.get_label() for bar in bars] == list(areas)


def test_stored_values_stand_beside_real_returns(run, several):
    values, ratio, peaked = draw("calibration", [run]).axes
    stored, real = by_label(values).values()
    assert list(by_label(values)) == ["stored value", "real return"]
    assert list(stored.get_xdata()) == [*range(1, 9)]
    np.testing.assert_allclose(stored.get_ydata(), expected_parts(80, 1))
    np.testing.assert_allclose(real.get_ydata(), [np.nan, *expected_parts(80, 2)[1:]])
    wanted = [np.nan, *(i / (i + 1) for i in range(2, 9))]
    np.testing.assert_allclose(ratio.lines[0].get_ydata(), wanted)
    lines = by_label(peaked)
    assert list(lines) == ["stored value", "real return"]
    for line, first in zip(lines.values(), (3, 4), strict=True):
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        np.testing.assert_allclose(line.get_ydata(), np.array(expected_parts(80, first)[:4]) * 2)
    values, ratio, peaked = draw("calibration", several).axes
    assert len(peaked.lines) == 2 * 3
    assert len(values.lines) == 2 * 3 and len(ratio.lines) == 3 + 1  # a line at 1
    labels = [group.label for group in make_groups(several)]
    assert list(by_label(values)) == list(by_label(ratio)) == labels


def expected_parts(iteration, first):
    return [iteration / 98 * (i + first) / 10 for i in range(8)]


def test_runs_without_checks_say_so(tmp_path):
    early = load_run(write_run(tmp_path / "breakout" / "a", iterations=5, finished=False))
    for name in ("entropy_hist", "gradient_shares"):
        assert [text.get_text() for text in draw(name, [early]).axes[0].texts] == [NO_CHECK]
    for axes in draw("unroll_errors", [early]).axes:
        assert [text.get_text() for text in axes.texts] == ["not checked yet"]
    for name in ("rules", "calibration", "targets"):
        assert not panels.PANELS[name].shown([early])


def test_known_rules_are_drawn_and_told(tmp_path, request):
    path = write_run(tmp_path / "gridworld" / "a")
    plain = write_run(tmp_path / "gridworld" / "plain", seed=3)
    add_rules(path)
    (path / "figures").mkdir()
    picture = np.zeros((4, 4, 3))
    image.imsave(path / "figures" / "grid.png", picture)
    page = build_report([path]).read_text()
    assert 'id="rules"' in page and 'id="grid"' in page and (path / "figures/rules.png").exists()
    assert "<td>0.987</td>" in page and "<td>0.79</td>" in page
    request.getfixturevalue("unrendered")
    together = build_report([plain, path], tmp_path / "both").read_text()
    assert 'id="grid a"' in together and 'id="rules"' in together
    assert 'id="rules"' not in build_report([plain]).read_text()

    run = load_run(path)
    roc, error, entropy, pairs = draw("rules", [run]).axes
    shares = np.array(CHECKED) / 100_000
    np.testing.assert_allclose(roc.lines[0].get_ydata(), 0.5 + 0.5 * shares)
    np.testing.assert_allclose(error.lines[0].get_ydata(), 1 - shares)
    assert list(by_label(entropy)) == ["random by the rules", "certain by the rules"]
    # Five of the six pairs were visited; two of them are random.
    errors, random = bars.pair_errors(run)
    assert errors.tolist() == [0.1, 0.2, 0.05, 0.4, 0.3]
    assert random.tolist() == [False, True, False, False, True]
    counts = [sum(bar.get_height() for bar in bars) for bars in pairs.containers]
    assert counts == [2, 3]
    assert len(draw("rules", load_runs([path, plain])).axes) == 4


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    "change",
    [
        {"visits": 3},
        {"visits": [[1, 2], [3]]},
        {"entropy_errors": [[0.1, None, 0.2]] * 2},
        {"true_entropy": [[0.0, 1.0, 1.0]]},
        {"returns": 4},
    ],
)
def test_damaged_rules_are_left_out(tmp_path, change):
    path = write_run(tmp_path / "gridworld" / "a", iterations=20)
    add_rules(path)
    edit(path, "grid.json", lambda value: value.update(change))
    text = build_report([path]).read_text()
    assert "grid.json is damaged: left out" in text and "Known rules" not in text


@pytest.mark.usefixtures("unrendered")
def test_a_grid_of_before_the_pairs_were_written(tmp_path):
    """grid.json may hold the numbers alone."""
    path = write_run(tmp_path / "gridworld" / "a", iterations=5)
    (path / "grid.json").write_text(json.dumps({"roc_area": 0.5, "entropy_error": None}))
    text = build_report([path]).read_text()
    assert "Known rules" in text and "damaged" not in text
    assert len(bars.pair_errors(load_run(path))[0]) == 0


@pytest.mark.parametrize(("codes", "told"), [(8, True), (1, False)])
def test_an_encoder_without_gradient_is_told(tmp_path, codes, told):
    path = write_run(tmp_path / "a" / "b", iterations=20, network={"codebook_size": codes})
    words = "No gradient reached the encoder"
    assert not any(words in text for text in find_warnings([load_run(path)]))
    append_row(path, {"check/encoder_gradient": 0.0})
    assert any(words in text for text in find_warnings([load_run(path)])) == told


def test_faults_of_the_evaluation_are_told(tmp_path):
    path = write_run(tmp_path / "a" / "b", iterations=20)
    edit(path, "summary.json", lambda s: s["evaluation"].update(search_faults=0))
    assert not any("not finite" in text for text in find_warnings([load_run(path)]))
    edit(path, "summary.json", lambda s: s["evaluation"].update(search_faults=7))
    assert any("7 outputs of the model" in text for text in find_warnings([load_run(path)]))


def test_games_that_repeat_each_other_are_told(tmp_path):
    path = write_run(tmp_path / "a" / "b", iterations=20)
    words = "Of the 32 evaluation games only"
    for distinct, told in ((None, False), (4, True), (9, True), (10, False)):
        edit(path, "summary.json", lambda s, n=distinct: s["evaluation"].update(distinct=n))
        found = [text for text in find_warnings([load_run(path)]) if words in text]
        assert [f"only {distinct} differ in score or length" in text for text in found] == (
            [True] if told else []
        )
    edit(path, "summary.json", lambda s: s["evaluation"].update(games=4, distinct=4))
    assert not any("differ" in text for text in find_warnings([load_run(path)]))


@pytest.mark.usefixtures("unrendered")
def test_greedy_scores_stand_beside_those_with_noise(tmp_path):
    """Summaries of runs before had neither; `different` is known of the newer ones."""
    path = write_run(tmp_path / "a" / "b", iterations=20)
    agent = r"<tr><td>(agent[^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>"
    rows = re.findall(agent, build_report([path]).read_text())
    assert rows == [("agent, final", "32", "-"), ("agent, sticky actions", "32", "-")]

    def evaluate(summary):
        greedy = {**summary["evaluation"], "games": 8, "distinct": 4}
        summary["evaluation"]["distinct"] = 31
        summary["evaluation_greedy"] = greedy

    edit(path, "summary.json", evaluate)
    settings = yaml.safe_load((path / "config.yaml").read_text())
    settings.setdefault("eval", {})["noise"] = 0.5
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = re.findall(agent, build_report([path]).read_text())
    assert rows == [
        ("agent, final, noise 0.5", "32", "31"),
        ("agent, greedy", "8", "4"),
        ("agent, sticky actions, noise 0.5", "32", "-"),
    ]


def test_groups_keep_their_colours(several):
    groups = make_groups(several)
    axes = draw("model", several).axes[0]
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [line.get_color() for line in dots] == [groups[0].colour] * 2 + [groups[1].colour]


def test_preconditions_are_drawn_beside_their_baselines(run, several, tmp_path):
    figure = draw("preconditions", [run])
    lines = {
        0: ("precision", "bucket_precision", "always_precision"),
        1: ("recall", "bucket_recall"),
        2: ("ece", "ece_raw"),
    }
    for number, names in lines.items():
        drawn = figure.axes[number].lines[: len(names)]
        for line, name in zip(drawn, names, strict=True):
            assert list(line.get_xdata()) == CHECKED
            values = expected(f"check/precondition/{name}", CHECKED)
            np.testing.assert_allclose(line.get_ydata(), values)
    labels = set().union(*(by_label(axes) for axes in figure.axes))
    assert {"head", "start-state bucket", "always"} <= labels
    together = draw("preconditions", several)
    seeds, other = "breakout, mean of seeds 0, 1", "c"
    drawn = by_label(together.axes[0])
    assert sorted(drawn) == sorted([seeds, other, "start-state bucket", "always"])
    dotted = [line for line in together.axes[0].lines if line.get_linestyle() == ":"]
    assert [line.get_color() for line in dotted] == [x.colour for x in make_groups(several)]
    for line in dotted:
        np.testing.assert_allclose(line.get_ydata(), 0.5)
    alone = by_label(draw("preconditions", several[:2]).axes[0])
    assert list(alone) == [seeds, "start-state bucket", "always"]
    np.testing.assert_allclose(alone["start-state bucket"].get_ydata(), 0.6)
    bare = load_run(write_run(tmp_path / "bare", iterations=5))
    words = [text.get_text() for axes in draw("preconditions", [bare]).axes
             for text in axes.texts]  # fmt: skip
    assert words == ["not known yet"] * 3
    assert precondition_lines(bare) == []


@pytest.mark.usefixtures("unrendered")
def test_a_report_tells_precision_and_recall_and_of_how_many_windows(run, tmp_path):
    (said,) = precondition_lines(run)
    share = CHECKED[-1] / 1024 / 98
    assert "on 4,000 held-out windows" in said
    assert f"it did in {0.5 + 0.4 * share:.1%} (precision; start-state bucket 60.0%, " in said
    assert "always 50.0%); of those that one applied in, the head said so in " in said
    assert f"{0.4 + 0.5 * share:.1%} (recall; start-state bucket 70.0%, always 100%)" in said
    assert f"{0.1 - 0.08 * share:.3f} off on average ({0.2 - 0.1 * share:.3f} without" in said
    page = build_report([run.path], tmp_path / "out").read_text()
    assert "on 4,000 held-out windows" in page
