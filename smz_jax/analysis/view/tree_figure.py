"""One search tree on the host, its chains of certain transitions, and the drawing of one."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smz_jax.config.training import MacroConfig
from smz_jax.report.style import BLUE, DPI, GREEN, GREY, plot_text
from smz_jax.storage.documents.macro_form import fold
from smz_jax.types import LEAPT

NODES = 60
"""Nodes that are drawn at most."""
UNCERTAIN = ":"
"""Line of an uncertain transition."""
PALE, DARK_GREEN, WHITE = "#B5B5B5", "#00694D", "#FFFFFF"
LINE: Any = {"color": PALE, "linewidth": 1.4}
MACRO_LINE: Any = {"color": BLUE, "linewidth": 2.4, "linestyle": "-"}

Places = Mapping[int, tuple[float, float]]


class SmallTree(NamedTuple):
    """What is drawn of a tree; N nodes, node 0 is the root."""

    parent: np.ndarray  # [N] int, -1: the root, or a node that was never made
    edge: np.ndarray  # [N] int, the parent's edge: an action, or A + code below a chance node
    visits: np.ndarray  # [N] int
    is_chance: np.ndarray  # [N] bool
    entropy: np.ndarray  # [N] float, of a chance node, or of the collapsed edge to a decision node
    num_actions: int
    macro: np.ndarray | None = None  # [N, L] int, actions of the node's macro, padded with -1; its
    #                                  edge comes after those of the actions. None: none has one

    def by_macro(self, node: int) -> bool:
        """Whether a macro's edge leads to a node."""
        above = int(self.parent[node])
        on_edge = self.macro is not None and int(self.edge[node]) == self.num_actions
        return on_edge and not bool(self.is_chance[above])

    def words(self, node: int, names: Sequence[str]) -> str | None:
        """What is played on the way to a node: an action, a macro's; None after a chance node."""
        above, edge = int(self.parent[node]), int(self.edge[node])
        if self.macro is not None and self.by_macro(node):
            return fold([names[int(action)] for action in self.macro[above] if action >= 0])
        return None if self.is_chance[above] or edge >= self.num_actions else names[edge]

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


NO_CHAIN = Chain((0,), (), ())
"""Of a tree whose every transition is uncertain: the root alone."""


class TreeDecision(NamedTuple):
    """A decision whose tree is worth drawing."""

    game: int | None  # None: it is of no game that was watched
    step: int
    tree: SmallTree
    chain: Chain


def to_host(tree: Any, num_actions: int) -> SmallTree:
    """The first of a batch of `mctx.Tree`s as NumPy."""
    named = tree.embeddings.action  # of candidates, whose edges are no actions
    edge = tree.action_from_parent if named is None else named
    fields = (
        *(tree.parents[0], edge[0], tree.node_visits[0]),
        *(tree.embeddings.is_chance[0], tree.embeddings.entropy[0]),
    )
    macro = tree.embeddings.macro
    macro = None if macro is None else jax.device_get(macro[0])
    return SmallTree(*jax.device_get(fields), num_actions=num_actions, macro=macro)


def chains(tree: SmallTree, threshold: float, max_length: int) -> list[Chain]:
    """For each decision node the longest chain of certain transitions, if any, that ends there."""
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
    (actions, length), ways = (chain.actions, len(chain.actions)), ways_on(tree, chain.nodes[-1])
    ended = bool(ways) and all(tree.entropy[via] >= threshold for via in ways)
    first = actions in known, len(set(actions)) > 1, ended and length > 1, length
    return (*map(float, first), float(chain.nodes[0] == 0), float(tree.visits[chain.nodes[-1]]))


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
        every = "entropy from" if len(ways) > 1 else "entropy"
        least = f"{tree.entropy[ways].min():.2f} over {threshold:g}"
        return f"{every} {least} on what was searched from there"
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


def layout(parent: Mapping[int, int], nodes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Where each node stands: depth to the right, leaves one below the other, parents between.

    The nodes are ascending, the root first, which alone has no parent.
    """
    leaves, places = itertools.count(), dict.fromkeys(nodes, (0.0, 0.0))

    def place(node: int, depth: float) -> float:
        heights = [place(child, depth + 1) for child in nodes[1:] if parent[child] == node]
        height = (heights[0] + heights[-1]) / 2 if heights else float(next(leaves))
        places[node] = depth, height
        return height

    place(nodes[0], 0.0)
    return places


def certain_nodes(tree: SmallTree, threshold: float) -> set[int]:
    """Nodes that a certain transition leads to or through: both its edges are certain ones."""
    below = np.flatnonzero(tree.parent >= 0).tolist()
    return {node for node in below if tree.entropy[tree.via(node)] < threshold}


def tree_figure(
    decided: TreeDecision, library: Mapping[str, Any], *, tree_threshold: float, most: int = NODES
) -> Figure:
    """A tree from left to right: decision nodes round, chance nodes square, larger with visits.

    Only the chain is in colour. The chance nodes of certain transitions are hollow and small: there
    is nothing to wait for. Entropies stand on the chain, on the most visited path, and on what was
    searched from the chain's end.
    """
    tree, chain, names = decided.tree, decided.chain, library["action_names"]
    ways = ways_on(tree, chain.nodes[-1])
    nodes = kept_nodes(tree, (*chain.nodes, *ways), most)
    places = layout({node: int(tree.parent[node]) for node in nodes[1:]}, nodes)
    leaves = 1 + max(y for _, y in places.values())
    size = (11, min(max(4.0, 1.6 + 0.3 * leaves), 9.0))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    words = fold([names[action] for action in chain.actions])
    title = f"A search tree and its certain chain: {words}" if words else "A search tree"
    figure.suptitle(plot_text(title), x=0.01, ha="left")
    found = [x for x in library["macros"] if tuple(x["actions"]) == chain.actions]
    state = f"a {found[0]['status']} macro" if found else "not in the library"
    made = int((tree.visits > 0).sum())
    drawn = f"all {made} nodes" if made <= len(nodes) else f"{len(nodes)} of {made} nodes"
    longest = MacroConfig(**library["config"]).max_length
    why = why_it_ends(tree, chain, tree_threshold, longest)
    where = "" if decided.game is None else f"game {decided.game}, step {decided.step}; "
    about = f"{where}{drawn}; the chain is {state}\nthe chain ends: {why}"
    if not words:
        about = f"{where}{drawn}; no transition is certain"
    axes.set_title(plot_text(about), loc="left", fontsize=10)
    certain = certain_nodes(tree, tree_threshold)
    _draw_edges(axes, decided, places, certain, names)
    _draw_nodes(axes, decided, places, certain)
    axes.set_ylim(leaves - 0.3, -0.7)
    axes.set_xlim(-0.4, max(x for x, _ in places.values()) + 0.6)
    axes.set_axis_off()
    _legend(figure, tree_threshold, tree.macro is not None)
    return figure


def _draw_edges(
    axes: Axes, decided: TreeDecision, places: Places, certain: set[int], names: Sequence[str]
) -> None:
    """Edges; on each below a decision node its action, and its entropy where that counts."""
    tree, chain = decided.tree, decided.chain.nodes
    labelled = {*chain, *most_visited_path(tree), *ways_on(tree, chain[-1])}
    for node in [*places][1:]:
        above, (x, y) = int(tree.parent[node]), places[node]
        (left, top), drawn = places[above], node in chain[1:]
        bend = left + 0.2 * (x - left)  # early, so that there is room for a word
        line: Any = {"color": GREEN, "linewidth": 5.0} if drawn else dict(LINE)
        line |= {"linestyle": "-" if drawn or node in certain else UNCERTAIN}
        if tree.by_macro(node) and not drawn:
            line |= MACRO_LINE
        line |= {"zorder": 2 if drawn else 1, "solid_joinstyle": "round"}
        axes.plot([left, bend, bend, x], [top, top, y, y], **line)
        if (words := tree.words(node, names)) is None:
            continue
        style: Any = {"xy": (left + 0.6 * (x - left), y), "ha": "center", "zorder": 5}
        style |= {"textcoords": "offset points", "color": "#555555"}
        bold: Any = {"fontweight": "normal", "fontsize": 7}
        if node in chain:
            style["color"], bold = DARK_GREEN, {"fontweight": "bold", "fontsize": 9}
        axes.annotate(plot_text(words), xytext=(0, 3), va="bottom", **bold, **style)
        if node in labelled:
            entropy = "jump" if tree.entropy[node] >= LEAPT else f"{float(tree.entropy[node]):.2f}"
            axes.annotate(entropy, xytext=(0, -4), va="top", fontsize=8, **style)


def _draw_nodes(axes: Axes, decided: TreeDecision, places: Places, certain: set[int]) -> None:
    """Decision nodes, chance nodes of uncertain transitions and of certain ones, in that order."""
    tree, chain = decided.tree, decided.chain
    most = max(int(tree.visits[node]) for node in places)
    sizes = {node: 30 + 320 * int(tree.visits[node]) / most for node in places}
    kinds = {node: int(tree.is_chance[node]) * (1 + (node in certain)) for node in places}
    for kind, marker in enumerate("oss"):
        nodes, is_hollow = [node for node in places if kinds[node] == kind], kind == 2
        colours = [GREEN if node in chain.nodes else GREY for node in nodes]
        axes.scatter(
            [places[node][0] for node in nodes],
            [places[node][1] for node in nodes],
            s=[22 if is_hollow else sizes[node] for node in nodes],
            marker=marker,
            c=WHITE if is_hollow else colours,
            edgecolors=colours if is_hollow else WHITE,
            linewidths=1.2,
            zorder=4,
        )
    x, y = places[chain.nodes[-1]]
    ring: Any = {"marker": "o", "facecolors": "none", "edgecolors": GREEN, "linewidths": 2}
    axes.scatter([x], [y], s=sizes[chain.nodes[-1]] + 160, zorder=3, **ring)
    style: Any = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 9}
    style |= {"bbox": {"facecolor": WHITE, "edgecolor": "none", "pad": 1}, "zorder": 5}
    axes.annotate(f"root, {int(tree.visits[0])} visits", places[0], (0, -14), **style)


def _legend(figure: Figure, threshold: float, has_macros: bool) -> None:
    square: Any = {"linestyle": "", "marker": "s", "color": GREY}
    hollow = {"markerfacecolor": WHITE, "markeredgecolor": GREY, "markersize": 5}
    ring = {"markerfacecolor": "none", "markeredgecolor": GREEN, "markeredgewidth": 2}
    styles = {
        "the chain": {"color": GREEN, "linewidth": 5},
        "its end": {"linestyle": "", "marker": "o", "markersize": 12, **ring},
        "decision node (size: visits)": square | {"marker": "o", "markersize": 9},
        "chance node": square | {"markersize": 9},
        "the same, certain: collapsed": square | hollow,
        f"certain (entropy < {threshold:g})": LINE,
        "uncertain": LINE | {"linestyle": UNCERTAIN},
    }
    if has_macros:
        styles["a macro, by one jump"] = LINE | MACRO_LINE
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
