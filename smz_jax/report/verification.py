"""The macros of runs beside their controls, as `experiments.verify` tried them in the real game."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.report.data import RunData, group_seeds
from smz_jax.report.tables import Table
from smz_jax.storage.documents.verify_json import ESTIMATE
from smz_jax.storage.estimate import Estimate, mean_estimate

TRIED = ("held", "paid_rewarded")
SHARES = ("applied", "held", "paid_rewarded", "held_anywhere")
SAVED = "saved"
HEAD = (
    *("library", "macros", "applies", "trials", "holds", "pays (reward)", "holds anywhere"),
    "saved bits/action",
)
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
    return Estimate(*(total[name] for name in ESTIMATE)) if total["trials"] else None


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


def table_of(found: Mapping[str, Entry], title: str = "") -> Table:
    """The libraries side by side."""
    return Table(HEAD, [_row(name, entry) for name, entry in found.items()], title)


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
