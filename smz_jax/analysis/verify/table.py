"""A verification as tables: plain text for the terminal, Markdown for verify.md."""

from collections.abc import Mapping
from typing import Any

from smz_jax.analysis.verify.criteria import criteria_lines
from smz_jax.analysis.verify.libraries import REAL, UNTRAINED
from smz_jax.report.tables import Table
from smz_jax.storage.documents.verify_json import KINDS

TOTALS = (
    "library",
    "macros",
    "applies",
    "trials",
    "holds",
    "nearest",
    "distinguished",
    "pays (reward)",
    "pays (none)",
    "value - greedy",
    "holds anywhere",
    "saved bits/action",
)
MACROS = (
    "macro",
    "status",
    "applies",
    "trials",
    "holds",
    "pays (reward)",
    "pays (none)",
    "value - greedy",
    "lives lost",
    "cut",
    "same RAM",
)
WHERE = """\
A macro applies in a state where the model holds every transition to be certain and, if the macro
owns a slot of the precondition head, the head gives it a probability of 0.5 or more there. Sound
macros that own none are tried only where none owns any. Only
the run's own macros have a head: "macros, certain only" are the same without it, as every control
is; where a state is tried for both, by the same runs.
"""
HOW = """\
A trial holds if it ends where the model says ("nearest": its foreseen end is nearer to the real one
than those foreseen of up to 19 other sequences from the same state that really end elsewhere) and
pays what it says. "Distinguished" is the same the other way round: of all their real ends its own
is the nearest to its foreseen one. Ends are compared by the cosine, projected as the consistency
loss does, where it is trained.
"Pays (reward)" is of the trials in which there was a reward, as many as are said. Trials that a
lost life or the game's end cut short are left out. "Holds anywhere" is of drawn states, whether or
not the macro applies there. "Value - greedy" is the discounted reward and the value at the end,
less those of the greedy policy after as many steps.
"""
HOW_GRID = """\
It holds if all its transitions are certain by the rules, it ends in the state that the model says
(of all states the nearest to its foreseen end: "nearest" and "distinguished" are one here), and
pays what it says. "Holds anywhere" is of all states in which it
can be played. "Value - greedy" is the expected discounted reward and optimal value at the end, less
the optimal value.
"""
CONTROLS = """\
No control of shuffled play, and no random one, is among the run's macros: there are as many, and
where a length has too few others, longer ones follow. Those of the untrained network are frequent
windows of its play. Where play has too few windows, random ones fill up. All play is as in
training, at its last temperature: greedy games without chance are the same few again and again.
Saved bits are of held-out play, with the dictionary, by those macros of a library that shorten
other play; for them the run's macros are the best of all its sound ones, with or without a slot,
and controls have their lengths. Intervals are 95 %, by states (Wilson's, at the effective number of
trials; Student's t), those of the bits by resampled pieces.
"""
KIND_NAMES = {"changing": "- that change the action", "repeats": "- repeats of one action"}
Rows = list[list[str]]


def share_text(estimate: Mapping[str, Any], *, count: bool = False) -> str:
    """`93% (88 to 97)`, or with the number of trials `93% of 51 (88 to 97)`."""
    if estimate["mean"] is None:
        return "-"
    trials = f" of {estimate['trials']}" if count else ""
    return f"{estimate['mean']:.0%}{trials} ({_bounds(estimate, 100, 0)})"


def mean_text(estimate: Mapping[str, Any]) -> str:
    """`-0.02 (-0.05 to 0.01)`."""
    if estimate["mean"] is None:
        return "-"
    bounds = f" ({_bounds(estimate, 1, 3)})" if estimate["low"] is not None else ""
    return f"{estimate['mean']:.3f}{bounds}"


def _bounds(estimate: Mapping[str, Any], scale: float, digits: int) -> str:
    return f"{scale * estimate['low']:.{digits}f} to {scale * estimate['high']:.{digits}f}"


def total_rows(document: Mapping[str, Any]) -> Rows:
    """A row for each library, under `TOTALS`; of the run's own macros also one for each kind."""
    rows = []
    for library in document["libraries"]:
        bits = library["saved"] or {"bits_per_action": None}
        saved = mean_text({"low": None, **bits, "mean": bits["bits_per_action"]})
        size = str(len(library["macros"]))
        rows.append(_total_row(library["name"], size, library["totals"], saved))
        if library["name"] == REAL:
            rows += [
                _total_row(name, str(kind["macros"]), kind["totals"], "-")
                for name, kind in ((KIND_NAMES[x], library["kinds"][x]) for x in KINDS)
            ]
    return rows


def _total_row(name: str, size: str, found: Mapping[str, Any], saved: str) -> list[str]:
    return [
        name,
        size,
        share_text(found["applied"]),
        str(found["held"]["trials"]),
        *(share_text(found[x]) for x in ("held", "nearest", "told_apart")),
        share_text(found["paid_rewarded"], count=True),
        share_text(found["paid_unrewarded"]),
        mean_text(found["gain"]),
        share_text(found["held_anywhere"]),
        saved,
    ]


def macro_rows(library: Mapping[str, Any]) -> Rows:
    """A row for each macro of a library, under `MACROS`."""
    return [
        [
            macro["names"],
            str(macro.get("status")),
            share_text(macro["applied"]),
            str(macro["held"]["trials"]),
            share_text(macro["held"]),
            share_text(macro["paid_rewarded"], count=True),
            share_text(macro["paid_unrewarded"]),
            mean_text(macro["gain"]),
            mean_text({**macro["lives"], "low": None}),
            str(macro.get("cut")),
            share_text(macro["repeats"]) if macro["repeats"]["trials"] else "-",
        ]
        for macro in library["macros"]
    ]


def pair_lines(document: Mapping[str, Any]) -> list[str]:
    """Precision and recall of "certain from here", of each model of a grid world."""
    lines = []
    for pairs in document["pairs"] or ():
        said = [
            f"{name} {'none' if pairs[name] is None else format(pairs[name], '.4f')}"
            for name in ("precision", "recall")
        ]
        lengths = [x["length"] for x in pairs["lengths"]]
        lines.append(
            f"{pairs['model']}, certain from here, over all sequences of {min(lengths)} to "
            f"{max(lengths)} actions from {pairs['starts']} states: {', '.join(said)}"
        )
    return lines


def head_lines(document: Mapping[str, Any]) -> list[str]:
    """What was verified, and which gate closed."""
    play = document["play"]
    sticky = document.get("sticky")
    game = document["game"] + (f", sticky actions {sticky:g}" if sticky else "")
    lines = [
        f"{document['experiment']}, seed {document['seed']}, {document['checkpoint']} model: "
        f"{game}",
        f"play: {play['games']} games, {play['actions']:,} actions ({play['held_out']:,} held "
        f"out), mean score {play['mean_score']:.2f}, untrained {play['untrained_score']:.2f}",
    ]
    sound, perplexity = document["sound"], document["code_perplexity"]
    counts = f"{sound['changing']} change the action, {sound['repeats']} repeat one"
    if sound["renamed"]:
        counts += f" ({sound['renamed']} by actions that do the same: {_same_names(document)})"
    codes = "" if perplexity is None else f"; code perplexity {perplexity:.2f} at the run's end"
    lines.append(f"sound macros of the table: {counts}{codes}")
    lines += _library_lines(document)
    if document["gate"] is not None:
        gate = document["gate"]
        lines.append(f"no macro is sound; the gate that closed: {gate['closed']}: {gate['why']}")
    return lines + pair_lines(document)


def _same_names(document: Mapping[str, Any]) -> str:
    """Groups of actions that do the same, as `NOOP = FIRE`."""
    same, names = document["same_actions"], document["action_names"]
    groups = [[n for n, x in zip(names, same, strict=True) if x == i] for i in range(len(same))]
    return ", ".join(" = ".join(group) for group in groups if len(group) > 1)


def _library_lines(document: Mapping[str, Any]) -> list[str]:
    """How many macros have a head, and what the controls share with them."""
    by_name = {library["name"]: library for library in document["libraries"]}
    lines, own = [], by_name.get(REAL)
    if own is not None and document["owned"] is not None:
        lines.append(
            f"precondition head: {document['owned']} of the {len(own['macros'])} macros tried own "
            "a slot of it; sound ones without are not tried, unless none has one"
        )
    if (other := by_name.get(UNTRAINED)) is not None:
        lines.append(
            f"controls: of the {len(other['macros'])} of the untrained network {other['shared']} "
            "are among the macros; of shuffled play and random ones none is"
        )
    return lines


def to_text(document: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    parts = ["\n".join(head_lines(document)), Table(TOTALS, total_rows(document)).to_text()]
    parts.append("\n".join(criteria_lines(document["criteria"])))
    rows = macro_rows(document["libraries"][0]) if document["libraries"] else []
    if rows:
        parts.append(Table(MACROS, rows).to_text())
    return "\n\n".join(parts)


def to_markdown(document: Mapping[str, Any]) -> str:
    """The tables as verify.md, every library macro by macro."""
    how = WHERE + (HOW_GRID if document["suite"] == "grid" else HOW) + CONTROLS
    lines = [f"- {line}" for line in head_lines(document)]
    parts = ["# Verification of macros", "\n".join(lines), how.strip()]
    parts.append(Table(TOTALS, total_rows(document)).to_markdown())
    parts.append("\n".join(f"- {line}" for line in criteria_lines(document["criteria"])))
    for library in document["libraries"]:
        table = Table(MACROS, macro_rows(library)).to_markdown()
        parts += [f"## {library['name']}", table or "None."]
    return "\n\n".join(parts) + "\n"
