"""Pig as a vector environment: the whole batch steps in a few NumPy calls."""

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.turns.pig_rules import (
    ACTION_NAMES,
    HOLD,
    SIDES,
    count_players,
    read_goal,
    show,
)
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import EnvSpec


class _PigLanes(Lanes):
    """B games; see `Lanes`. Each lane has a die of its own, thrown at every step of any game."""

    def __init__(self, config: EnvConfig, seed: int, lanes: range) -> None:
        self._goal, self._players = read_goal(config), count_players(config)
        sequences = (np.random.SeedSequence(seed, spawn_key=(lane,)) for lane in lanes)
        self._dice = [np.random.default_rng(sequence) for sequence in sequences]

    def reset(self) -> LaneStep:
        size = len(self._dice)
        self._banked = np.zeros((size, self._players), np.int32)  # by seat
        self._turn, self._player = np.zeros(size, np.int32), np.zeros(size, np.int32)
        every = np.ones(size, np.bool_)
        self.send(self._turn, every, ~every)
        return self.recv()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        self._actions, self._over = actions, over

    def recv(self) -> LaneStep:
        over, mover, size, players = self._over, self._player, len(self._dice), self._players
        lanes, face = np.arange(size), np.array([die.integers(SIDES) + 1 for die in self._dice])
        holds = self._actions == HOLD
        self._banked[lanes, mover] += np.where(holds, self._turn, 0)
        passes = holds | (face == 1)
        turn = np.where(passes, 0, self._turn + face)
        won = ~passes & ~over & (self._banked[lanes, mover] + turn >= self._goal)
        self._banked[over] = 0
        self._turn = np.where(over | won, 0, turn).astype(np.int32)
        self._player = np.where(over, 0, (mover + passes) % players).astype(np.int32)
        seats = (self._player[:, None] + np.arange(players)) % players
        points = np.take_along_axis(self._banked, seats, axis=1)
        frame = show(np.column_stack([points, self._turn]), self._goal)
        reward = won.astype(np.float32)
        if players > 2:
            is_mover = np.arange(players) == mover[:, None]
            reward = np.where(is_mover, 1.0, -1.0 / (players - 1)) * won[:, None]
        return LaneStep(
            frame=np.where(won[:, None], np.uint8(0), frame),
            reward=reward.astype(np.float32),
            terminated=won,
            player=self._player,
        )

    def close(self) -> None:
        """Nothing to free."""


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`."""
    players = count_players(config)
    shape = ((players + 1) * read_goal(config),)
    return describe(config, shape, np.uint8, ACTION_NAMES)._replace(players=players, has_dice=True)


open_lanes = _PigLanes
