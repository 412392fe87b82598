"""Macros in the real emulator: played from states that were reached, against what was foreseen.

There are two tests. That of the whole state is in `smz_jax.analysis.verify.whole_state`. The other
is of the effect of the actions: all that the actions do not change is the same in its rivals.

From each state a macro is played, and other sequences of its length. The model unrolls all of them
open loop. The macro is nearest if the end that the model foresees of it is nearer to where it
really ended than the ends that it foresees of the 19 others. It is distinguished (`told_apart`) if
where it really ended is nearer to what the model foresees than where the others did. Others that
really end in the same frame are left out, and replaced while there are more. Under sticky actions
each run has chance of its own, and the others are played under the same chance.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.analysis.verify.foresight import Model, View, foresee, make_view, nearness
from smz_jax.analysis.verify.outcomes import Outcome, play_from
from smz_jax.analysis.verify.played import StartState, is_over, timestep_of
from smz_jax.analysis.verify.probe import MEMORY, Look, fit_probes, truth
from smz_jax.analysis.verify.tried_libraries import Macro, Trial, is_paid
from smz_jax.analysis.verify.whole_state import Moments, is_whole, later_starts, moments
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator
from smz_jax.storage.documents.verify_json import MOMENTS

RIVALS = 19
"""Other sequences at most that a macro's end is compared with."""
POOL = 40
"""Other sequences of each length that are played from a state: some end where the macro does."""
SAME = 0.9
"""Share of states in which actions that do the same come to the same: where the ball was lost FIRE
serves it, and NOOP does not."""


class Stage(NamedTuple):
    """What was played from a state."""

    played: Mapping[Macro, Sequence[Outcome]]  # macros and others, one for each run
    pools: Mapping[int, Mapping[Macro, Sequence[Outcome]]]  # others, by length
    moments: Mapping[tuple[Macro, int], Moments]  # by macro and run
    greedy: Sequence[Sequence[float]]  # returns of the greedy policy by run and length

    def rivals(self, macro: Macro, run: int) -> list[Macro]:
        """As `rivals_of`."""
        others = {x: found[run].frame for x, found in self.pools[len(macro)].items()}
        return rivals_of(macro, self.played[macro][run].frame, others)


@dataclass
class EmulatorWorld:
    """Trials from states of play that an emulator goes back to."""

    emulator: Emulator
    starts: Sequence[StartState]  # S, in a random order
    agent: Agent  # the greedy policy
    model: Model  # the trained one, which also says what ends are worth
    config: Config
    states: int  # in which each macro is tried
    repeats: int  # runs of a macro from a state, at least 1
    seed: int
    looks: Sequence[Look] = ()  # at play, for the probe
    rng: np.random.Generator = field(init=False)  # of the other sequences
    rams: np.ndarray = field(init=False)  # [S, 128] uint8, memory at the start states

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng((self.seed, 2))
        self.memory = MEMORY.get(self.config.env.id)
        rams = []
        for start in self.starts:
            self.emulator.restore(start.state)
            rams.append(self.emulator.ram())
        self.rams = np.array(rams, np.uint8).reshape(len(rams), 128)

    def view(self, model: Model) -> View:
        """The start states as a model sees them."""
        view = make_view(model, np.stack([x.state.step.observation for x in self.starts]))
        if self.memory is None or not self.looks:
            return view
        seen = np.stack([look.observation for look in self.looks])
        rows = self._places(view, seen)
        return view._replace(probes=fit_probes(rows, self.looks, self.memory))

    def others(self, state: int) -> list[StartState]:
        """The other start states; those with the agent in the nearest place first, if known."""
        order = np.arange(len(self.starts))
        if self.memory is not None:
            places = self.rams[:, self.memory.agent].astype(int)
            order = np.argsort(np.abs(places - places[state]), kind="stable")
        return [self.starts[x] for x in order.tolist() if x != state]

    def choose(
        self, _: Sequence[Macro], applies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`applies [M, S]`, and as `choose_states`; the same for each library where possible."""
        return applies, *choose_states(applies, self.states, np.random.default_rng((self.seed, 1)))

    def are_deterministic(self, macros: Sequence[Macro]) -> list[bool]:
        """Whether all runs of macros come to the same memory, from `SAME` of `states` states."""
        count = max(self.repeats, 2)
        if self.config.env.sticky == 0:
            return [True] * len(macros)
        same = np.zeros(len(macros))
        for state, start in enumerate(self.starts[: self.states]):
            seeds = chance_seeds(self.seed, state, count)
            played = play_from(self.emulator, start, macros, seeds, self.config)
            same += [len({x.ram.tobytes() for x in played[macro]}) == 1 for macro in macros]
        return [bool(x) for x in same >= SAME * max(min(self.states, len(self.starts)), 1)]

    def judge(
        self, views: Mapping[int, View], state: int, macros: Sequence[Macro]
    ) -> dict[tuple[int, Macro], list[Trial]]:
        """Plays macros from a state, others of their lengths, and the greedy policy.

        There is a trial for each run of each macro that differs, by each view. Without sticky
        actions all runs are the same, and one says it all.
        """
        stage, runs, config = self._play(state, macros), range(self._runs), self.config
        worth = self._values([stage.played[x][run].observation for x in macros for run in runs])
        index = {x: row for row, x in enumerate(stage.played)}
        ends = [end.observation for found in stage.played.values() for end in found[: self._runs]]
        seen = np.stack([*ends, *(x for found in stage.moments.values() for x in found.seen)])
        trials = {(key, macro): [] for key in views for macro in macros}
        for key, view in views.items():
            places = self._places(view, seen)
            real = places[: len(ends)].reshape(len(index), self._runs, -1)
            told = foresee(view, state, list(index), config.macro.max_length)
            first = len(ends)
            for ((macro, run), found), value in zip(stage.moments.items(), worth, strict=True):
                own, row = stage.played[macro][run], index[macro]
                elsewhen = places[first : first + len(found.seen)]
                first += len(elsewhen)
                rivals = [index[x] for x in stage.rivals(macro, run)]
                returned = returns(own.rewards, 0.0 if own.over else value, config.learner.gamma)
                foreseen, end, over = told.end[row], real[row, run], int(told.over[row])
                kinds = np.array(found.kinds, int)
                beats = tuple(
                    is_nearest(end, elsewhen[kinds == kind], foreseen, view.centre)
                    if kind in kinds
                    else None
                    for kind in range(len(MOMENTS))
                )
                rams = {x.ram.tobytes() for x in stage.played[macro]}
                trial = Trial(
                    state=state,
                    cut=own.cut,
                    rivals=len(rivals),
                    nearest=is_nearest(foreseen, told.end[rivals], end, view.centre),
                    told_apart=is_nearest(end, real[rivals, run], foreseen, view.centre),
                    paid=bool(is_paid(float(told.reward[row]), own.rewards.sum(), config)),
                    rewarded=bool(np.any(own.rewards != 0)),
                    lives=own.lost,
                    gain=returned - stage.greedy[run][len(macro)],
                    whole=is_whole(own, over, all(x is not False for x in beats)),
                    beats=beats,
                    moments=len(elsewhen),
                    hidden=found.hidden,
                    ended=own.over,
                    end_foreseen=own.over and over == own.ends,
                    errors=self._errors(view, state, own, np.stack([foreseen, end])),
                    repeats=len(rams) == 1 if self.repeats > 1 else None,
                )
                trials[key, macro].append(trial)
        return trials

    @property
    def _runs(self) -> int:
        """Runs of a macro from a state that differ."""
        return self.repeats if self.config.env.sticky > 0 else 1

    def _play(self, state: int, macros: Sequence[Macro]) -> Stage:
        emulator, start, config = self.emulator, self.starts[state], self.config
        seeds = chance_seeds(self.seed, state, self.repeats)
        runs, pools = seeds[: self._runs], {}
        outcomes = play_from(emulator, start, macros, seeds, config)
        for length in sorted({len(macro) for macro in macros}):
            pool = draw_pool(length, emulator.spec.num_actions, self.rng)
            pools[length] = play_from(emulator, start, pool, runs, config)
        others, later = self.others(state), later_starts(emulator, start, seeds[0], config)
        found = {}
        for macro, run in itertools.product(macros, range(len(runs))):
            found[macro, run] = Moments()
            if not outcomes[macro][run].over:
                where = emulator, start, later, others
                found[macro, run] = moments(*where, macro, runs[run], config)
        greedy = [self._greedy_returns(start, seed, max(pools)) for seed in runs]
        played = {x: ends for pool in pools.values() for x, ends in pool.items()} | outcomes
        return Stage(played, pools, found, greedy)

    def _places(self, view: View, observations: np.ndarray) -> np.ndarray:
        """Where real observations `[N, F, ...]` are, `[N, E]`."""
        foresight = view.model.foresight
        return foresight.place(view.measure, foresight.look(view.model.params, observations))

    def _errors(
        self, view: View, state: int, own: Outcome, ends: np.ndarray
    ) -> tuple[tuple[float, ...], ...]:
        """`Trial.errors` in pixels, of the foreseen and the real end, `ends [2, E]`.

        None where a life or the game ended, or no ball is there.
        """
        if self.memory is None or not view.probes or own.over:
            return ()
        real, before = truth(self.memory, own.ram), truth(self.memory, self.rams[state])
        read = view.probes[self.starts[state].game % 2].read(ends)
        errors = np.abs(np.stack([*read, before]) - real)
        return tuple(map(tuple, errors.tolist())) if np.isfinite(errors).all() else ()

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


def draw_pool(length: int, num_actions: int, rng: np.random.Generator) -> list[Macro]:
    """Distinct sequences of one length in a random order: all of them, or `POOL`."""
    total = num_actions**length
    chosen = rng.choice(total, min(POOL, total), replace=False)
    digits = num_actions ** np.arange(length)[::-1]
    return [tuple(row) for row in (chosen[:, None] // digits % num_actions).tolist()]


def chance_seeds(seed: int, state: int, runs: int) -> list[int]:
    """Seeds of the sticky actions of the runs from a state."""
    return np.random.SeedSequence((seed, state)).generate_state(runs, np.uint32).tolist()


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
