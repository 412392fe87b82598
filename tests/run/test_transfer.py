"""Macros of another game: translated by meaning, begun as candidates, followed beside others."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.macros.library.transfer import compared_with, translate
from smz_jax.run.loop import iterate
from smz_jax.run.parts import make_parts
from smz_jax.run.state import fresh_state
from smz_jax.run.state import library as library_of
from smz_jax.run.transfer import KINDS
from smz_jax.storage.documents.macro_form import LIBRARY as LIBRARY_FORM
from smz_jax.storage.metrics import PhaseTimers
from tests.run.test_offline import make_config

BREAKOUT = ("NOOP", "FIRE", "RIGHT", "LEFT")


def library(*macros, names=BREAKOUT):
    """A document with macros `(actions, status, count)`; actions by name."""
    entries = [
        {"actions": [names.index(x) for x in actions], "status": status, "count": count}
        for actions, status, count in macros
    ]
    return {"action_names": list(names), "macros": entries}


LIBRARY = library(
    (("RIGHT", "RIGHT"), "candidate", 90),
    (("LEFT", "LEFT"), "sound", 40),
    (("FIRE", "LEFT", "FIRE"), "sound", 7),
    (("LEFT", "NOOP"), "refuted", 200),
    (("RIGHT",) * 5, "candidate", 50),
)


# --- meaning ---


def test_actions_go_by_their_names_and_sound_macros_come_first():
    names = ("LEFT", "FIRE", "NOOP", "RIGHT", "UP")
    found = translate(LIBRARY, names, {}, range(2, 5))
    assert found.macros == [(0, 0), (1, 0, 1), (3, 3)]
    assert found.unknown == {} and found.too_long == 1


def test_what_the_game_has_not_is_counted_and_left_out():
    found = translate(LIBRARY, ("NOOP", "RIGHT", "LEFT"), {}, range(2, 7))
    assert found.macros == [(2, 2), (1, 1), (1,) * 5]
    assert found.unknown == {"FIRE": 1} and found.too_long == 0


def test_repeats_are_left_out_where_they_are_not_looked_for():
    found = translate(LIBRARY, BREAKOUT, {}, range(2, 7), with_repeats=False)
    assert found.macros == [(1, 3, 1)] and found.too_long == 0


def test_an_explicit_map_names_what_does_the_same():
    names = ("NOOP", "UP", "DOWN")
    found = translate(LIBRARY, names, {"RIGHT": "UP", "LEFT": "DOWN"}, range(2, 7))
    assert found.macros == [(2, 2), (1, 1), (1,) * 5] and found.unknown == {"FIRE": 1}
    # Two meanings may fall together: the macro is there once.
    both = translate(LIBRARY, names, {"RIGHT": "UP", "LEFT": "UP"}, range(2, 3))
    assert both.macros == [(1, 1)]


@pytest.mark.parametrize(
    ("meanings", "line"),
    [
        ({"JUMP": "UP"}, "macros_map = 'JUMP' is not allowed: it must be an action of the library"),
        ({"LEFT": "WEST"}, "macros_map = 'WEST' is not allowed: it must be an action of this game"),
    ],
)
def test_a_meaning_that_names_no_action_is_one_line(meanings, line):
    with pytest.raises(ConfigError, match=line):
        translate(LIBRARY, ("NOOP", "UP"), meanings, range(2, 7))


def test_controls_have_the_same_lengths_and_none_of_the_macros():
    macros = [(0, 1), (1, 2), (2, 3, 0), (3, 3, 3, 1), (0, 2, 1, 3)]
    found = compared_with(macros, 4, seed=3)
    assert set(found) == {"shuffled", "random"}
    for others in found.values():
        assert not set(others) & set(macros)
        assert Counter(map(len, others)) == Counter(map(len, macros))
    counts = [Counter(x for macro in some for x in macro) for some in (macros, found["shuffled"])]
    assert counts[0] == counts[1]
    assert found == compared_with(macros, 4, seed=3) != compared_with(macros, 4, seed=4)
    # Of two actions there are four pairs: no more can be drawn than are left.
    assert compared_with([(0, 0), (0, 1), (1, 0)], 2, seed=0)["random"] == [(1, 1)]


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "{", '{"a": "b", "a": "c"}'])
def test_a_map_that_is_none_is_one_line(text):
    with pytest.raises(ConfigError, match=r"macros_map = .* a JSON object of names"):
        Config(macros_map=text)


def test_a_map_without_a_library_is_one_line():
    with pytest.raises(ConfigError, match=r"macros_map = .* left out without macros_from"):
        Config(macros_map='{"LEFT": "DOWN"}')


def test_a_folder_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"macros_from = '.* the folder of an export or of a run"):
        begun(tmp_path / "none")


def test_it_goes_with_one_device_only():
    with pytest.raises(ConfigError, match=r"macros_from = 'x' is not allowed: .* several devices"):
        Config(macros_from="x", devices=2, env=EnvConfig(num_envs=32))


# --- in a run ---


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A tiny run's library, in a folder of its own."""
    folder = tmp_path_factory.mktemp("first")
    parts = make_parts(make_config(), PhaseTimers())
    state = fresh_state(parts)
    state, _ = iterate(parts, state)
    document = library_of(parts, state)
    (folder / "macros.json").write_text(json.dumps(document))
    assert len(document["macros"]) >= 4
    return folder, document


def begun(folder, *flags):
    parts = make_parts(make_config("--macros_from", str(folder), *flags), PhaseTimers())
    return parts, fresh_state(parts)


def test_they_begin_as_candidates_with_slots_and_without_evidence(first):
    folder, document = first
    parts, state = begun(folder)
    settings, table = parts.config.macro, jax.device_get(state.macros.table)
    wanted = [tuple(x["actions"]) for x in document["macros"]][: settings.slots // 2]
    held = {tuple(row[row >= 0].tolist()): i for i, row in enumerate(table.actions) if row[0] >= 0}
    assert set(wanted) < set(held) == parts.transfer._seeded
    rows = list(held.values())
    assert (table.count[rows] == settings.min_occurrences).all()
    assert not table.play_count.any() and not table.buckets.any() and not table.trials.any()
    entropy = table.entropy_sum[rows] / table.count[rows]
    np.testing.assert_allclose(entropy, settings.play_threshold, rtol=1e-6)
    owners = np.asarray(state.train.head.slots.actions)[1 : 2 * len(wanted) : 2]
    assert [tuple(row[row >= 0].tolist()) for row in owners] == wanted
    fresh = library_of(parts, state)["macros"]
    assert {x["status"] for x in fresh} == {"candidate"} and not any(x["trials"] for x in fresh)
    assert {x["source"] for x in fresh} == {"given"} and len(fresh) == len(held)
    LIBRARY_FORM.check({**first[1], "macros": fresh}, "macros.json")
    assert f"{len(wanted)} of the {len(document['macros'])} macros" in parts.transfer.note


def test_what_came_up_here_is_no_longer_given(first):
    parts, state = begun(first[0])
    before = {tuple(x["actions"]): x["count"] for x in library_of(parts, state)["macros"]}
    state, _ = iterate(parts, state)
    for macro in library_of(parts, state)["macros"]:
        seen = macro["count"] > before.get(tuple(macro["actions"]), 0)
        assert (macro["source"] == "given") == (not seen)


def test_without_them_the_run_is_the_same(first):
    """They change what is looked for, and nothing that is played or learned."""
    parts, state = begun(first[0])
    plain = make_parts(make_config(), PhaseTimers())
    other = fresh_state(plain)
    for _ in range(2):
        state, row = iterate(parts, state)
        other, bare = iterate(plain, other)
    assert not any(name.startswith("transfer/") for name in bare)
    for one, two in zip(
        jax.tree.leaves(state.train.params), jax.tree.leaves(other.train.params), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    names = {f"transfer/{kind}_{what}" for kind in KINDS for what in ("sound", "tested")}
    assert {name for name in row if name.startswith("transfer/")} <= names
    assert "transfer/given_sound" in row and "transfer/native_tested" in row


def test_shares_are_those_of_the_table(first):
    """Some of each kind are made sound, or tested: all others count as neither."""
    parts, state = begun(first[0])
    state, _ = iterate(parts, state)
    followed, table = parts.transfer._followed, jax.device_get(state.macros.table)
    at = {tuple(row[row >= 0].tolist()): i for i, row in enumerate(table.actions) if row[0] >= 0}
    given = [tuple(row[row >= 0].tolist()) for row in np.asarray(followed["given"])]
    sound, tested = at[given[0]], at[given[1]]
    own = [i for macro, i in at.items() if macro not in parts.transfer._seeded]
    native = sorted(own, key=lambda i: (-table.count[i], i))[: len(given)]
    evidence = {name: np.zeros_like(table.trials) for name in ("windows", "squares", "trials")}
    for i, trials in ((sound, 2000.0), (native[-1], 2000.0), (tested, 26.0)):
        for name in evidence:
            evidence[name][i] = trials
    passed = {name: evidence["trials"] for name in ("near", "paid", "agreed", "ends")}
    held = {"held": np.where(evidence["trials"] > 100, evidence["trials"], 0.0)}
    changed = table._replace(**evidence, **passed, **held)
    row = parts.transfer.row(jax.tree.map(jnp.asarray, changed))
    assert row["transfer/given_sound"] == pytest.approx(1 / len(given))
    assert row["transfer/given_tested"] == pytest.approx(2 / len(given))
    assert row["transfer/native_sound"] == pytest.approx(1 / len(given))
    assert row["transfer/native_tested"] == pytest.approx(1 / len(given))


def test_a_library_that_means_nothing_here_is_one_line(first, tmp_path):
    document = dict(first[1], action_names=[f"X{i}" for i in range(4)])
    for macro in document["macros"]:
        macro["names"] = " → ".join(document["action_names"][x] for x in macro["actions"])
    (tmp_path / "macros.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"macros_from = .* macros of this game's actions"):
        begun(tmp_path)
    meanings = dict(zip(document["action_names"], first[1]["action_names"], strict=True))
    parts, _ = begun(tmp_path, "--macros_map", json.dumps(meanings))
    assert "macros that mean something here" in parts.transfer.note
    (tmp_path / "macros.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a readable macro library"):
        begun(tmp_path)
