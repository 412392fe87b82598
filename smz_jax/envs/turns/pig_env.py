"""Pig as a vector environment: the whole batch steps in a few NumPy calls."""

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.turns.pig_rules import (
    ACTION_NAMES,
    SIDES,
    make_rules,
    observations,
    read_goal,
)
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import EnvSpec


class _PigLanes(Lanes):
    """B games; see `Lanes`. Each lane has a die of its own, thrown at every step of any game."""

    def __init__(self, config: EnvConfig, seed: int, lanes: range) -> None:
        self._rules = make_rules(read_goal(config))
        self._seen = observations(self._rules)
        sequences = (np.random.SeedSequence(seed, spawn_key=(lane,)) for lane in lanes)
        self._dice = [np.random.default_rng(sequence) for sequence in sequences]

    def reset(self) -> LaneStep:
        self._state = np.zeros(len(self._dice), np.int32)
        self._player = np.zeros(len(self._dice), np.int32)
        every = np.ones(len(self._dice), np.bool_)
        self.send(self._state, every, ~every)
        return self.recv()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        self._actions, self._over = actions, over

    def recv(self) -> LaneStep:
        rules, over = self._rules, self._over
        state = np.where(self._state == rules.num_states, 0, self._state)
        place = state, self._actions, np.array([die.integers(SIDES) for die in self._dice])
        passes = rules.discount[place] < 0
        self._player = np.where(over, 0, self._player ^ passes).astype(np.int32)
        self._state = np.where(over, 0, rules.next_state[place])
        return LaneStep(
            frame=self._seen[self._state],
            reward=rules.reward[place].astype(np.float32),
            terminated=self._state == rules.num_states,
            player=self._player,
        )

    def close(self) -> None:
        """Nothing to free."""


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`."""
    spec = describe(config, (3 * read_goal(config),), np.uint8, ACTION_NAMES)
    return spec._replace(players=2)


open_lanes = _PigLanes
