"""How many of an agent's moves in connect four are as good as any, by positions solved exactly."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax.analysis.rules.matches import Choose, make_choose, matches_at_the_end
from smz_jax.envs.pgx.board_players import COLUMNS, ROWS
from smz_jax.learning.learner import acting_params
from smz_jax.model import steps
from smz_jax.storage.estimate import wilson
from smz_jax.types import Array, Networks, Params

PATH = Path(__file__).with_name("connect_four.txt")
"""A position a line: the columns of its stones, what each column leads to for who moves, and the
column of alpha-beta. `python -m tests.support.solved_positions` makes it."""
MARKS = {"+": 1, "=": 0, "-": -1, "x": -2}
"""Outcomes with best play of both: won, drawn, lost; x is no move."""
FULL = MARKS["x"]


class Solved(NamedTuple):
    """Positions of connect four in which some moves are better than others."""

    stones: tuple[str, ...]
    """The column of each stone, from the first one on."""
    frames: np.ndarray  # [N, 6, 7, 2] bool, as pgx shows them: the mover's stones, the other's
    outcomes: np.ndarray  # [N, 7] int, for who moves, as in `MARKS`
    alpha_beta: np.ndarray  # [N] int, the column of the player that looks four moves ahead

    @property
    def is_best(self) -> np.ndarray:
        """Which columns keep the outcome of best play, `[N, 7]` bool."""
        return self.outcomes == self.outcomes.max(axis=1, keepdims=True)


def read_positions(path: Path = PATH) -> Solved:
    """The stored positions."""
    lines = [line.split() for line in path.read_text().splitlines() if line[:1] != "#"]
    frames = np.zeros((len(lines), ROWS, COLUMNS, 2), np.bool_)
    for frame, (stones, *_) in zip(frames, lines, strict=True):
        height = [0] * COLUMNS
        for number, column in enumerate(map(int, stones), start=len(stones)):
            frame[ROWS - 1 - height[column], column, number % 2] = True
            height[column] += 1
    outcomes = np.array([[MARKS[x] for x in marks] for _, marks, _ in lines])
    columns = np.array([int(column) for *_, column in lines])
    return Solved(tuple(stones for stones, *_ in lines), frames, outcomes, columns)


def judge_columns(solved: Solved, columns: np.ndarray) -> dict[str, float]:
    """Columns `[N]` that a player drops its stones in, one for each position.

    Returns:
        `mean`: the share of them that keep the outcome of best play, with Wilson's interval
        `mean_low` to `mean_high`; `wins_kept`: the share of the won positions that stay won.
    """
    kept = solved.is_best[np.arange(len(columns)), columns]
    low, high = wilson(kept.mean(), len(kept))
    won = solved.outcomes.max(axis=1) == 1
    mean, wins = float(kept.mean()), float(kept[won].mean())
    return {"mean": mean, "mean_low": float(low), "mean_high": float(high), "wins_kept": wins}


def check_positions(networks: Networks, params: Params, choose: Choose) -> dict[str, Any]:
    """The stored positions as a model plays and values them; one frame an observation.

    Args:
        networks: of the model.
        params: its parameters.
        choose: its greedy play.

    Returns:
        `count` of positions; `moves` of the `agent`, of its `policy_head` alone, of `alpha_beta`
        and of a `random` player, each as `judge_columns`; `wins_taken_for_losses`, the share of
        the won positions that the value head gives a value below 0.
    """
    solved = read_positions()
    full = solved.outcomes == FULL

    @jax.jit
    def judge(params: Params, frames: Array) -> tuple[Array, Array]:
        found = steps.predict(networks, params, networks.representation(params, frames[:, None]))
        return found.policy_logits, found.value

    logits, value = map(np.asarray, judge(params, solved.frames))
    won = solved.outcomes.max(axis=1) == 1
    by_chance = solved.is_best.sum(axis=1) / (~full).sum(axis=1)
    return {
        "count": len(won),
        "moves": {
            "agent": judge_columns(solved, choose(solved.frames, full.astype(np.float32))),
            "policy_head": judge_columns(solved, np.where(full, -np.inf, logits).argmax(axis=1)),
            "alpha_beta": judge_columns(solved, solved.alpha_beta),
            "random": {
                "mean": float(by_chance.mean()),
                "wins_kept": float(by_chance[won].mean()),
            },
        },
        "wins_taken_for_losses": float((value < 0)[won].mean()),
    }


def positions_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches, and in connect four the stored positions: `matches`, `positions` of summary.json."""
    found = matches_at_the_end(parts, state, run_dir)
    if parts.config.env.id != "connect_four" or parts.spec.context > 1:
        return found
    params = acting_params(state.train, parts.config)
    choose = make_choose(parts, state)
    return found | {"positions": check_positions(parts.networks, params, choose)}
