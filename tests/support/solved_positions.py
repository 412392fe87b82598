"""Positions of connect four, solved exactly: `python -m tests.support.solved_positions`.

It writes `smz_jax/analysis/rules/connect_four.txt` anew, in a few minutes. Cells are bits, seven
for each column from the bottom up, of which the seventh is always empty: no line then runs from
one column into the next.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smz_jax.analysis.rules.positions import FULL, MARKS, PATH
from smz_jax.envs.pgx.board_players import COLUMNS, DEPTH, MIDDLE_FIRST, ROWS, WON, look_ahead

HEADER = "Columns of the stones, outcome of each move, column of alpha-beta."
PLIES = range(16, 31)
"""Stones on the board."""
SEED, COUNT = 0, 500
SHARES_AT_RANDOM = (0.1, 0.3, 0.6, 1.0)
"""Of a game's moves; the others are those of alpha-beta, `DEPTH` moves ahead."""
UP = ROWS + 1
"""From a cell to the one on its right."""
FLOOR = sum(1 << UP * column for column in range(COLUMNS))
COLUMN = (1 << ROWS) - 1
CELLS = FLOOR * COLUMN
DIRECTIONS = (1, UP, UP - 1, UP + 1)
MOST_KNOWN = 2_000_000
"""Positions that are remembered: some hundred bytes each."""


def completing(stones: int) -> int:
    """Cells that make four in a line with three of `stones`; stones may lie on them."""
    found = 0
    for step in DIRECTIONS:
        above, below = stones << step, stones >> step
        two_above, two_below = above & stones << 2 * step, below & stones >> 2 * step
        found |= two_above & (stones << 3 * step | below)
        found |= two_below & (stones >> 3 * step | above)
    return found & CELLS


class Solver:
    """Exact outcomes of connect four: alpha-beta to the end, with a table of what is known."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._known: dict[int, tuple[int, int]] = {}  # bounds of a position's outcome

    def of_moves(self, own: int, other: int) -> list[int]:
        """The outcome for who moves of each column: 1 won, 0 drawn, -1 lost, `FULL`."""
        return [self._of_move(own, other, column) for column in range(COLUMNS)]

    def _of_move(self, own: int, other: int, column: int) -> int:
        filled = own | other
        cell = cell_of(filled, column)
        if not cell:
            return FULL
        if completing(own) & cell:
            return 1
        replies = (filled | cell) + FLOOR & CELLS
        if completing(other) & replies:
            return -1
        return -self._outcome(other, own | cell, -1, 1)

    def _outcome(self, own: int, other: int, low: int, high: int) -> int:
        """For who moves, who cannot win at once; exact between `low` and `high`, else a bound."""
        filled = own | other
        moves = filled + FLOOR & CELLS
        if not moves:
            return 0
        threats = completing(other) & ~filled
        if forced := moves & threats:
            if forced & forced - 1:
                return -1
            moves = forced
        moves &= ~(threats >> 1)  # else the other one plays on top, and wins
        if not moves:
            return -1
        key = own << 49 | other
        worst, best = self._known.get(key, (-1, 1))
        if worst >= high or best <= low or worst == best:
            return worst if worst >= high else best
        low, high = max(low, worst), min(high, best)
        found, bound = -1, low
        for cell in self._ordered(own, filled, moves):
            found = max(found, -self._outcome(other, own | cell, -high, -bound))
            bound = max(bound, found)
            if bound >= high:
                break
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known[key] = (
            max(worst, found) if found > low else worst,
            min(best, found) if found < high else best,
        )
        return found

    @staticmethod
    def _ordered(own: int, filled: int, moves: int) -> list[int]:
        """Moves that threaten most first, then those in the middle."""
        cells = [moves & COLUMN << UP * column for column in MIDDLE_FIRST]
        return sorted(
            filter(None, cells), key=lambda x: -(completing(own | x) & ~filled).bit_count()
        )


def bits_of(stones: str) -> tuple[int, int]:
    """A position as the solver takes it, by the columns of its stones: the mover's, the other's."""
    own = other = 0
    for column in map(int, stones):
        own, other = other, own | cell_of(own | other, column)
    return own, other


def cell_of(filled: int, column: int) -> int:
    """The cell that a stone falls to; 0: the column is full."""
    return filled + (1 << UP * column) & COLUMN << UP * column


def alpha_beta(own: int, other: int) -> int:
    """The column of the opponent of that name, which numbers the cells by rows from the top."""
    first, second = (
        sum(
            1 << COLUMNS * (ROWS - 1 - row) + column
            for column, row in np.ndindex(COLUMNS, ROWS)
            if side >> UP * column + row & 1
        )
        for side in (own, other)
    )
    return look_ahead(first, second, DEPTH, -WON * 10, WON * 10)[1]


def draw_game(generator: np.random.Generator, length: int) -> str | None:
    """The columns of a game's first stones; None: it was over before.

    Each game has one share of random moves for both sides, so that good and poor play both occur.
    """
    at_random = generator.choice(SHARES_AT_RANDOM)
    own, other, stones = 0, 0, ""
    while len(stones) < length:
        column = int(generator.choice([x for x in range(COLUMNS) if cell_of(own | other, x)]))
        if stones and generator.random() >= at_random:
            column = alpha_beta(own, other)
        cell = cell_of(own | other, column)
        if completing(own) & cell:
            return None
        own, other, stones = other, own | cell, stones + str(column)
    return stones


def draw_positions(seed: int) -> Iterator[str]:
    """Endless lines of the file: no position twice, nor mirrored, none in which all moves do."""
    generator, solver = np.random.default_rng(seed), Solver()
    marks = {outcome: mark for mark, outcome in MARKS.items()}
    drawn: set[frozenset[tuple[int, int]]] = set()
    number = 0
    while True:
        stones = draw_game(generator, PLIES[number % len(PLIES)])
        if stones is None:
            continue
        mirrored = "".join(str(COLUMNS - 1 - int(x)) for x in stones)
        both = frozenset((bits_of(stones), bits_of(mirrored)))
        outcomes = solver.of_moves(*bits_of(stones))
        if both in drawn or len(set(outcomes) - {FULL}) == 1:
            continue
        drawn.add(both)
        number += 1
        yield f"{stones} {''.join(marks[x] for x in outcomes)} {alpha_beta(*bits_of(stones))}"


def write_positions(path: Path = PATH, count: int = COUNT) -> None:
    """Writes the file anew."""
    found = draw_positions(SEED)
    lines = [next(found) for _ in range(count)]
    path.write_text("\n".join([f"# {HEADER}", *lines]) + "\n")


if __name__ == "__main__":
    write_positions()
