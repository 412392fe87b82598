"""What a verification found, as a file and as tables; damage to the file."""

import copy
import json

import pytest

from smz_jax.analysis.verify import verify_table as table
from smz_jax.analysis.verify.document import tally
from smz_jax.config.check import ConfigError
from smz_jax.storage.documents.verify_json import VERIFICATION
from tests.support.verify_parts import made_up_document, read_verification


def test_the_document_comes_back_and_the_tables_show_it(tmp_path):
    document, tried, path = made_up_document(tmp_path)
    again = read_verification(path)
    assert again == json.loads(json.dumps(document))
    totals = again["libraries"][0]["totals"]
    assert totals["held"] == tally(tried[0].trials, tried[0].applied)["held"]
    macro = again["libraries"][1]["macros"][2]
    own = [x for x in tried[1].trials if x.macro == 2 and x.applies]
    assert macro["names"] == "LEFT → LEFT" and macro["cut"] == sum(x.cut for x in own)
    text, markdown = table.to_text(again), table.to_markdown(again)
    held = f"{totals['held']['mean']:.0%}"
    assert held in text and held in markdown and "mean score 4.00" in text
    assert "RIGHT → RIGHT → LEFT → FIRE" in text and "## random" in markdown
    assert max(map(len, text.splitlines()[:2])) < 200


def test_without_a_sound_macro_the_tables_say_which_gate_closed(tmp_path):
    document, _, path = made_up_document(tmp_path, sound=False)
    text = table.to_text(read_verification(path))
    assert "the gate that closed: repeatability" in text and "random" in text
    assert document["libraries"][0]["totals"]["held"]["mean"] is None


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("schema",), 1, "schema = 1"),
        (("game",), 3, "game = 3"),
        (("game",), "\x1b[2J", "game"),
        (("asked", "macros"), "many", "asked"),
        (("gate",), "open", "gate"),
        (("pairs",), 3, "pairs"),
        (("libraries",), {}, "libraries"),
        (("libraries", 0, "totals", "held", "mean"), 1.5, "libraries[0].totals.held"),
        (("libraries", 1, "macros", 0, "gain"), None, "libraries[1].macros[0].gain"),
        (("libraries", 0, "saved"), 7, "libraries[0].saved"),
        (("libraries", 0, "shared"), -1, "libraries[0].shared"),
        (("libraries", 0, "kinds", "repeats"), 3, "libraries[0].kinds"),
        (("libraries", 0, "kinds", "repeats", "totals"), {}, "libraries[0].kinds.repeats.totals"),
        (("code_perplexity",), "many", "code_perplexity"),
        (("sound", "changing"), 0.5, "sound"),
        (("criteria", 0), {"what": "x", "met": 3, "found": "y"}, "criteria"),
        (("libraries", 0, "macros", 1, "names"), 7, "libraries[0].macros[1].names"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path, where, value, words):
    document, _, path = made_up_document(tmp_path)
    document = json.loads(path.read_text())
    damaged = copy.deepcopy(document)
    part = damaged
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    VERIFICATION.check(document, path)
    with pytest.raises(ConfigError) as caught:
        VERIFICATION.check(damaged, path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    for text in ("", "[" * 100_000, "[]"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_verification(path)
