"""Players of two of pgx's boards that no one here trained: by search of the rules, in NumPy.

They read what the agent sees: a frame `[H, W, 2]` of the mover's stones and of the other's.
"""

import functools

import numpy as np

from smz_jax.envs.opponents import ByFrames, Opponent

LINES = np.array(
    [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
)
"""Cells of each line of tic-tac-toe."""
_LINES = tuple(sum(1 << int(cell) for cell in line) for line in LINES)
FULL = (1 << 9) - 1
ROWS, COLUMNS = 6, 7
MIDDLE_FIRST = (3, 2, 4, 1, 5, 0, 6)
DEPTH = 4
"""Moves that the player of connect four looks ahead."""
WON = 1000


def has_line(stones: int) -> bool:
    """Whether a set of cells of tic-tac-toe, a bit each, holds a line."""
    return any(stones & line == line for line in _LINES)


@functools.cache
def best_moves(own: int, other: int) -> tuple[int, tuple[int, ...]]:
    """The value for who moves in tic-tac-toe (1, 0 or -1), and all moves that keep it.

    `own` and `other` are sets of cells, a bit each; the game is not over.
    """
    values = {}
    for cell in (x for x in range(9) if not (own | other) >> x & 1):
        after = own | 1 << cell
        if has_line(after):
            values[cell] = 1
        elif after | other == FULL:
            values[cell] = 0
        else:
            values[cell] = -best_moves(other, after)[0]
    best = max(values.values())
    return best, tuple(cell for cell, value in values.items() if value == best)


def bits_of(frames: np.ndarray) -> list[tuple[int, int]]:
    """The mover's and the other's stones of frames `[B, H, W, 2]`, a bit for each cell."""
    planes = frames.reshape(len(frames), -1, 2).astype(np.int64)
    places = np.int64(1) << np.arange(planes.shape[1])
    return [(int(own), int(other)) for own, other in (planes * places[:, None]).sum(axis=1)]


def make_tic_tac_toe_player(seed: int) -> Opponent:
    """Exact play of tic-tac-toe; of moves that are as good, one at random."""
    generator = np.random.default_rng(seed)

    def act(frames: np.ndarray) -> np.ndarray:
        actions = []
        for own, other in bits_of(frames):
            over = has_line(own) or has_line(other) or own | other == FULL
            actions.append(0 if over else generator.choice(best_moves(own, other)[1]))
        return np.array(actions, np.int32)

    return ByFrames(act)


def _windows() -> tuple[int, ...]:
    """Every four cells in a line of connect four; cell 7 row + column, row 0 on top."""
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y, x in np.ndindex(ROWS, COLUMNS):
            if y + 3 * dy < ROWS and 0 <= x + 3 * dx < COLUMNS:
                found.append(sum(1 << (COLUMNS * (y + k * dy) + x + k * dx) for k in range(4)))
    return tuple(found)


_FOURS = _windows()
_THROUGH = tuple(tuple(four for four in _FOURS if four >> cell & 1) for cell in range(42))


def drop(filled: int, column: int) -> int:
    """The cell that a stone in a column of connect four falls to; -1: the column is full."""
    cells = range(COLUMNS * (ROWS - 1) + column, -1, -COLUMNS)
    return next((cell for cell in cells if not filled >> cell & 1), -1)


def _threes(own: int, other: int) -> int:
    """Lines of four of which a player holds three and no one the fourth."""
    return sum((four & own).bit_count() == 3 and not four & other for four in _FOURS)


def look_ahead(own: int, other: int, depth: int, low: int, high: int) -> tuple[int, int]:
    """The value of connect four for who moves, and the best column, by alpha-beta.

    A win counts `WON` and the moves that would have been left; where the search ends, a position
    counts the lines with three stones of one's own less those of the other. Between `low` and
    `high` the value is exact; at no valid move it is 0 and the column -1.
    """
    if depth == 0:
        return _threes(own, other) - _threes(other, own), -1
    best, chosen = -WON * 10, -1
    for column in MIDDLE_FIRST:
        cell = drop(own | other, column)
        if cell < 0:
            continue
        after = own | 1 << cell
        if any(four & after == four for four in _THROUGH[cell]):
            return WON + depth, column
        value = -look_ahead(other, after, depth - 1, -high, -low)[0]
        if value > best:
            best, chosen = value, column
        low = max(low, best)
        if low >= high:
            break
    return (best, chosen) if chosen >= 0 else (0, -1)


def make_connect_four_player(seed: int) -> Opponent:
    """Connect four by alpha-beta of `DEPTH` moves; the first stone of each is dropped at random."""
    generator = np.random.default_rng(seed)

    def act(frames: np.ndarray) -> np.ndarray:
        actions = []
        for own, other in bits_of(frames):
            if not own:
                actions.append(int(generator.integers(COLUMNS)))
                continue
            column = look_ahead(own, other, DEPTH, -WON * 10, WON * 10)[1]
            actions.append(max(column, 0))
        return np.array(actions, np.int32)

    return ByFrames(act)
