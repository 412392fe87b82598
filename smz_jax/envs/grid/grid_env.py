"""The grid world as a vector environment: the whole batch steps in a few NumPy calls.

`env.kwargs` takes what `map_from_kwargs` reads, and `observation`: `vector` (default; one-hot of
the state, 0 or 255) or `image` (a grey picture of the map, `PIXELS` a side for each cell).
"""

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.grid.map import ACTION_NAMES, CELLS, read_options
from smz_jax.envs.grid.rules import NUM_ACTIONS, GridRules, make_rules
from smz_jax.envs.vector import LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space

PIXELS = 4
"""Height and width of a cell in an image; 4 is the patch of the light torso."""
GREYS = dict(zip(CELLS, (40, 0, 0, 70, 100, 130, 160), strict=True))
AGENT, AGENT_PAID = 255, 215
BLOCK = 512
"""Random numbers drawn ahead for each lane."""


class GridLanes:
    """B games on one map; see `Lanes`.

    Args:
        rules: of the map.
        observations: of each state, `[S, ...]`.
        generators: one for each lane, so that its games do not depend on the others.
        max_steps: actions after which a game is cut off.
    """

    def __init__(
        self,
        rules: GridRules,
        observations: np.ndarray,
        generators: list[np.random.Generator],
        max_steps: int,
    ):
        self.state = np.zeros(len(generators), np.int32)
        self._rules, self._observations = rules, observations
        self._generators, self._max_steps = generators, max_steps
        self._drawn = np.zeros((len(generators), BLOCK))
        self._used = BLOCK
        self._start = _cumulative(rules.start)
        self._outcome = _cumulative(rules.probability)

    def reset(self) -> LaneStep:
        """Starts a new game in every lane."""
        self._over = np.ones(len(self.state), np.bool_)
        self._steps = np.zeros(len(self.state), np.int64)
        self.send(np.zeros(len(self.state), np.int32))
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Notes checked actions `[B]`."""
        self._actions = actions

    def recv(self) -> LaneStep:
        """Takes the step that was sent."""
        rules, before, actions = self._rules, self.state, self._actions
        draw = self._uniform()[:, None]
        slot = np.sum(draw >= self._outcome[before, actions], axis=1)
        start = np.sum(draw >= self._start, axis=1)
        after = rules.next_state[before, actions, slot]
        reward = np.where(self._over, 0, rules.reward[before, actions, slot])
        self.state = np.where(self._over, start, after).astype(np.int32)
        self._steps = np.where(self._over, 0, self._steps + 1)
        terminated = rules.terminal[self.state]
        truncated = self._steps >= self._max_steps
        self._over = terminated | truncated
        return LaneStep(
            frame=self._observations[self.state],
            reward=reward.astype(np.float32),
            terminated=terminated,
            truncated=truncated,
        )

    def close(self) -> None:
        """Nothing to free."""

    def _uniform(self) -> np.ndarray:
        """One number in [0, 1) for each lane, of the lane's own generator."""
        if self._used == BLOCK:
            for row, generator in zip(self._drawn, self._generators, strict=True):
                generator.random(out=row)
            self._used = 0
        self._used += 1
        return self._drawn[:, self._used - 1]


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


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the grid world of `config`; see `make_spec`."""
    grid, kind = read_options(config)
    return EnvSpec(
        name=config.id,
        frame_shape=grid_observations(make_rules(grid), kind).shape[1:],
        context=config.frame_stack,
        frame_dtype=np.dtype(np.uint8),
        action_space=Space(NUM_ACTIONS, ACTION_NAMES),
        frames_per_step=1,
    )


def open_games(
    config: EnvConfig, *, seed: int, num_envs: int, first_lane: int, training: bool
) -> LanesVectorEnv:
    """Opens a vector of games on the map of `config`; see `make_env`."""
    del training  # rewards are never clipped, and there are no lives
    grid, kind = read_options(config)
    rules = make_rules(grid)
    generators = [
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(lane,)))
        for lane in range(first_lane, first_lane + num_envs)
    ]
    observations = grid_observations(rules, kind)
    lanes = GridLanes(rules, observations, generators, config.max_episode_steps)
    return LanesVectorEnv(lanes, spec_of(config), num_envs)
