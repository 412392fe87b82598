"""Verification without a game: intervals, controls, judgement, counts and the document."""

import copy
import dataclasses
import functools
import itertools
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from smz_jax.config import Config, ConfigError, MacroConfig
from smz_jax.envs.emulator import SequenceRun
from smz_jax.macros import encode, select
from smz_jax.verify import bounds, check, controls, emulated, libraries, table
from smz_jax.verify.document import check_document, read_verify_json, write_verify_json
from smz_jax.verify.foresight import nearness, padded
from smz_jax.verify.found import Asked, Found, to_document
from smz_jax.verify.libraries import Library, Piece
from smz_jax.verify.trial import Trial, Tried, is_paid, tally

NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")
SETTINGS = MacroConfig()


def plain_wilson(p, n):
    """The shares q with (p - q)^2 = z^2 q (1 - q) / n, by root search."""
    z = stats.norm.ppf(0.975)

    def gap(q):
        return (p - q) ** 2 - z**2 * q * (1 - q) / n

    low = 0.0 if p == 0 else brentq(gap, 1e-12, p - 1e-9)
    return low, 1.0 if p == 1 else brentq(gap, p + 1e-9, 1 - 1e-12)


def test_a_share_of_free_trials_and_one_of_copies():
    held = [True] * 14 + [False] * 6
    free = bounds.share(held, range(20))
    assert (free.mean, free.trials) == (0.7, 20)
    np.testing.assert_allclose(free[1:3], plain_wilson(0.7, 19), atol=1e-6)
    # Ten copies of each trial in its cluster say nothing more.
    copies = bounds.share(np.repeat(held, 10), np.repeat(np.arange(20), 10))
    np.testing.assert_allclose(copies[:3], free[:3], atol=1e-9)
    # Clusters alike in their shares: every trial counts.
    even = bounds.share([True, True, False, False] * 10, np.repeat(np.arange(10), 4))
    np.testing.assert_allclose(even[1:3], plain_wilson(0.5, 40), atol=1e-6)
    # Where all agree the clusters count, not the trials.
    sure = bounds.share([True] * 60, np.repeat(np.arange(6), 10))
    np.testing.assert_allclose(sure[1:3], plain_wilson(1.0, 6), atol=1e-6)
    assert bounds.share([], []) == (None, None, None, 0)


def test_the_interval_of_a_share_covers_it():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        chances = rng.beta(4, 1, 25)
        clusters = np.repeat(np.arange(25), 8)
        found = bounds.share(rng.random(200) < chances[clusters], clusters)
        inside += found.low <= 0.8 <= found.high
    assert 0.91 <= inside / 400 <= 0.99


def test_a_mean_of_free_values_and_one_of_copies():
    values = np.random.default_rng(1).normal(2, 3, 12)
    free = bounds.mean(values, range(12))
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    np.testing.assert_allclose(free[1:3], expected)
    copies = bounds.mean(np.repeat(values, 5), np.repeat(np.arange(12), 5))
    np.testing.assert_allclose(copies[:3], free[:3])
    assert bounds.mean([1.0, 3.0], ["a", "a"]) == (2.0, None, None, 2)


def random_trials(rng, macros=5, states=7):
    return [
        Trial(
            macro=int(m),
            state=int(s),
            applies=bool(rng.random() < 0.7),
            drawn=bool(s < 4),
            cut=bool(rng.random() < 0.2),
            rivals=int(rng.integers(0, 4)),
            nearest=bool(rng.random() < 0.6),
            paid=bool(rng.random() < 0.7),
            rewarded=bool(rng.random() < 0.5),
            lives=int(rng.integers(0, 2)),
            gain=float(rng.normal()),
            repeats=[None, True, False][rng.integers(3)],
        )
        for m, s in itertools.product(range(macros), range(states))
    ]


def test_counts_equal_a_plain_recount():
    rng = np.random.default_rng(2)
    trials = random_trials(rng)
    applied = rng.random((5, 7)) < 0.5
    found = tally(trials, applied)

    def ratio(rows, read):
        rows = list(rows)
        return sum(read(x) for x in rows) / len(rows), len(rows)

    here = [x for x in trials if x.applies]
    counted = [x for x in here if not x.cut and x.rivals > 0]
    assert found.applied[::3] == (applied.sum() / 35, 35)
    assert found.held[::3] == ratio(counted, lambda x: x.nearest and x.paid)
    assert found.nearest[::3] == ratio(counted, lambda x: x.nearest)
    with_reward = [x for x in counted if x.rewarded]
    assert found.paid_rewarded[::3] == ratio(with_reward, lambda x: x.paid)
    without = [x for x in counted if not x.rewarded]
    assert found.paid_unrewarded[::3] == ratio(without, lambda x: x.paid)
    drawn = [x for x in trials if x.drawn and not x.cut and x.rivals]
    assert found.held_anywhere[::3] == ratio(drawn, lambda x: x.nearest and x.paid)
    assert found.gain.mean == pytest.approx(ratio(here, lambda x: x.gain)[0])
    assert found.lives.mean == ratio(here, lambda x: x.lives)[0]
    assert found.chance == pytest.approx(ratio(counted, lambda x: 1 / (x.rivals + 1))[0])
    assert found.cut == sum(x.cut for x in here)
    assert found.unrivalled == sum(x.rivals == 0 and not x.cut for x in here)
    ran = [x for x in here if x.repeats is not None]
    assert found.repeats[::3] == ratio(ran, lambda x: x.repeats)


def test_who_is_nearest_by_hand():
    own, far = np.array([2.0, 1.0]), np.array([0.0, 3.0])
    centre = np.array([1.0, 1.0])
    # Less the centre: own (1, 0), far (-1, 2); real (1, 0.1), then (-1, 1).
    assert emulated.is_nearest(own, [far], np.array([2.0, 1.1]), centre)
    assert not emulated.is_nearest(own, [far], np.array([0.0, 2.0]), centre)
    assert not emulated.is_nearest(own, [own], np.array([2.0, 1.1]), centre)  # a tie
    found = nearness(np.array([own, far]), np.array([[2.0, 2.0]]), centre)
    np.testing.assert_allclose(found[:, 0], [1 / np.sqrt(2), 1 / np.sqrt(10)])


def test_rivals_end_elsewhere_and_are_at_most_19():
    pool = check.draw_pool(3, 4, np.random.default_rng(0))
    assert len(set(pool)) == 40 and all(len(x) == 3 and set(x) <= {0, 1, 2, 3} for x in pool)
    macro = pool[3]
    frames = {x: b"same" if i % 4 == 0 else bytes([i]) for i, x in enumerate(pool)}
    rivals = emulated.rivals_of(macro, b"same", frames)
    expected = [x for i, x in enumerate(pool) if i % 4 and i != 3]
    assert rivals == expected[:19] and len(expected) == 29
    every = check.draw_pool(2, 4, np.random.default_rng(1))
    assert sorted(every) == list(itertools.product(range(4), repeat=2))


def test_states_are_the_same_for_all_and_more_where_macros_apply():
    rng = np.random.default_rng(3)
    applies = np.array(
        [[False] * 6 + [True] * 14, [True] * 20, [False] * 20, [True] * 2 + [False] * 18]
    )
    tried, drawn = check.choose_states(applies, 5, rng)
    assert drawn.tolist() == [True] * 5 + [False] * 15
    assert tried[:, :5].all()
    assert (tried & applies).sum(axis=1).tolist() == [5, 5, 0, 2]
    assert not (tried & ~drawn & ~applies).any()


def run_of(lives, rewards, terminated=False):
    frames = np.arange(len(lives), dtype=np.uint8)[:, None, None] + 10
    return SequenceRun(
        frames, np.array(rewards, np.float32), np.array(lives, np.int32), terminated,
        np.zeros(128, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lives", "rewards", "terminated", "expected"),
    [
        ([5, 5, 5], [0, 4, 7], False, ([0, 1, 1], 0, False, False)),
        ([5, 4, 4], [1, 0, 7], False, ([1, 0], 1, True, True)),  # a life ends it in its midst
        ([5, 5, 4], [1, 0, 7], False, ([1, 0, 1], 1, False, True)),  # with its last action
        ([5, 0], [1, 0], True, ([1, 0], 5, True, True)),
        ([5, 5, 5], [1, 0, 0], True, ([1, 0, 0], 0, False, True)),
    ],
)
def test_what_a_run_came_to(lives, rewards, terminated, expected):
    first = np.arange(4, dtype=np.uint8)[:, None, None]
    start = SimpleNamespace(state=SimpleNamespace(step=SimpleNamespace(lives=5, observation=first)))
    found = check.outcome(start, run_of(lives, rewards, terminated), 3, Config())  # type: ignore[arg-type]
    assert (found.rewards.tolist(), found.lost, found.cut, found.over) == expected
    stack = [0, 1, 2, 3, 10, 11, 12][: 4 + len(lives)][-4:]
    assert found.observation.ravel().tolist() == stack


def test_returns_by_hand():
    assert check.returns(np.array([1.0, 0.0, -1.0]), 8.0, 0.5) == 1 - 0.25 + 1.0
    assert is_paid([0.25, 0.26, -0.25], [0, 0, 0], Config()).tolist() == [True, False, True]
    np.testing.assert_array_equal(padded([(1, 2), (3,)], 3), [[1, 2, -1], [3, -1, -1]])


def pieces_of(rng, count=4, phrase=(2, 2, 3, 1), certain=0.1):
    """Play in which a phrase comes again and again."""
    found = []
    for game in range(count):
        parts = [rng.integers(0, 4, rng.integers(0, 3)) for _ in range(60)]
        actions = np.concatenate([np.concatenate([part, phrase]) for part in parts])
        entropy = np.full(len(actions), certain, np.float32)
        found.append(Piece(actions.astype(np.int32), entropy, game))
    return found


def macro_entry(actions, status="sound", **more):
    held = {"sound": 1.0}.get(status, 0.5)
    return {
        "actions": list(actions), "names": " → ".join(NAMES[a] for a in actions),
        "length": len(actions), "count": 9, "play_count": 9, "mean_entropy": 0.1,
        "total_reward": 0.0, "mean_reward": 0.0, "generality": 0, "buckets": [], "source": "play",
        "deterministic": False, "status": status, "trials": 50.0, "held": held,
        "held_low": held * 0.9, "held_high": held, "near": 0.7, "paid": 0.8, "agreed": 0.9, **more,
    }  # fmt: skip


def library_of(*macros):
    config = dataclasses.asdict(SETTINGS)
    return {"action_names": list(NAMES), "macros": list(macros), "stats": {}, "config": config}


def test_frequent_windows_equal_a_recount_over_text():
    rng = np.random.default_rng(4)
    pieces = pieces_of(rng)
    for piece in pieces:
        piece.entropy[rng.random(len(piece.entropy)) < 0.3] = 0.5
    lengths = [4, 2, 2, 4, 4, 3]
    found = controls.frequent_windows([x[:2] for x in pieces], lengths, SETTINGS)
    assert sorted(map(len, found)) == sorted(lengths) and len(set(found)) == 6
    for length in (2, 3, 4):
        seen = Counter(), Counter()
        for piece in pieces:
            text = "".join(map(str, piece.actions))
            sure = "".join("10"[int(x >= 0.2)] for x in piece.entropy)
            for i in range(len(text) - length + 1):
                seen[1][text[i : i + length]] += 1
                seen[0][text[i : i + length]] += "0" not in sure[i : i + length]
        best = sorted(seen[1], key=lambda x: (-seen[0][x], -seen[1][x], x))
        ours = ["".join(map(str, x)) for x in found if len(x) == length]
        assert ours == best[: lengths.count(length)]
    varied = MacroConfig(include_repeats=False)
    pairs = controls.frequent_windows([x[:2] for x in pieces], [2] * 16, varied)
    assert len({x for x in pairs if len(x) == 2}) == 12 and all(len(set(x)) > 1 for x in pairs)
    assert [len(x) for x in pairs if len(x) > 2] == [3] * 4  # there are no more pairs


def test_the_library_is_what_compresses_then_what_is_frequent():
    known, _ = libraries.split(pieces_of(np.random.default_rng(5)))
    macros = [(0, 1, 0), (2, 2, 3, 1), (3, 3), (1, 2)]
    document = library_of(*map(macro_entry, macros[:3]), macro_entry(macros[3], "refuted"))
    found = libraries.real_library(document, known, 32, False)
    kept = select(known, macros[:3], 4).phrases
    assert kept[0] == (2, 2, 3, 1) and found.macros[: len(kept)] == kept
    assert set(found.macros) == set(macros[:3]) and set(found.status) == {"sound"}
    every = libraries.real_library(document, known, 32, True)
    assert dict(zip(every.macros, every.status, strict=True))[(1, 2)] == "refuted"
    assert libraries.real_library(document, known, 1, False).macros == kept[:1]
    wanted = libraries.wanted_lengths
    assert sorted(wanted(found, document, SETTINGS, 9)) == [2, 3, 4]
    empty = Library("macros", (), ())
    assert wanted(empty, library_of(macro_entry((1, 2, 3), "refuted")), SETTINGS, 9) == [3]
    assert wanted(empty, library_of(), SETTINGS, 7) == [2, 3, 4, 5, 6, 2, 3]


def test_controls_have_as_many_macros_of_the_same_lengths_and_save_less():
    rng = np.random.default_rng(6)
    pieces, other = pieces_of(rng, 8), pieces_of(rng, 8, phrase=(0, 1), certain=0.9)
    known, held_out = libraries.split(pieces)
    assert len(known) == len(held_out) == 4
    real = Library("macros", ((2, 2, 3, 1), (1, 2, 2, 3), (2, 3)), ("sound",) * 3)
    found = controls.controls(
        real, [4, 4, 2], known, other, list, 4, SETTINGS, np.random.default_rng(0)
    )
    assert [x.name for x in found] == ["shuffled play", "random", "untrained network"]
    for library in found:
        assert sorted(map(len, library.macros)) == [2, 4, 4] and len(set(library.macros)) == 3
        assert library.filled == 0
        assert not set(library.macros) & set(real.macros) or library.name == "untrained network"
    own = controls.frequent_windows([x[:2] for x in other if x.game % 2 == 0], [4, 4, 2], SETTINGS)
    assert found[2].macros == tuple(own)
    saved = libraries.saved_bits(real.macros, known, held_out, 4, 0)
    assert saved is not None and saved.kept == select(known, list(real.macros), 4).phrases
    coded = encode(held_out, saved.kept, 4)
    assert saved.encoding.saved_per_action == (coded.plain_bits - coded.bits) / coded.actions
    assert saved.low is not None and 0 < saved.low <= coded.saved_per_action <= saved.high
    for library in found[:2]:
        control = libraries.saved_bits(library.macros, known, held_out, 4, 0)
        assert control is not None and control.high < saved.low, library
    assert libraries.saved_bits(real.macros, known, [], 4, 0) is None


def test_the_interval_of_saved_bits_is_that_of_draws_that_are_encoded_anew():
    pieces = [piece.actions for piece in pieces_of(np.random.default_rng(8), 16)]
    pieces = [piece[: 20 * (i + 1)] for i, piece in enumerate(pieces)]
    known, held_out = pieces[::2], pieces[1::2]
    macros = [(2, 2, 3, 1), (2, 3), (0, 0)]
    saved = libraries.saved_bits(macros, known, held_out, 4, 0)
    assert saved is not None and saved.low is not None and saved.high is not None
    rng = np.random.default_rng(9)
    draws = rng.integers(len(held_out), size=(300, len(held_out)))
    again = [encode([held_out[i] for i in row], saved.kept, 4).saved_per_action for row in draws]
    low, high = np.quantile(again, (0.025, 0.975))
    assert high - low > 0.05
    np.testing.assert_allclose([saved.low, saved.high], [low, high], atol=0.15 * (high - low))
    one = libraries.saved_bits(macros, known, held_out[:1], 4, 0)
    assert one is not None and one.low is None and one.high is None


def made_up_document(tmp_path, sound=True):
    document, tried = made_up(sound)
    return document, tried, write_verify_json(tmp_path, document)


@functools.cache
def made_up(sound):
    rng = np.random.default_rng(7)
    pieces = pieces_of(rng)
    libs = [
        Library(name, ((2, 2, 3, 1), (1, 2), (3, 3), (0, 1), (0, 0)), ("sound",) * 5)
        for name in ("macros", "random")
    ]
    tried = [Tried(tuple(random_trials(rng)), rng.random((5, 7)) < 0.5) for _ in libs]
    if not sound:
        libs[0], tried[0] = Library("macros", (), ()), Tried((), np.zeros((0, 7), np.bool_))
    model = SimpleNamespace(
        config=Config(), about={"experiment": "breakout", "seed": 0, "checkpoint": "best"}
    )
    library = library_of(macro_entry((1, 2), "sound" if sound else "refuted"))
    found = Found(libs, tried, pieces, [3.0, 5.0, 4.0, 4.0], [0.0, 0.0], None, 3)
    return to_document(model, library, Asked(), found), tried  # type: ignore[arg-type]


def test_the_document_comes_back_and_the_tables_show_it(tmp_path):
    document, tried, path = made_up_document(tmp_path)
    again = read_verify_json(path)
    assert again == json.loads(json.dumps(document))
    totals = again["libraries"][0]["totals"]
    assert totals["held"] == tally(tried[0].trials, tried[0].applied).held._asdict()
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
    text = table.to_text(read_verify_json(path))
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
    check_document(document, path)
    with pytest.raises(ConfigError) as caught:
        check_document(damaged, path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    for text in ("", "[" * 100_000, "[]"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_verify_json(path)
