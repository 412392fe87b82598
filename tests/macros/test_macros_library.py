"""Buckets, statistics, rankings and macros.json."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from smz_jax.config.check import ConfigError
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.listing import rank
from smz_jax.macros.library.summary import summarise, table_stats
from smz_jax.macros.mine.buckets import (
    assign_buckets,
    assign_wanted,
    init_buckets,
    update_buckets,
)
from smz_jax.report.macro_tables import format_rankings
from smz_jax.storage.documents.macro_form import LIBRARY, write_macros_json
from smz_jax.types import MacroStats, MacroTable

NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")
CONFIG = MacroConfig(max_length=3, capacity=8, num_buckets=4, sound_share=0.8)


def small_table():
    """Three macros, one candidate, four empty slots; numbers worked out by hand below."""
    entries = [
        # actions, count, entropy_sum, reward_sum, buckets, play_count
        ((0, 1, -1), 10, 0.5, 5.0, (0, 1), 0),
        ((1, 2, 2), 3, 0.45, 0.0, (0, 1, 2), 1),
        ((2, 3, -1), 10, 2.0, -1.0, (3,), 10),
        ((3, 3, -1), 2, 0.0, 0.0, (2,), 2),
    ]
    empty = [((-1, -1, -1), 0, 0.0, 0.0, (), 0)] * 4
    rows = [*entries, *empty]
    actions = jnp.array([row[0] for row in rows], jnp.int32)
    return MacroTable(
        actions=actions,
        length=(actions >= 0).sum(axis=-1, dtype=jnp.int32),
        count=jnp.array([row[1] for row in rows], jnp.int32),
        entropy_sum=jnp.array([row[2] for row in rows], jnp.float32),
        reward_sum=jnp.array([row[3] for row in rows], jnp.float32),
        buckets=jnp.array([[i in row[4] for i in range(4)] for row in rows]),
        play_count=jnp.array([row[5] for row in rows], jnp.int32),
        dropped=jnp.int32(7),
        # Sound; never tried; refuted; a candidate.
        windows=jnp.array([50, 0, 40, 6, 0, 0, 0, 0], jnp.float32),
        squares=jnp.array([50, 0, 40, 6, 0, 0, 0, 0], jnp.float32),
        trials=jnp.array([40, 0, 40, 5, 0, 0, 0, 0], jnp.float32),
        held=jnp.array([38, 0, 10, 5, 0, 0, 0, 0], jnp.float32),
        near=jnp.array([39, 0, 20, 5, 0, 0, 0, 0], jnp.float32),
        paid=jnp.array([40, 0, 30, 5, 0, 0, 0, 0], jnp.float32),
        agreed=jnp.array([38, 0, 10, 5, 0, 0, 0, 0], jnp.float32),
        ends=jnp.array([40, 0, 35, 5, 0, 0, 0, 0], jnp.float32),
    )


TOTALS = MacroStats(
    trees=6, trajectories=2, transitions_tree=80, transitions_play=20,
    certain_tree=40, certain_play=5, candidates_tree=30, candidates_play=3,
)  # fmt: skip


QUALITY = {"windows": 12.5, "precision": 0.75, "recall": None, "always_precision": 0.5}
PRECONDITIONS = {(2, 3): {"slot": 5, **QUALITY}, (3, 3): {"slot": 0, **QUALITY}}


def document():
    return summarise(small_table(), TOTALS, CONFIG, NAMES, PRECONDITIONS)


def test_statistics_by_hand():
    stats = table_stats(small_table(), CONFIG)
    assert stats == pytest.approx(
        {
            "total": 3, "play": 2, "tree": 1, "candidates": 1, "dropped": 7, "deterministic": 1,
            "generality_mean": 2.0, "generality_max": 3, "entropy_mean": (0.05 + 0.15 + 0.2) / 3,
            "sound": 1, "refuted": 1, "tested": 2, "expected_false": 0.05,
            "refusals": 32 / 80, "refused_near": 21 / 32, "refused_paid": 10 / 32,
            "refused_agreed": 32 / 32, "refused_ends": 5 / 32,
        }
    )  # fmt: skip
    whole = document()["stats"]
    assert whole["transitions"] == 100 and whole["certain"] == 45
    assert whole["certain_rate"] == pytest.approx(0.45)
    assert whole["certain_rate_tree"] == pytest.approx(0.5)
    assert whole["certain_rate_play"] == pytest.approx(0.25)
    assert (whole["trees"], whole["trajectories"]) == (6, 2)


def test_statistics_of_an_empty_table_are_zero():
    empty = small_table()._replace(
        length=jnp.zeros(8, jnp.int32), count=jnp.zeros(8, jnp.int32), dropped=jnp.int32(0)
    )
    assert set(table_stats(empty, CONFIG).values()) == {0.0}
    nothing = summarise(empty, MacroStats(*[0] * 8), CONFIG, NAMES)
    assert nothing["macros"] == [] and format_rankings(nothing) == "no macros found"


def test_sums_that_round_apart_are_no_share_above_one():
    table = small_table()
    more = table.windows * (1 + 1e-7)
    assert (more > table.windows).any()
    found = summarise(table._replace(trials=more, held=more * (1 + 1e-7)), TOTALS, CONFIG, NAMES)
    LIBRARY.check(found, "here")
    assert {macro["certain"] for macro in found["macros"]} == {0.0, 1.0}


def test_macros_are_decoded_and_sorted_by_count():
    macros = document()["macros"]
    names = [macro["names"] for macro in macros]
    assert names == ["NOOP → FIRE", "RIGHT → LEFT", "FIRE → RIGHT → RIGHT"]
    first = macros[0]
    assert first["actions"] == [0, 1] and first["length"] == 2 and first["count"] == 10
    assert first["source"] == "tree" and first["deterministic"] is True
    assert first["mean_entropy"] == pytest.approx(0.05)
    assert first["total_reward"] == 5.0 and first["mean_reward"] == pytest.approx(0.5)
    assert first["buckets"] == [0, 1] and first["generality"] == 2
    assert [macro["source"] for macro in macros] == ["tree", "play", "play"]
    assert [macro["status"] for macro in macros] == ["sound", "refuted", "candidate"]
    assert [macro["trials"] for macro in macros] == [40, 40, 0]
    assert [macro["held"] for macro in macros] == pytest.approx([0.95, 0.25, 0])
    assert [macro["windows"] for macro in macros] == [50, 40, 0]
    assert [macro["certain"] for macro in macros] == pytest.approx([0.8, 1, 0])
    assert 0.5 < first["certain_low"] < 0.8 and macros[2]["certain_low"] == 0
    assert first["near"] == pytest.approx(39 / 40) and first["paid"] == 1
    assert first["held_low"] < 0.95 < first["held_high"]
    assert first["effective"] == 40 and first["ends"] == 1 and macros[2]["p_value"] == 1
    assert first["p_value"] == pytest.approx(binom.sf(37, 40, CONFIG.sound_share), rel=0.03)
    assert (macros[2]["held_low"], macros[2]["held_high"]) == (0, 1)
    assert [macro["slot"] for macro in macros] == [None, 5, None]
    assert [macro["precondition"] for macro in macros] == [None, QUALITY, None]


def test_rankings():
    def ranked(by, top=10):
        return [macro["actions"] for macro in rank(document()["macros"], by)[:top]]

    assert ranked("count") == [[0, 1], [2, 3], [1, 2, 2]]
    assert ranked("entropy") == [[0, 1], [1, 2, 2], [2, 3]]
    assert ranked("generality") == [[1, 2, 2], [0, 1], [2, 3]]
    assert ranked("generality", top=1) == [[1, 2, 2]]
    lines = format_rankings(document(), top=1).splitlines()
    assert [line.split("  ")[0] for line in lines if "macros" in line] == [
        "Most general macros", "Most deterministic macros", "Most frequent macros",
    ]  # fmt: skip
    rows = [line.split() for line in lines if line.lstrip().startswith("1 ")]
    assert rows[0] == ["1", "FIRE", "→", "RIGHT", "→", "RIGHT", "3", "3", "3", "0.150", "play",
                       "0%", "0%", "0", "candidate"]  # fmt: skip
    assert rows[1] == rows[2] == ["1", "NOOP", "→", "FIRE", "2", "2", "10", "0.050", "tree",
                                  "80%", "95%", "40", "sound"]  # fmt: skip


def test_json_round_trip_is_whole_and_atomic(tmp_path):
    path = tmp_path / "macros.json"
    path.write_text("the old one", encoding="utf-8")
    write_macros_json(path.parent, document())
    assert LIBRARY.read(path.parent) == document()
    assert "FIRE → RIGHT" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_macros_json(path.parent, {**document(), "stats": {"total": float("nan")}})
    assert LIBRARY.read(path.parent) == document()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(schema=1), "schema = 1, allowed is 4"),
        (lambda d: d.update(action_names="NOOP"), "action_names"),
        (lambda d: d.pop("macros"), "macros is missing"),
        (lambda d: d.pop("stats"), "stats is missing"),
        (lambda d: d["config"].update(capacity=1), "macro.capacity = 1"),
        (lambda d: d["config"].update(colour=1), "colour"),
        (lambda d: d.update(config=[1]), "config is missing"),
        (lambda d: d["macros"].insert(1, 3), r"macros\[1\] is not an object"),
        (lambda d: d["macros"][0].pop("count"), r"macros\[0\].count = None"),
        (lambda d: d["macros"][2].update(count=True), r"macros\[2\].count = True"),
        (lambda d: d["macros"][0].update(actions=[0, 4]), "4, allowed is 0..3"),
        (lambda d: d["macros"][0].update(length=3), "length"),
        (lambda d: d["macros"][0].update(source="dream"), "source = 'dream'"),
        (lambda d: d["macros"][0].update(status="true"), "status = 'true'"),
        (lambda d: d["macros"][0].update(near=1.5), "near = 1.5, allowed is 0 to 1"),
        (lambda d: d["macros"][0].update(slot=1), r"\[0\].slot = 1 with precondition = None"),
        (lambda d: d["macros"][1].update(slot=-1), r"\[1\].slot = -1 with precondition"),
        (lambda d: d["macros"][1].update(slot="a"), r"\[1\].slot = 'a'"),
        (lambda d: d["macros"][1].update(precondition=[]), r"\[1\].precondition = \[\]"),
        (lambda d: d["macros"][1]["precondition"].pop("windows"), "precondition.windows = None"),
        (lambda d: d["macros"][1]["precondition"].update(recall=2), "precondition.recall = 2"),
        (lambda d: d["macros"][1]["precondition"].update(recall="x"), "recall = 'x'"),
    ],
)
def test_a_damaged_library_is_refused_in_one_line(tmp_path, damage, message):
    damaged = document()
    damage(damaged)
    path = tmp_path / "macros.json"
    path.write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        LIBRARY.read(path.parent)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": 1'])
def test_an_unreadable_library_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "macros.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"macros\.json") as error:
        LIBRARY.read(path.parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(24,), (2, 3, 4)])
def test_buckets_are_the_arg_max_of_the_centred_projection(shape):
    config = MacroConfig(num_buckets=16)
    rng = np.random.default_rng(0)
    state = init_buckets(jax.random.key(1), shape, config)
    batches = [rng.random((5, *shape)).astype(np.float32) for _ in range(4)]
    for batch in batches:
        state = update_buckets(state, jnp.asarray(batch), frozen=jnp.array(False))
    seen = np.concatenate(batches).reshape(20, -1)
    np.testing.assert_allclose(state.mean, seen.mean(axis=0), rtol=1e-5)
    assert float(state.count) == 20
    bad = np.concatenate([batches[0], np.full_like(batches[0][:1], np.nan)])
    same = update_buckets(state, jnp.asarray(bad), frozen=jnp.array(False))
    good = update_buckets(state, jnp.asarray(batches[0]), frozen=jnp.array(False))
    np.testing.assert_allclose(same.mean, good.mean, rtol=1e-6)
    assert float(same.count) == float(good.count)
    later = update_buckets(state, jnp.asarray(batches[0] + 9), frozen=jnp.array(True))
    assert np.array_equal(later.mean, state.mean) and float(later.count) == 20

    asked = rng.random((3, 2, *shape)).astype(np.float32)
    flat = asked.reshape(3, 2, -1).astype(np.float64) - seen.mean(axis=0)
    scores = flat @ np.asarray(state.projection, np.float64)
    expected = np.argmax(np.concatenate([scores, -scores], axis=-1), axis=-1)
    assert scores.shape[-1] == 8 and (expected >= 8).any() and (expected < 8).any()
    assert np.array_equal(assign_buckets(state, jnp.asarray(asked)), expected)


def test_wanted_rows_get_the_buckets_that_all_would_get():
    """One step's many rows, or all of them, fill every buffer."""
    rng = np.random.default_rng(0)
    steps, rows = 3, 600
    states = [init_buckets(jax.random.key(0), (8,), MacroConfig(num_buckets=16))] * steps
    states = [x._replace(mean=jnp.full((8,), i / 9)) for i, x in enumerate(states)]
    embeddings = rng.random((steps, rows, 8)).astype(np.float32)
    expected = np.stack([assign_buckets(x, y) for x, y in zip(states, embeddings, strict=True)])
    several = states[0]._replace(mean=jnp.stack([x.mean for x in states]))
    assign = jax.jit(partial(assign_wanted, several, list(jnp.asarray(embeddings))))
    for shares in ([0.05, 0.0, 0.1], [0.1, 0.25, 0.02], [0.0, 0.1, 1.0], [0.0, 0.0, 0.0]):
        wanted = rng.random((steps, rows)) < np.array(shares)[:, None]
        assert np.array_equal(np.asarray(assign(wanted))[wanted], expected[wanted])


def test_centring_spreads_embeddings_that_are_nearly_equal():
    config = MacroConfig()
    rng = np.random.default_rng(0)
    nearly = (rng.random(64) + 0.01 * rng.normal(size=(200, 64))).astype(np.float32)
    state = init_buckets(jax.random.key(0), (64,), config)
    assert len(set(np.asarray(assign_buckets(state, nearly)).tolist())) <= 2
    state = update_buckets(state, jnp.asarray(nearly), frozen=jnp.array(False))
    assert len(set(np.asarray(assign_buckets(state, nearly)).tolist())) > 40


def test_buckets_of_damaged_or_misshapen_embeddings():
    state = init_buckets(jax.random.key(0), (8,), MacroConfig(num_buckets=4))
    damaged = assign_buckets(state, jnp.full((3, 8), jnp.nan))
    assert damaged.shape == (3,) and bool(((damaged >= 0) & (damaged < 4)).all())
    with pytest.raises(ValueError, match="do not end with 8 numbers"):
        assign_buckets(state, jnp.zeros((3, 7)))
