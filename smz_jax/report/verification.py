"""The macros of runs beside their controls, as `experiments.verify` tried them in the real game."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from smz_jax.report.data import RunData, group_seeds
from smz_jax.report.style import GREY, add_legend, make_groups, new_figure, note_empty
from smz_jax.storage.estimate import Estimate, mean_estimate

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
TRIED = ("held", "paid_rewarded")
SHARES = ("applied", "held", "paid_rewarded", "held_anywhere")
SAVED = "saved"
HEAD = (
    *("library", "macros", "applies", "trials", "holds", "pays (reward)", "holds anywhere"),
    "saved bits/action",
)
PANELS = (
    ("held", "holds where it applies"),
    ("held_anywhere", "holds anywhere"),
    ("applied", "applies"),
    (SAVED, "saved bits per action"),
)
FIELDS = ("mean", "low", "high", "trials")
KINDS = (("changing", "- that change the action"), ("repeats", "- repeats of one action"))
NOTE = (
    "A macro applies where the model holds each of its transitions to be certain and, if it owns a "
    "slot, the precondition head agrees ('certain only': without the head, as every control). It "
    "holds if its foreseen end is nearer to the real one than those foreseen of other sequences, "
    "and pays what it says. Those that change the action change it to one that does not do the "
    "same. Pays (reward): of so many trials in which there was a reward. Controls: as many macros "
    "of shuffled play, at random (none of these is among the run's own), and of the untrained "
    "network. Saved bits: of held-out play, the dictionary paid. Intervals: 95 %, of one run by "
    "the states that macros were tried in, of several by Student's t over their seeds."
)


class Entry(NamedTuple):
    """A row: a library of one run, or of several pooled."""

    macros: float
    values: Mapping[str, Estimate | None]


def entries(document: Mapping[str, Any]) -> dict[str, Entry]:
    """The libraries of a verification by name, the run's own also by the kinds of its macros."""
    found = {}
    for number, library in enumerate(document["libraries"]):
        saved, macros = library["saved"], len(library["macros"])
        bits = None
        if saved is not None:
            bits = Estimate(saved["bits_per_action"], saved["low"], saved["high"])
        found[library["name"]] = _entry(macros, library["totals"], bits)
        for kind, name in () if number else KINDS:
            part = library["kinds"][kind]
            found[name] = _entry(part["macros"], part["totals"], None)
    return found


def _entry(macros: int, totals: Mapping[str, Any], saved: Estimate | None) -> Entry:
    shares = {name: _share(totals[name]) for name in SHARES}
    return Entry(macros, {**shares, SAVED: saved})


def _share(total: Mapping[str, Any]) -> Estimate | None:
    return Estimate(*(total[name] for name in FIELDS)) if total["trials"] else None


def pool(documents: Sequence[Mapping[str, Any]]) -> dict[str, Entry]:
    """Means over runs, each counting as one, with Student's t interval over them; trials summed."""
    each = [entries(document) for document in documents]
    names = dict.fromkeys(name for found in each for name in found)
    pooled = {}
    for name in names:
        rows = [found[name] for found in each if name in found]
        values = {key: _mean([row.values[key] for row in rows]) for key in (*SHARES, SAVED)}
        pooled[name] = Entry(float(np.mean([row.macros for row in rows])), values)
    return pooled


def _mean(values: Sequence[Estimate | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    found = mean_estimate([value.mean for value in known])
    return found and found._replace(count=sum(value.count for value in known))


def tried_groups(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs that were verified; seeds of one setting together."""
    return group_seeds([run for run in runs if run.verification])


def rows_of(found: Mapping[str, Entry]) -> Rows:
    """Head and rows of the table of some libraries."""
    return HEAD, [_row(name, entry) for name, entry in found.items()]


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    values = entry.values
    trials, rewarded = (value.count if value else 0 for value in map(values.get, TRIED))
    return (
        name,
        f"{entry.macros:.3g}",
        share_text(values["applied"]),
        f"{trials:,}",
        share_text(values["held"]),
        share_text(values["paid_rewarded"], f" of {rewarded:,}"),
        share_text(values["held_anywhere"]),
        bits_text(values[SAVED]),
    )


def share_text(value: Estimate | None, of: str = "") -> str:
    """`88 % (85 to 91)`."""
    return _with_interval(value, lambda x: f"{100 * x:.0f}", f" %{of}")


def bits_text(value: Estimate | None) -> str:
    """`0.177 (0.063 to 0.258)`."""
    return _with_interval(value, lambda x: f"{x:.3f}", "")


def _with_interval(value: Estimate | None, number: Callable[[float], str], unit: str) -> str:
    """A mean with its unit and, where there is one, its interval; a dash for no mean."""
    if value is None:
        return "-"
    text = f"{number(value.mean)}{unit}"
    if value.low is None or value.high is None:
        return text
    return f"{text} ({number(value.low)} to {number(value.high)})"


def lines_of(document: Mapping[str, Any]) -> list[str]:
    """What was tried, and which criteria are met, or by how much they are missed."""
    words = {True: "Met", False: "Missed", None: "Not measured"}
    perplexity = document.get("code_perplexity")
    codes = "" if perplexity is None else f" Code perplexity {perplexity:.2f}."
    sound = document["sound"]
    head = (
        f"Model: {document['checkpoint']}, mean score {document['play']['mean_score']:.2f} of "
        f"{document['play']['games']:.0f} games. Sound macros of the table: {sound['changing']} "
        f"change the action, {sound['repeats']} repeat one ({sound['renamed']} of these by actions "
        f"that do the same).{codes}"
    )
    gate = document["gate"]
    closed = [] if gate is None else [f"No macro is sound; {gate['closed']}: {gate['why']}."]
    judged = [f"{words[x['met']]}: {x['what']}: {x['found']}." for x in document["criteria"]]
    return [head, *closed, *judged]


def verification_figure(runs: Sequence[RunData]) -> Figure:
    """The libraries side by side, a point with its interval for each; seeds as faint dots."""
    figure, panels = new_figure("Macros and controls in the real game", 2, 2)
    groups = make_groups([run for run in runs if run.verification])
    each = [[entries(run.verification) for run in group.runs] for group in groups]
    pooled = [pool([run.verification for run in group.runs]) for group in groups]
    found = [one[0] if len(one) == 1 else many for one, many in zip(each, pooled, strict=True)]
    names = list(dict.fromkeys(name for libraries in found for name in libraries))
    for axes, (key, title) in zip(panels, PANELS, strict=True):
        drawn = False
        for number, (group, libraries) in enumerate(zip(groups, found, strict=True)):
            shift = 0.5 * ((number + 1) / (len(groups) + 1) - 0.5)
            heights = {name: row + shift for row, name in enumerate(names)}
            label = group.label if len(runs) > 1 else None
            values = {name: entry.values[key] for name, entry in libraries.items()}
            drawn |= _draw_points(axes, values, heights, group.colour, label)
            for own in each[number] if len(group.runs) > 1 else ():
                points = [(x.values[key], heights[name]) for name, x in own.items()]
                known = [(x.mean, y) for x, y in points if x is not None]
                axes.plot(
                    [x for x, _ in known], [y for _, y in known], ".", color=group.colour, alpha=0.4
                )
        axes.set_title(title, fontsize=11)
        axes.tick_params(labelsize=9)
        if not drawn:
            note_empty(axes, "not tried")
            continue
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if key != SAVED:
            axes.set_xlim(-0.02, 1.02)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.axvline(0.0, color=GREY, linewidth=0.8)
    add_legend(figure)
    return figure


def _draw_points(
    axes: Axes,
    values: Mapping[str, Estimate | None],
    heights: Mapping[str, float],
    colour: str,
    label: str | None,
) -> bool:
    """Draws means with their intervals; says whether there was one."""
    known = [(name, value) for name, value in values.items() if value is not None]
    for number, (name, value) in enumerate(known):
        axes.plot([value.floor, value.ceiling], [heights[name]] * 2, color=colour, linewidth=2.2)
        axes.plot(value.mean, heights[name], "o", color=colour, label=None if number else label)
    return bool(known)
