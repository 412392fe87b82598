"""Macros in the real emulator: played from states that were reached, against what was foreseen.

From each state a macro is played, and other sequences of its length. The model unrolls all of them
open loop. The macro is nearest if the end that the model foresees of it is nearer to where it
really ended than the ends that it foresees of the 19 others. It is distinguished (`told_apart`) if
where it really ended is nearer to what the model foresees than where the others did. Others that
really end in the same frame are left out, and replaced while there are more. Under sticky actions
each run has chance of its own, and the others are played under the same chance.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.analysis.verify.foresight import Model, View, foresee, make_view, nearness
from smz_jax.analysis.verify.played import StartState, is_over, timestep_of
from smz_jax.analysis.verify.tried_libraries import Macro, Trial, is_paid
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator, SequenceRun, play_sequence

RIVALS = 19
"""Other sequences at most that a macro's end is compared with."""
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


@dataclass
class EmulatorWorld:
    """Trials from states of play that an emulator goes back to."""

    emulator: Emulator
    starts: Sequence[StartState]  # S, in a random order
    agent: Agent  # the greedy policy
    model: Model  # the trained one, which also says what ends are worth
    config: Config
    states: int  # in which each macro is tried
    repeats: int  # runs of a macro from a state
    seed: int
    rng: np.random.Generator = field(init=False)  # of the other sequences

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng((self.seed, 2))

    def view(self, model: Model) -> View:
        """The start states as a model sees them."""
        return make_view(model, np.stack([x.state.step.observation for x in self.starts]))

    def choose(
        self, _: Sequence[Macro], applies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`applies [M, S]`, and as `choose_states`; the same for each library where possible."""
        return applies, *choose_states(applies, self.states, np.random.default_rng((self.seed, 1)))

    def judge(
        self, views: Mapping[int, View], state: int, macros: Sequence[Macro]
    ) -> dict[tuple[int, Macro], list[Trial]]:
        """Plays macros from a state, others of their lengths, and the greedy policy.

        There is a trial for each run of each macro that differs, by each view. Without sticky
        actions all runs are the same, and one says it all.
        """
        emulator, start, config = self.emulator, self.starts[state], self.config
        seeds = chance_seeds(self.seed, state, max(self.repeats, 1))
        runs = seeds[: self.repeats if config.env.sticky > 0 else 1]
        outcomes = play_from(emulator, start, macros, seeds, config)
        pools = {}
        for length in sorted({len(macro) for macro in macros}):
            others = draw_pool(length, emulator.spec.num_actions, self.rng)
            pools[length] = play_from(emulator, start, others, runs, config)
        greedy = [self._greedy_returns(start, seed, max(pools)) for seed in runs]
        ends = [(macro, run, outcomes[macro][run]) for macro in macros for run in range(len(runs))]
        worth = self._values([end.observation for _, _, end in ends])
        played = {x: found for pool in pools.values() for x, found in pool.items()} | outcomes
        index = {x: row for row, x in enumerate(played)}
        seen = [end.observation for found in played.values() for end in found[: len(runs)]]
        trials = {(key, macro): [] for key in views for macro in macros}
        for key, view in views.items():
            look, place = view.model.foresight.look, view.model.foresight.place
            places = place(view.measure, look(view.model.params, np.stack(seen)))
            places = places.reshape(len(played), len(runs), -1)
            foreseen, rewards = foresee(view, state, list(played), config.macro.max_length)
            for (macro, run, own), value in zip(ends, worth, strict=True):
                row, rams = index[macro], {x.ram for x in outcomes[macro]}
                frames = {x: found[run].frame for x, found in pools[len(macro)].items()}
                rivals = [index[x] for x in rivals_of(macro, own.frame, frames)]
                returned = returns(own.rewards, 0.0 if own.over else value, config.learner.gamma)
                told, end = foreseen[row], places[row, run]
                trial = Trial(
                    state=state,
                    cut=own.cut,
                    rivals=len(rivals),
                    nearest=is_nearest(told, foreseen[rivals], end, view.centre),
                    told_apart=is_nearest(end, places[rivals, run], told, view.centre),
                    paid=bool(is_paid(float(rewards[row]), own.rewards.sum(), config)),
                    rewarded=bool(np.any(own.rewards != 0)),
                    lives=own.lost,
                    gain=returned - greedy[run][len(macro)],
                    repeats=len(rams) == 1 if len(seeds) > 1 else None,
                )
                trials[key, macro].append(trial)
        return trials

    def _greedy_returns(self, start: StartState, seed: int, length: int) -> list[float]:
        """Returns of the greedy policy after 0..length actions, as `returns`; an end is worth 0."""
        config, step = self.config, self.emulator.restore(start.state, seed=seed)
        observations, rewards, over = [step.observation], [], [False]
        while len(rewards) < length and not over[-1]:
            lives = step.lives
            step = self.emulator.step(int(self.agent(timestep_of(step), len(rewards))[0]))
            rewards.append(np.sign(step.reward) if config.env.clip_rewards else step.reward)
            observations.append(step.observation)
            over.append(is_over(step, lives, config))
        values, paid = (
            np.where(over, 0.0, self._values(observations)),
            np.array(rewards, np.float32),
        )
        found = [returns(paid[:n], value, config.learner.gamma) for n, value in enumerate(values)]
        return found + found[-1:] * (length + 1 - len(found))

    def _values(self, observations: Sequence[np.ndarray]) -> np.ndarray:
        """What the trained model says that observations `[F, ...]` are worth, `[N]`."""
        foresight, params = self.model.foresight, self.model.params
        embedding = foresight.look(params, np.stack(observations))
        return np.asarray(foresight.value(params, embedding), np.float64)


def choose_states(
    applies: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which states each macro is tried in; the states of `applies [M, S]` are in a random order.

    Returns:
        `[M, S]` bool: the first `count` states, the same for all, or `count` in which it applies;
        and `[S]` bool, those first ones.
    """
    drawn = np.arange(applies.shape[1]) < count
    tried = np.broadcast_to(drawn, applies.shape).copy()
    for row, here in zip(tried, applies, strict=True):
        others = rng.permutation(np.flatnonzero(here & ~drawn))
        row[others[: max(count - int((here & drawn).sum()), 0)]] = True
    return tried, drawn


def rivals_of(macro: Macro, frame: bytes, others: Mapping[Macro, bytes]) -> list[Macro]:
    """The first `RIVALS` other sequences that really end in another frame."""
    return [x for x, end in others.items() if x != macro and end != frame][:RIVALS]


def is_nearest(own: np.ndarray, others: Any, end: np.ndarray, centre: np.ndarray) -> bool:
    """Whether `own [E]` is nearer to `end` than every other; a tie is not.

    Of foreseen ends and a real one, or of real ends and a foreseen one.
    """
    near = nearness(np.stack([own, *others]), end[None], centre)[:, 0]
    return bool(np.all(near[0] > near[1:]))


def returns(rewards: np.ndarray, value: float, gamma: float) -> float:
    """Discounted rewards, and the value after them: sum gamma^i r_i + gamma^n v."""
    discounts = gamma ** np.arange(len(rewards))
    return float(discounts @ rewards + gamma ** len(rewards) * value)


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


def draw_pool(length: int, num_actions: int, rng: np.random.Generator) -> list[Macro]:
    """Distinct sequences of one length in a random order: all of them, or `POOL`."""
    total = num_actions**length
    chosen = rng.choice(total, min(POOL, total), replace=False)
    digits = num_actions ** np.arange(length)[::-1]
    return [tuple(row) for row in (chosen[:, None] // digits % num_actions).tolist()]


def chance_seeds(seed: int, state: int, runs: int) -> list[int]:
    """Seeds of the sticky actions of the runs from a state."""
    return np.random.SeedSequence((seed, state)).generate_state(runs, np.uint32).tolist()


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


def same_actions(
    emulator: Emulator, starts: Sequence[StartState], config: Config, seed: int
) -> list[int]:
    """Which actions do the same: in Breakout FIRE and NOOP, while the ball flies.

    Two do if each, played twice, comes to the same frame, rewards and lives from `SAME` of the
    states. From none of the states all actions but one may be invalid.

    Returns:
        For each action the first one that does the same, often itself.
    """
    actions, ends = range(emulator.spec.num_actions), []
    twice = [(action, action) for action in actions]
    for state, start in enumerate(starts):
        played = play_from(emulator, start, twice, chance_seeds(seed, state, 1), config)
        found = [end for (end,) in played.values()]
        ends.append([(end.frame, end.rewards.tobytes(), end.lost, end.cut) for end in found])

    def agree(one: int, other: int) -> bool:
        same = sum(row[one] == row[other] for row in ends)
        return one == other or same >= SAME * max(len(starts), 1)

    return [next(other for other in actions if agree(action, other)) for action in actions]
