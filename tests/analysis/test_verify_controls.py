"""Controls: as many as the macros and none of them; what a verification says of its criteria."""

import copy
import json

import numpy as np
import pytest

from smz_jax.analysis.verify import tried_libraries as controls
from smz_jax.analysis.verify import verify_table as table
from smz_jax.analysis.verify.criteria import judge
from smz_jax.analysis.verify.document import code_perplexity, kind_of, tally
from smz_jax.analysis.verify.tried_libraries import Library
from smz_jax.config.training import MacroConfig
from smz_jax.storage.documents.verify_json import KINDS
from tests.support.verify_parts import SAME, made_up

SETTINGS = MacroConfig(max_length=4)


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ([2, 2, 3], {2: 5, 3: 5, 4: 5}, {2: 2, 3: 1}),
        ([2, 2, 2, 3], {2: 1, 3: 2, 4: 5}, {2: 1, 3: 2, 4: 1}),
        ([4, 4, 4], {2: 3, 3: 1, 4: 1}, {4: 1, 3: 1, 2: 1}),
        ([2, 4, 4], {2: 1, 3: 0, 4: 1}, {2: 1, 4: 1}),
        ([2], {}, {}),
    ],
)
def test_where_a_length_has_too_few_others_follow(lengths, room, expected):
    assert +controls.share_out(lengths, room) == expected


def test_random_controls_are_none_of_the_macros_and_as_many():
    real = [(a, b) for a in range(4) for b in range(4) if (a, b) != (3, 3)] + [(0, 0, 0)]
    lengths = [len(macro) for macro in real]
    found = controls.other_random_macros(lengths, 4, SETTINGS, real, np.random.default_rng(0))
    assert len(set(found)) == len(found) == len(real) and not set(found) & set(real)
    # One pair is left; the other fourteen are longer.
    assert [x for x in found if len(x) == 2] == [(3, 3)]
    assert sum(len(x) == 3 for x in found) == 15
    # Two actions: 4 + 8 + 16 sequences in all, of which three are taken.
    few = controls.other_random_macros([2] * 99, 2, SETTINGS, [(0, 1), (1, 1), (0, 0, 1)],
                                       np.random.default_rng(0))  # fmt: skip
    assert len(set(few)) == 25 and not {(0, 1), (1, 1), (0, 0, 1)} & set(few)


def test_play_of_one_action_is_filled_up_by_random_controls():
    one = [np.full(9, 3, np.int32)]
    real = Library("macros", ((3, 3), (1, 2), (2, 2), (1, 2, 3)), ("sound",) * 4)
    found = controls.controls(real, [2, 2, 2, 3], one, one, 4, SETTINGS, np.random.default_rng(2))
    for library in found:
        assert len(set(library.macros)) == 4, library.name
    mixed, own, drawn, untrained = (set(library.macros) for library in found)
    assert not set(real.macros) & (mixed | own | drawn) and (3, 3, 3) in mixed
    assert {(3, 3), (3, 3, 3)} <= untrained


def test_a_macro_of_actions_that_do_the_same_repeats():
    """With NOOP and FIRE alike (0, 1) joins (3, 3) and (0, 0) of the made-up library."""
    document, tried = made_up(True, SAME)
    real = document["libraries"][0]
    assert real["kinds"]["repeats"]["macros"] == 3 and real["kinds"]["changing"]["macros"] == 2
    own = tally([x for x in tried[0].trials if x.macro in (2, 3, 4)], tried[0].applied[[2, 3, 4]])
    assert real["kinds"]["repeats"]["totals"]["held"] == own["held"]
    text = table.to_text(document)
    assert document["sound"] == {"changing": 1, "repeats": 0, "renamed": 0}
    # The table's one sound macro is FIRE, RIGHT; as far as FIRE does what RIGHT does it repeats.
    other, _ = made_up(True, (0, 1, 1, 3))
    assert other["sound"] == {"changing": 0, "repeats": 1, "renamed": 1}
    assert "0 change the action, 1 repeat one (1 by actions that do the same: FIRE = RIGHT)" in (
        table.to_text(other)
    )
    assert "do the same" not in text


def test_totals_of_each_kind_and_of_rewarded_trials():
    document, tried = made_up(True)
    document = json.loads(json.dumps(document))
    assert [kind_of(x, SAME) for x in ((2, 2), (1, 2), (3,))] == ["repeats", "changing", "repeats"]
    assert kind_of((0, 1, 0), SAME) == "repeats" and kind_of((0, 2), SAME) == "changing"
    real = document["libraries"][0]
    # (3, 3) and (0, 0), of index 2 and 4, repeat one action.
    own = tally([x for x in tried[0].trials if x.macro in (2, 4)], tried[0].applied[[2, 4]])
    assert real["kinds"]["repeats"]["macros"] == 2 and real["kinds"]["changing"]["macros"] == 3
    assert real["kinds"]["repeats"]["totals"]["held"] == own["held"]
    assert document["sound"] == {"changing": 1, "repeats": 0, "renamed": 0}
    rows = {row[0]: dict(zip(table.TOTALS, row, strict=True)) for row in table.total_rows(document)}
    assert list(rows) == ["macros", *KINDS.values(), "random", "perfect library"]
    held = own["held"]
    assert rows["- repeats of one action"]["effect + pays"].startswith(f"{held['mean']:.0%} (")
    rewarded = real["totals"]["paid_rewarded"]
    assert f" of {rewarded['trials']} (" in rows["macros"]["pays (reward)"]
    document["code_perplexity"] = 7.05
    text = table.to_text(document)
    assert "1 change the action, 0 repeat one; code perplexity 7.05" in text
    assert "3 of the 5 macros tried own a slot" in text
    assert "controls that own a slot: none; of the others the head says nothing" in text
    document["libraries"].append({**document["libraries"][1], "name": "random, with the head"})
    assert "controls that own a slot: 5 of random;" in table.to_text(document)


def test_perplexity_is_that_of_the_runs_last_check(tmp_path):
    assert code_perplexity(tmp_path) is None
    for text, expected in (
        ('{"model_check": {"code_perplexity": 4.5}}', 4.5),
        ('{"model_check": null}', None),
        ('{"model_check": {"code_perplexity": "x"}}', None),
        ("[1", None),
    ):
        (tmp_path / "summary.json").write_text(text)
        assert code_perplexity(tmp_path) == expected


def estimate(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "trials": 9}


def library(name, held, bits, nearest=(None, None, None)):
    saved = dict(zip(("bits_per_action", "low", "high"), bits, strict=True)) if bits else None
    totals = {key: estimate(*held) for key in ("held", "whole")}
    totals["nearest"] = estimate(*nearest)
    return {"name": name, "totals": totals, "saved": saved}


def made(held=(0.93, 0.91, 0.95), bits=(0.2, 0.15, 0.25), sticky=0.0, headed=(), **more):
    """`headed` is of the run's macros with the head; certain only they have `held`."""
    none = (None, None, None)
    libraries = [
        library("macros", headed or held, bits),
        library("macros, certain only", held, None),
        library("shuffled play", (0.8, 0.75, 0.85), (0.1, 0.05, 0.14)),
        library("random", (0.7, 0.6, 0.9), (0.0, 0.0, 0.0)),
        library("untrained network", none, (0.0, 0.0, 0.0)),
        library("random, with the head", (0.75, 0.65, 0.88), None),
    ]
    return {"suite": "atari", "sticky": sticky, "asked": {"any_status": False}, "pairs": None,
            "sound": {"changing": 4, "repeats": 2, "renamed": 1},
            "libraries": libraries, **more}  # fmt: skip


def test_criteria_of_breakout_by_hand():
    *whole, holds, more, headed, saved = judge(made(headed=(0.93, 0.87, 0.95)))
    assert [x["what"].replace("whole state", "effect of the actions and pay") for x in whole] == [
        x["what"].replace("90%", "80%") for x in (holds, more, headed)
    ]
    assert [x["found"] for x in whole] == [x["found"] for x in (holds, more, headed)]
    assert (holds["met"], more["met"], saved["met"]) == (True, True, True)
    # 87 against 88: of one control sequences own slots.
    assert headed["met"] is False and headed["found"] == "random: overlap by 1.0 points"
    assert "certain only" in more["what"] and "certain and head" in headed["what"]
    assert "93.00 % (87.0 to 95.0)" in holds["found"]
    # 91 against 85 and 90; the untrained network applies nowhere.
    assert more["found"] == (
        "shuffled play: apart by 6.0 points; random: apart by 1.0 points; "
        "untrained network: no trial"
    )
    assert "shuffled play: apart by 0.010 bits/action" in saved["found"]

    *whole, holds, more, headed, saved = judge(made(held=(0.88, 0.86, 0.91), bits=(0.2, 0.1, 0.3)))
    assert whole[0]["met"] is True and "at least 80%" in whole[0]["what"]
    assert (holds["met"], more["met"], saved["met"]) == (False, False, False)
    assert "missed by 2.00 points" in holds["found"]
    assert "shuffled play: apart by 1.0 points; random: overlap by 4.0 points" in more["found"]
    assert "shuffled play: overlap by 0.040 bits/action" in saved["found"]
    lines = table.criteria_lines([holds, more, saved])
    assert all(line.startswith("MISSED: ") for line in lines)

    every = judge(made(asked={"any_status": True}))
    assert {x["met"] for x in every[:-1]} == {None} and "not only sound" in every[0]["found"]
    none = judge(made(held=(None, None, None), bits=None))
    assert [x["met"] for x in none] == [None] * 7
    bare = made()
    bare["libraries"] = [x for x in bare["libraries"] if "head" not in x["name"]]
    assert judge(bare)[2]["found"] == "no control owns a slot of the head"


def test_criteria_of_sticky_play_and_of_the_grid():
    sticky = judge(made(sticky=0.25))
    assert [x["met"] for x in sticky] == [None, True] and "4 are sound here" in sticky[0]["found"]
    document = made(suite="grid", sticky=None)
    document["pairs"] = [{"precision": 0.985, "recall": 0.97}]
    document["libraries"][0]["totals"]["nearest"] = estimate(0.99, 0.98, 1.0)
    rows = judge(copy.deepcopy(document))
    assert [x["met"] for x in rows] == [True, False, True, True]
    assert "97.00 %, missed by 1.00 points" in rows[1]["found"]
