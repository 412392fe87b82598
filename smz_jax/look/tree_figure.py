"""The drawing of one search tree with its chain of certain transitions."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smz_jax.config import MacroConfig
from smz_jax.look.chains import Chain, SmallTree, kept_nodes, why_it_ends
from smz_jax.look.games import Decided
from smz_jax.macro_file import fold
from smz_jax.report.style import BLACK, BLUE, DPI, GREEN, GREY, ORANGE, plot_text

NODES = 60
"""Nodes that are drawn at most."""
UNCERTAIN = ":"
"""Line of an uncertain transition."""


def layout(parent: Mapping[int, int], nodes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Where each node stands: depth to the right, leaves one below the other, parents between.

    Args:
        parent: of each node but the root.
        nodes: ascending, so that parents come before their children.
    """
    children: dict[int, list[int]] = {node: [] for node in nodes}
    depth = {nodes[0]: 0}
    for node in nodes[1:]:
        children[parent[node]].append(node)
        depth[node] = depth[parent[node]] + 1
    order, stack = [], [nodes[0]]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += children[node][::-1]
    height: dict[int, float] = {}
    leaves = 0
    for node in order:
        if not children[node]:
            height[node] = float(leaves)
            leaves += 1
    for node in order[::-1]:
        if children[node]:
            below = [height[child] for child in children[node]]
            height[node] = (below[0] + below[-1]) / 2
    return {node: (float(depth[node]), height[node]) for node in nodes}


def certain_nodes(tree: SmallTree, threshold: float) -> set[int]:
    """Nodes that a certain transition leads to or through: both its edges are certain ones."""
    certain = set()
    for node in range(len(tree.parent)):
        above = int(tree.parent[node])
        if above < 0:
            continue
        via = above if tree.is_chance[above] else node
        if tree.entropy[via] < threshold:
            certain.add(node)
    return certain


def tree_figure(
    decided: Decided, library: Mapping[str, Any], *, tree_threshold: float, most: int = NODES
) -> Figure:
    """A tree from left to right: decision nodes round, chance nodes square, larger with visits.

    Args:
        decided: the decision.
        library: its macros, to say whether the chain is one.
        tree_threshold: a transition is certain below this normalised entropy.
        most: nodes drawn.
    """
    tree, chain = decided.tree, decided.chain
    nodes = kept_nodes(tree, chain.nodes, most)
    parent = {node: int(tree.parent[node]) for node in nodes[1:]}
    places = layout(parent, nodes)
    leaves = 1 + max(y for _, y in places.values())
    size = (11, min(max(4.0, 1.6 + 0.2 * leaves), 9.0))
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
    certain = certain_nodes(tree, tree_threshold)
    _draw_edges(axes, places, parent, certain, set(chain.nodes[1:]))
    _draw_nodes(axes, tree, places)
    _draw_labels(axes, tree, places, parent, names, chain)
    axes.set_ylim(leaves - 0.3, -0.7)
    axes.set_xlim(-0.4, max(x for x, _ in places.values()) + 0.6)
    axes.set_axis_off()
    _legend(figure, tree_threshold)
    return figure


def _about(decided: Decided, library: Mapping[str, Any], nodes: Sequence[int]) -> str:
    """One line: which decision, how many of its nodes, and what the chain is in the library."""
    found = [x for x in library["macros"] if tuple(x["actions"]) == decided.chain.actions]
    state = f"a {found[0]['status']} macro" if found else "not in the library"
    made = int((decided.tree.visits > 0).sum())
    drawn = f"all {made} nodes" if made <= len(nodes) else f"{len(nodes)} of {made} nodes"
    return f"game {decided.game}, step {decided.step}; {drawn}; the chain is {state}"


def _draw_edges(
    axes: Axes,
    places: Mapping[int, tuple[float, float]],
    parent: Mapping[int, int],
    certain: set[int],
    chain: set[int],
) -> None:
    for node, above in parent.items():
        (x0, y0), (x1, y1) = places[above], places[node]
        colour, width, layer = "#BDBDBD", 0.8, 1
        if node in certain:
            colour, width, layer = BLACK, 2.2, 2
        if node in chain:
            colour, width, layer = GREEN, 5.0, 3
        bend = x0 + 0.2 * (x1 - x0)  # early, so that there is room for a word
        curve = [x0, bend, bend, x1], [y0, y0, y1, y1]
        style = "-" if node in certain or node in chain else UNCERTAIN
        axes.plot(
            *curve,
            color=colour,
            linewidth=width,
            linestyle=style,
            zorder=layer,
            solid_joinstyle="round",
        )


def _draw_nodes(axes: Axes, tree: SmallTree, places: Mapping[int, tuple[float, float]]) -> None:
    most = max(int(tree.visits[node]) for node in places)
    for is_chance, marker, colour in ((False, "o", BLUE), (True, "s", ORANGE)):
        kind = [node for node in places if bool(tree.is_chance[node]) is is_chance]
        axes.scatter(
            [places[node][0] for node in kind],
            [places[node][1] for node in kind],
            s=[30 + 320 * int(tree.visits[node]) / most for node in kind],
            marker=marker,
            c=colour,
            edgecolors="#FFFFFF",
            linewidths=1,
            zorder=4,
        )


def _draw_labels(
    axes: Axes,
    tree: SmallTree,
    places: Mapping[int, tuple[float, float]],
    parent: Mapping[int, int],
    names: Sequence[str],
    chain: Chain,
) -> None:
    """The action of each edge below a decision node, and how often the root was visited."""
    for node, above in parent.items():
        edge = int(tree.edge[node])
        if tree.is_chance[above] or edge >= tree.num_actions:
            continue
        x, y = places[node]
        is_chain = node in chain.nodes
        axes.annotate(
            plot_text(names[edge]),
            (x, y),
            xytext=(-11 if tree.is_chance[node] else -13, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9 if is_chain else 7,
            fontweight="bold" if is_chain else "normal",
            color="#00694D" if is_chain else "#555555",
            zorder=5,
        )
    axes.annotate(
        "end of the chain",
        places[chain.nodes[-1]],
        xytext=(0, -14),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=9,
        color="#00694D",
        bbox={"facecolor": "#FFFFFF", "edgecolor": "#00694D", "pad": 1.5},
        zorder=6,
    )
    x, y = places[0]
    axes.annotate(
        f"root, {int(tree.visits[0])} visits",
        (x, y),
        xytext=(0, -14),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=9,
        bbox={"facecolor": "#FFFFFF", "edgecolor": "none", "pad": 1},
        zorder=5,
    )


def _legend(figure: Figure, threshold: float) -> None:
    def dot(marker: str, colour: str, label: str) -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle="", markersize=9, label=label)

    handles = [
        dot("o", BLUE, "decision node (size: visits)"),
        dot("s", ORANGE, "chance node"),
        Line2D([], [], color=GREEN, linewidth=5, label="the chain"),
        Line2D([], [], color=BLACK, linewidth=2.2, label=f"certain (entropy < {threshold:g})"),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle=UNCERTAIN, label="uncertain"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
