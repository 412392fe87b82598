"""The search loop over plain arrays, for the whole batch in step.

Semantics are mctx's: with nothing collapsed, the same key gives the tree of
`mctx.stochastic_muzero_policy`. Each simulation walks all rows down their trees, adds one node to
each (two steps of the model where a chance node is collapsed), and backs its value up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.search import SearchConfig
from smz_jax.model.turns import beside, of_seat
from smz_jax.search.control import Control, make_control
from smz_jax.search.descent import Bounds, Score, Walk, descend
from smz_jax.search.edges import Edges
from smz_jax.search.expansion import Place
from smz_jax.search.macro_edges import make_second_stage, refuse
from smz_jax.search.nodes import (
    ROOT,
    UNVISITED,
    NewNode,
    Nodes,
    init_nodes,
    put,
    seat_of,
    take,
    write_node,
)
from smz_jax.types import Array, Params


class Loop(NamedTuple):
    """What the loop over simulations carries."""

    rng_key: Array
    nodes: Nodes
    bounds: Bounds


def add_node(
    nodes: Nodes, walk: Walk, index: Array, new: NewNode, *, limited: bool, refused: Array | None
) -> Nodes:
    """Adds `new` as node `index` at the edge where each row stands, but where it is `refused [B]`.

    It has no meaning in rows that stand at a known node; `limited` says whether any may, since a
    depth limit ended its walk there.
    """
    nodes = write_node(nodes, index, new, parent=walk.parent, edge=walk.edge)
    is_new = walk.child == UNVISITED
    if limited:
        nodes = revisit(nodes, index, walk.child, is_new)
    known = jnp.where(is_new, index, walk.child)
    if refused is not None:
        nodes, known = clear(nodes, index, ~refused), jnp.where(refused, UNVISITED, known)
    rows = jnp.arange(is_new.shape[0], dtype=jnp.int32)
    child = nodes.child.at[rows, walk.parent, walk.edge].set(
        known, unique_indices=True, mode="promise_in_bounds"
    )
    return nodes._replace(child=child)


def clear(nodes: Nodes, index: Array, kept: Array) -> Nodes:
    """Node `index` as if it had never been written, but where it is `kept [B]`."""
    fields = {}
    for name in Nodes._fields:
        array = getattr(nodes, name)
        if name in ("child", "state", "actions") or array is None:
            continue
        entry = jax.lax.dynamic_index_in_dim(array, index, axis=1, keepdims=False)
        empty = jnp.asarray(UNVISITED if name in ("parent", "edge", "macro") else 0, array.dtype)
        entry = jnp.where(kept.reshape(-1, *(1,) * (entry.ndim - 1)), entry, empty)
        fields[name] = jax.lax.dynamic_update_index_in_dim(array, entry, index, axis=1)
    return nodes._replace(**fields)


def revisit(nodes: Nodes, index: Array, child: Array, is_new: Array) -> Nodes:
    """Where the walk ended at a known node, that one is visited again and `index` stays empty.

    mctx evaluates such a node once more, with the same result.
    """
    nodes = clear(nodes, index, is_new)
    node = jnp.where(is_new, ROOT, child)
    visits = take(nodes.visits, node) + jnp.where(is_new, 0, 1)
    mean, raw = take(nodes.value, node), take(nodes.raw_value, node)
    value = jnp.where(beside(is_new, mean), mean, raw)
    return nodes._replace(
        visits=put(nodes.visits, node, visits), value=put(nodes.value, node, value)
    )


def back_up(
    nodes: Nodes, bounds: Bounds, leaf: Array, control: Control, limit: int
) -> tuple[Nodes, Bounds]:
    """Averages the return from each row's `leaf [B]` into every node above it.

    As mctx: value <- (value * visits + return) / (visits + 1), return <- reward + discount * return
    on each edge. The bounds take in Q of every action on the way, as it is then. Vectors of more
    than two players are by seat: each has a backup of its own; Q is that of who acts.
    """

    def level(carry: tuple[Array, Array, Array, Array, Bounds]):
        node, returned, value, visits, bounds = carry
        below_root = node != ROOT
        parent = jnp.maximum(take(nodes.parent, node), ROOT)
        reward, discount = take(nodes.reward, node), take(nodes.discount, node)
        discount = beside(discount, reward)
        q = of_seat(reward + discount * take(value, node), seat_of(nodes, parent))
        is_action = below_root & ~take(nodes.is_chance, parent)
        bounds = Bounds(
            low=jnp.where(is_action, jnp.minimum(bounds.low, q), bounds.low),
            high=jnp.where(is_action, jnp.maximum(bounds.high, q), bounds.high),
        )
        returned = reward + discount * returned
        count, mean = take(visits, parent), take(value, parent)
        before = beside(count, mean)
        updated = (mean * before + returned) / (before + 1.0)
        value = put(value, parent, jnp.where(beside(below_root, mean), updated, mean))
        visits = put(visits, parent, jnp.where(below_root, count + 1, count))
        return parent, returned, value, visits, bounds

    _, _, value, visits, bounds = control.repeat(
        lambda carry: jnp.any(carry[0] != ROOT),
        level,
        (leaf, take(nodes.value, leaf), nodes.value, nodes.visits, bounds),
        most=limit,
    )
    return nodes._replace(value=value, visits=visits), bounds


def make_grow(
    expand: Callable[..., NewNode], settings: SearchConfig, edges: Edges, interior_score: Score
) -> Callable[..., Nodes]:
    """The search.

    Args:
        expand: as `make_expand` gives it.
        settings: simulations, the longest path in edges, and which scores noise parts: PUCT's.
        edges: of every node.
        interior_score: scores actions below the root.

    Returns:
        `(params, rng_key, root NewNode, root_score) -> Nodes`, where `root_score(actions, index of
        the simulation)` scores the root's actions (-inf where invalid).
    """
    num_simulations, max_depth = settings.num_simulations, settings.max_depth
    limit = 2 * num_simulations if max_depth is None else max_depth
    control = make_control(settings)
    breaks_ties = (settings.root == "puct", settings.interior == "puct")
    second_stage = make_second_stage(settings, interior_score)

    def grow(params: Params, rng_key: Array, root: NewNode, root_score: Any) -> Nodes:
        def simulate(simulation: Array, loop: Loop) -> Loop:
            # mctx's order of splits.
            rng_key, simulate_key, expand_key = jax.random.split(loop.rng_key, 3)
            nodes = loop.nodes
            walk = descend(
                nodes,
                loop.bounds,
                simulate_key,
                root_score=lambda actions: root_score(actions, simulation),
                interior_score=interior_score,
                second_stage=second_stage,
                breaks_ties=breaks_ties,
                edges=edges,
                limit=limit,
                control=control,
            )
            is_new, index = walk.child == UNVISITED, simulation + 1
            state, from_chance = (take(x, walk.parent) for x in (nodes.state, nodes.is_chance))
            known, macro = (
                None if x is None else take(x, walk.parent) for x in (nodes.actions, nodes.macro)
            )
            mover = seat_of(nodes, walk.parent)
            place = Place(state, known, macro, walk.edge, from_chance, mover)
            new = expand(params, expand_key, place, is_new, walk.depth < limit)
            refused, leaf = None, jnp.where(is_new, index, walk.child)
            if macro is not None:
                by_macro = is_new & ~from_chance & (walk.edge == edges.num_actions)
                agreement = settings.macro_agreement
                nodes, refused = refuse(nodes, walk.parent, by_macro, new, agreement)
                leaf = jnp.where(refused, ROOT, leaf)
            limited = max_depth is not None
            nodes = add_node(nodes, walk, index, new, limited=limited, refused=refused)
            return Loop(rng_key, *back_up(nodes, loop.bounds, leaf, control, limit))

        infinite = jnp.full(root.value.shape[:1], jnp.inf, jnp.float32)
        start = Loop(rng_key, init_nodes(root, num_simulations + 1), Bounds(infinite, -infinite))
        return jax.lax.fori_loop(0, num_simulations, simulate, start).nodes

    return grow
