"""Macros in the grid world, against its exact rules: nothing is sampled but the agent's play.

A sequence of actions from a state is deterministic if each of its transitions has one outcome
(next state, reward). Past an end nothing happens, and no play knows it: a sequence that would reach
beyond one is no pair.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Model, nearness
from smz_jax.analysis.verify.libraries import Macro
from smz_jax.analysis.verify.trial import Trial, is_paid
from smz_jax.analysis.verify.worlds import Choice, View, make_view
from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.envs.grid.grid_env import grid_observations
from smz_jax.envs.grid.map import read_options
from smz_jax.envs.grid.rules import (
    GridRules,
    is_random,
    make_rules,
    mean_reward,
    optimal_values,
    reachable,
    transition_matrix,
)


class Path(NamedTuple):
    """What the rules say of a macro from each of R states."""

    possible: np.ndarray  # [R] bool, it is not known to reach past an end
    alone: np.ndarray  # [R] bool, deterministic
    end: np.ndarray  # [R] state at the end, of those
    reward: np.ndarray  # [R] their sum of rewards
    eventful: np.ndarray  # [R] bool, there was a reward beside the cost of a step
    gain: np.ndarray  # [R] expected discounted rewards and optimal value at the end, less V*


@dataclass(frozen=True, eq=False)
class GridWorld:
    """Trials by the rules of a map, from every state that can be reached."""

    rules: GridRules
    observations: np.ndarray  # [S, 1, ...] of all states
    starts: np.ndarray  # [R] states in which an action may be chosen
    values: np.ndarray  # [S] optimal at the run's gamma
    config: Config

    @property
    def num_starts(self) -> int:
        """R."""
        return len(self.starts)

    def view(self, model: Model) -> View:
        """The states as a model sees them; the known ones are all states."""
        return make_view(model, self.observations[self.starts], self.observations)

    def choose(self, macros: Sequence[Macro], applies: np.ndarray) -> Choice:
        """Every state from which a macro does not reach past an end."""
        possible = np.array([follow(self, macro).possible for macro in macros], np.bool_)
        possible = possible.reshape(applies.shape)
        return Choice(applies & possible, possible, np.ones(self.num_starts, np.bool_))

    def play(self, state: int, macros: Iterable[Macro]) -> None:
        """Nothing is played: the rules say it."""

    def judge(
        self, view: View, state: int, macros: Sequence[Macro], scene: None
    ) -> dict[Macro, list[Trial]]:
        """One trial for each macro.

        It is `nearest` if the macro is deterministic there and ends where the model says: its
        foreseen end is nearer to the true end state than to any other state. So it is
        `told_apart`, too.
        """
        foreseen = view.foresee(state, macros, self.config.macro.max_length)
        ends = np.stack([end for end, _ in foreseen.values()])
        closest = nearness(ends, view.places, view.centre).argmax(axis=1)
        trials = {}
        for macro, end in zip(macros, closest, strict=True):
            path = follow(self, macro)
            alone = path.alone[state]
            hit = bool(alone and end == path.end[state])
            paid = is_paid(foreseen[macro][1], path.reward[state], self.config)
            trial = Trial(
                state=state,
                cut=False,
                rivals=self.rules.num_states - 1,
                nearest=hit,
                told_apart=hit,
                paid=bool(alone and paid),
                rewarded=bool(path.eventful[state]),
                lives=0,
                gain=float(path.gain[state]),
            )
            trials[macro] = [trial]
        return trials


def make_world(config: Config) -> GridWorld:
    """The world of a run's settings.

    Raises:
        ConfigError: where a single frame is not the whole observation.
    """
    stack = config.env.frame_stack
    require(stack == 1, "env.frame_stack", stack, "1, so that what is seen tells the state")
    grid, kind = read_options(config.env)
    rules = make_rules(grid)
    return GridWorld(
        rules=rules,
        observations=grid_observations(rules, kind)[:, None],
        starts=np.flatnonzero(reachable(rules)),
        values=optimal_values(rules, config.learner.gamma)[0],
        config=config,
    )


@functools.cache
def follow(world: GridWorld, macro: Macro) -> Path:
    """Plays a macro by the rules from every start state."""
    rules, gamma = world.rules, world.config.learner.gamma
    state, count = world.starts, len(world.starts)
    possible, alone = np.ones(count, np.bool_), np.ones(count, np.bool_)
    reward, eventful = np.zeros(count), np.zeros(count, np.bool_)
    chances, gain = np.eye(rules.num_states)[state], -world.values[state]
    matrix, means = transition_matrix(rules), mean_reward(rules)
    for step, action in enumerate(macro):
        possible &= ~(alone & rules.terminal[state])
        alone &= ~is_random(rules)[state, action]
        slot = rules.probability[state, action].argmax(axis=1)
        paid = rules.reward[state, action, slot]
        reward += np.where(alone, paid, 0.0)
        eventful |= alone & (np.abs(paid + rules.grid.step_cost) > 1e-9)
        state = rules.next_state[state, action, slot]
        gain += gamma**step * (chances @ means[:, action])
        chances = chances @ matrix[:, action]
    gain += gamma ** len(macro) * (chances @ world.values)
    return Path(possible, alone, state, reward, eventful, gain)
