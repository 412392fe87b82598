"""The grid world as a vector environment: the whole batch steps in a few NumPy calls.

`env.kwargs` takes what `map_from_kwargs` reads, and `observation`: `vector` (default; one-hot of
the state, 0 or 255) or `image` (a grey picture of the map, `PIXELS` a side for each cell).
"""

import functools

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.grid.map import ACTION_NAMES, CELLS, read_options
from smz_jax.envs.grid.rules import GridRules, make_rules
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import EnvSpec

PIXELS = 4
"""Height and width of a cell in an image; 4 is the patch of the light torso."""
GREYS = dict(zip(CELLS, (40, 0, 0, 70, 100, 130, 160), strict=True))
AGENT, AGENT_PAID = 255, 215
BLOCK = 512
"""Random numbers drawn ahead for each lane."""


class _GridLanes(Lanes):
    """B games on one map; see `Lanes`. Each lane has a generator of its own."""

    def __init__(self, config: EnvConfig, seed: int, lanes: range) -> None:
        self._rules, self._observations = world_of(config)
        sequences = (np.random.SeedSequence(seed, spawn_key=(lane,)) for lane in lanes)
        self._generators = [np.random.default_rng(sequence) for sequence in sequences]
        self._drawn, self._used = np.zeros((len(lanes), BLOCK)), BLOCK
        self._start = _cumulative(self._rules.start)
        self._outcome = _cumulative(self._rules.probability)

    def reset(self) -> LaneStep:
        self._state = np.zeros(len(self._drawn), np.int32)
        every = np.ones(len(self._drawn), np.bool_)
        self.send(self._state, every, ~every)
        return self.recv()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        self._actions, self._over = actions, over

    def recv(self) -> LaneStep:
        rules, before, actions = self._rules, self._state, self._actions
        if self._used == BLOCK:
            for row, generator in zip(self._drawn, self._generators, strict=True):
                generator.random(out=row)
            self._used = 0
        draw = self._drawn[:, self._used, None]
        self._used += 1
        slot = np.sum(draw >= self._outcome[before, actions], axis=1)
        start = np.sum(draw >= self._start, axis=1)
        after = rules.next_state[before, actions, slot]
        self._state = np.where(self._over, start, after)
        reward, terminated = rules.reward[before, actions, slot], rules.terminal[self._state]
        return LaneStep(self._observations[self._state], reward, terminated)

    def close(self) -> None:
        """Nothing to free."""


def _cumulative(probability: np.ndarray) -> np.ndarray:
    """Bounds along the last axis; 2 from the last possible entry on, whatever rounding leaves."""
    bounds = np.cumsum(probability, axis=-1)
    after = np.cumsum(probability[..., ::-1], axis=-1)[..., ::-1] - probability
    return np.where(after > 0, bounds, 2.0)


def grid_observations(rules: GridRules, kind: str) -> np.ndarray:
    """What is seen in each state.

    Args:
        rules: of the map.
        kind: `vector` or `image`.

    Returns:
        `[S, S]` or `[S, height x PIXELS, width x PIXELS]` uint8; no two states look alike.
    """
    if kind == "vector":
        return np.eye(rules.num_states, dtype=np.uint8) * np.uint8(255)
    background = np.array([[GREYS[cell] for cell in row] for row in rules.grid.rows], np.uint8)
    cells = np.repeat(background[None], rules.num_states, axis=0)
    states = np.arange(rules.num_states)
    cells[states, rules.place[:, 0], rules.place[:, 1]] = np.where(rules.paid, AGENT_PAID, AGENT)
    return cells.repeat(PIXELS, axis=1).repeat(PIXELS, axis=2)


def states_of(frames: np.ndarray, observations: np.ndarray) -> np.ndarray:
    """Which states frames `[N, ...]` show: `[N]` int32.

    Raises:
        ValueError: if a frame shows none.
    """
    flat = np.ascontiguousarray(frames).reshape(len(frames), -1)
    known = {row.tobytes(): state for state, row in enumerate(observations)}
    found = [known.get(row.tobytes(), -1) for row in flat]
    if -1 in found:
        raise ValueError(f"frame {found.index(-1)} shows no state of this map")
    return np.array(found, np.int32)


@functools.lru_cache(maxsize=16)
def world_of(config: EnvConfig) -> tuple[GridRules, np.ndarray]:
    """The rules of a grid world, and what is seen in each state: see `grid_observations`."""
    grid, kind = read_options(config)
    rules = make_rules(grid)
    return rules, grid_observations(rules, kind)


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the grid world of `config`; see `make_spec`."""
    return describe(config, world_of(config)[1].shape[1:], np.uint8, ACTION_NAMES)


open_lanes = _GridLanes
