"""The drawing of one search tree with its chain of certain transitions."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smz_jax.analysis.view import chains
from smz_jax.analysis.view.chains import SmallTree
from smz_jax.analysis.view.watched_games import TreeDecision
from smz_jax.config.training import MacroConfig
from smz_jax.report.style import DPI, GREEN, GREY, plot_text
from smz_jax.storage.documents.macro_form import fold

NODES = 60
"""Nodes that are drawn at most."""
UNCERTAIN = ":"
"""Line of an uncertain transition."""
PALE, DARK_GREEN, WHITE = "#B5B5B5", "#00694D", "#FFFFFF"

Places = Mapping[int, tuple[float, float]]


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
    ways = chains.ways_on(tree, chain.nodes[-1])
    nodes = chains.kept_nodes(tree, (*chain.nodes, *ways), most)
    places = layout({node: int(tree.parent[node]) for node in nodes[1:]}, nodes)
    leaves = 1 + max(y for _, y in places.values())
    size = (11, min(max(4.0, 1.6 + 0.3 * leaves), 9.0))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    words = fold([names[action] for action in chain.actions])
    figure.suptitle(plot_text(f"A search tree and its certain chain: {words}"), x=0.01, ha="left")
    found = [x for x in library["macros"] if tuple(x["actions"]) == chain.actions]
    state = f"a {found[0]['status']} macro" if found else "not in the library"
    made = int((tree.visits > 0).sum())
    drawn = f"all {made} nodes" if made <= len(nodes) else f"{len(nodes)} of {made} nodes"
    longest = MacroConfig(**library["config"]).max_length
    why = chains.why_it_ends(tree, chain, tree_threshold, longest)
    about = f"game {decided.game}, step {decided.step}; {drawn}; the chain is {state}"
    axes.set_title(plot_text(f"{about}\nthe chain ends: {why}"), loc="left", fontsize=10)
    certain = certain_nodes(tree, tree_threshold)
    _draw_edges(axes, decided, places, certain, names)
    _draw_nodes(axes, decided, places, certain)
    axes.set_ylim(leaves - 0.3, -0.7)
    axes.set_xlim(-0.4, max(x for x, _ in places.values()) + 0.6)
    axes.set_axis_off()
    _legend(figure, tree_threshold)
    return figure


def _draw_edges(
    axes: Axes, decided: TreeDecision, places: Places, certain: set[int], names: Sequence[str]
) -> None:
    """Edges; on each below a decision node its action, and its entropy where that counts."""
    tree, chain = decided.tree, decided.chain.nodes
    labelled = {*chain, *chains.most_visited_path(tree), *chains.ways_on(tree, chain[-1])}
    for node in [*places][1:]:
        above, edge, (x, y) = int(tree.parent[node]), int(tree.edge[node]), places[node]
        left, top = places[above]
        bend = left + 0.2 * (x - left)  # early, so that there is room for a word
        axes.plot(
            [left, bend, bend, x],
            [top, top, y, y],
            color=GREEN if node in chain[1:] else PALE,
            linewidth=5.0 if node in chain[1:] else 1.4,
            linestyle="-" if node in certain or node in chain[1:] else UNCERTAIN,
            zorder=2 if node in chain[1:] else 1,
            solid_joinstyle="round",
        )
        if tree.is_chance[above] or edge >= tree.num_actions:
            continue
        style: Any = {
            "xy": (left + 0.6 * (x - left), y),
            "textcoords": "offset points",
            "ha": "center",
            "color": DARK_GREEN if node in chain else "#555555",
            "zorder": 5,
        }
        bold: Any = {"fontweight": "bold" if node in chain else "normal"}
        bold["fontsize"] = 9 if node in chain else 7
        axes.annotate(plot_text(names[edge]), xytext=(0, 3), va="bottom", **bold, **style)
        if node in labelled:
            entropy = f"{float(tree.entropy[node]):.2f}"
            axes.annotate(entropy, xytext=(0, -4), va="top", fontsize=8, **style)


def _draw_nodes(axes: Axes, decided: TreeDecision, places: Places, certain: set[int]) -> None:
    """Decision nodes, chance nodes of uncertain transitions and of certain ones, in that order."""
    tree, chain = decided.tree, decided.chain
    most = max(int(tree.visits[node]) for node in places)
    sizes = {node: 30 + 320 * int(tree.visits[node]) / most for node in places}
    chance = [node for node in places if tree.is_chance[node]]
    for marker, nodes, is_hollow in (
        ("o", [node for node in places if not tree.is_chance[node]], False),
        ("s", [node for node in chance if node not in certain], False),
        ("s", [node for node in chance if node in certain], True),
    ):
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
    axes.annotate(
        f"root, {int(tree.visits[0])} visits",
        places[0],
        xytext=(0, -14),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=9,
        bbox={"facecolor": WHITE, "edgecolor": "none", "pad": 1},
        zorder=5,
    )


def _legend(figure: Figure, threshold: float) -> None:
    dot: Any = {"xdata": [], "ydata": [], "linestyle": ""}
    line: Any = {"xdata": [], "ydata": [], "color": PALE, "linewidth": 1.4}
    hollow: Any = {"markerfacecolor": WHITE, "markeredgecolor": GREY, "markersize": 5}
    ring: Any = {"markerfacecolor": "none", "markeredgecolor": GREEN, "markeredgewidth": 2}
    styles = {
        "the chain": line | {"color": GREEN, "linewidth": 5},
        "its end": dot | ring | {"marker": "o", "markersize": 12},
        "decision node (size: visits)": dot | {"marker": "o", "color": GREY, "markersize": 9},
        "chance node": dot | {"marker": "s", "color": GREY, "markersize": 9},
        "the same, certain: collapsed": dot | hollow | {"marker": "s"},
        f"certain (entropy < {threshold:g})": line,
        "uncertain": line | {"linestyle": UNCERTAIN},
    }
    handles = [Line2D(label=label, **style) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
