"""The figure of a model beside the known rules of its world (the grid world's)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smz_jax.report.data import RunData
from smz_jax.report.style import (
    BLUE,
    GREY,
    VERMILLION,
    Group,
    add_legend,
    counts_axis,
    draw_group,
    from_zero,
    make_groups,
    new_figure,
    note_empty,
    note_line,
    steps_axis,
)
from smz_jax.storage.documents.checks import is_number

NUMBERS = (
    ("ROC area of random against certain pairs", "roc_area"),
    ("mean |H(model) - H(true)|, nats", "entropy_error"),
    ("mean H of random pairs, nats", "entropy_random"),
    ("mean H of certain pairs, nats", "entropy_certain"),
    ("mean H of played pairs / ln C", "transition_entropy"),
    ("agreement of encoder and prior", "agreement"),
    ("code perplexity", "code_perplexity"),
    ("share of pairs that were played", "pairs_visited"),
    ("optimal mean return", "optimum"),
    ("mean return of random play", "random"),
)
"""What a table of `grid.json` shows, and under which name it is there."""


def rules_rows(runs: Sequence[RunData]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of `grid.json`, with a column for each run that has one."""
    compared = [run for run in runs if run.grid]
    known = [{**run.grid, **(run.grid.get("returns") or {})} for run in compared]
    rows = [
        (title, *(f"{x[key]:.4g}" if is_number(x.get(key)) else "-" for x in known))
        for title, key in NUMBERS
    ]
    return ("at the end", *(run.label for run in compared)), rows


def has_rules(runs: Sequence[RunData]) -> bool:
    """Whether some run was compared with the known rules of its world."""
    return any(run.grid or run.curve("rules/entropy_error")[0] for run in runs)


def rules_figure(runs: Sequence[RunData]) -> Figure:
    """The model against the known rules: over the run, and pair by pair at its end."""
    figure, panels = new_figure("The model against the known rules", 2, 2)
    groups, alone = make_groups(runs), len(runs) == 1
    roc, error, entropy, pairs = panels
    for group in groups:
        draw_group(roc, group, "rules/roc_area", label=not alone)
        draw_group(error, group, "rules/entropy_error", label=not alone)
        for kind, colour, dash in (("random", VERMILLION, "-"), ("certain", BLUE, "--")):
            own = (
                Group(f"{kind} by the rules", colour, dash, group.runs)
                if alone
                else Group(group.label, group.colour, dash, group.runs)
            )
            draw_group(entropy, own, f"rules/entropy_{kind}", label=alone)
    roc.set_title("random told from certain (ROC area)")
    error.set_title("mean |H(model) - H(true)|, nats")
    entropy.set_title("the model's mean entropy, nats" + ("" if alone else " (dashed: certain)"))
    pairs.set_title("|H(model) - H(true)| of each pair, at the end")
    for number, axes in enumerate((roc, error, entropy)):
        axes.tick_params(labelsize=9)
        steps_axis(axes, label=number == 2)
        if not axes.lines:
            note_empty(axes)
        elif axes is not roc:
            from_zero(axes)
    if roc.lines:
        roc.set_ylim(min(0.45, roc.get_ylim()[0] - 0.03), 1.02)
        roc.axhline(0.5, color=GREY, linestyle="--", linewidth=1.3)
        note_line(roc, 0.5, "0.5 = as good as guessing", GREY, above=True)
    _draw_pairs(pairs, groups, alone)
    add_legend(figure)
    return figure


def pair_errors(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    """|H(model) - H(true)| in nats of each visited pair, and whether it is random by the rules."""
    parts = [run.grid.get(name) for name in ("entropy_errors", "true_entropy", "visits")]
    if not all(parts):
        return np.zeros(0, np.float64), np.zeros(0, np.bool_)
    errors, truth, visits = (np.array(part, np.float64) for part in parts)
    return errors[visits > 0], truth[visits > 0] > 1e-9


def _draw_pairs(axes: Axes, groups: Sequence[Group], alone: bool) -> None:
    """Histogram over the visited pairs: stacked by kind for one run, outlines for several."""
    found = [(group, *pair_errors(run)) for group in groups for run in group.runs]
    found = [part for part in found if len(part[1])]
    if not found:
        note_empty(axes)
        return
    edges = np.linspace(0.0, max(0.1, *(float(errors.max()) for _, errors, _ in found)), 25)
    for group, errors, random in found:
        if alone:
            axes.hist(
                [errors[random], errors[~random]],
                bins=list(edges),
                stacked=True,
                color=[VERMILLION, BLUE],
            )
        else:
            axes.hist(errors, bins=list(edges), histtype="step", color=group.colour, linewidth=1.8)
    axes.set_xlabel("nats")
    axes.set_ylabel("state-action pairs")
    axes.tick_params(labelsize=9)
    counts_axis(axes)
