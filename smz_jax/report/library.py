"""The macros of a library in words: tables of them, and what is to be said of all together."""

from collections.abc import Mapping, Sequence
from typing import Any

from smz_jax.macros.library.listing import misses, rank, savings
from smz_jax.report.data import RunData, macro_name
from smz_jax.report.tables import Table
from smz_jax.storage.documents.macro_form import STATUS_NAMES

Macro = Mapping[str, Any]
LISTING = (
    *("#", "macro", "state", "length", "seen", "start states", "entropy", "certain", "trials"),
    *("held", "(at least)", "reward", "saves bits", "(missed)", "precondition"),
)
REPORT = (
    *("macro", "seen", "played", "state", "certain (at least)", "trials", "held (at least)"),
    *("entropy", "reward", "start states", "saves bits"),
)
RANKING = (
    *("#", "macro", "states", "length", "count", "entropy", "source", "certain", "held"),
    *("trials", "status"),
)
LEGEND = """\
seen: in search trees and played games. start states: kinds of states (buckets) it was seen from.
entropy: mean of its transitions, 0 certain, 1 anything. certain: share of the replayed windows with
its actions that the model holds to be certain throughout, which are its trials. held: share of its
trials whose end, rewards and codes were as the model had foreseen; in brackets the lower bound that
the gate asks for. reward: of one run of it. saves bits: of the description of play, where it was
chosen and joins those before it; in brackets what it would cost to leave out it alone.
precondition: precision/recall of where it is predicted to hold."""
MACRO_NOTE = (
    "Certain: of the replayed windows with its actions, those that the model holds to be certain "
    "throughout; they are its trials. Held: of those, where end, rewards and codes were as the "
    "model had foreseen. State: sound where the lower bounds in brackets of both are high enough. "
    "Seen: in search trees and played games. "
    "Entropy: mean over the macro's transitions, 0 certain, 1 uniform. Start states: kinds of "
    "states (buckets) that it was seen from. Saves bits: of the description of play, where it is "
    "in the library by compression."
)
PREFIX = "check/precondition/"
PRECONDITION = (
    *("windows", "precision", "bucket_precision", "always_precision", "recall", "bucket_recall"),
    *("ece", "ece_raw"),
)
RANKINGS = {"generality": "Most general", "entropy": "Most deterministic", "count": "Most frequent"}
"""Title by measure."""


def macro_table(
    columns: Sequence[str], macros: Sequence[Macro], document: Mapping[str, Any], **texts: Any
) -> Table:
    """A table of macros.

    Args:
        columns: of `LISTING`, `REPORT` or `RANKING`.
        macros: entries of `document`, in order.
        document: their library, whose choice by compression knows what each saves.
        **texts: `title` and `note` of the table.
    """
    saved, missed = savings(document), misses(document)
    rows = []
    for number, macro in enumerate(macros, 1):
        actions = tuple(macro.get("actions") or ())
        cells = _cells(macro, saved.get(actions), missed.get(actions)) | {"#": str(number)}
        rows.append([cells[name] for name in columns])
    words = ("macro", "state", "source", "status")
    left = [number for number, name in enumerate(columns) if name in words]
    return Table(columns, rows, left=left, **texts)


def _cells(macro: Macro, saved: float | None, missed: float | None) -> dict[str, str]:
    """What tables show of one macro, by column; a file of an older schema knows less of it."""
    certain = f"{macro['certain']:.0%}" if macro.get("windows") else "-"
    held = f"{macro['held']:.0%}" if macro.get("trials") else "-"
    certain_low, held_low = (
        "-" if share == "-" else f"({macro[name]:.0%})"
        for share, name in ((certain, "certain_low"), (held, "held_low"))
    )
    return {
        "macro": macro_name(macro),
        "state": str(macro.get("status", "-")),
        "length": str(macro["length"]),
        "seen": f"{macro['count']:,}",
        "played": f"{macro['play_count']:,}",
        "start states": str(macro["generality"]),
        "entropy": f"{macro['mean_entropy']:.3f}",
        "certain": certain,
        "certain (at least)": certain if certain == "-" else f"{certain} {certain_low}",
        "trials": f"{macro['trials']:.0f}" if "trials" in macro else "-",
        "held": held,
        "(at least)": held_low,
        "held (at least)": held if held == "-" else f"{held} {held_low}",
        "reward": f"{macro['mean_reward']:.3g}",
        "saves bits": "-" if saved is None else f"{saved:,.1f}",
        "(missed)": "-" if missed is None else f"({missed:,.1f})",
        "precondition": _quality(macro),
    }


def _quality(macro: Macro) -> str:
    """Precision and recall of a macro's precondition, where the run has measured them."""
    quality = macro.get("precondition") or {}
    parts = [quality.get(name) for name in ("precision", "recall")]
    if all(part is None for part in parts):
        return "-"
    return "/".join("-" if part is None else f"{part:.2f}" for part in parts)


def format_table(document: Mapping[str, Any], macros: Sequence[Macro]) -> str:
    """Macros as lines of text under a head, numbered, with a legend.

    Args:
        document: the library.
        macros: of `document`, as `listed` gives them.
    """
    counts = [sum(x["status"] == state for x in document["macros"]) for state in STATUS_NAMES]
    states = ", ".join(f"{n} {name}" for n, name in zip(counts, STATUS_NAMES, strict=True))
    title = f"{len(macros)} of {len(document['macros'])} macros ({states})"
    return macro_table(LISTING, macros, document, title=title, note=LEGEND).to_text()


def format_rankings(document: Mapping[str, Any], top: int = 10) -> str:
    """The best macros by each measure, as text.

    Args:
        document: a library.
        top: rows of each table at most.
    """
    if not document["macros"]:
        return "no macros found"
    return "\n\n".join(
        _ranking(rank(document["macros"], by)[:top], title).to_text()
        for by, title in RANKINGS.items()
    )


def _ranking(macros: Sequence[Macro], title: str) -> Table:
    rows = [
        (
            str(number),
            macro["names"],
            str(macro["generality"]),
            str(macro["length"]),
            str(macro["count"]),
            f"{macro['mean_entropy']:.3f}",
            macro["source"],
            f"{macro['certain']:.0%}",
            f"{macro['held']:.0%}",
            f"{macro['trials']:.0f}",
            macro["status"],
        )
        for number, macro in enumerate(macros, 1)
    ]
    return Table(RANKING, rows, title=f"{title} macros", left=(1, 6, 10))


def format_selection(document: Mapping[str, Any]) -> str:
    """The library chosen by compression in a few lines; says so where it was not measured."""
    chosen = document.get("selection")
    if chosen is None:
        return "library by compression: not measured"
    play = chosen["play"]
    source = {"replay": "the replay of the run's last checkpoint", "games": "games of the model"}
    lines = [
        f"library by compression: {len(chosen['phrases'])} of {chosen['allowed']} "
        + ("sound macros" if chosen["of"] == "sound" else "macros, none of which is sound")
        + f"; play: {play['actions']:,} actions in {play['pieces']:,} "
        + ("piece, " if play["pieces"] == 1 else "pieces, ")
        + source[play["source"]]
    ]
    bits, plain = chosen["bits_per_action"], chosen["bits_per_action_plain"]
    share = 1 - bits / plain if plain else 0.0
    lines += [
        f"  bits per action: {bits:.4f} with the library ({chosen['dictionary_bits']:,.0f} bits of "
        f"dictionary paid), {plain:.4f} without: {share:.1%} saved",
        f"  coverage: {chosen['coverage']:.1%} of the actions lie inside its macros",
        f"  redundancy: {chosen['redundancy']:.0%} of its macros begin another one, "
        f"{chosen['redundancy_allowed']:.0%} of those that it was chosen from",
    ]
    if chosen.get("tree_share"):
        lines.append(
            f"  search visits weigh in the choice as {chosen['tree_share']:.0%} more, imagined play"
        )
    controls = chosen.get("controls")
    if controls is not None:
        rows, said = controls["libraries"], f"{controls['held_out']:,} held-out actions"
        if any(row.get("saved_low") is not None for row in rows):
            said += " (95 %, by resampled pieces)"
        lines.append(f"  saved bits per action of {said}:")
        lines += [f"    {_control_line(row)}" for row in rows]
    return "\n".join(lines)


def _control_line(row: Mapping[str, Any]) -> str:
    """What one library saves of held-out play; a file of an older version has no interval."""
    low, high = row.get("saved_low"), row.get("saved_high")
    bounds = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    saved = f"{row['saved_bits_per_action']:.4f}{bounds}"
    return f"{row['name']}: {saved} ({row['kept']} of {row['macros']} kept)"


def macro_lines(run: RunData) -> list[str]:
    """How many macros there are, of which state, and what the library by compression saves."""
    sure = sum(bool(m.get("deterministic")) for m in run.macros)
    text = f"{len(run.macros):,} macros, {sure:,} of them deterministic."
    if not run.library:
        return [text]
    counts = {state: sum(m["status"] == state for m in run.macros) for state in STATUS_NAMES}
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    lines = format_selection(run.library).splitlines()
    if run.library.get("selection") is None:
        lines = ["Library by compression: not measured; experiments.macros does."]
    return [f"{text} By replay: {states}.", *lines]


def macro_tables(run: RunData) -> list[Table]:
    """Rankings; first, where it was measured, the library by compression."""
    by_actions = {tuple(m["actions"]): m for m in run.macros if isinstance(m.get("actions"), list)}
    chosen = [m for actions in savings(run.library) if (m := by_actions.get(actions))]
    ranked = [(title, rank(run.macros, by)[:10]) for by, title in reversed(RANKINGS.items())]
    if chosen:
        ranked.insert(0, ("Library by compression", chosen[:15]))
    return [macro_table(REPORT, macros, run.library, title=title) for title, macros in ranked]


def precondition_lines(run: RunData) -> list[str]:
    """Precision and recall at the last check in words, beside the baselines; none: not known."""
    found = {name: run.last(PREFIX + name) for name in PRECONDITION}

    def share(name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:.1%}"

    windows = found["windows"]
    if not windows:
        return []
    text = (
        f"Preconditions, on {windows:,.0f} held-out windows (older ones count for less): of those "
        f"that the head said a macro to apply in, it did in {share('precision')} (precision; "
        f"start-state bucket {share('bucket_precision')}, always {share('always_precision')}); of "
        f"those that one applied in, the head said so in {share('recall')} (recall; start-state "
        f"bucket {share('bucket_recall')}, always 100%)."
    )
    if found["ece"] is None:
        return [text]
    raw = "" if found["ece_raw"] is None else f" ({found['ece_raw']:.3f} without temperature)"
    return [f"{text} Its probabilities are {found['ece']:.3f} off on average{raw}."]
