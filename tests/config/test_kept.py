"""Which games are kept, and how that is written."""

import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.kept import Kept, read_keep

SCORES = [3.0, 1.0, 4.0, 1.0, 5.0, 4.0]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"best": 2}, [4, 5]),  # of the two of equal scores the newer one
        ({"best": 3}, [2, 4, 5]),
        ({"best": 5}, [0, 2, 3, 4, 5]),
        ({"best": 99}, [0, 1, 2, 3, 4, 5]),
        ({"newest": 2}, [4, 5]),
        ({"newest": 99}, [0, 1, 2, 3, 4, 5]),
        ({"min_score": 4.0}, [2, 4, 5]),
        ({"min_score": 4.5, "newest": 3}, [4]),
        ({"best": 3, "newest": 4}, [2, 4, 5]),
        ({"best": 3, "newest": 3}, [4, 5]),
        ({"min_score": -1e9}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_game_passes_all_that_is_given(limits, kept):
    assert Kept(**limits).choose(SCORES) == kept


def test_nothing_kept_is_one_line():
    with pytest.raises(ConfigError) as caught:
        Kept(min_score=6.0, best=1).choose(SCORES)
    assert "what is kept = 'best 1, min_score 6.0'" in str(caught.value)
    assert "6 games, scores up to 5" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("all", {}),
        ("best:20", {"best": 20}),
        ("newest:7,best:3", {"best": 3, "newest": 7}),
        (" min_score:-1.5 , best:2", {"min_score": -1.5, "best": 2}),
    ],
)
def test_what_is_kept_in_words(text, limits):
    assert read_keep(text) == Kept(**limits)


WRONG = ("", "best", "best:", "best:0", "best:1.5", "worst:3", "best=3", "best:1,", "9" * 6000)
MORE = ("best:1,best:2", "all,best:1", "min_score:nan", "min_score:inf")


@pytest.mark.parametrize("text", [*WRONG, *MORE])
def test_what_cannot_be_read_is_one_line(text):
    allowed = r"^replay.keep = .* it must be all, or one or more of best:N, "
    with pytest.raises(ConfigError, match=allowed) as caught:
        read_keep(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
