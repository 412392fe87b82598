"""Solved positions of connect four: the solver by brute force, the file, shares by hand."""

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smz_jax.analysis.requests import EvaluateRequest
from smz_jax.analysis.rules import positions
from smz_jax.analysis.rules.positions import (
    FULL,
    MARKS,
    Solved,
    check_positions,
    judge_columns,
    read_positions,
)
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import Turn, make_env, opponents_of
from smz_jax.model import steps
from smz_jax.report.data import RunData
from smz_jax.report.matches import has_matches, match_tables
from tests.support.solved_positions import PLIES, Solver, bits_of, draw_positions

SOLVED = read_positions()
CONNECT_FOUR = EnvConfig(suite="pgx", id="connect_four", frame_stack=1)


def has_four(columns, side):
    """Whether a side has a line on a board of strings, one for each column from the bottom up."""
    at = [(x, y) for x, column in enumerate(columns) for y, z in enumerate(column) if z == side]
    ways = ((0, 1), (1, 0), (1, 1), (1, -1))
    return any(
        all((x + k * dx, y + k * dy) in at for k in range(4)) for x, y in at for dx, dy in ways
    )


@functools.cache
def brute_force(columns, side):
    """The outcome for who moves, and of each column, without any cut."""
    other, found = "ab"[side == "a"], []
    for x, column in enumerate(columns):
        if len(column) == 6:
            found.append(FULL)
            continue
        after = (*columns[:x], column + side, *columns[x + 1 :])
        found.append(1 if has_four(after, side) else -brute_force(after, other)[0])
    return (max(found) if max(found) > FULL else 0), found


def columns_of(stones):
    """The same position as `brute_force` has it, and who moves."""
    columns = [""] * 7
    for number, x in enumerate(map(int, stones)):
        columns[x] += "ab"[number % 2]
    return tuple(columns), "ab"[len(stones) % 2]


def test_the_solver_is_minimax_without_cuts():
    draw, solver, seen = np.random.default_rng(0), Solver(), set()
    checked = 0
    while checked < 150:
        stones = ""
        for _ in range(draw.integers(33, 42)):
            columns, side = columns_of(stones)
            safe = [
                x
                for x in range(7)
                if len(columns[x]) < 6
                and not has_four((*columns[:x], columns[x] + side, *columns[x + 1 :]), side)
            ]
            if not safe:
                break
            stones += str(draw.choice(safe))
        if len(stones) >= 33:
            outcome, moves = brute_force(*columns_of(stones))
            assert solver.of_moves(*bits_of(stones)) == moves
            seen |= {(outcome, x) for x in moves}
            checked += 1
    assert {(1, 1), (1, 0), (1, -1), (0, 0), (0, -1), (-1, -1)} <= seen


def test_stored_positions_are_solved():
    """A sample of every number of stones, by the maker; and the file's beginning, drawn anew."""
    solver, lengths = Solver(), list(map(len, SOLVED.stones))
    assert len(lengths) == 500 == len(set(SOLVED.stones))
    assert {lengths.count(length) for length in PLIES} == {33, 34} and set(lengths) == set(PLIES)
    for row in range(37, 500, 31):
        found = solver.of_moves(*bits_of(SOLVED.stones[row]))
        assert found == SOLVED.outcomes[row].tolist()
    assert not (SOLVED.is_best == (SOLVED.outcomes > FULL)).all(axis=1).any()  # each move counts
    lines = positions.PATH.read_text().splitlines()
    drawn = draw_positions(0)
    assert [next(drawn) for _ in range(3)] == lines[1:4] and lines[0].startswith("#")


def test_stored_positions_are_shown_as_the_game_shows_them():
    rows = [0, 1, 14, 15]  # of 16, 17, 30 and 16 stones
    opponent = opponents_of(CONNECT_FOUR)["alpha_beta"].make(0)
    full = SOLVED.outcomes == FULL
    turn = Turn(SOLVED.frames[rows], full[rows].astype(np.float32), np.arange(len(rows)))
    assert opponent.act(turn).tolist() == SOLVED.alpha_beta[rows].tolist()
    env = make_env(CONNECT_FOUR, seed=0, num_envs=len(rows))
    step, longest = env.reset(), max(len(SOLVED.stones[x]) for x in rows)
    for count in range(longest):
        actions = [int((SOLVED.stones[x] + "0" * longest)[count]) for x in rows]
        step = env.step(np.array(actions, np.int32))
        for lane, row in enumerate(rows):
            if len(SOLVED.stones[row]) == count + 1:
                np.testing.assert_array_equal(step.observation[lane, 0], SOLVED.frames[row])
                np.testing.assert_array_equal(step.invalid_actions[lane], full[row])
                assert not step.game_over[lane]
    env.close()


def solved_by_hand():
    """Four positions: won, won, drawn, lost by some moves only in a file of one's own."""
    marks = ("+-=-xx-", "++-----", "=--=---", "---=-xx")
    outcomes = np.array([[MARKS[x] for x in line] for line in marks])
    frames = np.zeros((4, 6, 7, 2), bool)
    frames[:, 0, 0, 0] = [False, True, True, True]
    return Solved(("",) * 4, frames, outcomes, np.array([1, 1, 3, 3]))


def test_shares_by_hand():
    solved = solved_by_hand()
    found = judge_columns(solved, np.array([0, 2, 0, 3]))
    assert found["mean"] == 0.75 and found["wins_kept"] == 0.5
    # Wilson's interval of 3 in 4, by its formula: (p + z^2 / 2n -+ z sqrt(...)) / (1 + z^2 / n).
    assert found["mean_low"] == pytest.approx(0.3006, abs=1e-4)
    assert found["mean_high"] == pytest.approx(0.9544, abs=1e-4)


def test_a_model_is_judged_by_its_search_its_policy_and_its_values(monkeypatch):
    """A policy head that likes full columns best."""
    solved = solved_by_hand()
    monkeypatch.setattr(positions, "read_positions", lambda: solved)
    seen = []

    def predict(networks, params, embedding):
        logits = np.array([[1.0, 0, 0, 0, 9, 9, 0]] * 2 + [[0, 0, 0, 5.0, 0, 0, 0]] * 2)
        return SimpleNamespace(policy_logits=logits, value=params * embedding)

    def choose(frames, invalid):
        seen.append((frames.shape, invalid.dtype, invalid.sum(axis=1).tolist()))
        return np.array([0, 0, 0, 0])

    networks: Any = SimpleNamespace(representation=lambda params, x: x[:, 0, 0, 0, 0] - 0.5)
    monkeypatch.setattr(steps, "predict", predict)
    found = check_positions(networks, np.float32(1.0), choose)
    assert seen == [((4, 6, 7, 2), np.float32, [2, 0, 0, 2])]
    assert {x: y["mean"] for x, y in found["moves"].items()} == {
        "agent": 0.75,
        "policy_head": 0.75,
        "alpha_beta": 0.75,
        "random": pytest.approx((1 / 5 + 2 / 7 + 2 / 7 + 1 / 5) / 4),
    }
    kept = {x: y["wins_kept"] for x, y in found["moves"].items()}
    assert kept["agent"] == 1 and kept["policy_head"] == 0.5 and kept["alpha_beta"] == 0.5
    assert kept["random"] == pytest.approx((1 / 5 + 2 / 7) / 2)
    assert found["count"] == 4 and found["wins_taken_for_losses"] == 0.5


def test_the_page_has_the_positions_and_refuses_what_does_not_fit(tmp_path):
    run = RunData(tmp_path, "a", [])
    run.summary = {"positions": {"moves": {"policy_head": {"mean": 0.5, "wins_kept": 0.25}}}}
    page = match_tables(run)
    assert has_matches(run) and "policy head" in page and "0.25" in page
    for broken in ({}, {"moves": 3}, {"moves": {"agent": 3}}):
        run.summary = {"positions": broken}
        assert has_matches(run) and "<" in match_tables(run)
    for name, value in {"seed": 1, "noise": 0.5, "opponent": "random", "ladder": True}.items():
        with pytest.raises(ConfigError, match="left out with --positions"):
            EvaluateRequest(tmp_path, positions=True, **{name: value})
