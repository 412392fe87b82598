"""Games of an agent: what it played, and states on the way that can be gone back to."""

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.verify.probe import Look
from smz_jax.analysis.verify.tried_libraries import Piece
from smz_jax.config.settings import Config
from smz_jax.envs import make_env
from smz_jax.envs.atari.emulator import Emulator, EmulatorState, Step
from smz_jax.types import Timestep

PAST = 4
"""Steps before a start state that are kept with it."""


class StartState(NamedTuple):
    """A state that play reached; a macro may begin here."""

    state: EmulatorState
    game: int
    step: int  # actions of the game before
    back: EmulatorState | None = None  # at most `PAST` steps before it, in the same life
    since: tuple[int, ...] = ()  # actions from there to here
    before: tuple[np.ndarray, ...] = ()  # [F, H, W] observations that they were played in


class PlayedGames(NamedTuple):
    """The games of an agent."""

    pieces: list[Piece]
    scores: list[float]  # raw, of each game, cut off or not
    starts: Sequence[StartState] = ()  # in a random order
    seen: np.ndarray = np.empty(0)  # [N, F, ...] every observation on the way; empty: not kept
    looks: Sequence[Look] = ()  # at some of the states, of an emulator


def timestep_of(step: Step, *, is_first: bool = False) -> Timestep:
    """What an agent sees of one emulator, as a batch of one."""
    reward, over = np.array([step.reward], np.float32), np.array([step.terminated])
    return Timestep(
        observation=step.observation[None],
        reward=reward,
        raw_reward=reward,
        terminated=over,
        truncated=np.zeros(1, np.bool_),
        game_over=over,
        is_first=np.array([is_first]),
        invalid_actions=step.invalid_actions[None],
        player=np.zeros(1, np.int32),
    )


def is_over(step: Step, lives: int, config: Config) -> bool:
    """Whether an episode, as it is learned from, ends with a step; `lives` were left before it."""
    return step.terminated or (config.env.episodic_life and step.lives < lives)


def play_emulator(
    agent: Agent,
    emulator: Emulator,
    config: Config,
    *,
    games: int,
    max_steps: int,
    keep: int,
    seed: int,
    looks: int = 0,
) -> PlayedGames:
    """Plays with search, from up to `eval.noop_max` no-ops on, as evaluations do.

    Each game is cut off after `max_steps` actions. Of the states on the way `keep` are kept, each
    step's as likely as any other's (Vitter 1985, algorithm R); not those in which only FIRE can be
    played. There is a look at each of the first `looks` states. The seed is that
    of no-ops, sticky actions and states.
    """
    rng, sample = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    played = PlayedGames([], [], starts := [], looks=(looked := []))
    seen = count = 0
    for game in range(games):
        noops = int(rng.integers(config.eval.noop_max + 1))
        step, score = emulator.reset(int(rng.integers(2**32)), noops), 0.0
        actions, ends, past = [], [], deque[EmulatorState](maxlen=PAST)
        while len(actions) < max_steps and not step.terminated:
            now = emulator.clone()
            if not step.invalid_actions.any():
                slot = seen if seen < keep else int(sample.integers(seen + 1))
                if slot < keep:
                    since = tuple(actions[len(actions) - len(past) :])
                    before = tuple(x.step.observation for x in past)
                    back = past[0] if past else None
                    start = StartState(now, game, len(actions), back, since, before)
                    starts[slot : slot + 1] = [start]
                seen += 1
            if len(looked) < looks:
                looked.append(Look(step.observation, emulator.ram(), game))
            actions.append(int(agent(timestep_of(step, is_first=not actions), count)[0]))
            past.append(now)
            lives, step, count = step.lives, emulator.step(actions[-1]), count + 1
            score += step.reward
            if is_over(step, lives, config):
                ends.append(len(actions))
                past.clear()
        pieces = np.split(np.array(actions, np.int32), ends)
        played.pieces.extend(Piece(piece, game) for piece in pieces if len(piece))
        played.scores.append(score)
    sample.shuffle(starts)
    return played


def play_vector(
    agent: Agent, config: Config, *, games: int, max_steps: int, seed: int
) -> PlayedGames:
    """Plays whole games side by side, one on each lane.

    A game is cut off after `max_steps` actions, if the run's evaluations do not before. There is a
    piece for each game, and no starts, but what was seen.
    """
    settings = game_settings(config)
    actions, rewards, live, seen = [], [], [np.ones(games, np.bool_)], []
    with contextlib.closing(make_env(settings, seed=seed, num_envs=games, training=False)) as env:
        timestep = env.reset()
        while live[-1].any() and len(actions) < min(max_steps, config.eval.max_steps):
            seen.append(timestep.observation[live[-1]])
            actions.append(agent(timestep, len(actions)))
            timestep = env.step(actions[-1])
            rewards.append(np.where(live[-1], timestep.raw_reward, 0.0))
            live.append(live[-1] & ~timestep.game_over)
    lengths, lanes = np.sum(live[:-1], axis=0), np.stack(actions, axis=1).astype(np.int32)
    pieces = [Piece(lanes[game, :n], game) for game, n in enumerate(lengths)]
    return PlayedGames(pieces, np.sum(rewards, axis=0).tolist(), seen=np.concatenate(seen))
