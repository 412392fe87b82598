"""The way down: all rows walk their trees in step, until each stands at an edge without a node."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.model.lanes import own_rows
from smz_jax.model.turns import beside, of_seat
from smz_jax.search.control import Control
from smz_jax.search.edges import Edges
from smz_jax.search.macro_edges import folded, look_at_macro
from smz_jax.search.nodes import ROOT, UNVISITED, Nodes, seat_of, take
from smz_jax.search.scores import Actions
from smz_jax.types import Array

TIE_NOISE = 1e-7
"""Scale of mctx's noise that breaks ties between scores."""
TIE_MARGIN = 1e-6
"""Scores nearer than this (relative above 1) may be decided by the noise."""

Score = Callable[[Actions], Array]
"""Scores `[B, A]` of the actions of B decision nodes."""


class Walk(NamedTuple):
    """Where each row stands: the last edge that it chose."""

    parent: Array  # [B] int32
    edge: Array  # [B] int32
    child: Array  # [B] int32, UNVISITED where the edge has no node yet
    depth: Array  # [B] int32, edges from the root to the child; a collapsed one, or a macro's,
    #               counts two
    walking: Array  # [B] bool, the child is a decision node to go on from


class Bounds(NamedTuple):
    """Running bounds of every Q(s, a) backed up in a tree; crossed before the first."""

    low: Array  # [B] float32
    high: Array  # [B] float32


def tie_noise(simulate_key: Array, depth: Array, num_actions: int, levels: Array | int) -> Array:
    """The noise `[B, A]` that mctx draws at `depth [B]`: a row's key, split once a level.

    `levels` is at least one more than the largest depth.
    """

    def level(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        keys, chosen = carry
        pairs = jax.vmap(jax.random.split)(keys)
        return pairs[:, 0], jnp.where(index == depth, pairs[:, 1], chosen)

    keys = own_rows(lambda n: jax.random.split(simulate_key, n), depth.shape[0])
    _, chosen = jax.lax.fori_loop(0, levels, level, (keys, keys))
    return TIE_NOISE * jax.vmap(lambda key: jax.random.uniform(key, (num_actions,)))(chosen)


def choose(
    scores: Array, walking: Array, simulate_key: Array, depth: Array, control: Control, limit: int
) -> Array:
    """The best action of each row, int32 `[B]`; noise is drawn only where it can decide.

    `scores [B, A]`; only the choice of rows that are `walking [B]` counts. `depth [B]`, at most the
    `limit`, is where each row stands.
    """
    best = jnp.max(scores, axis=-1, keepdims=True)
    near = scores >= best - TIE_MARGIN * jnp.maximum(1.0, jnp.abs(best))
    tied = walking & (jnp.sum(near, axis=-1) > 1)
    levels = limit + 1 if control.static else jnp.max(depth) + 1
    noisy = control.branch(
        jnp.any(tied),
        lambda: scores + tie_noise(simulate_key, depth, scores.shape[-1], levels),
        lambda: scores,
    )
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def look(nodes: Nodes, node: Array, bounds: Bounds, edges: Edges) -> Actions:
    """The decision nodes `node [B]` as the scores see them."""
    children = take(nodes.child, node)[:, edges.actions]
    index = jnp.maximum(children, 0)
    reward, discount = take(nodes.reward, index), take(nodes.discount, index)
    qvalues = reward + beside(discount, reward) * take(nodes.value, index)
    mover = seat_of(nodes, node)
    of_actions = None if mover is None else jnp.broadcast_to(mover[:, None], index.shape)
    return Actions(
        node_visits=take(nodes.visits, node),
        node_value=of_seat(take(nodes.value, node), mover),
        raw_value=of_seat(take(nodes.raw_value, node), mover),
        prior_logits=take(nodes.prior_logits, node)[:, edges.actions],
        prior_probs=take(nodes.prior_probs, node)[:, edges.actions],
        visits=jnp.where(children == UNVISITED, 0, take(nodes.visits, index)),
        qvalues=of_seat(qvalues, of_actions),
        low=bounds.low,
        high=bounds.high,
    )


def select_outcome(nodes: Nodes, node: Array, edges: Edges) -> Array:
    """Arg max of sigma / (visits + 1) at chance nodes `node [B]`, see `select_chance_outcome`."""
    children = take(nodes.child, node)[:, edges.outcomes]
    visits = take(nodes.visits, jnp.maximum(children, 0))
    visits = jnp.where(children == UNVISITED, 0, visits)
    probs = take(nodes.prior_probs, node)[:, edges.outcomes]
    return jnp.argmax(probs / (visits + 1), axis=-1).astype(jnp.int32)


def advance(
    nodes: Nodes, walk: Walk, action: Array, *, edges: Edges, limit: int, control: Control
) -> Walk:
    """A step of the game: from a decision node by `action [B]`, past a chance node by an outcome.

    Rows that are not walking stay as they are; `limit` is the longest path in edges.
    """

    def follow(node: Array, edge: Array) -> Array:
        return take(nodes.child, node)[jnp.arange(node.shape[0]), edge]

    node = jnp.maximum(walk.child, ROOT)
    child = follow(node, action)
    visited = child != UNVISITED
    at = jnp.maximum(child, ROOT)
    is_chance = visited & take(nodes.is_chance, at)
    depth = walk.depth + jnp.where(visited & ~is_chance, 2, 1)
    going = walk.walking & visited & (depth < limit)
    at_chance = going & is_chance
    outcome = control.branch(
        jnp.any(at_chance),
        lambda: select_outcome(nodes, at, edges),
        lambda: jnp.zeros_like(action),
    )
    edge = edges.first_outcome + outcome
    below = follow(at, edge)

    def pick(after_outcome: Array, after_action: Array, before: Array) -> Array:
        return jnp.where(at_chance, after_outcome, jnp.where(walk.walking, after_action, before))

    return Walk(
        parent=pick(child, node, walk.parent),
        edge=pick(edge, action, walk.edge),
        child=pick(below, child, walk.child),
        depth=pick(depth + 1, depth, walk.depth),
        walking=jnp.where(at_chance, (below != UNVISITED) & (depth + 1 < limit), going),
    )


def descend(
    nodes: Nodes,
    bounds: Bounds,
    simulate_key: Array,
    *,
    root_score: Score,
    interior_score: Score,
    second_stage: Callable[..., Array],
    breaks_ties: tuple[bool, bool],
    edges: Edges,
    limit: int,
    control: Control,
) -> Walk:
    """Walks from the root to an edge without a node, or to the depth limit.

    Args:
        nodes: the trees.
        bounds: of their Q-values.
        simulate_key: of this simulation, as mctx derives it.
        root_score: of the root's actions; -inf where invalid.
        interior_score: of all others.
        second_stage: as `make_second_stage` gives it.
        breaks_ties: by noise, between root scores and between interior ones.
        edges: of every node.
        limit: longest path in edges.
        control: of loops and branches.
    """
    root = jnp.full(bounds.low.shape, ROOT, jnp.int32)
    everyone = jnp.ones(bounds.low.shape, jnp.bool_)
    walk = Walk(root, root, child=root, depth=jnp.zeros_like(root), walking=everyone)

    def go(walk: Walk, score: Score, with_noise: bool) -> Walk:
        node = jnp.maximum(walk.child, ROOT)
        actions, macro = look(nodes, node, bounds, edges), look_at_macro(nodes, node, edges)
        seen = actions if macro is None else folded(actions, macro)
        if with_noise:
            action = choose(score(seen), walk.walking, simulate_key, walk.depth, control, limit)
        else:
            action = jnp.argmax(score(seen), axis=-1).astype(jnp.int32)
        if macro is not None:
            by_macro = second_stage(actions, seen, action, macro)
            action = jnp.where(by_macro, edges.num_actions, action)
        return advance(nodes, walk, action, edges=edges, limit=limit, control=control)

    at_root, below = breaks_ties
    walk = go(walk, root_score, at_root)
    return control.repeat(
        lambda walk: jnp.any(walk.walking),
        lambda walk: go(walk, interior_score, below),
        walk,
        most=limit,
    )
