# pyright: reportCallIssue=false
# (mctx's chex dataclasses look to pyright as if they took no arguments.)
"""The nodes of a batch of search trees as plain arrays, one entry per node.

A child's statistics are its own node's, so that nothing is stored twice and a backup writes two
numbers per node. Written in place: XLA updates arrays that a loop carries without copying them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from smz_jax.model.turns import beside, of_seat
from smz_jax.types import Array, NodeEmbedding

UNVISITED = -1
ROOT = 0


class Nodes(NamedTuple):
    """Nodes of B trees; node 0 is the root, node i + 1 is the one that simulation i added.

    Edges 0..A-1 of a decision node are actions, edges A.. of a chance node are chance outcomes. An
    edge from a decision node to a decision node is a collapsed chance node.
    """

    visits: Array  # [B, N] int32
    value: Array  # [B, N] float32, mean of the returns seen through the node; where there are more
    #               than two players this, and the next two, are [B, N, P] by seat
    raw_value: Array  # [B, N] float32, as the network gave it
    reward: Array  # [B, N] float32, of the edge that leads to the node
    discount: Array  # [B, N] float32, of that edge
    parent: Array  # [B, N] int32
    edge: Array  # [B, N] int32, which of the parent's edges
    child: Array  # [B, N, A + C] int32, UNVISITED where there is none
    prior_logits: Array  # [B, N, A + C] float32
    prior_probs: Array  # [B, N, A + C] float32, 0 on the edges of the other kind
    is_chance: Array  # [B, N] bool
    entropy: Array  # [B, N] float32, see `NodeEmbedding`
    faults: Array  # [B, N] int32, see `NodeEmbedding`
    state: Array  # [B, N, ...] embedding of a decision node, or afterstate of a chance node
    actions: Any = None  # [B, N, K] int32, of a decision node's edges; None: edges are actions
    macro: Any = None  # [B, N, L] int32, the actions of its macro, padded with -1; None: none is
    gain: Any = None  # [B, N] float32, what that is foretold to gain
    mover: Any = None  # [B, N] int32, of more than two players: the seat of who moves, or moved
    #                    before chance does, from the root's mover on; None: there are no more


class NewNode(NamedTuple):
    """One new node of each tree."""

    value: Array  # [B] float32, of more than two players [B, P] by seat; the reward likewise
    reward: Array  # [B] float32, of the edge that leads to it
    discount: Array  # [B] float32
    prior_logits: Array  # [B, A + C] float32, -inf on the edges of the other kind
    is_chance: Array  # [B] bool
    entropy: Array  # [B] float32
    faults: Array  # [B] int32
    state: Array  # [B, ...]
    actions: Any = None  # [B, K] int32, of its edges; None: edges are actions
    macro: Any = None  # [B, L] int32, of its macro; None: the search has none
    gain: Any = None  # [B] float32, of its macro
    mover: Any = None  # [B] int32, see `Nodes`


def take(array: Array, node: Array) -> Array:
    """Entries `[B, ...]` (or `[B, k, ...]`) of `array [B, N, ...]` at `node [B]` (or `[B, k]`).

    Indices must be in range; flat, since XLA gathers several times faster without a batch axis.
    """
    batch_size, num_nodes = array.shape[:2]
    rows = jnp.arange(batch_size, dtype=jnp.int32) * num_nodes
    flat = array.reshape(batch_size * num_nodes, *array.shape[2:])
    index = node + rows.reshape(-1, *(1,) * (node.ndim - 1))
    return flat.at[index].get(mode="promise_in_bounds")


def seat_of(nodes: Nodes, node: Array) -> Array | None:
    """Who moves at `node [B]`, int32 `[B]`; None where there are no more than two players."""
    return None if nodes.mover is None else take(nodes.mover, node)


def put(array: Array, node: Array, entries: Array) -> Array:
    """`array [B, N, ...]` with `entries [B, ...]` at `node [B]`."""
    rows = jnp.arange(array.shape[0], dtype=jnp.int32)
    return array.at[rows, node].set(entries, unique_indices=True, mode="promise_in_bounds")


def init_nodes(root: NewNode, num_nodes: int) -> Nodes:
    """Trees of one node, with room for `num_nodes`."""
    batch_size, num_edges = root.prior_logits.shape
    nothing = jnp.full((batch_size,), UNVISITED, jnp.int32)
    entries = _entries(root, parent=nothing, edge=nothing)
    entries["child"] = jnp.full((batch_size, num_edges), UNVISITED, jnp.int32)
    empty = {
        name: jnp.full(
            (batch_size, num_nodes, *entry.shape[1:]),
            UNVISITED if name in ("parent", "edge", "child", "macro") else 0,
            entry.dtype,
        )
        for name, entry in entries.items()
    }
    return write_node(Nodes(**empty), jnp.int32(ROOT), root, parent=nothing, edge=nothing)


def _entries(new: NewNode, *, parent: Array, edge: Array) -> dict[str, Array]:
    """The fields of `Nodes` for one node of each tree, at its first visit; no children yet."""
    return {
        "visits": jnp.ones_like(parent),
        "raw_value": new.value,
        "parent": parent,
        "edge": edge,
        "prior_probs": jax.nn.softmax(new.prior_logits),
        **{name: entry for name, entry in new._asdict().items() if entry is not None},
    }


def write_node(nodes: Nodes, index: Array, new: NewNode, *, parent: Array, edge: Array) -> Nodes:
    """Writes node `index` (the same in every tree) and its first visit; in place."""
    return nodes._replace(
        **{
            name: jax.lax.dynamic_update_index_in_dim(
                getattr(nodes, name), entry.astype(getattr(nodes, name).dtype), index, axis=1
            )
            for name, entry in _entries(new, parent=parent, edge=edge).items()
        }
    )


def as_mctx_tree(nodes: Nodes, invalid_actions: Array, extra_data: Any = None) -> Any:
    """The `mctx.Tree` of the same trees, children's statistics on the parents' edges.

    Of more than two players a node is told from the side of its mover, and its children too: where
    the turn passes both the discount and the child's value are turned around, so that Q of an edge
    is what it always is, reward + discount * value.
    """
    own, seen, worth = nodes, nodes, None
    if nodes.mover is not None:
        own, seen, worth = _from_movers(nodes)
    has_child = nodes.child != UNVISITED

    def of_child(array: Array) -> Array:
        batch_size, num_nodes, num_edges = nodes.child.shape
        index = jnp.maximum(nodes.child, 0).reshape(batch_size, num_nodes * num_edges)
        gathered = take(array, index).reshape(nodes.child.shape)
        return jnp.where(has_child, gathered, jnp.zeros((), array.dtype))

    return mctx.Tree(
        node_visits=nodes.visits,
        raw_values=own.raw_value,
        node_values=own.value,
        parents=nodes.parent,
        action_from_parent=nodes.edge,
        children_index=nodes.child,
        children_prior_logits=nodes.prior_logits,
        children_values=of_child(seen.value),
        children_visits=of_child(nodes.visits),
        children_rewards=of_child(seen.reward),
        children_discounts=of_child(seen.discount),
        embeddings=NodeEmbedding(
            nodes.state,
            nodes.is_chance,
            nodes.entropy,
            nodes.faults,
            _led_by(nodes),
            nodes.macro,
            worth,
        ),
        root_invalid_actions=invalid_actions,
        extra_data=extra_data,
    )


def _from_movers(nodes: Nodes) -> tuple[Nodes, Nodes, Array]:
    """Trees of more than two players from the side of each node's mover, and of its parent's.

    The third is `NodeEmbedding.worth`.
    """
    before = take(nodes.mover, jnp.maximum(nodes.parent, ROOT))
    sign = jnp.where(before == nodes.mover, 1.0, -1.0)
    values = of_seat(nodes.value, nodes.mover), of_seat(nodes.raw_value, nodes.mover)
    own = nodes._replace(value=values[0], raw_value=values[1])
    seen = nodes._replace(
        value=sign * of_seat(nodes.value, before),
        reward=of_seat(nodes.reward, before),
        discount=sign * nodes.discount,
    )
    worth = nodes.reward + beside(nodes.discount, nodes.value) * nodes.value
    return own, seen, worth.at[:, ROOT].set(nodes.raw_value[:, ROOT])


def _led_by(nodes: Nodes) -> Array | None:
    """The action that led to each node `[B, N]`, -1 where none did; None where edges say so."""
    if nodes.actions is None:
        return None
    parent = jnp.maximum(nodes.parent, ROOT)
    edge = jnp.clip(nodes.edge, 0, nodes.actions.shape[-1] - 1)
    action = jnp.take_along_axis(take(nodes.actions, parent), edge[..., None], axis=-1)[..., 0]
    return jnp.where((nodes.parent < 0) | take(nodes.is_chance, parent), -1, action)
