"""Looking at macros: pieces of play, the library in bits, chains of trees, and what figures say."""

import hashlib
from collections import Counter
from pathlib import Path

import jax
import matplotlib.colors as colours
import numpy as np
import pytest
from PIL import Image

from smz_jax.checkpoint import Damage, RowChunks
from smz_jax.checkpoint.rows import RowFiles, read_fields
from smz_jax.config import ConfigError
from smz_jax.look import session, timeline
from smz_jax.look.chains import (
    Chain,
    SmallTree,
    best_chain,
    chains,
    kept_nodes,
    most_visited_path,
    why_it_ends,
)
from smz_jax.look.games import Decided, Game, pieces
from smz_jax.look.selection import measure_selection
from smz_jax.look.spans import Span, occurrences, shown_macros, spans_of
from smz_jax.look.streams import pieces_of
from smz_jax.look.strips import Strip, changed, choose_strips, strips_figure
from smz_jax.look.timeline import stretch, timeline_figure
from smz_jax.look.tree_figure import PALE, certain_nodes, layout, tree_figure
from smz_jax.macro_file import (
    TIMES,
    check_library,
    decode,
    read_macros_json,
    write_macros_json,
)
from smz_jax.macros import encode, prefix_share
from smz_jax.report.data import load_run
from smz_jax.report.library import macro_lines, macro_tables
from smz_jax.report.style import GREEN, GREY, VERMILLION
from smz_jax.report.verdict import find_warnings
from smz_jax.types import Trajectory
from smz_jax.verify.libraries import saved_bits
from tests.fake_run import write_run
from tests.test_macro_listing import FOUR, library, macro, selection

jax.config.update("jax_disable_most_optimizations", True)


# Play.


def test_pieces_by_hand():
    action = np.array([1, 2, 3, 0, 1, 1, 2, 2, 3])
    first = np.array([1, 0, 0, 0, 1, 0, 0, 0, 0], bool)  # the action of row 3 was ignored
    discount = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1.0])  # lives end after rows 2 and 5
    found = [piece.tolist() for piece in pieces_of(action, first, discount)]
    assert found == [[1, 2, 3], [1, 1], [2, 2]]  # whether the newest row counted is not known
    assert pieces_of(action[:1], first[:1], discount[:1]) == []


def game(actions, score=None, entropy=None, ends=(), number=1, first=0, frames=None):
    n = len(actions)
    return Game(
        number=number,
        first=first,
        actions=np.array(actions, np.int32),
        score=np.zeros(n + 1) if score is None else np.array(score, np.float64),
        value=np.zeros(n),
        entropy=np.full(n, 0.05) if entropy is None else np.array(entropy, np.float64),
        frames=np.zeros((n + 1, 2, 2), np.uint8) if frames is None else frames,
        ends=np.isin(np.arange(n), ends),
    )


def test_pieces_of_games_end_with_lives():
    found = pieces([game([1, 2, 3, 0], ends=(1,)), game([2, 2], ends=(1,))])
    assert [piece.tolist() for piece in found] == [[1, 2], [3, 0], [2, 2]]


def saved_rows(folder, rows, total, ring, size):
    """A ring of rows in files of `size` rows each, as a run saves it."""
    files = RowFiles(folder)
    count = -(-ring // size)
    starts = [min(i * size, ring - size) for i in range(count)]
    ranges = {
        i: Trajectory(*(np.ascontiguousarray(x[:, start : start + size]) for x in rows))
        for i, start in enumerate(starts)
    }
    return files.write(RowChunks(ring, size, total, ranges))


def ring_of(total, ring, lanes=2):
    """A ring after `total` rows of each lane; the action of row i of lane b is (i + 7 b) % 200."""
    fields = {}
    for name in Trajectory._fields:
        fields[name] = np.zeros((lanes, ring, 3) if name == "frame" else (lanes, ring), np.int32)
    for i in range(total):
        fields["action"][:, i % ring] = (i + 7 * np.arange(lanes)) % 200
    return Trajectory(**fields)


@pytest.mark.parametrize("total", [10, 11, 17, 40])
def test_rows_of_a_replay_come_oldest_first(tmp_path, total):
    saved = saved_rows(tmp_path, ring_of(total, 10), total, 10, 4)
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
    check_library({**document, "selection": found}, Path("x"))


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
        assert each["saved_bits_per_action"] < 0.1 and each["also_macros"] == 0
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
    shown = shown_macros(FOUR)
    assert [x["actions"] for x in shown.macros] == [[2, 3], [1, 2, 2]]
    assert shown.of == "sound macros"
    chosen = {**FOUR, "selection": selection(((1, 2, 2), 9.0), ((3, 3), 5.0))}
    assert [x["actions"] for x in shown_macros(chosen).macros] == [[1, 2, 2], [2, 3]]
    none = library(macro((2, 2), 5), macro((3, 3), 9, status="refuted"))
    assert [x["actions"] for x in shown_macros(none).macros] == [[3, 3], [2, 2]]
    assert "none of them sound" in shown_macros(none).of


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


# Trees.


def small_tree(parent, edge, chance, entropy, visits=None):
    visits = np.ones(len(parent), np.int64) if visits is None else np.array(visits)
    fields = (np.array(parent), np.array(edge), visits, np.array(chance, bool))
    return SmallTree(*fields, np.array(entropy, np.float64), num_actions=4)


# root 0 -RIGHT-> chance 1 -> 2 -FIRE-> chance 3 -> 4; 2 -LEFT, collapsed-> 5; root -NOOP-> chance 6
TREE = small_tree(
    parent=[-1, 0, 1, 2, 3, 2, 0, 6],
    edge=[-1, 2, 4, 1, 5, 3, 0, 4],
    chance=[0, 1, 0, 1, 0, 0, 1, 0],
    entropy=[0, 0.1, 0, 0.2, 0, 0.05, 0.9, 0],
    visits=[20, 12, 11, 6, 5, 3, 4, 3],
)


def test_chains_by_hand():
    found = {chain.nodes[-1]: chain for chain in chains(TREE, 0.4, 6)}
    assert set(found) == {2, 4, 5}  # 7 follows an uncertain transition
    assert found[4] == Chain((0, 1, 2, 3, 4), (2, 1), (0.1, 0.2))
    assert found[5] == Chain((0, 1, 2, 5), (2, 3), (0.1, 0.05))  # no chance node in between
    assert {c.nodes[-1]: c.actions for c in chains(TREE, 0.4, 1)} == {2: (2,), 4: (1,), 5: (3,)}
    assert {c.actions for c in chains(TREE, 0.15, 6)} == {(2,), (2, 3)}
    best = best_chain(TREE, 0.4, 6, set())
    assert best is not None and best.actions == (2, 1)  # as long as the other, searched more
    best = best_chain(TREE, 0.4, 6, {(2, 3)})
    assert best is not None and best.actions == (2, 3)
    assert best_chain(TREE, 0.01, 6, set()) is None


def test_why_a_chain_ends_by_hand():
    """From node 4 nothing was searched; from node 2 on it goes, surely or not, by the threshold."""
    whole, part = Chain((0, 1, 2, 3, 4), (2, 1), (0.1, 0.2)), Chain((0, 1, 2), (2,), (0.1,))
    assert why_it_ends(TREE, whole, 0.4, 6) == "leaf: the search went no further"
    assert "entropy from 0.05 over 0.02 on" in why_it_ends(TREE, part, 0.02, 6)
    assert why_it_ends(TREE, part, 0.4, 1) == "a macro has 1 actions at most"
    assert "no known macro goes on" in why_it_ends(TREE, part, 0.4, 6)
    # The same with 5 behind a chance node that was searched no further, and 3 uncertain.
    chance, entropy = TREE.is_chance.copy(), TREE.entropy.copy()
    chance[5], entropy[3] = True, 0.9
    begun = TREE._replace(is_chance=chance, entropy=entropy)
    assert why_it_ends(begun, part, 0.4, 6).startswith("leaf: the search began what is certain")
    one = TREE._replace(visits=np.array([20, 12, 11, 6, 5, 0, 4, 3]))
    assert "entropy 0.20 over 0.1 on" in why_it_ends(one, part, 0.1, 6)


def test_of_known_chains_one_that_an_uncertain_transition_ends_is_shown():
    """Both are known and of two actions; from 4 on it is uncertain, from 5 nothing was searched."""
    longer = small_tree(
        parent=[*TREE.parent, 4],
        edge=[*TREE.edge, 1],
        chance=[*TREE.is_chance, 1],
        entropy=[*TREE.entropy, 0.7],
        visits=[20, 12, 11, 6, 2, 9, 4, 3, 1],
    )
    best = best_chain(longer, 0.4, 6, {(2, 1), (2, 3)})
    assert best is not None and best.actions == (2, 1)
    best = best_chain(longer, 0.8, 6, {(2, 1), (2, 3)})  # nothing is uncertain: visits decide
    assert best is not None and best.actions == (2, 3)
    assert most_visited_path(longer) == [0, 1, 2, 5]
    assert most_visited_path(TREE) == [0, 1, 2, 3, 4]


def random_tree(rng, size):
    parent, chance = [-1], [0]
    for node in range(1, size):
        above = int(rng.integers(node))
        parent.append(above)
        chance.append(0 if chance[above] else int(rng.random() < 0.7))
    edge = [-1, *(int(x) for x in rng.integers(0, 4, size - 1))]
    visits = np.ones(size, np.int64)
    for node in range(size - 1, 0, -1):
        visits[parent[node]] += visits[node]
    return small_tree(parent, edge, chance, rng.random(size), visits)


def test_chains_as_a_walk_from_above_finds_them():
    """The longest chain to a node is the longest of all walks down that end there."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        tree = random_tree(rng, 30)
        best: dict[int, int] = {}

        def walk(node, length, tree=tree, best=best):
            for child in np.flatnonzero(tree.parent == node).tolist():
                ends = (
                    [child]
                    if not tree.is_chance[child]
                    else np.flatnonzero(tree.parent == child).tolist()
                )
                for end in ends:
                    if tree.entropy[child] < 0.6:
                        best[end] = max(best.get(end, 0), length + 1)
                        walk(end, length + 1)

        for start in np.flatnonzero(~tree.is_chance).tolist():
            walk(start, 0)
        assert {c.nodes[-1]: len(c.actions) for c in chains(tree, 0.6, 99)} == best


def test_the_nodes_drawn_are_one_tree_with_the_chain():
    rng = np.random.default_rng(4)
    for _ in range(10):
        tree = random_tree(rng, 100)
        end = int(rng.integers(100))
        kept = kept_nodes(tree, (end,), 40)
        assert len(kept) == 40 and end in kept and kept[0] == 0
        assert all(int(tree.parent[node]) in kept for node in kept[1:])
        ancestors = {end}
        while (end := int(tree.parent[end])) >= 0:
            ancestors.add(end)
        least = min(tree.visits[node] for node in set(kept) - ancestors)
        assert all(tree.visits[node] <= least for node in set(range(100)) - set(kept))
        places = layout({n: int(tree.parent[n]) for n in kept[1:]}, kept)
        assert len(set(places.values())) == 40
        for node in kept[1:]:
            assert places[node][0] == places[int(tree.parent[node])][0] + 1
        leaves = [n for n in kept if n not in {int(tree.parent[x]) for x in kept[1:]}]
        assert sorted(places[n][1] for n in leaves) == list(range(len(leaves)))


def texts(figure):
    """All texts of a figure."""
    from matplotlib.text import Text

    return [x.get_text() for x in figure.findobj(Text) if x.get_text()]


def test_the_tree_figure_marks_its_chain():
    chain = best_chain(TREE, 0.4, 6, set())
    assert chain is not None
    figure = tree_figure(Decided(2, 7, TREE, chain), FOUR, tree_threshold=0.4)
    said = " | ".join(texts(figure))
    assert "RIGHT → FIRE" in said and "game 2, step 7" in said and "all 8 nodes" in said
    assert "the chain is not in the library" in said and "root, 20 visits" in said
    (axes,) = figure.axes

    def by_colour(found):
        return Counter(colours.to_hex(each).upper() for each in found)

    # Only the chain's four edges have a colour; but for them 2 to 5 is certain, 6 and 7 are not.
    assert by_colour(x.get_color() for x in axes.lines) == {GREEN.upper(): 4, PALE: 3}
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert by_colour(x.get_color() for x in dotted) == {PALE: 2}
    round_, square, hollow, ring = axes.collections
    sizes = [len(x.get_offsets()) for x in (round_, square, hollow, ring)]
    assert sizes == [5, 1, 2, 1]  # 6 is an uncertain chance node, 1 and 3 are certain ones
    assert by_colour(round_.get_facecolors()) == {GREEN.upper(): 3, GREY.upper(): 2}
    assert by_colour(hollow.get_facecolors()) == {"#FFFFFF": 1}
    assert by_colour(hollow.get_edgecolors()) == {GREEN.upper(): 2}
    assert max(hollow.get_sizes()) < min(square.get_sizes())
    assert "the chain ends: leaf: the search went no further" in said
    (end,) = ring.get_offsets()
    assert tuple(end) == tuple(round_.get_offsets()[[0, 2, 4, 5, 7].index(4)])
    bold = [x.get_text() for x in axes.texts if x.get_fontweight() == "bold"]
    assert sorted(bold) == ["FIRE", "RIGHT"]
    # The chain is the most visited path; nothing was searched from its end.
    numbers = [x.get_text() for x in axes.texts if x.get_text().startswith("0.")]
    assert sorted(numbers) == ["0.10", "0.20"]
    other = Chain((0, 1, 2), (2,), (0.1,))
    figure = tree_figure(Decided(2, 7, TREE, other), FOUR, tree_threshold=0.4)
    numbers = [x.get_text() for x in figure.axes[0].texts if x.get_text().startswith("0.")]
    assert sorted(numbers) == ["0.05", "0.10", "0.20"]  # and what was searched from node 2
    assert certain_nodes(TREE, 0.4) == {1, 2, 3, 4, 5}
    few = tree_figure(Decided(1, 0, TREE, chain), FOUR, tree_threshold=0.4, most=6)
    assert "6 of 8 nodes" in " ".join(texts(few)) and len(few.axes[0].lines) == 5


# The timeline.


def test_the_timeline_shows_each_macro_where_it_is_followed():
    played = game(
        [1, 2, 2, 0, 2, 3, 2, 3, 0, 0],
        score=[0, 0, 0, 1, 1, 1, 1, 1, 5, 5, 5],
        entropy=[0.1] * 6 + [0.3] + [0.1] * 3,
        ends=(8,),
    )
    short = game([0, 0, 1], number=2)
    figure = timeline_figure([short, played], FOUR, play_threshold=0.2)
    top, middle, below = figure.axes
    assert [x.get_text() for x in below.get_yticklabels()] == [
        "RIGHT → LEFT",
        f"FIRE → RIGHT {TIMES}2",
    ]
    spans = {
        place: sorted(tuple(path.get_extents().intervalx) for path in bars.get_paths())
        for place, bars in enumerate(below.collections)
    }
    assert spans == {0: [(4, 6), (6, 8)], 1: [(0, 3)]}
    said = " | ".join(texts(figure))
    assert "Game 1: 70% of the steps lie in sound macros" in said
    assert "certain\nbelow 0.2" in said and "step of the game" in said and "score" in said
    assert top.lines[0].get_ydata().tolist() == played.score.tolist()
    assert [x.get_text() for x in figure.legends[0].get_texts()] == [
        "sound",
        "faint: not held certain there",
    ]
    assert "50% of the steps in macros of which every" in said
    assert below.collections[0].get_facecolor()[:, 3].tolist() == [1, 0.3]
    assert below.get_xlim() == (0, 10) and middle.get_ylim()[0] == 0


def test_the_macros_beyond_the_rows_share_one(monkeypatch):
    monkeypatch.setattr(timeline, "ROWS", 1)
    figure = timeline_figure([game([1, 2, 2, 2, 3, 0])], FOUR, play_threshold=0.2)
    below = figure.axes[2]
    labels = [x.get_text() for x in below.get_yticklabels()]
    assert labels == [f"FIRE → RIGHT {TIMES}2", "other macros"]
    (path,) = below.collections[1].get_paths()
    assert tuple(path.get_extents().intervalx) == (3, 5)


def test_a_timeline_without_macros_says_so():
    figure = timeline_figure([game([0, 0, 0])], library(), play_threshold=0.2)
    assert "no macro of the library is followed here" in texts(figure)


def test_a_long_game_is_cut_to_the_steps_with_the_most_macros():
    spans = [Span(start, (1, 2)) for start in (5, 700, 702, 710)]
    start, stop = stretch(1000, spans, 20)
    assert stop - start == 20 and start <= 700 and stop >= 712
    assert stretch(15, spans, 20) == (0, 15)
    covered = {step for span in spans for step in range(span.start, span.stop)}
    best = max(len(covered & set(range(a, a + 20))) for a in range(981))
    assert len(covered & set(range(start, stop))) == best


# Strips.


def test_strips_show_certain_occurrences_that_pay():
    frames = np.zeros((13, 2, 2), np.uint8)
    frames[9] = 200
    first = game(
        [2, 3, 0, 2, 3, 0, 0, 2, 3, 1, 2, 2],
        score=[0] * 4 + [1] * 9,
        entropy=[0.9] + [0.1] * 11,
        frames=frames,
        first=50,
    )
    strips = choose_strips([first], FOUR, 0.2)
    assert [(s.macro["actions"], s.start, s.certain) for s in strips] == [
        ([2, 3], 3, True),  # 7 changes more, but does not pay; 0 is not certain
        ([1, 2, 2], 9, True),
    ]
    assert strips[0].steps == [53, 54, 55]
    unsure = first._replace(entropy=np.full(12, 0.5))
    assert [s.certain for s in choose_strips([unsure], FOUR, 0.2)] == [False, False]
    assert len(choose_strips([first], FOUR, 0.2, most=1)) == 1
    nested = library(macro((1, 2, 2), 9), macro((2, 2), 8), macro((2, 3), 7))
    found = choose_strips([first], nested, 0.2)
    assert [s.macro["actions"] for s in found] == [[1, 2, 2], [2, 3]]
    assert choose_strips([game([0, 0])], FOUR, 0.2) == []
    # 2 3 0 and 3 0 1 share steps wherever they occur: the second would show the same event.
    same = library(macro((2, 3, 0), 9), macro((3, 0, 1), 8))
    found = choose_strips([game([2, 3, 0, 1, 2, 2])], same, 0.2)
    assert [s.macro["actions"] for s in found] == [[2, 3, 0]]
    found = choose_strips([game([2, 3, 0, 1, 2, 3, 0])], same, 0.2)
    assert len(found) == 1 or not set(found[0].steps[:-1]) & set(found[1].steps[:-1])


def test_strips_avoid_rewards_that_the_screen_shows_late():
    """Actions 0, 3 and 7 begin the macro; action i pays score[i + 1] - score[i]."""
    one = library(macro((2, 3), 9))

    def chosen(*score):
        played = game([2, 3, 0, 2, 3, 0, 0, 2, 3, 0], score=score)
        return choose_strips([played], one, 0.2)[0]

    # 1 pays: the last of 0. 2 pays: just before 3. 7 pays: the first of 7.
    assert chosen(0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3)[2] == 7
    # 1 and 8, the last ones of 0 and 7, pay: rather none than one that the screen shows late.
    found = chosen(0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2)
    assert (found.start, found.late) == (3, False)
    # 1, 2 and 8 pay: all are late, which is said.
    found = chosen(0, 0, 1, 2, 2, 2, 2, 2, 2, 3, 3)
    assert found.late
    figure = strips_figure([found], lambda step: Image.new("RGB", (8, 6)), one)
    assert "; the score on the screen may be a step late)" in " ".join(texts(figure))


def test_strips_lie_a_macro_apart_in_whichever_game():
    two = library(macro((2, 3), 9), macro((1, 1, 1), 8))
    first, other = game([2, 3, 0, 0, 1, 1, 1]), game([0, 0, 0, 1, 1, 1], number=2)
    (found,) = choose_strips([first], two, 0.2)  # 2 steps between, and 3 are asked for
    assert found.macro["actions"] == [2, 3]
    assert len(choose_strips([first, other], two, 0.2)) == 1
    later = game([0, 0, 0, 0, 0, 1, 1, 1], number=2)
    assert [x.start for x in choose_strips([first, later], two, 0.2)] == [0, 5]


def test_strips_and_the_timeline_agree_on_what_is_held_certain():
    played = game([2, 3, 0, 0, 0, 2, 3, 0], entropy=[0.1, 0.2, 0, 0, 0, 0.1, 0.19, 0.9])
    (strip,) = choose_strips([played], library(macro((2, 3), 9)), 0.2)
    assert (strip.start, strip.certain) == (5, True)
    figure = timeline_figure([played], library(macro((2, 3), 9)), play_threshold=0.2)
    bars = figure.axes[2].collections[0]
    drawn = zip(bars.get_paths(), bars.get_facecolor()[:, 3], strict=True)
    solid = {path.get_extents().x0: opacity == 1 for path, opacity in drawn}
    assert solid == {0: False, 5: True}


def test_a_strip_has_a_picture_for_each_step():
    def picture(step):
        image = Image.new("RGB", (8, 6), "#404040")
        image.putpixel((step % 8, 2), (255, 255, 255))
        return image

    played = game([1, 2, 2, 2, 3], score=[0, 0, 1, 1, 1, 1], first=10)
    strips = [Strip(FOUR["macros"][2], played, 0, True), Strip(FOUR["macros"][1], played, 3, False)]
    figure = strips_figure(strips, picture, FOUR)
    panels = figure.axes
    assert len(panels) == 5 + 4
    titles = [axes.get_title() for axes in panels]
    assert titles[:5] == ["before", "after FIRE", "after RIGHT", "after RIGHT", "what changed"]
    assert titles[5:] == ["before", "after RIGHT", "after LEFT", "what changed"]
    for axes, step in zip(panels[:4], range(10, 14), strict=True):
        assert np.array_equal(axes.images[0].get_array(), np.asarray(picture(step)))
    said = " | ".join(texts(figure))
    assert f"FIRE → RIGHT {TIMES}2   (sound; held certain; game 1, step 0; reward 1)" in said
    assert "not held certain here; game 1, step 3; reward 0" in said
    legend = {x.get_text() for x in figure.legends[0].get_texts()}
    assert legend == {"gone since the start", "come since the start"}
    difference = changed(picture(2), picture(5))
    red, blue = (tuple(difference[2, x]) for x in (5, 2))
    assert red == tuple(int(x * 255 + 0.5) for x in colours.to_rgb(VERMILLION))
    assert blue == tuple(int(x * 255 + 0.5) for x in colours.to_rgb("#0072B2"))
    assert len({tuple(x) for x in difference.reshape(-1, 3)}) == 3


def test_strips_of_nothing_say_so():
    figure = strips_figure([], lambda step: Image.new("RGB", (1, 1)), FOUR)
    assert "no macro of the library occurred in the games played" in texts(figure)


# The report.


def test_a_report_tells_of_a_dead_gate_and_of_prefixes(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=4)

    def told(document):
        write_macros_json(path / "macros.json", document)
        run = load_run(path)
        return run, " ".join(find_warnings([run]))

    run, text = told(FOUR)
    assert "No macro is sound" not in text and "prefixes" not in text
    assert run.problems == [] and "2 sound, 1 refuted" in macro_lines(run)[0]
    assert "not measured; experiments.macros does" in macro_lines(run)[1]
    run, text = told(library(certain=0))
    assert "The gate that closed: certainty: no certain windows" in text
    full = library(*(macro((2,) * n, 9) for n in (2, 3, 4)))
    run, text = told({**full, "selection": selection(((2, 2), 7.5), of="table")})
    assert "too few trials" in text and "67% of the macros" in text
    assert "none of which is sound" in macro_lines(run)[1]
    (name, (head, rows)), *_ = macro_tables(run)
    assert name == "Library by compression" and rows[0][head.index("saves bits")] == "7.5"
    (path / "macros.json").write_text('{"schema": 3, "macros": []}')
    assert "a newer version wrote it" in load_run(path).problems[0]


# All of it, with a model.


def test_a_run_is_looked_at_from_end_to_end(tiny_run, tmp_path, capsys):
    import shutil

    from experiments import macros as command
    from smz_jax.checkpoint import CheckpointStore
    from smz_jax.report import build_report

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert command.main([str(run), "--games", "2", "--max_steps", "30"]) == 0
    out = capsys.readouterr().out
    document = read_macros_json(run / "macros.json")
    found = document["selection"]
    assert found["play"]["source"] == "replay" and "library by compression:" in out
    # Each lane's rows less the newest one, and less those whose action a new game ignored.
    (first,) = CheckpointStore(run).read_fields(4, ("is_first",))
    assert found["play"]["actions"] == first.size - len(first) - first[:, 1:].sum()
    assert found["bits_per_action"] <= found["bits_per_action_plain"]
    assert ("no macro is sound" in out) == (found["of"] == "table")
    drawn = [name for name in (session.TIMELINE, session.TREE, session.STRIPS) if name in out]
    assert drawn == [session.TIMELINE, session.TREE, session.STRIPS]
    assert all((run / "figures" / f"{name}.png").stat().st_size > 10_000 for name in drawn)
    page = build_report([run]).read_text("utf-8")
    assert all(f'id="{name}"' in page for name in drawn)
    assert "bits per action" in page and "The gate that closed" in page
    sums = hashlib.sha256((run / "macros.json").read_bytes()).hexdigest()
    assert command.main([str(run), "--table", "--sort", "saving", "--top", "3"]) == 0
    assert hashlib.sha256((run / "macros.json").read_bytes()).hexdigest() == sums


def of_other_actions(document):
    document["action_names"].append("UP")
    return "action_names.*UP.*those of the model: "


def of_longer_macros(document):
    document["config"]["max_length"] = 8
    entry = document["macros"][0]
    entry["actions"] = entry["actions"][:1] * 8
    entry["names"] = decode(entry["actions"], document["action_names"])
    entry["length"] = 8
    return r"length = 8.*at most macro\.max_length = \d"


@pytest.mark.parametrize("change", [of_other_actions, of_longer_macros])
@pytest.mark.parametrize("source", ["replay", "games"])
def test_a_library_of_another_game_is_refused_before_anything(
    tiny_run, tmp_path, capsys, change, source
):
    import shutil

    from experiments import macros as command

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    document = read_macros_json(run / "macros.json")
    document["macros"] = document["macros"][:1]
    words = change(document)
    write_macros_json(run / "macros.json", document)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ConfigError, match=words) as error:
        command.main([str(run), "--games", "1", "--max_steps", "5", "--play", source])
    assert "\n" not in str(error.value) and capsys.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_an_export_plays_games_and_stays_as_it_is(tiny_run, tmp_path, capsys):
    from experiments import macros as command
    from smz_jax.export import read_files
    from smz_jax.trained import export_run

    export, out = tmp_path / "export", tmp_path / "out"
    export_run(tiny_run, export, "last")
    before = read_files(export)
    arguments = [str(export), "--games", "3", "--max_steps", "20", "--out", str(out)]
    assert command.main(arguments) == 0
    assert read_files(export) == before and not (export / "figures").exists()
    found = read_macros_json(out / "macros.json")["selection"]
    assert found["play"]["source"] == "games" and found["play"]["pieces"] >= 3
    assert (out / "figures" / "macro_timeline.png").exists()
    with pytest.raises(ConfigError, match=r"play = 'replay'.*games"):
        command.main([*arguments, "--play", "replay"])


def test_uses_of_grey_are_those_of_candidates():
    figure = timeline_figure([game([2, 2, 2, 2])], library(macro((2, 2), 9)), play_threshold=0.2)
    (bars,) = figure.axes[2].collections
    assert colours.to_hex(bars.get_facecolor()[0]).upper() == GREY.upper()
    assert [x.get_text() for x in figure.legends[0].get_texts()] == ["candidate"]
