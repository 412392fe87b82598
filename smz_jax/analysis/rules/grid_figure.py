"""The grid world drawn: as text in the terminal, and as a figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from smz_jax.envs.grid.map import CELLS, MOVES
from smz_jax.envs.grid.rules import GridRules, greedy_policy, true_entropy

ARROWS = "^>v<"
_HEX = ("#3A3A3A", "#FFFFFF", "#D6E8F5", "#CFE2F3", "#F5E6A8", "#EE9B83", "#9BD3A5")
COLOURS = dict(zip(CELLS, _HEX, strict=True))
FADED = 0.2
CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


def policy_text(rules: GridRules, action_value: np.ndarray) -> str:
    """The map with an arrow for the best action of each state; pits and goals as they are."""
    best = greedy_policy(action_value).argmax(axis=1)
    return "\n".join(map("".join, _filled(rules, [ARROWS[action] for action in best])))


def values_text(rules: GridRules, values: np.ndarray) -> str:
    """The map with V of each state in columns; walls, pits and goals as they are."""
    lines = _filled(rules, [f"{value:.2f}" for value in values])
    width = max(len(cell) for line in lines for cell in line)
    return "\n".join(" ".join(cell.rjust(width) for cell in line) for line in lines)


def _filled(rules: GridRules, texts: list[str]) -> list[list[str]]:
    """The cells of the map, those of states that end no game with a text of each."""
    lines = [list(row) for row in rules.grid.rows]
    for (y, x), text, is_end in zip(rules.place, texts, rules.terminal, strict=True):
        if not is_end:
            lines[y][x] = text
    return lines


def _draw_cells(axes: Axes, rules: GridRules, title: str) -> None:
    height, width = rules.grid.size
    for (y, x), cell in np.ndenumerate([list(row) for row in rules.grid.rows]):
        square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=COLOURS[cell], edgecolor="#BBBBBB")
        axes.add_patch(square)
        if cell in "S$OG~":
            shown = cell.replace("$", r"\$")
            axes.text(x - 0.42, y - 0.22, shown, fontsize=7, color="#666666")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)


def _draw_policy(
    axes: Axes, rules: GridRules, values: np.ndarray, action_value: np.ndarray
) -> None:
    policy = greedy_policy(action_value)
    for state in np.flatnonzero(~(rules.terminal | rules.paid)):
        y, x = rules.place[state]
        axes.text(x, y + 0.38, f"{values[state]:.2f}", ha="center", fontsize=6, color="#444444")
        for action in np.flatnonzero(policy[state]):
            dy, dx = MOVES[action]
            arrow = {"arrowstyle": "->", "color": "#0072B2", "lw": 1.2}
            axes.annotate("", (x + 0.3 * dx, y + 0.3 * dy), (x, y), arrowprops=arrow)


def _draw_pairs(
    axes: Axes, rules: GridRules, pairs: np.ndarray, top: float, strength: np.ndarray
) -> PolyCollection:
    """A triangle for each action of a cell: its colour by `pairs`, opacity `strength`, `[S, A]`."""
    shown = ~(rules.terminal | rules.paid)
    middle = rules.place[shown][:, None, ::-1]
    corners = middle + CORNERS
    edges = [np.broadcast_to(middle, corners.shape), corners, np.roll(corners, -1, axis=1)]
    style: Any = {"cmap": "viridis", "edgecolors": "#FFFFFF", "linewidths": 0.4, "clim": (0, top)}
    style |= {"array": pairs[shown].ravel(), "alpha": strength[shown].ravel().tolist()}
    found = PolyCollection(list(np.stack(edges, axis=2).reshape(-1, 3, 2)), **style)
    axes.add_collection(found)
    return found


def grid_figure(
    rules: GridRules,
    values: np.ndarray,
    action_value: np.ndarray,
    entropy: np.ndarray | None = None,
    visits: np.ndarray | None = None,
) -> Figure:
    """The map with optimal values and actions, and the true transition entropy of each pair.

    With the model's transition entropy `[S, A]` in nats, it is drawn beside the true one, faded
    where a pair is never in the replay (`visits [S, A]`).
    """
    columns = 2 if entropy is None else 3
    figure = Figure(figsize=(4.6 * columns, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    truth = true_entropy(rules)
    _draw_cells(axes[0], rules, "optimal value and actions")
    _draw_policy(axes[0], rules, values, action_value)
    whole = np.ones_like(truth)
    shown = [("true transition entropy (nats)", truth, whole)]
    if entropy is not None:
        strength = whole if visits is None else np.where(visits > 0, 1.0, FADED)
        faded = "" if visits is None else "; faded: not in replay"
        shown.append((f"the model's entropy (nats{faded})", entropy, strength))
    top = max(0.1, *(float(pairs.max()) for _, pairs, _ in shown))
    drawn = []
    for panel, (title, pairs, strength) in zip(axes[1:], shown, strict=True):
        _draw_cells(panel, rules, title)
        drawn.append(_draw_pairs(panel, rules, pairs, top, strength))
    figure.colorbar(drawn[0], ax=list(axes[1:]), shrink=0.7)
    return figure
