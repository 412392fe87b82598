"""Looking at macros: pieces of play, the library in bits, macros in games."""

from pathlib import Path

import numpy as np
import pytest

from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.verify.tried_libraries import saved_bits
from smz_jax.analysis.view.drawing import draw_library, measure_selection, pieces_of
from smz_jax.analysis.view.watched_games import Span, occurrences, shown_macros, spans_of
from smz_jax.config.check import ConfigError
from smz_jax.macros.compression.selection import encode
from smz_jax.macros.library.listing import Wanted
from smz_jax.storage.checkpoint import Damage, RowChunks
from smz_jax.storage.checkpoint.rows import list_rows, read_fields, write_rows
from smz_jax.storage.documents.macro_form import LIBRARY, prefix_share
from smz_jax.types import Trajectory
from tests.macros.test_macro_listing import FOUR, library, macro, selection
from tests.support.look_parts import game

# Play.


def test_pieces_by_hand():
    action = np.array([1, 2, 3, 0, 1, 1, 2, 2, 3])
    first = np.array([1, 0, 0, 0, 1, 0, 0, 0, 0], bool)  # the action of row 3 was ignored
    discount = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1.0])  # lives end after rows 2 and 5
    found = [piece.tolist() for piece in pieces_of(action, first, discount)]
    assert found == [[1, 2, 3], [1, 1], [2, 2]]  # whether the newest row counted is not known
    assert pieces_of(action[:1], first[:1], discount[:1]) == []


def test_pieces_of_games_end_with_lives():
    games = (game([1, 2, 3, 0], ends=(1,)), game([2, 2], ends=(1,)))
    found = [(start, piece.tolist()) for played in games for start, piece in played.pieces]
    assert found == [(0, [1, 2]), (2, [3, 0]), (0, [2, 2])]


def saved_rows(folder, rows, total, ring, size, parts=1):
    """A ring of rows in files of `size` rows each, as a run of `parts` processes saves it."""
    count = -(-ring // size)
    starts = [min(i * size, ring - size) for i in range(count)]
    written = []
    for part in range(parts):
        own = [np.split(x, parts)[part] for x in rows]
        ranges = {
            i: Trajectory(*(np.ascontiguousarray(x[:, start : start + size]) for x in own))
            for i, start in enumerate(starts)
        }
        chunks = RowChunks(ring, size, total, ranges, parts, part)
        written.append(write_rows(folder, chunks))
    return list_rows(chunks, None, written)


def ring_of(total, ring, lanes=2):
    """A ring after `total` rows of each lane; the action of row i of lane b is (i + 7 b) % 200."""
    fields = {}
    for name in Trajectory._fields:
        fields[name] = np.zeros((lanes, ring, 3) if name == "frame" else (lanes, ring), np.int32)
    for i in range(total):
        fields["action"][:, i % ring] = (i + 7 * np.arange(lanes)) % 200
    return Trajectory(**fields)


@pytest.mark.parametrize(("total", "parts"), [(10, 1), (11, 2), (17, 1), (40, 2)])
def test_rows_of_a_replay_come_oldest_first(tmp_path, total, parts):
    saved = saved_rows(tmp_path, ring_of(total, 10), total, 10, 4, parts)
    action, reward = read_fields(tmp_path, saved, 2, ("action", "reward"))
    wanted = [[(i + 7 * b) % 200 for i in range(total - 10, total)] for b in range(2)]
    assert action.tolist() == wanted and reward.shape == (2, 10)


def test_rows_of_another_shape_are_damage(tmp_path):
    saved = saved_rows(tmp_path, ring_of(10, 10), 10, 10, 4)
    with pytest.raises(Damage, match=r"action is \[2, 4\], not \[3, 4\]"):
        read_fields(tmp_path, saved, 3, ("action",))
    with pytest.raises(Damage, match="no rows"):
        read_fields(tmp_path, saved, 2, ("nonsense",))
    wide = ring_of(10, 10)._replace(action=np.zeros((2, 10, 400), np.int64))
    saved = saved_rows(tmp_path / "wide", wide, 10, 10, 4)
    with pytest.raises(Damage, match="a field holds 25,728 bytes"):
        read_fields(tmp_path / "wide", saved, 2, ("action",))


# Bits.


def test_the_selection_is_that_of_the_code():
    rng = np.random.default_rng(0)
    good, other = (1, 2, 2), (3, 3)
    play = [
        np.concatenate([good if rng.random() < 0.7 else (rng.integers(4),) for _ in range(60)])
        for _ in range(3)
    ]
    document = library(
        macro(good, 9, status="sound"), macro((1, 2), 9, status="sound"), macro(other, 9)
    )
    found = measure_selection(document, play, source="games")
    phrases = [tuple(x["actions"]) for x in found["phrases"]]
    assert phrases == [good]  # other is not sound, (1, 2) saves nothing beside it
    by_hand = encode(play, phrases, 4)
    assert found["bits_per_action"] == by_hand.bits_per_action < found["bits_per_action_plain"]
    assert found["bits_per_action_plain"] == encode(play, [], 4).bits_per_action
    assert found["coverage"] == by_hand.coverage and found["of"] == "sound"
    assert (found["allowed"], found["redundancy_allowed"]) == (2, prefix_share([good, (1, 2)]))
    assert found["phrases"][0]["uses"] == by_hand.uses[0]
    total = sum(map(len, play))
    # 9 and 9 visits of lengths 3 and 2 are to be a tenth of play.
    times = round(0.1 * total * 9 / (9 * 3 + 9 * 2))
    both = [*play, *[np.array(good)] * times, *[np.array((1, 2))] * times]
    gain = encode(both, [], 4).bits - encode(both, phrases, 4).bits
    assert found["phrases"][0]["saved_bits"] == pytest.approx(gain)
    assert found["phrases"][0]["missed_bits"] == pytest.approx(gain)
    assert found["play"]["actions"] == total and found["tree_share"] == 0.1
    LIBRARY.check({**document, "selection": found}, Path("x"))


def test_search_visits_choose_where_play_does_not():
    """Play is noise of two actions; only what trees count beyond play speaks for a macro."""
    rng = np.random.default_rng(1)
    play = [rng.integers(2, size=400) for _ in range(4)]
    searched, other = macro((3, 2, 1, 0), 500, status="sound"), macro((0, 1), 9, status="sound")
    found = measure_selection(library(searched, other), play, source="games")
    assert [x["actions"] for x in found["phrases"]] == [[3, 2, 1, 0]]
    played = {"play_count": 500, "source": "play"}
    alone = library({**searched, **played}, {**other, **played, "play_count": 9})
    found = measure_selection(alone, play, source="games")
    assert found["phrases"] == [] and found["tree_share"] == 0


def test_controls_save_less_of_held_out_play():
    rng = np.random.default_rng(2)
    good = (1, 2, 2, 0, 3)
    play = [
        np.concatenate([good if rng.random() < 0.7 else (rng.integers(4),) for _ in range(200)])
        for _ in range(4)
    ]
    document = library(macro(good, 9, status="sound"))
    found = measure_selection(document, play, source="games")["controls"]
    real, mixed, by_chance = found["libraries"]
    kept = encode(play[1::2], [good], 4)
    assert real["saved_bits_per_action"] == kept.saved_per_action > 0.5
    assert found["held_out"] == len(play[1]) + len(play[3])
    assert [x["macros"] for x in (mixed, by_chance)] == [1, 1]
    for each in (mixed, by_chance):
        assert each["saved_bits_per_action"] < 0.1
        assert each["saved_high"] < real["saved_low"]
    again = saved_bits([good], play[::2], play[1::2], 4, 0)  # the one that verify reports too
    assert again is not None and (real["saved_low"], real["saved_high"]) == again[2:]
    single = measure_selection(document, play[:2], source="games")["controls"]["libraries"]
    assert [(x["saved_low"], x["saved_high"]) for x in single] == [(None, None)] * 3
    without = measure_selection(library(), play, source="games")["controls"]
    assert [x["macros"] for x in without["libraries"]] == [0, 32, 32]
    assert measure_selection(document, play[:1], source="games")["controls"] is None


def test_without_a_sound_macro_all_are_measured_and_that_is_said():
    play = [np.tile([1, 2, 2, 0], 40)]
    document = library(macro((1, 2, 2), 9), macro((3, 3), 9, status="refuted"))
    found = measure_selection(document, play, source="replay")
    assert found["of"] == "table" and found["allowed"] == 2
    nothing = measure_selection(library(), play, source="replay")
    assert nothing["phrases"] == [] and nothing["coverage"] == 0 == nothing["redundancy"]
    assert nothing["bits_per_action"] == nothing["bits_per_action_plain"]


# Macros in games.


def test_macros_shown_are_the_sound_ones_by_worth():
    shown, of = shown_macros(FOUR)
    assert [x["actions"] for x in shown] == [[2, 3], [1, 2, 2]]
    assert of == "sound macros"
    chosen = {**FOUR, "selection": selection(((1, 2, 2), 9.0), ((3, 3), 5.0))}
    assert [x["actions"] for x in shown_macros(chosen)[0]] == [[1, 2, 2], [2, 3]]
    none = library(macro((2, 2), 5), macro((3, 3), 9, status="refuted"))
    assert [x["actions"] for x in shown_macros(none)[0]] == [[3, 3], [2, 2]]
    assert "none of them sound" in shown_macros(none)[1]


def test_occurrences_as_a_plain_search_finds_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        played = game(rng.integers(0, 2, 40).tolist(), ends=rng.integers(0, 40, 3).tolist())
        wanted = tuple(rng.integers(0, 2, int(rng.integers(2, 5))).tolist())
        found = []
        for start in range(40 - len(wanted) + 1):
            stop = start + len(wanted)
            same = tuple(played.actions[start:stop].tolist()) == wanted
            if same and not played.ends[start : stop - 1].any():
                found.append(start)
        assert occurrences(played, wanted) == found


def test_spans_do_not_overlap_nor_reach_over_a_life():
    played = game([1, 2, 2, 0, 1, 2, 2, 2, 3], ends=(5,))
    found = spans_of(played, [(1, 2, 2), (2, 3)], 4)
    assert found == [Span(0, (1, 2, 2)), Span(7, (2, 3))]
    assert spans_of(played, [], 4) == []


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (300, "no macros: there are 300 actions, and they hold at most 255"),
        (0, "no macros: actions have continuous parts"),
    ],
)
def test_a_run_of_actions_that_make_no_macros_says_so(count, why, tmp_path):
    document = {**library([]), "action_names": [str(action) for action in range(count)]}
    with pytest.raises(ConfigError, match=why):
        draw_library(MacrosRequest(tmp_path), document, Wanted(), is_run=True)
