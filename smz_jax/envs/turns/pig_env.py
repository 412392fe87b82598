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
    """B games; see `Lanes`.

    What a die shows follows from the seed, the lane, the game's number, the turn's and the throw's,
    whatever was played: from both sides a match has the same dice.
    """

    def __init__(self, config: EnvConfig, seed: int, lanes: range) -> None:
        self._goal, self._players = read_goal(config), count_players(config)
        sequences = (np.random.SeedSequence(seed, spawn_key=(lane,)) for lane in lanes)
        self._keys = np.concatenate([x.generate_state(1, np.uint64) for x in sequences])

    def reset(self) -> LaneStep:
        size = len(self._keys)
        self._number = np.zeros((3, size), np.int64)  # of the game, of its turn, of the throw
        self._banked = np.zeros((size, self._players), np.int32)  # by seat
        self._turn, self._player = np.zeros(size, np.int32), np.zeros(size, np.int32)
        every = np.ones(size, np.bool_)
        self.send(self._turn, every, ~every)
        return self.recv()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        self._actions, self._over = actions, over

    def recv(self) -> LaneStep:
        over, mover, size, players = self._over, self._player, len(self._keys), self._players
        lanes, face = np.arange(size), throw(self._keys, self._number)
        holds = self._actions == HOLD
        self._banked[lanes, mover] += np.where(holds, self._turn, 0)
        passes = holds | (face == 1)
        turn = np.where(passes, 0, self._turn + face)
        won = ~passes & ~over & (self._banked[lanes, mover] + turn >= self._goal)
        self._banked[over] = 0
        game, turns, throws = self._number
        self._number = np.stack([game + over, np.where(over, 0, turns + passes), throws + 1])
        self._number[2, passes | over] = 0
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


def throw(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Faces `[B]` of dice, from 1 on: a fixed hash of keys `[B]` uint64 and `numbers [N, B]`.

    By the finaliser of SplitMix64 (Steele et al. 2014), once for each number.
    """
    bits = keys
    for number in numbers.astype(np.uint64):
        bits = bits ^ (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return (((bits >> np.uint64(32)) * np.uint64(SIDES)) >> np.uint64(32)).astype(np.int64) + 1


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`."""
    players = count_players(config)
    shape = ((players + 1) * read_goal(config),)
    return describe(config, shape, np.uint8, ACTION_NAMES)._replace(players=players, has_dice=True)


open_lanes = _PigLanes
