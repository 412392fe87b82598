"""Tables of macros: filters, orders, the gate that closed, and the command line; no JAX."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import macros as command
from smz_jax.config.check import ConfigError
from smz_jax.macros.library.gate import closed_gate, gate_and_reason, prefix_line
from smz_jax.macros.library.listing import SORTS, Wanted, listed
from smz_jax.report.macro_tables import format_selection, format_table
from smz_jax.storage.documents.macro_form import LIBRARY, TIMES, fold, write_macros_json

NAMES = ["NOOP", "FIRE", "RIGHT", "LEFT"]


def macro(actions, count, entropy=0.1, generality=1, status="candidate", trials=0.0, held=0.0):
    """An entry of macros.json; the bounds lie 0.1 around the share."""
    if status != "candidate" and not trials:
        trials, held = 50.0, {"sound": 0.95, "refuted": 0.2}[status]
    tried = trials > 0
    return {
        "actions": list(actions),
        "names": " → ".join(NAMES[action] for action in actions),
        "length": len(actions),
        "count": count,
        "play_count": 0,
        "mean_entropy": entropy,
        "total_reward": 0.5 * count,
        "mean_reward": 0.5,
        "generality": generality,
        "buckets": list(range(generality)),
        "source": "tree",
        "deterministic": entropy < 0.1,
        "status": status,
        "windows": 1.25 * trials,
        "certain": 0.8 if tried else 0.0,
        "certain_low": 0.7 if tried else 0.0,
        "trials": trials,
        **{name: held for name in ("held", "near", "paid", "agreed", "ends")},
        "effective": trials,
        "p_value": 0.01,
        "held_low": max(0.0, held - 0.1) if tried else 0.0,
        "held_high": min(1.0, held + 0.1) if tried else 1.0,
    }


def library(*macros, **stats):
    """A whole macros.json."""
    return {
        "schema": 4,
        "action_names": list(NAMES),
        "config": dict(min_occurrences=3, sound_share=0.8, certain_share=0.5, min_trials=20),
        "stats": {"transitions": 1000, "certain": 400, **stats},
        "macros": list(macros),
    }


def control(name, saved):
    counts = {"macros": 4, "kept": 3}
    return {"name": name, **counts, "saved_bits_per_action": saved}


def selection(*phrases, **changes):
    """A library by compression of these (actions, saved bits)."""
    return {
        "play": {"source": "replay", "actions": 200, "pieces": 7},
        "of": "sound",
        "allowed": 4,
        "bits_per_action": 1.25,
        "bits_per_action_plain": 2.0,
        "dictionary_bits": 30.0,
        "coverage": 0.4,
        "redundancy": 0.5,
        "redundancy_allowed": 0.75,
        "tree_share": 0.1,
        "sampled": 1,
        "controls": {
            "held_out": 80,
            "libraries": [control("macros", 0.5), control("random", 0.125)],
        },
        "phrases": [
            {
                "actions": list(actions),
                "names": " → ".join(NAMES[action] for action in actions),
                "uses": 3,
                "saved_bits": saved,
                "missed_bits": saved / 2,
            }
            for actions, saved in phrases
        ],
        **changes,
    }


FOUR = library(
    macro((2, 2), 90, 0.30, 3, "refuted", 50, 0.2),
    macro((2, 3), 40, 0.05, 9, "sound", 30, 0.95),
    macro((1, 2, 2), 40, 0.01, 5, "sound", 200, 0.92),
    macro((0, 0, 0), 7, 0.20, 5),
)


def order(document=FOUR, **wanted):
    places = {tuple(m["actions"]): i for i, m in enumerate(document["macros"])}
    return [places[tuple(m["actions"])] for m in listed(document, Wanted(**wanted))]


def test_orders_by_hand():
    assert order() == [0, 1, 2, 3]
    assert order(sort="entropy") == [2, 1, 3, 0]
    assert order(sort="generality") == [1, 2, 3, 0]  # 5 twice: the higher count first
    assert order(sort="held") == [1, 2, 0, 3]
    assert order(sort="trials") == [2, 0, 1, 3]
    with_savings = {**FOUR, "selection": selection(((1, 2, 2), 12.5), ((2, 2), -1.0))}
    assert order(with_savings, sort="saving") == [2, 0, 1, 3]
    with pytest.raises(ConfigError, match="selection was measured"):
        order(sort="saving")


def test_filters_by_hand():
    assert order(status="sound") == [1, 2]
    assert order(min_length=3) == [2, 3] and order(max_length=2) == [0, 1]
    assert order(contains=("RIGHT",)) == [0, 1, 2]
    assert order(contains=("RIGHT", "FIRE")) == [2]
    assert order(no_repeats=True) == [1, 2]
    assert order(sort="entropy", top=1) == [2]
    assert order(sort="entropy", no_repeats=True, max_length=2) == [1]
    assert order(status="sound", contains=("NOOP",)) == []


def test_a_table_shows_every_number():
    document = {**FOUR, "selection": selection(((2, 3), 1234.5))}
    document["macros"] = [dict(m) for m in FOUR["macros"]]
    document["macros"][1]["precondition"] = {"precision": 0.97, "recall": None}
    lines = format_table(document, listed(document, Wanted())).splitlines()
    assert lines[0] == "4 of 4 macros (1 candidate, 2 sound, 1 refuted)"
    assert f"RIGHT {TIMES}2" in lines[3] and "refuted" in lines[3]
    words = lines[4].split()
    assert words == [
        *("2", "RIGHT", "→", "LEFT", "sound", "2", "40", "9", "0.050", "80%", "30", "95%", "(85%)"),
        *("0.5", "1,234.5", "(617.2)", "0.97/-"),
    ]
    assert lines[6].split()[-9:] == ["0.200", "-", "0", "-", "-", "0.5", "-", "-", "-"]
    assert lines[4].index("sound") == lines[1].index("state")
    assert format_table(document, []) == lines[0].replace("4 of", "0 of", 1)


def test_repeats_are_folded():
    assert (
        fold(["A", "A", "B", "A"]) == f"A {TIMES}2 → B → A"
        and fold(["A"]) == "A"
        and fold([]) == ""
    )


def test_the_selection_in_words():
    assert format_selection(FOUR).endswith("not measured")
    document = {**FOUR, "selection": selection(((2, 3), 9.0))}
    text = format_selection(document)
    assert "1 of 4 sound macros" in text and "200 actions in 7 pieces" in text
    assert "1.2500 with" in text and "2.0000 without: 37.5% saved" in text
    assert "50% of its macros begin another one, 75%" in text and "40.0% of the actions" in text
    assert "of 80 held-out actions" in text and "macros: 0.5000 (3 of 4 kept)" in text
    assert "random: 0.1250 (3 of 4 kept)" in text
    assert "search visits weigh in the choice as 10% more" in text and "95 %" not in text
    bounds = document["selection"]["controls"]["libraries"][0]
    bounds |= {"saved_low": 0.25, "saved_high": 0.75}
    text = format_selection(document)
    assert "held-out actions (95 %, by resampled pieces):" in text
    assert "macros: 0.5000 (0.2500 to 0.7500) (3 of 4 kept)" in text
    document["selection"] = selection(of="table")
    assert "none of which is sound" in format_selection(document)


def sound_share(near, paid, agreed, trials=50.0):
    entry = macro((2, 3), 9, trials=trials, held=min(near, paid, agreed))
    return {**entry, "near": near, "paid": paid, "agreed": agreed}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (library(transitions=0, certain=0), "certainty: no transition has been read"),
        (library(certain=0), "no certain windows: none of 1,000 transitions"),
        (library(), "400 of 1,000 transitions were certain (under 0.2 in play, 0.4 in"),
        (library(candidates_tree=5), "too few occurrences ... in 5 windows, but no sequence"),
        (
            library(macro((2, 3), 9, trials=3)),
            "too few trials: of 1 macros ... 3 trials ... 20 a",
        ),
        (
            library({**macro((2, 3), 9, trials=3), "windows": 1000.0, "certain": 0.003}),
            "certainty: certain too rarely: of 1 macros ... in 3 of 1000 ... and 20 are",
        ),
        (library(sound_share(0.3, 0.9, 0.8)), "'near' ... held 30%, at least 20%, and 80% is"),
        (library(sound_share(0.9, 0.4, 0.8)), "'paid' ... near 90%, paid 40%, agreed 80%"),
        (library(sound_share(0.9, 0.9, 0.1)), "'agreed' (the codes were not the foreseen"),
        (
            library({**sound_share(1.0, 0.95, 0.95), "certain": 0.52, "certain_low": 0.44}),
            "certainty: certain too rarely: 1 of 1 macros hold ... 52% ... at least 44%, and 50%",
        ),
        (
            library({**sound_share(1.0, 0.95, 0.95), "held_low": 0.86}),
            "repeatability: too many candidates: 1 of 1 macros pass ... with 0.01, and at most 5%",
        ),
    ],
)
def test_which_gate_closed(document, words):
    line, parts = closed_gate(document), gate_and_reason(document)
    assert line is not None and "\n" not in line
    assert [part for part in words.split(" ... ") if part not in line] == []
    tried = [x["trials"] for x in document["macros"]]
    gate = "certainty" if not tried else "trials" if max(tried) < 20 else "repeatability"
    if any(0.8 <= x["held_low"] != 0.86 or x["windows"] == 1000 for x in document["macros"]):
        gate = "certainty"
    assert parts is not None and (parts[0], ": ".join(parts)) == (gate, line)


def test_no_gate_closed_where_a_macro_is_sound():
    assert closed_gate(FOUR) is None and gate_and_reason(FOUR) is None


def test_a_table_of_prefixes_is_told():
    assert prefix_line(FOUR) is None
    full = library(*(macro((2,) * n, 9) for n in (2, 3, 4)), macro((3, 3), 9))
    assert prefix_line(full) is None  # 2 of 4 is no more than half
    full["macros"].pop()
    line = prefix_line(full)
    assert line is not None and "67% of the macros begin another macro." in line
    full["selection"] = selection()
    assert "67% of the macros, 50% of the library by compression begin" in str(prefix_line(full))
    others = [macro((0,) * n + (1,), 9) for n in (1, 2, 3, 4)]
    sound = [macro((2,) * n, 9, status="sound") for n in (2, 3, 4)]
    line = prefix_line(library(*others, *sound))  # of all 2 in 7, of the sound ones 2 in 3
    assert line is not None and "29% of the macros, 67% of the sound ones begin" in line
    assert "60% of the library" in str(
        prefix_line({**FOUR, "selection": selection(redundancy=0.6)})
    )


# The file.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=5), "schema = 5, allowed is 4: a newer version.*update this"),
        (lambda d: d.update(schema=3), "schema = 3, allowed is 4: an older.*run the experiment"),
        (lambda d: d.update(schema="4"), "schema = '4', allowed is 4$"),
        (lambda d: d.pop("schema"), "schema = None, allowed is 4$"),
        (lambda d: d.update(selection=[]), "selection is not an object"),
        (lambda d: d["selection"].update(play=None), "selection.play is not an object"),
        (lambda d: d["selection"]["play"].update(source="tv"), "selection.play.source = 'tv'"),
        (lambda d: d["selection"]["play"].update(actions=-1), "selection.play.actions = -1"),
        (lambda d: d["selection"].update(of="all"), "selection.of = 'all'"),
        (lambda d: d["selection"].update(coverage=1.5), "selection.coverage = 1.5"),
        (lambda d: d["selection"].update(bits_per_action=True), "selection.bits_per_action = True"),
        (lambda d: d["selection"].pop("redundancy"), "selection.redundancy = None"),
        (lambda d: d["selection"].update(phrases=[3]), r"selection.phrases\[0\] is not"),
        (lambda d: d["selection"]["phrases"][0].update(actions=[9]), r"phrases\[0\].actions has 9"),
        (lambda d: d["selection"]["phrases"][0].update(names="x"), r"phrases\[0\].names = 'x'"),
        (lambda d: d["selection"]["phrases"][0].update(saved_bits="1"), "saved_bits = '1'"),
        (lambda d: d["macros"][0].update(precondition=3), r"macros\[0\].precondition = 3"),
        (
            lambda d: d["macros"][0].update(slot=0, precondition={"windows": 1, "recall": "x"}),
            r"macros\[0\].precondition.recall = 'x'",
        ),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, change, words):
    document = json.loads(json.dumps({**FOUR, "selection": selection(((2, 3), 9.0))}))
    path = tmp_path / "macros.json"
    write_macros_json(path.parent, document)
    assert LIBRARY.read(path.parent) == document
    change(document)
    with pytest.raises(ConfigError, match=words) as error:
        LIBRARY.check(document, path)
    assert "\n" not in str(error.value)


def test_the_documentation_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "macros_json.md").read_text("utf-8")
    document = {**FOUR, "selection": selection(((2, 3), 9.0))}
    fields = {*document, *document["macros"][0], *document["selection"]}
    fields |= {f"play.{name}" for name in document["selection"]["play"]} | {"precondition"}
    fields |= set(document["selection"]["phrases"][0])
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []


BIG = 10**400
SURE = {
    "windows": 62.5, "certain": 0.8, "certain_low": 0.7,
    "trials": 50, "held": 0.95, "held_low": 0.9, "held_high": 1.0, "status": "sound",
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"trials": 0.0}, "macros.1.: status = sound after 0.0 trials, allowed is 20 or more"),
        ({"trials": 19.9}, "status = sound after 19.9 trials"),
        ({"held_low": 0.7}, "held_low = 0.7, allowed is config.sound_share = 0.8 or more"),
        ({"certain_low": 0.4}, "certain_low = 0.4, allowed is config.certain_share = 0.5 or more"),
        ({"certain_low": 0.9}, "certain_low = 0.9, allowed is at most certain = 0.8"),
        ({"certain": 1.2}, "certain = 1.2, allowed is 0 to 1"),
        ({"windows": -1}, "windows = -1"),
        ({"windows": 100.0}, "certain = 0.8, allowed is trials / windows"),
        ({"status": "refuted"}, "held_high = 1.0, allowed is below config.sound_share"),
        ({"status": "refuted", "trials": 3}, "status = refuted after 3 trials"),
        ({"held_low": 0.96}, "held_low = 0.96, held = 0.95, held_high = 1.0, allowed are rising"),
        ({"held_high": 0.94}, "held_high = 0.94, allowed are rising"),
        ({"held_high": 1.5}, "held_high = 1.5, allowed is 0 to 1"),
        ({"held": -0.5}, "held = -0.5, allowed is 0 to 1"),
        ({"trials": -5}, "trials = -5"),
        ({"trials": BIG}, "trials = 1000"),
        ({"mean_entropy": 7}, "mean_entropy = 7, allowed is 0 to 1"),
        ({"mean_entropy": 0.5}, "deterministic contradicts mean_entropy"),
        ({"mean_reward": BIG}, "mean_reward = 1000"),
        ({"total_reward": -BIG}, "total_reward = -1000"),
        ({"count": BIG}, "count = 1000"),
        ({"count": 0}, "count = 0"),
        ({"play_count": 41, "source": "play"}, "play_count = 41, allowed is 0 to count = 40"),
        ({"play_count": -1}, "play_count = -1"),
        ({"play_count": 1}, "source = 'tree', allowed is play, by play_count = 1"),
        ({"buckets": [64], "generality": 1}, "buckets = .64., allowed are distinct ones of 0..63"),
        ({"buckets": [1, 1], "generality": 2}, "buckets = .1, 1., allowed are distinct"),
        ({"buckets": [1], "generality": 2}, "generality is wrong"),
        ({"slot": 64, "precondition": {"windows": 1}}, "slot = 64 with"),
        ({"slot": 0, "precondition": {"windows": BIG}}, "precondition.windows = 1000"),
        ({"actions": [2], "names": "RIGHT", "length": 1}, "length = 1, allowed is 2 to 6"),
        ({"actions": [2] * 7, "names": " → ".join(["RIGHT"] * 7), "length": 7}, "length = 7"),
        ({"actions": [2, 2], "names": "RIGHT → RIGHT"}, "'RIGHT → RIGHT' is there more than once"),
    ],
)
def test_an_entry_that_contradicts_itself_is_one_line(entry, words):
    document = json.loads(json.dumps(FOUR))
    document["macros"][1].update(SURE)
    LIBRARY.check(document, Path("x"))
    document["macros"][1].update(entry)
    with pytest.raises(ConfigError, match=words) as error:
        LIBRARY.check(document, Path("x"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["stats"].update(transitions="x"), "stats.'transitions' = 'x'"),
        (lambda d: d["stats"].update(transitions=BIG), "stats.'transitions' = 1000"),
        (lambda d: d["stats"].update(certain=True), "stats.'certain' = True"),
        (lambda d: d["stats"].update(certain_rate_play=1.5), "stats.'certain_rate_play' = 1.5"),
        (lambda d: d["config"].update(sound_share=BIG), "config: macro.sound_share"),
        (lambda d: d["config"].update(head_learning_rate=BIG), "config: "),
        (lambda d: d["selection"].update(bits_per_action=BIG), "selection.bits_per_action"),
        (lambda d: d["selection"].update(controls=3), "selection.controls is not an object"),
        (lambda d: d["selection"].update(sampled=0), "selection.sampled = 0"),
        (lambda d: d["selection"]["controls"].update(libraries=3), "controls.libraries = 3"),
        (lambda d: d["selection"]["controls"]["libraries"][0].update(name="x"), "name = 'x'"),
        (lambda d: d["selection"]["controls"]["libraries"][1].pop("kept"), r"1..kept = None"),
        (
            lambda d: d["selection"]["controls"]["libraries"][0].update(saved_low="x"),
            r"0..saved_low = 'x'",
        ),
        (lambda d: d["selection"]["phrases"].append(d["selection"]["phrases"][0]), "than once"),
        (
            lambda d: [m.update(slot=3, precondition={"windows": 1}) for m in d["macros"][1:3]],
            "macros: 2 of them have slot = 3, allowed is one",
        ),
    ],
)
def test_a_library_that_contradicts_itself_is_one_line(change, words):
    document = json.loads(json.dumps({**FOUR, "selection": selection(((2, 3), 9.0))}))
    LIBRARY.check(document, Path("x"))
    change(document)
    with pytest.raises(ConfigError, match=words) as error:
        LIBRARY.check(document, Path("x"))
    assert "\n" not in str(error.value)


# The command.


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that has nothing but settings and macros."""
    from smz_jax.config.experiment import Experiment, resolve
    from smz_jax.config.sources import config_to_yaml

    (tmp_path / "config.yaml").write_text(
        config_to_yaml(resolve(Experiment("breakout"), "tiny", {}, {}))
    )
    write_macros_json(tmp_path, FOUR)
    return tmp_path


def test_the_command_lists(folder, capsys):
    assert command.main([str(folder), "--table", "--sort", "entropy", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 of 4 macros") and out.index(f"FIRE → RIGHT {TIMES}2") < out.index(
        "LEFT"
    )
    assert "not measured" in out and "gate that closed" not in out
    write_macros_json(folder, library(certain=0))
    assert command.main([str(folder), "--table"]) == 0
    out = capsys.readouterr().out
    assert "0 of 0 macros" in out and "the gate that closed: certainty: no certain windows" in out


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_loaded(folder, monkeypatch):
    (folder / "checkpoints" / "last" / "000000000010").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"out = .*a folder that can be written"):
        command.main([str(folder)])


def test_a_run_without_a_checkpoint_has_its_table(folder, capsys):
    assert command.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 of 4 macros") and "no checkpoint yet; what would work is" in out


@pytest.mark.parametrize(
    ("there", "flags", "loaded"),
    [
        (("best", "last"), (), "last"),
        (("best",), (), "best"),
        (("best", "last"), ("--checkpoint", "best"), "best"),
    ],
)
def test_the_model_that_the_macros_are_of_is_looked_at(folder, monkeypatch, there, flags, loaded):
    from smz_jax.analysis import load as trained

    for kind in there:
        (folder / "checkpoints" / kind / "000000000010").mkdir(parents=True)
    asked = []

    def load(path, kind):
        asked.append((path, kind))
        raise ConfigError("no more")

    monkeypatch.setattr(trained, "load_model", load)
    with pytest.raises(ConfigError, match="no more"):
        command.main([str(folder), *flags])
    assert asked == [(folder, loaded)]


def test_the_command_writes_json(folder, tmp_path, capsys):
    assert command.main([str(folder), "--status", "sound", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [m["actions"] for m in found["macros"]] == [[2, 3], [1, 2, 2]]
    LIBRARY.check(found, Path("x"))
    target = tmp_path / "list.json"
    assert command.main([str(folder), "--json", str(target)]) == 0
    assert capsys.readouterr().out == "" and LIBRARY.read(target.parent) == FOUR


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--contains", "JUMP"], "contains = 'JUMP'.*one of NOOP, FIRE, RIGHT, LEFT"),
        (["--min_length", "0"], "min_length = 0"),
        (["--min_length", "4", "--max_length", "3"], "max_length = 3.*in 4..8"),
        (["--top", "0", "--table"], "top = 0"),
        (["--table", "--sort", "saving"], "sort = 'saving'"),
        (["--games", "0"], "games = 0"),
        (["--max_steps", "-1"], "max_steps = -1"),
        (["--seed", "-1"], "seed = -1"),
        (["--out", "{}/config.yaml"], "out = .*a folder"),
        (["--json", "{}/config.yaml/x"], "json = .*a folder that is there"),
        (["--json", "{}/sub/x.json"], "json = .*a folder that is there"),
        (["--json", "{}"], "json = .*cannot be written"),
    ],
)
def test_bad_arguments_are_one_line(folder, arguments, words):
    with pytest.raises(ConfigError, match=words) as error:
        command.main([str(folder), *(x.format(folder) for x in arguments)])
    assert "\n" not in str(error.value) and not (folder / "sub").exists()


def test_a_folder_without_macros_is_one_line(folder, tmp_path):
    (folder / "macros.json").unlink()
    with pytest.raises(ConfigError, match=r"a folder with its macros\.json"):
        command.main([str(folder), "--table"])
    with pytest.raises(ConfigError, match="folder of a"):
        command.main([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        command.main([str(tmp_path / "empty")])


def test_the_table_needs_no_jax(folder):
    code = (
        "import sys\nfrom experiments import macros\n"
        f"assert macros.main([{str(folder)!r}, '--table']) == 0\n"
        "print(sorted({'jax', 'matplotlib', 'flax', 'orbax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert set(SORTS) >= {"count", "entropy", "generality", "saving", "held", "trials"}
