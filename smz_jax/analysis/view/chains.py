"""One search tree on the host, and its chains of certain transitions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class SmallTree(NamedTuple):
    """What is drawn of a tree; N nodes, node 0 is the root."""

    parent: np.ndarray  # [N] int, -1: the root, or a node that was never made
    edge: np.ndarray  # [N] int, the parent's edge: an action, or A + code below a chance node
    visits: np.ndarray  # [N] int
    is_chance: np.ndarray  # [N] bool
    entropy: np.ndarray  # [N] float, of a chance node, or of the collapsed edge to a decision node
    num_actions: int

    def via(self, node: int) -> int:
        """The node that holds the entropy of the transition that leads to or through a node.

        With a chance node between two decision nodes it is that one.
        """
        above = int(self.parent[node])
        return above if above >= 0 and self.is_chance[above] else node


class Chain(NamedTuple):
    """Certain transitions in a row, as a macro's window in a tree."""

    nodes: tuple[int, ...]  # from its first decision node to its last, chance nodes among them
    actions: tuple[int, ...]
    entropies: tuple[float, ...]  # of each action


def to_host(tree: Any, num_actions: int) -> SmallTree:
    """The first of a batch of `mctx.Tree`s as NumPy."""
    fields = (
        *(tree.parents[0], tree.action_from_parent[0], tree.node_visits[0]),
        *(tree.embeddings.is_chance[0], tree.embeddings.entropy[0]),
    )
    return SmallTree(*jax.device_get(fields), num_actions=num_actions)


def chains(tree: SmallTree, threshold: float, max_length: int) -> list[Chain]:
    """For each decision node the longest chain of certain transitions that ends there.

    Returns:
        Chains of at least one transition.
    """
    found = []
    for end in np.flatnonzero((tree.visits > 0) & (tree.parent >= 0) & ~tree.is_chance).tolist():
        nodes, actions, entropies = [end], [], []
        while tree.parent[nodes[-1]] >= 0 and len(actions) < max_length:
            via = tree.via(nodes[-1])
            start = int(tree.parent[via])
            if start < 0 or not tree.entropy[via] < threshold:
                break
            nodes += [via, start] if via != nodes[-1] else [start]
            actions.append(int(tree.edge[via]))
            entropies.append(float(tree.entropy[via]))
        if actions:
            found.append(Chain(*(tuple(x[::-1]) for x in (nodes, actions, entropies))))
    return found


def ways_on(tree: SmallTree, node: int) -> list[int]:
    """Nodes that hold the entropy of each transition searched from a decision node."""
    return np.flatnonzero((tree.parent == node) & (tree.visits > 0)).tolist()


def most_visited_path(tree: SmallTree) -> list[int]:
    """From the root to a leaf, always on to the most visited child; of several, to the oldest."""
    path = [0]
    while below := ways_on(tree, path[-1]):
        path.append(max(below, key=lambda node: (tree.visits[node], -node)))
    return path


def worth(
    tree: SmallTree, chain: Chain, known: set[tuple[int, ...]], threshold: float
) -> tuple[float, ...]:
    """How well a chain shows a macro: greater is better.

    A chain of a known macro first, then one of more than one action (repeats look alike), one that
    an uncertain transition ends, the longest, one from the root, the most searched.
    """
    ways = ways_on(tree, chain.nodes[-1])
    ended = bool(ways) and all(tree.entropy[via] >= threshold for via in ways)
    return (
        float(chain.actions in known),
        float(len(set(chain.actions)) > 1),
        float(ended and len(chain.actions) > 1),
        float(len(chain.actions)),
        float(chain.nodes[0] == 0),
        float(tree.visits[chain.nodes[-1]]),
    )


def best_chain(
    tree: SmallTree, threshold: float, max_length: int, known: set[tuple[int, ...]]
) -> Chain | None:
    """The chain that is shown of a tree; None where no transition is certain."""
    found = chains(tree, threshold, max_length)
    return max(found, key=lambda chain: worth(tree, chain, known, threshold), default=None)


def why_it_ends(tree: SmallTree, chain: Chain, threshold: float, max_length: int) -> str:
    """Why a chain that is shown is no longer than it is, in words."""
    ways = ways_on(tree, chain.nodes[-1])
    certain = [via for via in ways if tree.entropy[via] < threshold]
    if not ways:
        return "leaf: the search went no further"
    if not certain:
        least = min(float(tree.entropy[via]) for via in ways)
        every = "entropy from" if len(ways) > 1 else "entropy"
        return f"{every} {least:.2f} over {threshold:g} on what was searched from there"
    if len(chain.actions) >= max_length:
        return f"a macro has {max_length} actions at most"
    # A transition was searched to its end where the decision node that it leads to is there.
    if all(tree.is_chance[via] and not ways_on(tree, via) for via in certain):
        return "leaf: the search began what is certain from there, and went no further"
    return "no known macro is longer, though more transitions are certain"


def kept_nodes(tree: SmallTree, chain: Sequence[int], most: int) -> list[int]:
    """The nodes to draw: the chain and its ancestors, then the most visited ones; ascending.

    A parent has been visited at least as often as its child, and is older, so that each node comes
    with its ancestors.
    """
    kept: set[int] = set()
    for node in chain:
        while node >= 0:
            kept.add(node)
            node = int(tree.parent[node])
    made = np.flatnonzero(tree.visits > 0).tolist()
    for node in sorted(made, key=lambda node: (-tree.visits[node], node)):
        if len(kept) < most and (node == 0 or int(tree.parent[node]) in kept):
            kept.add(node)
    return sorted(kept)
