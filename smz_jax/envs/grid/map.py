"""Maps of the grid world: from text, by name, or generated from a seed.

A map is lines of equal length; outside of it is wall. Cells:

    #  wall: a move into it leaves the agent where it is
    .  floor
    S  start, otherwise floor; several share the starts evenly
    ~  slippery: a move *from* it goes where it was meant to with probability 1 - slip, and to the
       left and the right of that with slip / 2 each (1/3 each by default)
    $  coin: every step that ends on it pays +prize with probability prize_prob, else -prize; the
       agent then sees which: no encoder could distinguish the outcomes otherwise. By default the
       mean is 0, so that walking round it in circles earns nothing
    O  pit: reward -1, the episode ends
    G  goal: reward +1, the episode ends

Every step costs `step_cost` on top.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig

CELLS = "#.S~$OG"
ACTION_NAMES = ("UP", "RIGHT", "DOWN", "LEFT")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
MAX_SIZE = 64
ENV_ID = "GridWorld"
OBSERVATIONS = ("vector", "image")

SLIPPERY = """
S..~~~.S
~..~S~~~
~...~#~S
S.G~..~.
O~OS.~~~
.~.~O.~.
..~~.S..
S....~~S
"""
"""Two fifths slippery, three pits. Starts all over it: from the corners alone, play that has
learned to fear the pits stands still and never sees the rest."""

CORRIDORS = """
S....#..
.##.~~#.
.#$.#O~.
...~#.~#
.#O~~..$
.####.#.
..$..~.G
"""
"""Certain corridors, two slippery passages, coins: random rewards beside random moves."""

TINY = """
S~.
.O$
.~G
"""


MAPS: dict[str, str] = {
    "slippery": SLIPPERY,
    "deterministic": SLIPPERY.replace("~", "."),
    "corridors": CORRIDORS,
    "tiny": TINY,
}
"""Maps by name; `deterministic` is `slippery` with nothing left to chance."""


@dataclass(frozen=True)
class GridMap:
    """A map and its rules; raises ConfigError in one line for what cannot be played."""

    rows: tuple[str, ...]
    slip: float = 2 / 3
    """Chance that a move from a slippery cell goes astray, to either side alike."""
    prize: float = 0.5
    """What a coin pays, or takes."""
    prize_prob: float = 0.5
    """Chance that a coin pays."""
    step_cost: float = 0.01
    """Taken from the reward of every step; at 0 an agent that fears the pits may stand still."""

    def __post_init__(self) -> None:
        """Validates."""
        from scipy import ndimage

        name = "env.kwargs.map"
        require(len(self.rows) > 0, name, "", "lines of cells, or one of " + ", ".join(MAPS))
        width = len(self.rows[0])
        for number, row in enumerate(self.rows, start=1):
            whole = f"lines of equal length: line 1 has {width} cells, line {number} {len(row)}"
            require(len(row) == width, name, row, whole)
            unknown = sorted(set(row) - set(CELLS))
            what = f"made of {' '.join(CELLS)}: line {number} has {''.join(unknown)!r}"
            require(not unknown, name, row, what)
        small = max(len(self.rows), width) <= MAX_SIZE
        require(small, name, self.size, f"at most {MAX_SIZE} x {MAX_SIZE} cells")
        for cell, what in (("S", "a start S"), ("G", "a goal G")):
            require(cell in self.text, name, self.text, f"a map with {what}")
        passable = ~np.isin(self.cells, ["#", "O"])
        open_ = ndimage.binary_propagation(self.cells == "G", mask=passable)
        for start in self.find("S"):
            require(bool(open_[start]), name, self.text, f"open from {start} to a goal")
        for field, most in (("slip", 1), ("prize_prob", 1), ("prize", 100), ("step_cost", 100)):
            _require_number(field, getattr(self, field), most)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in cells."""
        return len(self.rows), len(self.rows[0])

    @property
    def cells(self) -> np.ndarray:
        """One character for each cell, `[height, width]`."""
        return np.array([list(row) for row in self.rows])

    @property
    def text(self) -> str:
        """The map as text that `read_map` reads back."""
        return "\n".join(self.rows)

    def find(self, cell: str) -> list[tuple[int, int]]:
        """Row and column of every such cell, in reading order."""
        return [(y, x) for y, x in np.argwhere(self.cells == cell).tolist()]

    def step(self, place: tuple[int, int], direction: int) -> tuple[int, int]:
        """Where a move from `place` ends; at `place` itself if a wall is in the way."""
        y, x = place[0] + MOVES[direction][0], place[1] + MOVES[direction][1]
        inside = 0 <= y < self.size[0] and 0 <= x < self.size[1]
        return (y, x) if inside and self.rows[y][x] != "#" else place


def _require_number(name: str, value: Any, most: float) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    require(good, f"env.kwargs.{name}", value, "a number")
    require(0 <= value <= most, f"env.kwargs.{name}", value, f"in [0, {most}]")


def read_map(text: str, **rules: float) -> GridMap:
    """A map from text, lines divided by newlines or `/`, or from the name of one of `MAPS`.

    Args:
        text: the map; blank lines and spaces around a line do not count.
        rules: the other fields of `GridMap`.

    Raises:
        ConfigError: in one line, if it cannot be played.
    """
    lines = MAPS.get(text, text).replace("/", "\n").splitlines()
    return GridMap(rows=tuple(line.strip() for line in lines if line.strip()), **rules)


def _check_drawn(seed: Any, size: Any, sizes: range, allowed: str) -> None:
    """Raises ConfigError unless a map can be drawn from this seed, of this size."""
    good = type(seed) is int and seed >= 0
    require(good, "env.kwargs.seed", seed, "a whole number, at least 0")
    require(type(size) is int and size in sizes, "env.kwargs.size", size, allowed)


def generate_map(
    seed: int,
    size: int = 8,
    *,
    slippery: float = 0.5,
    pits: float = 0.08,
    walls: float = 0.12,
    coins: float = 0.0,
    **rules: float,
) -> GridMap:
    """A square map drawn from a seed: start top left, goal bottom right, always reachable.

    Args:
        seed: at least 0.
        size: height and width in cells.
        slippery: share of slippery cells; likewise `pits`, `walls` and `coins`. The rest is floor.
        pits: share of pits.
        walls: share of walls.
        coins: share of coins.
        rules: the other fields of `GridMap`.

    Raises:
        ConfigError: if a value is not allowed, or no such map with a way to the goal is found.
    """
    sizes = range(2, MAX_SIZE + 1)
    _check_drawn(seed, size, sizes, f"a whole number in 2..{MAX_SIZE}")
    shares = {"slippery": slippery, "pits": pits, "walls": walls, "coins": coins}
    for name, share in shares.items():
        _require_number(name, share, 1)
    total = sum(shares.values())
    require(total <= 1, "env.kwargs", round(total, 6), "shares that add up to at most 1")
    GridMap(rows=("SG",), **rules)  # so that below nothing is wrong but a closed way to the goal
    generator = np.random.default_rng(seed)
    chances = np.array([slippery, pits, walls, coins, max(0.0, 1 - total)])
    for _ in range(1000):
        cells = generator.choice(list("~O#$."), p=chances / sum(chances), size=(size,) * 2)
        cells[0, 0], cells[-1, -1] = "S", "G"
        with contextlib.suppress(ConfigError):
            return GridMap(rows=tuple("".join(row) for row in cells), **rules)
    raise ConfigError(f"env.kwargs: no map of seed {seed} in 1,000 has a way to the goal")


def generate_maze(
    seed: int,
    size: int = 9,
    *,
    loops: float = 0.15,
    slippery: float = 0.0,
    starts: float = 0.1,
    **rules: float,
) -> GridMap:
    """A square maze drawn from a seed: rooms at every second cell, joined by a depth-first search.

    Start top left, goal bottom right.

    Args:
        seed: at least 0.
        size: height and width in cells, an odd number.
        loops: share of the walls between two rooms that are opened again.
        slippery: share of slippery cells among those that are neither start nor goal.
        starts: share of further starts among all cells but the goal.
        rules: the other fields of `GridMap`.

    Raises:
        ConfigError: if a value is not allowed.
    """
    sizes = range(3, MAX_SIZE + 1, 2)
    _check_drawn(seed, size, sizes, f"an odd number in 3..{MAX_SIZE - 1} for a maze")
    for name, share in (("loops", loops), ("slippery", slippery), ("starts", starts)):
        _require_number(name, share, 1)
    generator = np.random.default_rng(seed)
    cells = np.full((size, size), "#")
    cells[0, 0], way = ".", [(0, 0)]
    while way:
        y, x = way[-1]
        around = [(y + 2 * dy, x + 2 * dx) for dy, dx in MOVES]
        closed = [(v, u) for v, u in around if min(v, u) >= 0 and max(v, u) < size]
        closed = [room for room in closed if cells[room] == "#"]
        if not closed:
            way.pop()
            continue
        v, u = closed[generator.integers(len(closed))]
        cells[(y + v) // 2, (x + u) // 2] = cells[v, u] = "."
        way.append((v, u))
    between = np.add.outer(np.arange(size), np.arange(size)) % 2 == 1
    cells[(generator.random(cells.shape) < loops) & between & (cells == "#")] = "."
    drawn = generator.random((2, *cells.shape))
    cells[(drawn[0] < slippery) & (cells == ".")] = "~"
    cells[(drawn[1] < starts) & (cells != "#")] = "S"
    cells[0, 0], cells[-1, -1] = "S", "G"
    return GridMap(rows=tuple("".join(row) for row in cells), **rules)


_RULES = tuple(field.name for field in dataclasses.fields(GridMap) if field.name != "rows")
_DRAWN = {
    "generated": ("seed", "size", "slippery", "pits", "walls", "coins"),
    "maze": ("seed", "size", "loops", "slippery", "starts"),
}


def map_from_kwargs(kwargs: Mapping[str, Any]) -> GridMap:
    """The map of `env.kwargs`.

    Args:
        kwargs: `map` (a name of `MAPS`, text, `generated` or `maze`; unset: `slippery`), the fields
            of `GridMap`, and for a drawn one the arguments of `generate_map` or `generate_maze`.

    Raises:
        ConfigError: in one line, for an unknown name or a value that is not allowed.
    """
    given = dict(kwargs)
    text = given.pop("map", "slippery")
    require(isinstance(text, str), "env.kwargs.map", text, "text")
    known = (*_RULES, *_DRAWN.get(text, ()))
    for name in given:
        require(name in known, "env.kwargs", name, "one of map, observation, " + ", ".join(known))
    if text in _DRAWN:
        draw = generate_maze if text == "maze" else generate_map
        return draw(given.pop("seed", 0), **given)
    looks_like_map = text in MAPS or "/" in text or "\n" in text or set(text) <= set(CELLS)
    names = ", ".join((*_DRAWN, *MAPS))
    require(looks_like_map, "env.kwargs.map", text, f"one of {names}, or lines divided by /")
    return read_map(text, **given)


def read_options(config: EnvConfig) -> tuple[GridMap, str]:
    """Map and kind of observation of `config.kwargs`.

    Raises:
        ConfigError: in one line, for a name or a value that is not allowed.
    """
    allowed = f"{ENV_ID} in suite grid; env.kwargs picks the map"
    require(config.id == ENV_ID, "env.id", config.id, allowed)
    options = config.options
    kind = options.pop("observation", OBSERVATIONS[0])
    allowed = "one of " + ", ".join(OBSERVATIONS)
    require(kind in OBSERVATIONS, "env.kwargs.observation", kind, allowed)
    return map_from_kwargs(options), kind


check_id = read_options
