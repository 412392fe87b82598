"""What sequences of actions come to, played in an emulator from states of play."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.analysis.verify.played import StartState
from smz_jax.analysis.verify.tried_libraries import Macro
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator, SequenceRun, play_sequence
from smz_jax.envs.frames import push_frames


class Outcome(NamedTuple):
    """What one run of a sequence came to."""

    frames: np.ndarray  # [F + n, H, W] with those that were seen at the start
    observation: np.ndarray  # [F, H, W] at the end
    frame: bytes  # hash of the newest frame
    ram: np.ndarray  # [128] uint8, at the end
    rewards: np.ndarray  # [n] as learned from
    lost: int  # lives
    ends: int  # number of the step that ended the episode, as it is learned from; n + 1: none
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
        frames=frames,
        observation=push_frames(first.observation, run.frames, config.env.mark_start),
        frame=hashlib.blake2b(frames[-1].tobytes(), digest_size=16).digest(),
        ram=run.ram,
        rewards=rewards[:ends],
        lost=int(lives[0] - lives[-1]),
        ends=ends,
        cut=ends < length,
        over=ends <= length,
    )


def play_from(
    emulator: Emulator,
    start: StartState,
    macros: Iterable[Macro],
    seeds: Sequence[int],
    config: Config,
) -> dict[Macro, list[Outcome]]:
    """Plays each sequence from a state, once for each seed."""
    played = {x: play_sequence(emulator, start.state, x, seeds) for x in macros}
    return {x: [outcome(start, run, len(x), config) for run in runs] for x, runs in played.items()}
