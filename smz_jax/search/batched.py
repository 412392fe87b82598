"""The search loop over plain arrays, for the whole batch in step.

Semantics are mctx's: with nothing collapsed, the same key gives the tree of
`mctx.stochastic_muzero_policy`. Each simulation walks all rows down their trees, adds one node to
each (two steps of the model where a chance node is collapsed), and backs its value up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.search.nodes import ROOT, UNVISITED, NewNode, Nodes, init_nodes, put, take, write_node
from smz_jax.search.scores import Actions
from smz_jax.types import Array, Params

TIE_NOISE = 1e-7
"""Scale of mctx's noise that breaks ties between scores."""
TIE_MARGIN = 1e-6
"""Scores nearer than this (relative above 1) may be decided by the noise."""

Score = Callable[[Actions], Array]
"""Scores `[B, A]` of the actions of B decision nodes."""


class Walk(NamedTuple):
    """Where each row stands on its way down: the last edge that it chose."""

    parent: Array  # [B] int32
    edge: Array  # [B] int32
    child: Array  # [B] int32, UNVISITED where the edge has no node yet
    depth: Array  # [B] int32, edges from the root to the child; a collapsed one counts two
    walking: Array  # [B] bool, the child is a decision node to go on from


class Loop(NamedTuple):
    """What the loop over simulations carries."""

    rng_key: Array
    nodes: Nodes
    low: Array  # [B] float32, bounds of Q, see `Actions`
    high: Array  # [B] float32


def tie_noise(simulate_key: Array, depth: Array, num_actions: int) -> Array:
    """The noise `[B, A]` that mctx draws at `depth [B]`: row's key, split once a level."""

    def level(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        keys, chosen = carry
        pairs = jax.vmap(jax.random.split)(keys)
        return pairs[:, 0], jnp.where(index == depth, pairs[:, 1], chosen)

    keys = jax.random.split(simulate_key, depth.shape[0])
    _, chosen = jax.lax.fori_loop(0, jnp.max(depth) + 1, level, (keys, keys))
    return TIE_NOISE * jax.vmap(lambda key: jax.random.uniform(key, (num_actions,)))(chosen)


def choose(scores: Array, walking: Array, simulate_key: Array, depth: Array) -> Array:
    """The best action of each row; noise is drawn only where it can decide."""
    best = jnp.max(scores, axis=-1, keepdims=True)
    near = scores >= best - TIE_MARGIN * jnp.maximum(1.0, jnp.abs(best))
    tied = walking & (jnp.sum(near, axis=-1) > 1)
    noisy = jax.lax.cond(
        jnp.any(tied),
        lambda: scores + tie_noise(simulate_key, depth, scores.shape[-1]),
        lambda: scores,
    )
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def make_grow(
    expand: Callable[..., NewNode],
    *,
    num_actions: int,
    num_simulations: int,
    max_depth: int | None,
    interior_score: Score,
    breaks_ties: bool,
) -> Callable[..., Nodes]:
    """The search.

    Args:
        expand: as `make_expand` gives it.
        num_actions: A.
        num_simulations: nodes to add.
        max_depth: longest path in edges; None: no limit.
        interior_score: scores actions below the root.
        breaks_ties: between interior scores, by noise.

    Returns:
        `(params, rng_key, root NewNode, root_score) -> Nodes`, where `root_score(actions, key,
        index of the simulation)` scores the root's actions (-inf where invalid).
    """
    limit = 2 * num_simulations if max_depth is None else max_depth

    def look(nodes: Nodes, node: Array, low: Array, high: Array) -> Actions:
        children = take(nodes.child, node)[:, :num_actions]
        index = jnp.maximum(children, 0)
        return Actions(
            node_visits=take(nodes.visits, node),
            node_value=take(nodes.value, node),
            raw_value=take(nodes.raw_value, node),
            prior_logits=take(nodes.prior_logits, node)[:, :num_actions],
            prior_probs=take(nodes.prior_probs, node)[:, :num_actions],
            visits=jnp.where(children == UNVISITED, 0, take(nodes.visits, index)),
            qvalues=take(nodes.reward, index)
            + take(nodes.discount, index) * take(nodes.value, index),
            low=low,
            high=high,
        )

    def select_outcome(nodes: Nodes, node: Array) -> Array:
        """Arg max of sigma / (visits + 1), see `select_chance_outcome`."""
        children = take(nodes.child, node)[:, num_actions:]
        visits = take(nodes.visits, jnp.maximum(children, 0))
        visits = jnp.where(children == UNVISITED, 0, visits)
        probs = take(nodes.prior_probs, node)[:, num_actions:]
        return jnp.argmax(probs / (visits + 1), axis=-1).astype(jnp.int32)

    def advance(nodes: Nodes, walk: Walk, action: Array) -> Walk:
        """From a decision node by `action`; where that leads to a chance node, on by an outcome."""
        node = jnp.maximum(walk.child, ROOT)
        child = take(nodes.child, node)[jnp.arange(node.shape[0]), action]
        visited = child != UNVISITED
        is_chance = visited & take(nodes.is_chance, jnp.maximum(child, 0))
        depth = walk.depth + jnp.where(visited & ~is_chance, 2, 1)
        going = walk.walking & visited & (depth < limit)
        at_chance = going & is_chance
        outcome = jax.lax.cond(
            jnp.any(at_chance),
            lambda: select_outcome(nodes, jnp.maximum(child, 0)),
            lambda: jnp.zeros_like(action),
        )
        edge = num_actions + outcome
        below = take(nodes.child, jnp.maximum(child, 0))[jnp.arange(node.shape[0]), edge]

        def pick(after_outcome: Array, after_action: Array, before: Array) -> Array:
            return jnp.where(at_chance, after_outcome, jnp.where(walk.walking, after_action, before))

        depth = jnp.where(at_chance, depth + 1, depth)
        return Walk(
            parent=pick(child, node, walk.parent),
            edge=pick(edge, action, walk.edge),
            child=pick(below, child, walk.child),
            depth=pick(depth, depth, walk.depth),
            walking=jnp.where(at_chance, (below != UNVISITED) & (depth < limit), going),
        )

    def descend(loop: Loop, simulate_key: Array, simulation: Array, root_score: Any) -> Walk:
        nodes, batch_size = loop.nodes, loop.low.shape[0]
        root = jnp.full((batch_size,), ROOT, jnp.int32)
        everyone = jnp.ones((batch_size,), jnp.bool_)
        walk = Walk(root, root, child=root, depth=root, walking=everyone)
        at_root = root_score(look(nodes, root, loop.low, loop.high), simulation)
        action = choose(at_root, everyone, simulate_key, root)

        def step(walk: Walk) -> Walk:
            node = jnp.maximum(walk.child, ROOT)
            scores = interior_score(look(nodes, node, loop.low, loop.high))
            if breaks_ties:
                action = choose(scores, walk.walking, simulate_key, walk.depth)
            else:
                action = jnp.argmax(scores, axis=-1).astype(jnp.int32)
            return advance(nodes, walk, action)

        return jax.lax.while_loop(
            lambda walk: jnp.any(walk.walking), step, advance(nodes, walk, action)
        )

    def back_up(loop: Loop, leaf: Array) -> Loop:
        nodes = loop.nodes

        def level(carry):
            node, ret, value, visits, low, high = carry
            below_root = node != ROOT
            parent = jnp.maximum(take(nodes.parent, node), 0)
            reward, discount = take(nodes.reward, node), take(nodes.discount, node)
            q = reward + discount * take(value, node)
            is_action = below_root & ~take(nodes.is_chance, parent)
            low = jnp.where(is_action, jnp.minimum(low, q), low)
            high = jnp.where(is_action, jnp.maximum(high, q), high)
            ret = reward + discount * ret
            count, mean = take(visits, parent), take(value, parent)
            mean = jnp.where(below_root, (mean * count + ret) / (count + 1.0), mean)
            value = put(value, parent, mean)
            visits = put(visits, parent, jnp.where(below_root, count + 1, count))
            return parent, ret, value, visits, low, high

        carry = (leaf, take(nodes.value, leaf), nodes.value, nodes.visits, loop.low, loop.high)
        _, _, value, visits, low, high = jax.lax.while_loop(
            lambda carry: jnp.any(carry[0] != ROOT), level, carry
        )
        return loop._replace(nodes=nodes._replace(value=value, visits=visits), low=low, high=high)

    def simulate(params: Params, simulation: Any, loop: Loop, root_score: Any) -> Loop:
        rng_key, simulate_key, _ = jax.random.split(loop.rng_key, 3)  # mctx's order of splits
        walk = descend(loop, simulate_key, simulation, root_score)
        nodes = loop.nodes
        is_new = walk.child == UNVISITED
        new = expand(
            params,
            take(nodes.state, walk.parent),
            walk.edge,
            take(nodes.is_chance, walk.parent),
            is_new,
            walk.depth < limit,
        )
        index = simulation + 1
        nodes = write_node(nodes, index, new, parent=walk.parent, edge=walk.edge)
        if limit < num_simulations:
            nodes = revisit(nodes, index, walk.child, is_new)
        leaf = jnp.where(is_new, index, walk.child)
        rows = jnp.arange(leaf.shape[0], dtype=jnp.int32)
        child = nodes.child.at[rows, walk.parent, walk.edge].set(
            leaf, unique_indices=True, mode="promise_in_bounds"
        )
        return back_up(loop._replace(rng_key=rng_key, nodes=nodes._replace(child=child)), leaf)

    def grow(params: Params, rng_key: Array, root: NewNode, root_score: Any) -> Nodes:
        batch_size = root.value.shape[0]
        loop = Loop(
            rng_key=rng_key,
            nodes=init_nodes(root, num_simulations + 1),
            low=jnp.full((batch_size,), jnp.inf, jnp.float32),
            high=jnp.full((batch_size,), -jnp.inf, jnp.float32),
        )
        return jax.lax.fori_loop(
            0,
            num_simulations,
            lambda simulation, loop: simulate(params, simulation, loop, root_score),
            loop,
        ).nodes

    return grow


def revisit(nodes: Nodes, index: Array, child: Array, is_new: Array) -> Nodes:
    """Where the depth limit ended the walk at a known node: it is visited again, and no other.

    mctx evaluates such a node once more, with the same result.
    """
    empty = {"visits": 0, "parent": UNVISITED, "edge": UNVISITED, "is_chance": False}
    fields = {}
    for name in Nodes._fields:
        if name in ("child", "state"):
            continue
        array = getattr(nodes, name)
        entry = jax.lax.dynamic_index_in_dim(array, index, axis=1, keepdims=False)
        fill = jnp.asarray(empty.get(name, 0), array.dtype)
        kept = jnp.where(is_new.reshape(-1, *(1,) * (entry.ndim - 1)), entry, fill)
        fields[name] = jax.lax.dynamic_update_index_in_dim(array, kept, index, axis=1)
    nodes = nodes._replace(**fields)
    node = jnp.where(is_new, 0, child)
    again = take(nodes.visits, node) + jnp.where(is_new, 0, 1)
    value = jnp.where(is_new, take(nodes.value, node), take(nodes.raw_value, node))
    return nodes._replace(
        visits=put(nodes.visits, node, again), value=put(nodes.value, node, value)
    )
