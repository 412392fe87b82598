"""Figures of macros: the timeline of a game, and strips of its frames."""

import matplotlib.colors as colours
import numpy as np
from PIL import Image

from smz_jax.analysis.view import game_figures
from smz_jax.analysis.view.game_figures import (
    Strip,
    changed,
    choose_strips,
    stretch,
    strips_figure,
    timeline_figure,
)
from smz_jax.analysis.view.watched_games import Span
from smz_jax.report.style import GREY, VERMILLION
from smz_jax.storage.documents.macro_form import TIMES
from tests.macros.test_macro_listing import FOUR, library, macro
from tests.support.look_parts import game, texts

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
        "faint: not certain there",
    ]
    assert "50% of the steps lie in macros whose transitions" in said
    assert below.collections[0].get_facecolor()[:, 3].tolist() == [1, 0.3]
    assert below.get_xlim() == (0, 10) and middle.get_ylim()[0] == 0


def test_the_macros_beyond_the_rows_share_one(monkeypatch):
    monkeypatch.setattr(game_figures, "ROWS", 1)
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
    assert "; screen a step late)" in " ".join(texts(figure))


def test_strips_lie_a_macro_apart_in_whichever_game():
    two = library(macro((2, 3), 9), macro((1, 1, 1), 8))
    first, other = game([2, 3, 0, 0, 1, 1, 1]), game([0, 0, 0, 1, 1, 1], number=2)
    (found,) = choose_strips([first], two, 0.2)  # 2 steps between, and 3 are needed
    assert found.macro["actions"] == [2, 3]
    assert len(choose_strips([first, other], two, 0.2)) == 1
    later = game([0, 0, 0, 0, 0, 1, 1, 1], number=2)
    assert [x.start for x in choose_strips([first, later], two, 0.2)] == [0, 5]


def test_strips_and_the_timeline_agree_on_what_is_certain():
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
    assert f"FIRE → RIGHT {TIMES}2   (sound; certain; game 1, step 0; reward 1)" in said
    assert "not certain here; game 1, step 3; reward 0" in said
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


def test_uses_of_grey_are_those_of_candidates():
    figure = timeline_figure([game([2, 2, 2, 2])], library(macro((2, 2), 9)), play_threshold=0.2)
    (bars,) = figure.axes[2].collections
    assert colours.to_hex(bars.get_facecolor()[0]).upper() == GREY.upper()
    assert [x.get_text() for x in figure.legends[0].get_texts()] == ["candidate"]
