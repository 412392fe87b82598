"""The macros of a run as sentences and rows of a report."""

from collections.abc import Callable, Mapping
from typing import Any

from smz_jax.macros.library.listing import format_selection, savings
from smz_jax.report.data import RunData, macro_name
from smz_jax.storage.documents.macros import STATUS_NAMES

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]

HEAD = (
    *("macro", "seen", "played", "state", "certain (at least)", "trials"),
    *("held (at least)", "entropy"),
    *("reward (mean)", "start states", "saves bits"),
)
MACRO_NOTE = (
    "Certain: of the replayed windows with its actions, those that the model holds to be certain "
    "throughout; they are its trials. Held: of those, where end, rewards and codes were as the "
    "model had foreseen. State: sound where the lower bounds in brackets of both are high enough. "
    "Seen: in search trees and played games. "
    "Entropy: mean over the macro's transitions, 0 certain, 1 uniform. Start states: kinds of "
    "states (buckets) that it was seen from. Saves bits: of the description of play, where it is "
    "in the library by compression."
)
RANKINGS: tuple[tuple[str, Callable[[Mapping[str, Any]], tuple[float, ...]]], ...] = (
    ("Most frequent", lambda m: (-m["count"], m["mean_entropy"])),
    ("Most deterministic", lambda m: (m["mean_entropy"], -m["count"])),
    ("Most general", lambda m: (-m["generality"], -m["count"])),
)


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


def macro_tables(run: RunData) -> list[tuple[str, Rows]]:
    """Rankings: title, head and rows; first, where it was measured, the library by compression."""
    saved = savings(run.library)
    by_actions = {tuple(m["actions"]): m for m in run.macros if isinstance(m.get("actions"), list)}
    chosen = [by_actions[actions] for actions in saved if actions in by_actions]
    ranked = [(title, sorted(run.macros, key=key)[:10]) for title, key in RANKINGS]
    if chosen:
        ranked.insert(0, ("Library by compression", chosen[:15]))
    return [(title, (HEAD, [_cells(m, saved) for m in macros])) for title, macros in ranked]


def _cells(macro: Mapping[str, Any], saved: Mapping[tuple[int, ...], float]) -> tuple[str, ...]:
    """One macro; a file of an older schema knows less of it."""
    certain = held = "-"
    if macro.get("windows"):
        certain = f"{macro['certain']:.0%} ({macro['certain_low']:.0%})"
    if macro.get("trials"):
        held = f"{macro['held']:.0%} ({macro['held_low']:.0%})"
    saving = saved.get(tuple(macro.get("actions") or ())) if saved else None
    return (
        macro_name(dict(macro)),
        f"{macro['count']:,}",
        f"{macro['play_count']:,}",
        str(macro.get("status", "-")),
        certain,
        f"{macro['trials']:.0f}" if "trials" in macro else "-",
        held,
        f"{macro['mean_entropy']:.3f}",
        f"{macro['mean_reward']:.3g}",
        str(macro["generality"]),
        "-" if saving is None else f"{saving:,.1f}",
    )
