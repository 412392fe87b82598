"""What a search with jumps did: through which edges, how deep, how often it called the model."""

from typing import Any

import jax.numpy as jnp

from smz_jax.search.edges import Edges
from smz_jax.types import LEAPT, Array


def usage(tree: Any, edges: Edges) -> dict[str, Array]:
    """Of each of B trees, `[B]` float32.

    Returns:
        `macro_simulations`, the share of simulations whose way led through a macro's edge; `depth`,
        the steps of the game from the root to where a simulation ended, on average; and the number
        of calls: `calls_afterstate` (phi, psi), `calls_dynamics` (g, f), `calls_jump` (J, f),
        those of jumps that were refused among them.
    """
    made = (tree.node_visits > 0) & (tree.parents >= 0)
    parent, node = jnp.maximum(tree.parents, 0), tree.embeddings
    is_chance = node.is_chance
    leapt, from_chance = node.entropy >= LEAPT, jnp.take_along_axis(is_chance, parent, axis=1)
    by_macro, length = jnp.zeros_like(made), jnp.ones_like(parent)
    if node.macro is not None:
        by_macro = made & ~from_chance & (tree.action_from_parent == edges.num_actions)
        lengths = jnp.sum(node.macro >= 0, axis=-1)
        length = jnp.where(by_macro, jnp.take_along_axis(lengths, parent, axis=1), 1)
    depth = jnp.where(made & ~is_chance, length, 0)
    passed, above = by_macro, parent
    for _ in range(max(1, (made.shape[1] - 1).bit_length())):  # twice as far up each time
        passed |= jnp.take_along_axis(passed, above, axis=1)
        depth += jnp.take_along_axis(depth, above, axis=1)
        above = jnp.take_along_axis(above, above, axis=1)
    count = jnp.maximum(made.sum(axis=1), 1)
    simulations = made.shape[1] - 1
    found = {
        "macro_simulations": jnp.sum(passed & made, axis=1) / count,
        "depth": jnp.sum(jnp.where(made, depth, 0), axis=1) / count,
        "calls_afterstate": jnp.sum(made & ~leapt & ~from_chance, axis=1),
        "calls_dynamics": jnp.sum(made & ~leapt & ~is_chance, axis=1),
        "calls_jump": jnp.sum(made & leapt, axis=1) + simulations - made.sum(axis=1),
    }
    return {name: x.astype(jnp.float32) for name, x in found.items()}
