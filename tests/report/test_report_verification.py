"""The report of macros that were tried: a made-up verify.json, one run and several seeds."""

import json

import numpy as np
import pytest
from scipy import stats

from smz_jax.report import verification
from smz_jax.report.build import build_report
from smz_jax.report.data import load_run, load_runs
from smz_jax.storage.documents.verify_json import VERIFICATION
from tests.report.test_report import draw
from tests.support.fake_run import write_run
from tests.support.verify_parts import made_up

HELD = (0.9, 0.84, 0.93)
CONTROL = (0.5, 0.6, 0.7)


def fake(held, control, saved=0.2):
    """A document of verify's own, with numbers of its own."""
    document = json.loads(json.dumps(made_up(True)[0]))
    document["code_perplexity"] = 7.25
    for library, share in zip(document["libraries"], (held, control), strict=True):
        trials = {"low": share - 0.05, "high": share + 0.05, "trials": 400}
        library["totals"]["held"] = {"mean": share, **trials}
        library["totals"]["whole"] = {"mean": share - 0.1, **trials}
        library["totals"]["paid_rewarded"] = {"mean": 0.5, "low": 0.1, "high": 0.9, "trials": 3}
        library["saved"].update(bits_per_action=saved, low=saved - 0.1, high=saved + 0.1)
        saved -= 0.15
    document["criteria"] = [
        {"what": "macros hold", "met": held >= 0.9, "found": "<seen>"},
        {"what": "sticky", "met": None, "found": "elsewhere"},
    ]
    return document


def write(path, number, **settings):
    run = write_run(path / "breakout" / f"seed{number}", iterations=4, seed=number, **settings)
    document = fake(HELD[number], CONTROL[number])
    VERIFICATION.check(document, run)
    (run / "verify.json").write_text(json.dumps(document))
    return run


def cells(page, name):
    """The cells of the first row of a library."""
    row = page.split(f"<td>{name}</td>")[1].split("</tr>")[0]
    return [x.split("</td>")[0] for x in row.split("<td>")[1:]]


def test_one_run_side_by_side_with_its_controls(tmp_path, request):
    run = write(tmp_path, 0)
    page = build_report([run]).read_text()
    assert 'id="verification"' in page and (run / "figures" / "verification.png").exists()
    part = page.split("<h2>Macros in the real game</h2>")[1].split("<h2>")[0]
    own, control = cells(part, "macros"), cells(part, "random")
    assert own[0] == "5" and own[2:5] == ["400", "80 % (85 to 95)", "90 % (85 to 95)"]
    assert own[5] == "50 % of 3 (10 to 90)" and own[8] == "0.200 (0.100 to 0.300)"
    assert control[4] == "50 % (45 to 55)" and control[8] == "0.050 (-0.050 to 0.150)"
    assert cells(part, "perfect library")[2:4] == ["0", "-"]
    assert cells(part, "- repeats of one action")[0] == "2"
    assert "Met: macros hold: &lt;seen&gt;." in part and "Not measured: sticky" in part
    assert "Code perplexity 7.25" in part and "1 change the action" in part
    plain = write_run(tmp_path / "breakout" / "plain", iterations=4)
    request.getfixturevalue("unrendered")
    without = build_report([plain]).read_text()
    assert 'id="verification"' not in without and "Macros in the real game" not in without


def test_seeds_are_pooled_with_an_interval_over_them(tmp_path):
    runs = [write(tmp_path, number) for number in range(3)]
    page = build_report(runs, tmp_path / "all").read_text()
    part = page.split("<h2>Macros in the real game</h2>")[1].split("<h2>")[0]
    assert "mean of seeds 0, 1, 2" in part
    for name, values in (("macros", HELD), ("random", CONTROL)):
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        expected = f"{100 * np.mean(values):.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        assert [cells(part, name)[i] for i in (2, 4)] == ["1,200", expected]
    assert "50 % of 9 (50 to 50)" in part
    assert part.count("<td>macros</td>") == 4 and "Missed: macros hold" in part
    # The figure: the pooled mean as a point, each seed as a fainter one.
    axes = draw("verification", load_runs(runs)).axes[0]
    assert axes.get_title().startswith("whole state")
    axes = draw("verification", load_runs(runs)).axes[1]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert points[0].get_xdata()[0] == pytest.approx(np.mean(HELD))
    dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "."]
    assert dots == pytest.approx(HELD)
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[0] == "macros" and names[-2:] == ["random", "perfect library"]


def test_one_seed_of_two_was_tried(tmp_path):
    tried = write(tmp_path, 1)
    other = write_run(tmp_path / "breakout" / "seed2", iterations=4, seed=2)
    runs = load_runs([tried, other])
    assert [[run.label for run in group] for group in verification.tried_groups(runs)] == [
        ["seed1"]
    ]
    axes = draw("verification", runs).axes[1]
    first = next(line for line in axes.lines if line.get_marker() == "o")
    assert first.get_xdata()[0] == HELD[1]


def drop(name):
    return lambda document: document.pop(name)


@pytest.mark.parametrize(
    "harm",
    [
        lambda x: x.update(schema=1),
        *map(drop, ("play", "sound", "gate", "criteria", "libraries", "checkpoint")),
        lambda x: x["libraries"][1]["totals"].pop("held"),
        lambda x: x["libraries"][0]["totals"]["held"].update(mean="x"),
        lambda x: x["libraries"][0]["kinds"].pop("repeats"),
        lambda x: x["libraries"][0]["saved"].pop("low"),
        lambda x: x["criteria"][0].update(met=3),
    ],
)
def test_a_damaged_verification_is_named_and_left_out(tmp_path, harm):
    run = write(tmp_path, 0)
    document = json.loads((run / "verify.json").read_text())
    harm(document)
    (run / "verify.json").write_text(json.dumps(document))
    loaded = load_run(run)
    assert loaded.verification == {}
    assert any("verify.json" in text and "experiments.verify" in text for text in loaded.problems)
