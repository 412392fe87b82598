"""What sequences of actions come to, played from states that an emulator goes back to."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.libraries import Macro
from smz_jax.analysis.verify.starts import StartState
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator, SequenceRun, play_sequence

POOL = 40
"""Other sequences of each length that are played from a state: some end where the macro does."""
SAME = 0.9
"""Share of states in which actions that do the same come to the same: where the ball was lost FIRE
serves it, and NOOP does not."""


class Outcome(NamedTuple):
    """What one run of a sequence came to."""

    observation: np.ndarray  # [F, H, W] at the end
    frame: bytes  # hash of the newest frame
    ram: str
    rewards: np.ndarray  # [n] as learned from
    lost: int  # lives
    cut: bool  # it ended before its last action
    over: bool  # it ended, with its last action or before


def outcome(start: StartState, run: SequenceRun, length: int, config: Config) -> Outcome:
    """What a run came to; rewards after the episode's end, as it is learned from, do not count."""
    first = start.state.step
    lives = np.concatenate([[first.lives], run.lives])
    lost = np.flatnonzero(np.diff(lives) < 0)
    ends = len(run.frames) if run.terminated else length + 1
    if config.env.episodic_life and len(lost):
        ends = min(ends, int(lost[0]) + 1)
    frames = np.concatenate([first.observation, run.frames])
    rewards = np.sign(run.rewards) if config.env.clip_rewards else run.rewards
    return Outcome(
        observation=frames[-len(first.observation) :],
        frame=hashlib.blake2b(frames[-1].tobytes(), digest_size=16).digest(),
        ram=run.ram_hash,
        rewards=rewards[:ends],
        lost=int(lives[0] - lives[-1]),
        cut=ends < length,
        over=ends <= length,
    )


def draw_pool(
    length: int, num_actions: int, rng: np.random.Generator, size: int = POOL
) -> list[Macro]:
    """Distinct sequences of one length in a random order: all of them, or `size`."""
    total = num_actions**length
    chosen = rng.choice(total, min(size, total), replace=False)
    digits = num_actions ** np.arange(length)[::-1]
    return [tuple(int(x) for x in number // digits % num_actions) for number in chosen]


def chance_seeds(seed: int, state: int, runs: int) -> list[int]:
    """Seeds of the sticky actions of the runs from a state."""
    sequence = np.random.SeedSequence((seed, state))
    return [int(x) for x in sequence.generate_state(runs, np.uint32)]


def play_from(
    emulator: Emulator,
    start: StartState,
    sequences: Iterable[Macro],
    seeds: Sequence[int],
    config: Config,
) -> dict[Macro, list[Outcome]]:
    """Plays each sequence from a state, once for each seed."""
    return {
        actions: [
            outcome(start, run, len(actions), config)
            for run in play_sequence(emulator, start.state, actions, seeds)
        ]
        for actions in sequences
    }


def same_actions(
    emulator: Emulator, starts: Sequence[StartState], config: Config, seed: int
) -> list[int]:
    """Which actions do the same: in Breakout FIRE and NOOP, while the ball flies.

    Two do if each, played twice, comes to the same frame, rewards and lives from `SAME` of the
    states. From none of the states all actions but one may be invalid.

    Returns:
        For each action the first one that does the same, often itself.
    """
    actions = range(emulator.spec.num_actions)
    ends: list[list[Any]] = [[] for _ in actions]
    for state, start in enumerate(starts):
        twice = [(action, action) for action in actions]
        played = play_from(emulator, start, twice, chance_seeds(seed, state, 1), config)
        for action, column in enumerate(ends):
            (end,) = played[action, action]
            column.append((end.frame, end.rewards.tobytes(), end.lost, end.cut))

    def agree(one: int, other: int) -> bool:
        pairs = zip(ends[one], ends[other], strict=True)
        return one == other or sum(x == y for x, y in pairs) >= SAME * max(len(starts), 1)

    return [next(other for other in actions if agree(action, other)) for action in actions]
