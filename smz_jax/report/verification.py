"""The macros of runs beside their controls, as `experiments.verify` tried them in the real game."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smz_jax.report.data import RunData, group_seeds
from smz_jax.report.tables import Table
from smz_jax.storage.documents.verify_json import ESTIMATE, KINDS
from smz_jax.storage.estimate import Estimate, mean_estimate

SHARES = ("applied", "whole", "held", "paid_rewarded", "lost", "held_anywhere")
SAVED, CEILING = "saved", "perfect library"
BITS = ("bits_per_action", "low", "high")
HEAD = (
    *("library", "macros", "applies", "trials", "whole state", "effect + pays", "pays (reward)"),
    *("loses a life", "effect + pays anywhere", "saved bits/action"),
)
NOTE = (
    "A macro applies where the model holds each of its transitions to be certain and, if it owns "
    "a slot, the precondition head agrees ('certain only': without the head, as every control "
    "that is not 'with the head'). Whole state: its foreseen end is nearer to the real one than "
    "to real ends of other moments, and a lost life was foreseen at its step. Effect: its "
    "foreseen end is nearer to the real one than those foreseen of other sequences from the same "
    "state, in which all that the actions do not change is the same; + pays: and it pays what it "
    "says. Those that change the action change it to one that does not do the same. Pays "
    "(reward): of so many trials in which there was a reward. Controls: as many macros of "
    "shuffled play, at random (none of these is among the run's own), and of the untrained "
    "network. Saved bits: of held-out play, the dictionary paid. Intervals: 95 %, of one run by "
    "the states that macros were tried in, of several by Student's t over their seeds."
)

Entry = dict[str, Any]
"""A row, of a library of one run or of several pooled: macros, and of each share and `SAVED` its
estimate or None."""


def entries(document: Mapping[str, Any]) -> dict[str, Entry]:
    """The libraries of a verification by name, the run's own also by the kinds of its macros."""
    found = {}
    for number, library in enumerate(document["libraries"]):
        parts = {library["name"]: {**library, "macros": len(library["macros"])}}
        for kind, name in () if number else KINDS.items():
            parts[name] = {**library["kinds"][kind], SAVED: None}
        for name, part in parts.items():
            found[name] = {"macros": part["macros"]}
            for key in SHARES:
                total = part["totals"][key]
                found[name][key] = Estimate(*map(total.get, ESTIMATE)) if total["trials"] else None
            found[name][SAVED] = part[SAVED] and Estimate(*map(part[SAVED].get, BITS))
    ceiling = document["ceiling"]["saved"]
    bits = ceiling and Estimate(*map(ceiling.get, BITS))
    kept = ceiling["kept"] if ceiling else 0
    return {**found, CEILING: {"macros": kept, **dict.fromkeys(SHARES), SAVED: bits}}


def pool(documents: Sequence[Mapping[str, Any]]) -> dict[str, Entry]:
    """Means over runs, each counting as one, with Student's t interval over them; trials summed."""
    each = [entries(document) for document in documents]
    pooled = {}
    for name in dict.fromkeys(name for found in each for name in found):
        rows = [found[name] for found in each if name in found]
        pooled[name] = {"macros": float(np.mean([row["macros"] for row in rows]))}
        for key in (*SHARES, SAVED):
            known = [row[key] for row in rows if row[key]]
            mean = mean_estimate([x.mean for x in known])
            pooled[name][key] = mean and mean._replace(count=sum(x.count for x in known))
    return pooled


def tried_groups(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs that were verified; seeds of one setting together."""
    return group_seeds([run for run in runs if run.verification])


def table_of(found: Mapping[str, Entry], title: str = "") -> Table:
    """The libraries side by side."""
    rows = []
    for name, entry in found.items():
        trials, rewarded = (x.count if x else 0 for x in (entry["whole"], entry["paid_rewarded"]))
        rows.append(
            (
                name,
                f"{entry['macros']:.3g}",
                share_text(entry["applied"]),
                f"{trials:,}",
                share_text(entry["whole"]),
                share_text(entry["held"]),
                share_text(entry["paid_rewarded"], f" of {rewarded:,}"),
                share_text(entry["lost"]),
                share_text(entry["held_anywhere"]),
                entry[SAVED].text("{:.3f}".format) if entry[SAVED] else "-",
            )
        )
    return Table(HEAD, rows, title)


def share_text(value: Estimate | None, of: str = "") -> str:
    """`88 % (85 to 91)`."""
    return "-" if value is None else value.text(lambda x: f"{100 * x:.0f}", f" %{of}")


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
