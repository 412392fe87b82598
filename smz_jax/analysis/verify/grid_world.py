"""Macros in the grid world, against its exact rules: nothing is sampled but the agent's play.

A sequence of actions from a state is deterministic if each of its transitions has one outcome
(next state, reward). Past an end nothing happens, and no play knows it: a sequence that would reach
beyond one is no pair.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Model, View, foresee, make_view, nearness
from smz_jax.analysis.verify.trials import Trial, is_paid
from smz_jax.analysis.verify.tried_libraries import Macro
from smz_jax.config.settings import Config
from smz_jax.envs.grid import rules as grid_rules
from smz_jax.envs.grid.grid_env import world_of


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

    rules: grid_rules.GridRules
    observations: np.ndarray  # [S, 1, ...] of all states
    starts: np.ndarray  # [R] states in which an action may be chosen
    values: np.ndarray  # [S] optimal at the run's gamma
    config: Config

    def view(self, model: Model) -> View:
        """The states as a model sees them; the known ones are all states."""
        return make_view(model, self.observations[self.starts], self.observations)

    def choose(
        self, macros: Sequence[Macro], applies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where macros apply and are tried, `[M, R]`: not where they reach past an end; all `[R]`.

        `applies [M, R]` is where their preconditions hold.
        """
        possible = np.array([follow(self, macro).possible for macro in macros], np.bool_)
        possible = possible.reshape(applies.shape)
        return applies & possible, possible, np.ones(len(self.starts), np.bool_)

    def judge(
        self, views: Mapping[int, View], state: int, macros: Sequence[Macro]
    ) -> dict[int, dict[Macro, list[Trial]]]:
        """One trial for each macro, by each view.

        It is `nearest` if the macro is deterministic there and ends where the model says: its
        foreseen end is nearer to the true end state than to any other state. So it is
        `told_apart`, too.
        """
        trials: dict[int, dict[Macro, list[Trial]]] = {key: {} for key in views}
        for key, view in views.items():
            ends, rewards = foresee(view, state, macros, self.config.macro.max_length)
            closest = nearness(ends, view.places, view.centre).argmax(axis=1)
            for macro, end, reward in zip(macros, closest, rewards.tolist(), strict=True):
                path = follow(self, macro)
                alone = bool(path.alone[state])
                hit = alone and bool(end == path.end[state])
                trial = Trial(
                    state=state,
                    cut=False,
                    rivals=self.rules.num_states - 1,
                    nearest=hit,
                    told_apart=hit,
                    paid=alone and bool(is_paid(reward, path.reward[state], self.config)),
                    rewarded=bool(path.eventful[state]),
                    lives=0,
                    gain=float(path.gain[state]),
                )
                trials[key][macro] = [trial]
        return trials


def make_world(config: Config) -> GridWorld:
    """The world of a run's settings, of which a single frame is the whole observation."""
    rules, observations = world_of(config.env)
    return GridWorld(
        rules=rules,
        observations=observations[:, None],
        starts=np.flatnonzero(grid_rules.reachable(rules)),
        values=grid_rules.optimal_values(rules, config.learner.gamma)[0],
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
    matrix, means = grid_rules.transition_matrix(rules), grid_rules.mean_reward(rules)
    for step, action in enumerate(macro):
        possible &= ~(alone & rules.terminal[state])
        alone &= ~grid_rules.is_random(rules)[state, action]
        slot = rules.probability[state, action].argmax(axis=1)
        paid = rules.reward[state, action, slot]
        reward += np.where(alone, paid, 0.0)
        eventful |= alone & (np.abs(paid + rules.grid.step_cost) > 1e-9)
        state = rules.next_state[state, action, slot]
        gain += gamma**step * (chances @ means[:, action])
        chances = chances @ matrix[:, action]
    gain += gamma ** len(macro) * (chances @ world.values)
    return Path(possible, alone, state, reward, eventful, gain)
