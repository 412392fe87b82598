"""Macros in the grid world, against its exact rules: nothing is sampled but the agent's play.

It also counts how well a model knows where this world is certain: "certain from here" by the model
against the rules.

A sequence of actions from a state is deterministic if each of its transitions has one outcome
(next state, reward). Past an end nothing happens, and no play knows it: a sequence that would reach
beyond one is no pair.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Model, View, foresee, make_view, nearness
from smz_jax.analysis.verify.tried_libraries import UNTRAINED, Macro, Trial, is_paid
from smz_jax.config.settings import Config
from smz_jax.envs.grid import rules as grid_rules
from smz_jax.envs.grid.grid_env import world_of

MAX_PAIRS = 4_000_000
"""With more pairs than this, start states are drawn."""
_NODES = 65_536  # in memory at a time


class Path(NamedTuple):
    """What the rules say of a macro from each of R states."""

    possible: np.ndarray  # [R] bool, it is not known to reach past an end
    alone: np.ndarray  # [R] bool, deterministic
    end: np.ndarray  # [R] state at the end, of those
    reward: np.ndarray  # [R] their sum of rewards
    eventful: np.ndarray  # [R] bool, there was a reward beside the cost of a step
    gain: np.ndarray  # [R] expected discounted rewards and optimal value at the end, less V*


class GridWorld:
    """Trials by the rules of a map, from every state that can be reached.

    They are of a run's settings, of which a single frame is the whole observation.
    """

    def __init__(self, config: Config) -> None:
        self.config, (self.rules, observations) = config, world_of(config.env)
        self.observations = observations[:, None]  # [S, 1, ...] of all states
        # [R] states in which an action may be chosen, and [S] optimal at the run's gamma
        self.starts = np.flatnonzero(grid_rules.reachable(self.rules))
        self.values = grid_rules.optimal_values(self.rules, config.learner.gamma)[0]

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

    def are_deterministic(self, macros: Sequence[Macro]) -> list[bool]:
        """Whether macros are deterministic from some state."""
        paths = (follow(self, macro) for macro in macros)
        return [bool(np.any(path.alone & path.possible)) for path in paths]

    def judge(
        self, views: Mapping[int, View], state: int, macros: Sequence[Macro]
    ) -> dict[tuple[int, Macro], list[Trial]]:
        """One trial for each macro, by each view.

        It is `nearest` if the macro is deterministic there and ends where the model says: its
        foreseen end is nearer to the true end state than to any other state. So it is
        `told_apart`, too, and the `whole` state is right.
        """
        trials = {}
        for key, view in views.items():
            ends, rewards, _ = foresee(view, state, macros, self.config.macro.max_length)
            closest = nearness(ends, view.places, view.centre).argmax(axis=1)
            for macro, end, reward in zip(macros, closest, rewards.tolist(), strict=True):
                path = follow(self, macro)
                alone = bool(path.alone[state])
                hit = alone and bool(end == path.end[state])
                trials[key, macro] = [
                    Trial(
                        state=state,
                        cut=False,
                        rivals=self.rules.num_states - 1,
                        nearest=hit,
                        told_apart=hit,
                        whole=hit,
                        moments=self.rules.num_states - 1,
                        paid=alone and bool(is_paid(reward, path.reward[state], self.config)),
                        rewarded=bool(path.eventful[state]),
                        lives=0,
                        gain=float(path.gain[state]),
                    )
                ]
        return trials


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


class Pairs(NamedTuple):
    """How many (state, sequence) pairs are certain by the model, and how many by the rules."""

    length: int
    both: int  # certain by the model, and deterministic
    wrongly: int  # certain by the model, but random
    missed: int  # deterministic, but not certain by the model


def states_of(world: GridWorld, observations: np.ndarray) -> np.ndarray:
    """The states in which an action may be chosen that some observations `[N, 1, ...]` are of."""
    known = {world.observations[state].tobytes(): state for state in world.starts}
    seen = {row.tobytes() for row in observations.astype(world.observations.dtype)}
    return np.array(sorted(known[row] for row in seen if row in known), np.int64)


def count_model_pairs(
    trained: Model, untrained: Model, world: GridWorld, seen: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """`pairs` of verify.json; play is what was `seen [N, 1, ...]`."""
    reached, found = states_of(world, seen), []
    for name, model, states in (
        ("trained network", trained, reached),
        ("trained network, all states", trained, world.starts),
        (UNTRAINED, untrained, reached),
    ):
        pairs, starts = count_pairs(model, world, states, np.random.default_rng(seed))
        lengths = [x._asdict() for x in pairs]
        found.append({"model": name, "starts": starts, **pair_shares(pairs), "lengths": lengths})
    return found


def count_pairs(
    model: Model, world: GridWorld, starts: np.ndarray, rng: np.random.Generator
) -> tuple[list[Pairs], int]:
    """Compares "certain from here" with the rules, over all pairs of start state and sequence.

    The states to begin in are `starts [R]`; where there are more than `MAX_PAIRS` pairs, some of
    them are drawn. Gives counts for each length of the settings, and the number of start states.
    """
    rules, shortest = world.rules, world.config.macro.min_length
    longest, num_actions = world.config.macro.max_length, rules.probability.shape[1]
    most = max(1, MAX_PAIRS // sum(num_actions**k for k in range(1, longest + 1)))
    if len(starts) > most:
        starts = np.sort(rng.choice(starts, most, replace=False))
    likeliest = rules.probability.argmax(axis=2)[..., None]
    after = np.take_along_axis(rules.next_state, likeliest, axis=2)[..., 0]  # [S, A], if certain
    totals = np.zeros((longest + 1, 3), np.int64)
    embeddings = model.foresight.look(model.params, world.observations[starts])
    group = max(1, _NODES // num_actions**longest)
    for first in range(0, len(starts), group):
        # Beginnings of sequences: where they lead by the model and by the rules, and whether each
        # transition so far is certain by the model, and has one outcome by the rules.
        node, state = embeddings[first : first + group], starts[first : first + group]
        certain = alone = np.ones(len(state), np.bool_)
        for length in range(1, longest + 1):
            # Those that are known to stand past an end have no more actions.
            live = (certain | alone) & ~(alone & rules.terminal[state])
            node, state, certain, alone = (x[live] for x in (node, state, certain, alone))
            sure, node = model.foresight.expand(model.params, node)
            certain = (certain[:, None] & sure).ravel()
            alone = (alone[:, None] & ~grid_rules.is_random(rules)[state]).ravel()
            node, state = node.reshape(-1, *node.shape[2:]), after[state].ravel()
            kinds = certain & alone, certain & ~alone, ~certain & alone
            totals[length] += [kind.sum() for kind in kinds]
    lengths = range(shortest, longest + 1)
    return [Pairs(length, *totals[length].tolist()) for length in lengths], len(starts)


def pair_shares(pairs: Sequence[Pairs]) -> dict[str, float | None]:
    """Precision and recall of "certain from here" over some lengths; None of no pairs."""
    both, wrongly, missed = (sum(x[column] for x in pairs) for column in (1, 2, 3))
    return {
        "precision": both / (both + wrongly) if both + wrongly else None,
        "recall": both / (both + missed) if both + missed else None,
    }
