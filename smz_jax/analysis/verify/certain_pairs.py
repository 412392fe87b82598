"""How well a model knows where the grid world is certain: "certain from here" against its rules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.foresight import Model
from smz_jax.analysis.verify.grid_world import GridWorld
from smz_jax.analysis.verify.tried_libraries import UNTRAINED
from smz_jax.envs.grid.rules import is_random

MAX_PAIRS = 4_000_000
"""With more pairs than this, start states are drawn."""
_NODES = 65_536  # in memory at a time


class Pairs(NamedTuple):
    """How many (state, sequence) pairs the model calls certain, and how many are."""

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

    Args:
        model: the model.
        world: gives the lengths by its settings.
        starts: `[R]` states to begin in.
        rng: draws start states where there are more than `MAX_PAIRS` pairs.

    Returns:
        Counts for each length, and the number of start states.
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
            alone = (alone[:, None] & ~is_random(rules)[state]).ravel()
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
