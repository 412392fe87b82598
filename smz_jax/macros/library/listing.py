"""A macro library as a table: which macros, in which order, and why none is sound (no JAX)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from smz_jax.config.settings import MacroConfig, require
from smz_jax.storage.documents.macros import STATUS_NAMES, fold, prefix_share

Macro = Mapping[str, Any]
SORTS = ("count", "entropy", "generality", "saving", "held", "trials")
"""What a table can be sorted by; the best first: least entropy, most of everything else."""
PREFIXES = 0.5
"""Above this share of macros that begin another one, a table holds little but prefixes."""


class Wanted(NamedTuple):
    """Which macros are listed, and how."""

    sort: str = "count"
    status: str | None = None  # None: all
    min_length: int | None = None
    max_length: int | None = None
    contains: tuple[str, ...] = ()  # names of actions, each of which must occur
    no_repeats: bool = False  # leaves out macros of one repeated action
    top: int | None = None


def savings(document: Mapping[str, Any]) -> dict[tuple[int, ...], float]:
    """Bits that each macro of the library chosen by compression saves; empty: none was chosen."""
    phrases = (document.get("selection") or {}).get("phrases", ())
    return {tuple(phrase["actions"]): phrase["saved_bits"] for phrase in phrases}


def misses(document: Mapping[str, Any]) -> dict[tuple[int, ...], float]:
    """Bits that play costs more without each of the chosen macros alone, where that is known."""
    phrases = (document.get("selection") or {}).get("phrases", ())
    found = {tuple(phrase["actions"]): phrase.get("missed_bits") for phrase in phrases}
    return {actions: bits for actions, bits in found.items() if bits is not None}


def check_wanted(wanted: Wanted, action_names: Sequence[str]) -> None:
    """Raises ConfigError in one line for a filter that no macro of these actions could pass."""
    require(wanted.sort in SORTS, "sort", wanted.sort, f"one of {', '.join(SORTS)}")
    states = ", ".join(STATUS_NAMES)
    require(wanted.status in (None, *STATUS_NAMES), "status", wanted.status, f"one of {states}")
    low, high = wanted.min_length, wanted.max_length
    require(low is None or 1 <= low <= 8, "min_length", low, "in 1..8")
    require(high is None or (low or 1) <= high <= 8, "max_length", high, f"in {low or 1}..8")
    require(wanted.top is None or wanted.top >= 1, "top", wanted.top, "at least 1")
    for name in wanted.contains:
        require(name in action_names, "contains", name, f"one of {', '.join(action_names)}")


def listed(document: Mapping[str, Any], wanted: Wanted) -> list[dict[str, Any]]:
    """The macros that are wanted, the best first; ties go to the higher count, then as they were.

    Args:
        document: as `read_macros_json` gives it.
        wanted: filters and order.

    Raises:
        ConfigError: in one line, for a filter or an order that the library does not know.
    """
    names = document["action_names"]
    check_wanted(wanted, names)
    has_selection = document.get("selection") is not None
    allowed = "of a library whose selection was measured: without --table it is"
    require(wanted.sort != "saving" or has_selection, "sort", wanted.sort, allowed)
    needed = {names.index(name) for name in wanted.contains}

    def passes(macro: Macro) -> bool:
        fits = (wanted.min_length or 1) <= macro["length"] <= (wanted.max_length or math.inf)
        of_state = wanted.status in (None, macro["status"])
        varied = not wanted.no_repeats or len(set(macro["actions"])) > 1
        return fits and of_state and varied and needed <= set(macro["actions"])

    saved = savings(document)
    measures = {
        "count": lambda macro: -macro["count"],
        "entropy": lambda macro: macro["mean_entropy"],
        "generality": lambda macro: -macro["generality"],
        "saving": lambda macro: -saved.get(tuple(macro["actions"]), -math.inf),
        # By the bound: 3 of 3 trials say less than 90 of 100.
        "held": lambda macro: (-macro["held_low"], -macro["held"]),
        "trials": lambda macro: -macro["trials"],
    }
    measure = measures[wanted.sort]
    found = [macro for macro in document["macros"] if passes(macro)]
    return sorted(found, key=lambda macro: (measure(macro), -macro["count"]))[: wanted.top]


def _quality(macro: Macro) -> str:
    """Precision and recall of a macro's precondition, where the run has measured them."""
    quality = macro.get("precondition") or {}
    parts = [quality.get(name) for name in ("precision", "recall")]
    if all(part is None for part in parts):
        return "-"
    return "/".join("-" if part is None else f"{part:.2f}" for part in parts)


HEAD = (
    *("#", "macro", "state", "length", "seen", "start states", "entropy", "certain", "trials"),
    *("held", "(at least)", "reward", "saves bits", "(missed)", "precondition"),
)
LEGEND = """\
seen: in search trees and played games. start states: kinds of states (buckets) it was seen from.
entropy: mean of its transitions, 0 certain, 1 anything. certain: share of the replayed windows with
its actions that the model holds to be certain throughout, which are its trials. held: share of its
trials whose end, rewards and codes were as the model had foreseen; in brackets the lower bound that
the gate asks for. reward: of one run of it. saves bits: of the description of play, where it was
chosen and joins those before it; in brackets what it would cost to leave out it alone.
precondition: precision/recall of where it is said to hold."""


def cells(
    macro: Macro,
    saved: Mapping[tuple[int, ...], float],
    missed: Mapping[tuple[int, ...], float],
) -> tuple[str, ...]:
    """What a table shows of one macro, in the order of `HEAD` after the number."""
    saving, loss = (bits.get(tuple(macro["actions"])) for bits in (saved, missed))
    tried = macro["trials"] > 0
    return (
        fold(macro["names"].split(" → ")),
        macro["status"],
        str(macro["length"]),
        f"{macro['count']:,}",
        str(macro["generality"]),
        f"{macro['mean_entropy']:.3f}",
        f"{macro['certain']:.0%}" if macro["windows"] > 0 else "-",
        f"{macro['trials']:.0f}",
        f"{macro['held']:.0%}" if tried else "-",
        f"({macro['held_low']:.0%})" if tried else "-",
        f"{macro['mean_reward']:.3g}",
        "-" if saving is None else f"{saving:,.1f}",
        "-" if loss is None else f"({loss:,.1f})",
        _quality(macro),
    )


def format_table(document: Mapping[str, Any], macros: Sequence[Macro]) -> str:
    """Macros as lines of text under a head, numbered, with a legend.

    Args:
        document: the library.
        macros: of `document`, as `listed` gives them.
    """
    bits = savings(document), misses(document)
    rows = [HEAD, *((str(i), *cells(macro, *bits)) for i, macro in enumerate(macros, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.ljust(width) if column in (1, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    total = len(document["macros"])
    counts = [sum(x["status"] == state for x in document["macros"]) for state in STATUS_NAMES]
    states = ", ".join(f"{n} {name}" for n, name in zip(counts, STATUS_NAMES, strict=True))
    what = f"{len(macros)} of {total} macros ({states})"
    if not macros:
        return what
    ruler = "-" * max(map(len, map(line, rows)))
    return "\n".join([what, line(HEAD), ruler, *map(line, rows[1:]), "", LEGEND])


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


def _certainty_gate(stats: Mapping[str, Any], config: MacroConfig) -> str:
    """Why there is no macro at all."""
    seen, certain = stats.get("transitions", 0), stats.get("certain", 0)
    limits = f"{config.play_threshold:g} in play, {config.tree_threshold:g} in search trees"
    if not seen:
        return "no transition has been looked at yet"
    if not certain:
        return f"no certain windows: none of {seen:,} transitions had an entropy under {limits}"
    windows = stats.get("candidates_tree", 0) + stats.get("candidates_play", 0)
    share = f"{certain:,} of {seen:,} transitions were certain (under {limits})"
    if not windows:
        return f"no certain windows: {share}, but never {config.min_length} in a row"
    often = f"no sequence of actions came {config.min_occurrences} times"
    return f"too few occurrences: {share}, in {windows:,} windows, but {often}"


def closed_gate(document: Mapping[str, Any]) -> str | None:
    """Which gate keeps every macro from being sound, in one line; None if some macro is sound.

    Args:
        document: as `read_macros_json` gives it.
    """
    found = gate_and_reason(document)
    return None if found is None else ": ".join(found)


def gate_and_reason(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The same as two parts: "certainty", "trials" or "repeatability", and why."""
    macros, config = document["macros"], MacroConfig(**document["config"])
    if any(macro["status"] == "sound" for macro in macros):
        return None
    if not macros:
        return "certainty", _certainty_gate(document["stats"], config)
    most = max(macro["trials"] for macro in macros)
    tried = [macro for macro in macros if macro["trials"] >= config.min_trials]
    if not tried and max(macro["windows"] for macro in macros) >= config.min_trials:
        best = max(macros, key=lambda macro: macro["trials"])
        return "certainty", (
            f"certain too rarely: of {len(macros)} macros the one that is certain most often is so "
            f"in {best['trials']:.0f} of {best['windows']:.0f} replayed windows with its actions, "
            f"and {config.min_trials} are asked for"
        )
    if not tried:
        return "trials", (
            f"too few trials: of {len(macros)} macros the most tried one has {most:.0f} trials in "
            f"replay, {config.min_trials} are asked for"
        )
    hold = [macro for macro in tried if macro["held_low"] >= config.sound_share]
    if hold:
        best = max(hold, key=lambda macro: macro["certain_low"])
        return "certainty", (
            f"certain too rarely: {len(hold)} of {len(macros)} macros hold where they are certain, "
            f"the one that is so most often in {best['certain']:.0%} of the replayed windows with "
            f"its actions, at least {best['certain_low']:.0%}, and {config.certain_share:.0%} is "
            "asked for"
        )
    total = sum(macro["trials"] for macro in tried)
    shares = {
        name: sum(macro[name] * macro["trials"] for macro in tried) / total
        for name in ("near", "paid", "agreed")
    }
    worst = min(shares, key=lambda name: shares[name])
    best = max(tried, key=lambda macro: macro["held_low"])
    what = {
        "near": "the foreseen end was not near the real one",
        "paid": "the rewards were not the foreseen ones",
        "agreed": "the codes were not the foreseen ones",
    }
    rates = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return "repeatability", (
        f"most of all '{worst}' ({what[worst]}): {len(tried)} of {len(macros)} "
        f"macros have {config.min_trials} trials, the best of them held {best['held']:.0%}, "
        f"at least {best['held_low']:.0%}, and {config.sound_share:.0%} is asked for; of their "
        f"trials {rates}"
    )


def prefix_line(document: Mapping[str, Any]) -> str | None:
    """A warning where all macros, the sound ones or the chosen ones are mostly prefixes."""
    macros, chosen = document["macros"], document.get("selection")
    sound = [macro["actions"] for macro in macros if macro["status"] == "sound"]
    shares = {"macros": prefix_share([macro["actions"] for macro in macros])}
    if sound:
        shares["sound ones"] = prefix_share(sound)
    if chosen is not None:
        shares["library by compression"] = chosen["redundancy"]
    if max(shares.values()) <= PREFIXES:
        return None
    parts = ", ".join(f"{share:.0%} of the {name}" for name, share in shares.items())
    return f"prefixes count one thing often: {parts} begin another macro."
