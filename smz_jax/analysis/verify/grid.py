"""Macros in the grid world, against its exact rules: nothing is sampled but the agent's play.

A sequence of actions from a state is deterministic if each of its transitions has one outcome
(next state, reward). Past an end nothing happens, and no play knows it: a sequence that would go on
past one is no pair.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Measure, Model, nearness, padded, where_applies
from smz_jax.analysis.verify.libraries import Library, Macro
from smz_jax.analysis.verify.trial import Trial, Tried, is_paid
from smz_jax.config.settings import Config, require
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

MAX_PAIRS = 4_000_000
"""With more pairs than this, start states are drawn."""
_NODES = 65_536  # in memory at a time


class World(NamedTuple):
    """A map with all that is compared with it."""

    rules: GridRules
    observations: np.ndarray  # [S, 1, ...]
    starts: np.ndarray  # [R] states in which an action may be chosen
    values: np.ndarray  # [S] optimal at the run's gamma
    config: Config


class Pairs(NamedTuple):
    """How many (state, sequence) pairs the model holds to be certain, and how many are."""

    length: int
    both: int  # held certain, and deterministic
    wrongly: int  # held certain, but random
    missed: int  # deterministic, but not held certain


def make_world(config: Config) -> World:
    """The world of a run's settings.

    Raises:
        ConfigError: where a single frame is not the whole observation.
    """
    stack = config.env.frame_stack
    require(stack == 1, "env.frame_stack", stack, "1, so that what is seen tells the state")
    grid, kind = read_options(config.env)
    rules = make_rules(grid)
    return World(
        rules=rules,
        observations=grid_observations(rules, kind)[:, None],
        starts=np.flatnonzero(reachable(rules)),
        values=optimal_values(rules, config.learner.gamma)[0],
        config=config,
    )


class _Nodes(NamedTuple):
    """Beginnings of sequences that may still be certain, or deterministic."""

    embedding: Any  # [N, ...]
    certain: np.ndarray  # [N] bool, by the model
    alone: np.ndarray  # [N] bool, by the rules: each transition so far had one outcome
    state: np.ndarray  # [N] int32, where that leads


def states_of(world: World, observations: np.ndarray) -> np.ndarray:
    """The states in which an action may be chosen that some observations `[N, 1, ...]` are of."""
    known = {world.observations[state].tobytes(): state for state in world.starts}
    seen = {row.tobytes() for row in observations.astype(world.observations.dtype)}
    return np.array(sorted(known[row] for row in seen if row in known), np.int64)


def count_pairs(
    model: Model, world: World, starts: np.ndarray, rng: np.random.Generator
) -> tuple[list[Pairs], int]:
    """Holds "certain from here" against the rules, over all pairs of start state and sequence.

    Args:
        model: is asked.
        world: gives the lengths by its settings.
        starts: `[R]` states to begin in.
        rng: draws start states where there are more than `MAX_PAIRS` pairs.

    Returns:
        Counts for each length, and the number of start states.
    """
    settings = world.config.macro
    num_actions = world.rules.probability.shape[1]
    leaves = num_actions**settings.max_length
    most = max(1, MAX_PAIRS // sum(num_actions**k for k in range(1, settings.max_length + 1)))
    if len(starts) > most:
        starts = np.sort(rng.choice(starts, most, replace=False))
    lengths = range(settings.min_length, settings.max_length + 1)
    totals = {length: np.zeros(3, np.int64) for length in lengths}
    group = max(1, _NODES // leaves)
    embedding = model.foresight.look(model.params, world.observations[starts])
    for first in range(0, len(starts), group):
        part = starts[first : first + group]
        sure = np.ones(len(part), np.bool_)
        nodes = _Nodes(embedding[first : first + group], sure, sure, part)
        for length in range(1, settings.max_length + 1):
            nodes = _grow(model, world.rules, nodes)
            if length in totals:
                agree = nodes.certain & nodes.alone
                totals[length] += (
                    int(agree.sum()),
                    int((nodes.certain & ~nodes.alone).sum()),
                    int((~nodes.certain & nodes.alone).sum()),
                )
            live = nodes.certain | nodes.alone
            nodes = _Nodes(*(x[live] for x in nodes))
    return [Pairs(length, *counts.tolist()) for length, counts in totals.items()], len(starts)


def _grow(model: Model, rules: GridRules, nodes: _Nodes) -> _Nodes:
    """Every node followed by every action; those known to stand past an end have no more."""
    goes_on = ~(nodes.alone & rules.terminal[nodes.state])
    nodes = _Nodes(*(x[goes_on] for x in nodes))
    certain, after = model.foresight.expand(model.params, nodes.embedding)
    alone = nodes.alone[:, None] & ~is_random(rules)[nodes.state]
    return _Nodes(
        embedding=after.reshape(-1, *after.shape[2:]),
        certain=(nodes.certain[:, None] & certain).ravel(),
        alone=alone.ravel(),
        state=_only_outcome(rules, nodes.state).ravel(),
    )


def _only_outcome(rules: GridRules, states: np.ndarray) -> np.ndarray:
    """The next state `[N, A]` of the likeliest outcome, which is the only one of a certain pair."""
    likeliest = rules.probability[states].argmax(axis=2)[..., None]
    return np.take_along_axis(rules.next_state[states], likeliest, axis=2)[..., 0]


class _Path(NamedTuple):
    """What the rules say of a macro from each of R states."""

    possible: np.ndarray  # [R] bool, it is not known to go on past an end
    alone: np.ndarray  # [R] bool, deterministic
    end: np.ndarray  # [R] state at the end, of those
    reward: np.ndarray  # [R] their sum of rewards
    eventful: np.ndarray  # [R] bool, there was a reward beside the cost of a step
    gain: np.ndarray  # [R] expected discounted rewards and optimal value at the end, less V*


def follow(world: World, macro: Macro) -> _Path:
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
    return _Path(possible, alone, state, reward, eventful, gain)


def try_library(model: Model, world: World, library: Library) -> Tried:
    """Every macro of a library from every start state.

    A trial is `nearest` if the macro is deterministic there and ends where the model says: its
    foreseen end is nearer to the true end state than to any other state. So it is told apart, too.

    Args:
        model: is asked.
        world: the world.
        library: macros.
    """
    count = len(world.starts)
    seen = model.foresight.look(model.params, world.observations)
    embedding = seen[world.starts]
    measure = Measure(model.params, embedding)
    places = np.asarray(model.foresight.place(measure, seen), np.float64)
    trials = []
    applied = where_applies(model, library.macros, embedding, world.config.macro.max_length)
    for index, macro in enumerate(library.macros):
        path = follow(world, macro)
        actions = np.repeat(padded([macro], world.config.macro.max_length), count, axis=0)
        foreseen = model.foresight.foresee(measure, embedding, actions)
        applied[index] &= path.possible
        ends = nearness(foreseen.end, places, places.mean(axis=0)).argmax(axis=1)
        paid = path.alone & is_paid(foreseen.reward, path.reward, world.config)
        hits = path.alone & (ends == path.end)
        trials += [
            Trial(
                macro=index,
                state=int(state),
                applies=bool(applied[index, row]),
                drawn=True,
                cut=False,
                rivals=world.rules.num_states - 1,
                nearest=bool(hits[row]),
                told_apart=bool(hits[row]),
                paid=bool(paid[row]),
                rewarded=bool(path.eventful[row]),
                lives=0,
                gain=float(path.gain[row]),
            )
            for row, state in enumerate(world.starts)
            if path.possible[row]
        ]
    return Tried(tuple(trials), applied)


def pair_shares(pairs: Sequence[Pairs]) -> dict[str, float | None]:
    """Precision and recall of "certain from here" over some lengths; None of no pairs."""
    both, wrongly, missed = (
        sum(getattr(x, name) for x in pairs) for name in ("both", "wrongly", "missed")
    )
    return {
        "precision": both / (both + wrongly) if both + wrongly else None,
        "recall": both / (both + missed) if both + missed else None,
    }
