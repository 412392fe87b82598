"""How well a model knows where the grid world is certain: "certain from here" against its rules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Model
from smz_jax.analysis.verify.grid_world import GridWorld
from smz_jax.analysis.verify.libraries import UNTRAINED
from smz_jax.envs.grid.rules import GridRules, is_random

MAX_PAIRS = 4_000_000
"""With more pairs than this, start states are drawn."""
_NODES = 65_536  # in memory at a time


class Pairs(NamedTuple):
    """How many (state, sequence) pairs the model holds to be certain, and how many are."""

    length: int
    both: int  # held certain, and deterministic
    wrongly: int  # held certain, but random
    missed: int  # deterministic, but not held certain


class _Nodes(NamedTuple):
    """Beginnings of sequences that may still be certain, or deterministic."""

    embedding: Any  # [N, ...]
    certain: np.ndarray  # [N] bool, by the model
    alone: np.ndarray  # [N] bool, by the rules: each transition so far had one outcome
    state: np.ndarray  # [N] int32, where that leads


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

    Args:
        model: the model.
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


def pair_shares(pairs: Sequence[Pairs]) -> dict[str, float | None]:
    """Precision and recall of "certain from here" over some lengths; None of no pairs."""
    both, wrongly, missed = (
        sum(getattr(x, name) for x in pairs) for name in ("both", "wrongly", "missed")
    )
    return {
        "precision": both / (both + wrongly) if both + wrongly else None,
        "recall": both / (both + missed) if both + missed else None,
    }
