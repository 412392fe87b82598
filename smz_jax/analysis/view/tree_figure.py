"""The drawing of one search tree with its chain of certain transitions."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smz_jax.analysis.view.chains import (
    Chain,
    SmallTree,
    kept_nodes,
    most_visited_path,
    ways_on,
    why_it_ends,
)
from smz_jax.analysis.view.games import TreeDecision
from smz_jax.config.training import MacroConfig
from smz_jax.report.style import DPI, GREEN, GREY, plot_text
from smz_jax.storage.documents.macros import fold

NODES = 60
"""Nodes that are drawn at most."""
UNCERTAIN = ":"
"""Line of an uncertain transition."""
PALE, DARK_GREEN = "#B5B5B5", "#00694D"
DECISION, CHANCE, COLLAPSED = "decision", "chance", "chance, certain"


def layout(parent: Mapping[int, int], nodes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Where each node stands: depth to the right, leaves one below the other, parents between.

    Args:
        parent: of each node but the root.
        nodes: ascending, so that parents come before their children.
    """
    children: dict[int, list[int]] = {node: [] for node in nodes}
    depth, height = {nodes[0]: 0.0}, {}
    for node in nodes[1:]:
        children[parent[node]].append(node)
        depth[node] = depth[parent[node]] + 1
    leaves, stack = itertools.count(), [nodes[0]]
    while stack:
        node = stack.pop()
        stack += children[node][::-1]
        if not children[node]:
            height[node] = float(next(leaves))
    for node in nodes[::-1]:
        if below := children[node]:
            height[node] = (height[below[0]] + height[below[-1]]) / 2
    return {node: (depth[node], height[node]) for node in nodes}


def certain_nodes(tree: SmallTree, threshold: float) -> set[int]:
    """Nodes that a certain transition leads to or through: both its edges are certain ones."""
    below = np.flatnonzero(tree.parent >= 0).tolist()
    return {node for node in below if tree.entropy[tree.via(node)] < threshold}


class _Drawing(NamedTuple):
    axes: Axes
    tree: SmallTree
    chain: Chain
    places: Mapping[int, tuple[float, float]]  # of each node drawn
    parent: Mapping[int, int]  # of each node drawn but the root
    certain: set[int]

    def kind(self, node: int) -> str:
        if not self.tree.is_chance[node]:
            return DECISION
        return COLLAPSED if node in self.certain else CHANCE


def tree_figure(
    decided: TreeDecision, library: Mapping[str, Any], *, tree_threshold: float, most: int = NODES
) -> Figure:
    """A tree from left to right: decision nodes round, chance nodes square, larger with visits.

    Only the chain is in colour. The chance nodes of certain transitions are hollow and small: there
    is nothing to wait for. Entropies stand on the chain, on the most visited path, and on what was
    searched from the chain's end.
    """
    tree, chain = decided.tree, decided.chain
    nodes = kept_nodes(tree, (*chain.nodes, *ways_on(tree, chain.nodes[-1])), most)
    parent = {node: int(tree.parent[node]) for node in nodes[1:]}
    places = layout(parent, nodes)
    leaves = 1 + max(y for _, y in places.values())
    size = (11, min(max(4.0, 1.6 + 0.3 * leaves), 9.0))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = library["action_names"]
    words = fold([names[action] for action in chain.actions])
    figure.suptitle(plot_text(f"A search tree and its certain chain: {words}"), x=0.01, ha="left")
    longest = MacroConfig(**library["config"]).max_length
    why = why_it_ends(tree, chain, tree_threshold, longest)
    about = f"{_about(decided, library, nodes)}\nthe chain ends: {why}"
    axes.set_title(plot_text(about), loc="left", fontsize=10)
    drawing = _Drawing(axes, tree, chain, places, parent, certain_nodes(tree, tree_threshold))
    _draw_edges(drawing)
    _draw_nodes(drawing)
    _draw_labels(drawing, names)
    axes.set_ylim(leaves - 0.3, -0.7)
    axes.set_xlim(-0.4, max(x for x, _ in places.values()) + 0.6)
    axes.set_axis_off()
    _legend(figure, tree_threshold)
    return figure


def _about(decided: TreeDecision, library: Mapping[str, Any], nodes: Sequence[int]) -> str:
    """One line: which decision, how many of its nodes, and what the chain is in the library."""
    found = [x for x in library["macros"] if tuple(x["actions"]) == decided.chain.actions]
    state = f"a {found[0]['status']} macro" if found else "not in the library"
    made = int((decided.tree.visits > 0).sum())
    drawn = f"all {made} nodes" if made <= len(nodes) else f"{len(nodes)} of {made} nodes"
    return f"game {decided.game}, step {decided.step}; {drawn}; the chain is {state}"


def _draw_edges(drawing: _Drawing) -> None:
    places, chain = drawing.places, set(drawing.chain.nodes[1:])
    for node, above in drawing.parent.items():
        (x0, y0), (x1, y1) = places[above], places[node]
        bend = x0 + 0.2 * (x1 - x0)  # early, so that there is room for a word
        drawing.axes.plot(
            [x0, bend, bend, x1],
            [y0, y0, y1, y1],
            color=GREEN if node in chain else PALE,
            linewidth=5.0 if node in chain else 1.4,
            linestyle="-" if node in drawing.certain or node in chain else UNCERTAIN,
            zorder=2 if node in chain else 1,
            solid_joinstyle="round",
        )


def _draw_nodes(drawing: _Drawing) -> None:
    """Decision nodes, chance nodes of uncertain transitions and of certain ones, in that order."""
    tree, chain, places = drawing.tree, drawing.chain, drawing.places
    most = max(int(tree.visits[node]) for node in places)
    sizes = {node: 30 + 320 * int(tree.visits[node]) / most for node in places}
    for kind, marker in ((DECISION, "o"), (CHANCE, "s"), (COLLAPSED, "s")):
        nodes = [node for node in places if drawing.kind(node) == kind]
        colours = [GREEN if node in chain.nodes else GREY for node in nodes]
        drawing.axes.scatter(
            [places[node][0] for node in nodes],
            [places[node][1] for node in nodes],
            s=[22 if kind == COLLAPSED else sizes[node] for node in nodes],
            marker=marker,
            c="#FFFFFF" if kind == COLLAPSED else colours,
            edgecolors=colours if kind == COLLAPSED else "#FFFFFF",
            linewidths=1.2,
            zorder=4,
        )
    end = chain.nodes[-1]
    ring: Any = {"marker": "o", "facecolors": "none", "edgecolors": GREEN, "linewidths": 2}
    drawing.axes.scatter(*([z] for z in places[end]), s=sizes[end] + 160, zorder=3, **ring)


def _draw_labels(drawing: _Drawing, names: Sequence[str]) -> None:
    """The action of each edge below a decision node, entropies, and the root's visits."""
    axes, tree, chain, places = drawing.axes, drawing.tree, drawing.chain, drawing.places
    labelled = {*chain.nodes, *most_visited_path(tree), *ways_on(tree, chain.nodes[-1])}
    for node, above in drawing.parent.items():
        edge = int(tree.edge[node])
        if tree.is_chance[above] or edge >= tree.num_actions:
            continue
        (x, y), (x0, _) = places[node], places[above]
        is_chain = node in chain.nodes
        style: Any = {
            "xy": (x0 + 0.6 * (x - x0), y),
            "textcoords": "offset points",
            "ha": "center",
            "fontsize": 9 if is_chain else 7,
            "color": DARK_GREEN if is_chain else "#555555",
            "zorder": 5,
        }
        weight = "bold" if is_chain else "normal"
        action = plot_text(names[edge])
        axes.annotate(action, xytext=(0, 3), va="bottom", fontweight=weight, **style)
        if node in labelled:
            entropy = f"{float(tree.entropy[node]):.2f}"
            axes.annotate(entropy, xytext=(0, -4), va="top", **{**style, "fontsize": 8})
    axes.annotate(
        f"root, {int(tree.visits[0])} visits",
        places[0],
        xytext=(0, -14),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=9,
        bbox={"facecolor": "#FFFFFF", "edgecolor": "none", "pad": 1},
        zorder=5,
    )


def _legend(figure: Figure, threshold: float) -> None:
    def dot(marker: str, label: str, **style: Any) -> Line2D:
        return Line2D([], [], marker=marker, linestyle="", label=label, **style)

    hollow: Any = {"markerfacecolor": "#FFFFFF", "markeredgecolor": GREY, "markersize": 5}
    ring: Any = {"markerfacecolor": "none", "markeredgecolor": GREEN, "markeredgewidth": 2}
    handles = [
        Line2D([], [], color=GREEN, linewidth=5, label="the chain"),
        dot("o", "its end", markersize=12, **ring),
        dot("o", "decision node (size: visits)", color=GREY, markersize=9),
        dot("s", "chance node", color=GREY, markersize=9),
        dot("s", "the same, certain: collapsed", **hollow),
        Line2D([], [], color=PALE, linewidth=1.4, label=f"certain (entropy < {threshold:g})"),
        Line2D([], [], color=PALE, linewidth=1.4, linestyle=UNCERTAIN, label="uncertain"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
