"""Played actions as uninterrupted pieces: out of a run's replay, or of games that were watched."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from smz_jax.storage.checkpoint import CheckpointStore

NEWEST = 50_000
"""So many of the newest actions of a replay are measured: all of a long run's would take minutes,
and the oldest are those of a player who had not learned."""


def pieces_of(action: np.ndarray, is_first: np.ndarray, discount: np.ndarray) -> list[np.ndarray]:
    """The uninterrupted pieces of one lane's rows.

    Args:
        action: `[T]` int.
        is_first: `[T]` bool; the row before one with it holds an action that was ignored.
        discount: `[T]`, 0 where the action ended a life or a game.

    Returns:
        1-D arrays, int32. As for macros (`macros.play_windows`) a piece may end with a lost life
        and never reaches over one. The newest row is left out: whether its action counted is told
        by the next one.
    """
    real = ~is_first[1:]
    pieces: list[list[int]] = [[]]
    for index in range(len(action) - 1):
        if not real[index]:
            pieces.append([])
            continue
        pieces[-1].append(int(action[index]))
        if discount[index] == 0:
            pieces.append([])
    return [np.array(piece, np.int32) for piece in pieces if piece]


def replay_pieces(run_dir: Path, lanes: int, newest: int = NEWEST) -> list[np.ndarray]:
    """The newest actions that a run's last checkpoint keeps in its replay, lane by lane.

    Args:
        run_dir: folder of a run.
        lanes: of its environment.
        newest: actions of all lanes together at most.

    Returns:
        Pieces as `pieces_of`; empty if the checkpoint holds no rows.

    Raises:
        ConfigError: in one line, if there is no good checkpoint.
    """
    fields = ("action", "is_first", "discount")
    rows = CheckpointStore(run_dir).read_fields(lanes, fields)
    if not rows:
        return []
    action, is_first, discount = rows
    start = max(0, action.shape[1] - newest // len(action))
    return [
        piece
        for lane in range(len(action))
        for piece in pieces_of(action[lane, start:], is_first[lane, start:], discount[lane, start:])
    ]


def has_replay(run_dir: Path) -> bool:
    """Whether the run has a last checkpoint, which holds its replay."""
    return CheckpointStore(run_dir).exists("last")


def count_actions(pieces: Iterable[np.ndarray]) -> int:
    """How many actions pieces hold together."""
    return sum(len(piece) for piece in pieces)
