"""A verification as tables: plain text for the terminal, Markdown for verify.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smz_jax.analysis.verify.criteria import TESTS, fair_pairs
from smz_jax.analysis.verify.tried_libraries import PERFECT, REAL, UNTRAINED, WITH_HEAD
from smz_jax.report.tables import Table
from smz_jax.storage.documents.verify_json import ERRORS, KINDS, MOMENTS
from smz_jax.storage.estimate import Estimate

WHERE = """\
A macro applies in a state where every transition is certain by the model and, if the macro
owns a slot of the precondition head, the head gives it a probability of 0.5 or more there. Sound
macros that own none are tried only where none owns any. "Macros, certain only" are the same without
the head, as controls are; where a state is tried for both, by the same runs. Those sequences of
controls that own a slot are tried a second time, "with the head"; of the others it says nothing.
"""
HOW = """\
There are two tests of a trial. "Whole state": the end that the model foresees is nearer to the real
one than to real ends of other moments: what was seen 1, 2 and 4 steps before and after it, ends of
the macro from the same place of the agent 1, 2, 4 and 8 steps later, and its ends from other states
of play. Where a life is lost it is met only if the model foresees the end at that very step.
"Effect": the foreseen end is nearer to the real one than those foreseen of up to 19 other sequences
from the same state that really end elsewhere; all that the actions do not change is the same in
these. "Distinguished" is the same the other way round: of all their real ends its own is the
nearest to its foreseen one. Trials that a lost life or the game's end cut short are left out there.
Ends are compared by the cosine, projected as the consistency loss does, where it is trained.
"+ pays": and pays what it says. "Pays (reward)" is of the trials in which there was a reward, as
many as are said. "Loses a life": of the trials where the macro applies, also with its last action.
"Anywhere" is of drawn states, whether or not the macro applies there. "Value - greedy" is the
discounted reward and the value at the end, less those of the greedy policy after as many steps.
"""
HOW_GRID = """\
"Whole state", "effect" and "distinguished" are one here: all its transitions are certain by the
rules, and it ends in the state that the model says, of all states the nearest to its foreseen end.
"+ pays": and pays what it says. "Anywhere" is of all states in which it can be played. "Value -
greedy" is the expected discounted reward and optimal value at the end, less the optimal value.
"""
CONTROLS = """\
No control of shuffled play, and no random one, is among the run's macros: there are as many, and
where a length has too few others, longer ones follow. Those of the untrained network are frequent
windows of its play. Where play has too few windows, random ones fill up. All play is as in
training, at its last temperature: greedy games without chance are the same few again and again.
Saved bits are of held-out play, with the dictionary, by those macros of a library that shorten
other play; for them the run's macros are the best of all its sound ones, with or without a slot,
and controls have their lengths. Of shuffled macros the actions are as frequent as in the run's. The
perfect library is the ceiling: of the held-out play's windows that are deterministic and come back
those that shorten that very play the most. Intervals are 95 %, by states (Wilson's, at the
effective number of trials; Student's t), those of the bits by resampled pieces.
"""


def share_text(estimate: Mapping[str, Any], *, count: bool = False) -> str:
    """`93% (88 to 97)`, or with the number of trials `93% of 51 (88 to 97)`."""
    trials = f" of {estimate['trials']}" if count else ""
    return _text(estimate, lambda x: f"{100 * x:.0f}", f"%{trials}")


def mean_text(estimate: Mapping[str, Any]) -> str:
    """`-0.020 (-0.050 to 0.010)`."""
    return _text(estimate, "{:.3f}".format)


def _text(estimate: Mapping[str, Any], number: Callable[[float], str], unit: str = "") -> str:
    mean, low, high = (estimate.get(name) for name in ("mean", "low", "high"))
    return "-" if mean is None else Estimate(mean, low, high).text(number, unit)


CELLS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "applies": lambda x: share_text(x["applied"]),
    "trials": lambda x: str(x["whole"]["trials"]),
    "whole state": lambda x: share_text(x["whole"]),
    "whole + pays": lambda x: share_text(x["whole_paid"]),
    "effect": lambda x: share_text(x["nearest"]),
    "effect + pays": lambda x: share_text(x["held"]),
    "pays (reward)": lambda x: share_text(x["paid_rewarded"], count=True),
    "pays (none)": lambda x: share_text(x["paid_unrewarded"]),
    "loses a life": lambda x: share_text(x["lost"]),
    "foreseen": lambda x: share_text(x["lost_foreseen"], count=True),
    "value - greedy": lambda x: mean_text(x["gain"]),
    "distinguished": lambda x: share_text(x["told_apart"]),
    "whole anywhere": lambda x: share_text(x["whole_anywhere"]),
    "effect + pays anywhere": lambda x: share_text(x["held_anywhere"]),
    "lives lost": lambda x: mean_text({**x["lives"], "low": None}),
    "cut": lambda x: str(x.get("cut")),
    "same RAM": lambda x: share_text(x["repeats"]),
}
"""Columns of the tables, each of a tally."""
TOTALS = ("library", "macros", *list(CELLS)[:14], "saved bits/action")
_OF_LIBRARIES = ("effect", "distinguished", "whole anywhere", "effect + pays anywhere")
MACROS = ("macro", "status", *(name for name in CELLS if name not in _OF_LIBRARIES))


def total_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """A row for each library, under `TOTALS`; of the run's own macros also one for each kind."""
    rows = []
    for library in document["libraries"]:
        bits, kinds = library["saved"] or {}, library["kinds"]
        saved = mean_text({**bits, "mean": bits.get("bits_per_action")})
        parts = [(library["name"], len(library["macros"]), library["totals"], saved)]
        for kind, name in KINDS.items() if library["name"] == REAL else ():
            parts.append((name, kinds[kind]["macros"], kinds[kind]["totals"], "-"))
        rows += [
            [name, str(size), *(CELLS[x](totals) for x in TOTALS[2:-1]), saved]
            for name, size, totals, saved in parts
        ]
    ceiling, blank = document["ceiling"], ["-"] * (len(TOTALS) - 3)
    bits = ceiling["saved"] or {}
    saved = mean_text({**bits, "mean": bits.get("bits_per_action")})
    return [*rows, [PERFECT, str(bits.get("kept", 0)), *blank, saved]]


def pair_table(document: Mapping[str, Any]) -> Table:
    """The run's macros and the controls under the same condition, by both tests."""
    found, columns = {x["name"]: x for x in document["libraries"]}, {}
    for key, name, _ in TESTS if REAL in found and document["suite"] != "grid" else ():
        for condition, values in fair_pairs(found, key).items():
            columns[f"{name}, {condition}"] = values
    names = dict.fromkeys(name for values in columns.values() for name in values)
    none = "no slot of the head"
    rows = [
        [name, *(share_text(x[name], count=True) if name in x else none for x in columns.values())]
        for name in names
    ]
    return Table(("library", *columns), rows)


def moment_table(document: Mapping[str, Any]) -> Table:
    """The test of the whole state against each kind of rivals alone."""
    heads = ("nearer than rivals", "all", *(name.replace("_", " ") for name in MOMENTS))
    rows = [
        [x["name"], *(share_text(x["totals"][name]) for name in ("whole", *MOMENTS))]
        for x in document["libraries"]
        if document["suite"] != "grid"
    ]
    return Table(heads, rows)


def probe_table(document: Mapping[str, Any]) -> Table:
    """Mean errors of the probe on foreseen ends / real ones / if nothing moved, by length."""
    rows = []
    for library in document["libraries"]:
        for row in library["probe"] or ():
            errors = zip(*(row[x] for x in ERRORS), strict=True)
            cells = [" / ".join(f"{x:.1f}" for x in each) for each in errors]
            rows.append([library["name"], str(row["length"]), str(row["trials"]), *cells])
    what = (f"{x} (foreseen / real / still)" for x in document["probed"])
    return Table(("error in pixels", "length", "trials", *what), rows)


def macro_table(library: Mapping[str, Any]) -> Table:
    """A row for each macro of a library."""
    rows = [
        [macro["names"], str(macro.get("status")), *(CELLS[name](macro) for name in MACROS[2:])]
        for macro in library["macros"]
    ]
    return Table(MACROS, rows)


def head_lines(document: Mapping[str, Any]) -> list[str]:
    """What was verified, which gate closed, and how well the models know where all is certain."""
    play, sound, gate = document["play"], document["sound"], document["gate"]
    sticky, perplexity = document.get("sticky"), document["code_perplexity"]
    game = document["game"] + (f", sticky actions {sticky:g}" if sticky else "")
    counts = f"{sound['changing']} change the action, {sound['repeats']} repeat one"
    if sound["renamed"]:
        groups = {}  # of actions that do the same, as `NOOP = FIRE`
        for name, first in zip(document["action_names"], document["same_actions"], strict=True):
            groups.setdefault(first, []).append(name)
        same = ", ".join(" = ".join(groups[x]) for x in sorted(groups) if len(groups[x]) > 1)
        counts += f" ({sound['renamed']} by actions that do the same: {same})"
    codes = "" if perplexity is None else f"; code perplexity {perplexity:.2f} at the run's end"
    lines = [
        f"{document['experiment']}, seed {document['seed']}, {document['checkpoint']} model: "
        f"{game}",
        f"play: {play['games']} games, {play['actions']:,} actions ({play['held_out']:,} held "
        f"out), mean score {play['mean_score']:.2f}, untrained {play['untrained_score']:.2f}",
        f"sound macros of the table: {counts}{codes}",
    ]
    libraries = {library["name"]: library for library in document["libraries"]}
    if REAL in libraries and document["owned"] is not None:
        lines.append(
            f"precondition head: {document['owned']} of the {len(libraries[REAL]['macros'])} "
            "macros tried own a slot of it; sound ones without are not tried, unless none has one"
        )
    if (other := libraries.get(UNTRAINED)) is not None:
        lines.append(
            f"controls: of the {len(other['macros'])} of the untrained network {other['shared']} "
            "are among the macros; of shuffled play and random ones none is"
        )
    if document["owned"] is not None:
        heads = {x: libraries[x + WITH_HEAD] for x in libraries if x + WITH_HEAD in libraries}
        said = ", ".join(f"{len(x['macros'])} of {name}" for name, x in heads.items()) or "none"
        lines.append(f"controls that own a slot: {said}; of the others the head says nothing")
    if gate is not None:
        lines.append(f"no macro is sound; the gate that closed: {gate['closed']}: {gate['why']}")
    for pairs in document["pairs"] or ():
        shares = {name: pairs[name] for name in ("precision", "recall")}
        said = ", ".join(f"{x} {'none' if y is None else f'{y:.4f}'}" for x, y in shares.items())
        lengths = [x["length"] for x in pairs["lengths"]]
        lines.append(
            f"{pairs['model']}, certain from here, over all sequences of {min(lengths)} to "
            f"{max(lengths)} actions from {pairs['starts']} states: {said}"
        )
    return lines


def criteria_lines(criteria: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each criterion."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [f"{words[x['met']]}: {x['what']}: {x['found']}" for x in criteria]


def to_text(document: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    libraries = document["libraries"]
    parts = ["\n".join(head_lines(document)), Table(TOTALS, total_rows(document)).to_text()]
    parts += [x(document).to_text() for x in (pair_table, moment_table, probe_table)]
    parts.append("\n".join(criteria_lines(document["criteria"])))
    parts.append(macro_table(libraries[0]).to_text() if libraries else "")
    return "\n\n".join(filter(None, parts))


def to_markdown(document: Mapping[str, Any]) -> str:
    """The tables as verify.md, every library macro by macro."""
    how = WHERE + (HOW_GRID if document["suite"] == "grid" else HOW) + CONTROLS
    lines = [f"- {line}" for line in head_lines(document)]
    parts = ["# Verification of macros", "\n".join(lines), how.strip()]
    parts.append(Table(TOTALS, total_rows(document)).to_markdown())
    parts += [x(document).to_markdown() for x in (pair_table, moment_table, probe_table)]
    parts.append("\n".join(f"- {line}" for line in criteria_lines(document["criteria"])))
    for library in document["libraries"]:
        parts += [f"## {library['name']}", macro_table(library).to_markdown() or "None."]
    return "\n\n".join(filter(None, parts)) + "\n"
