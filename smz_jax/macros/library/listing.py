"""Which macros of a library a table shows, and in which order (no JAX)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from smz_jax.config.check import require
from smz_jax.storage.documents.macro_form import STATUS_NAMES

Macro = Mapping[str, Any]
SORTS = ("count", "entropy", "generality", "saving", "held", "trials")
"""What a table can be sorted by; the best first: least entropy, most of everything else."""


class Wanted(NamedTuple):
    """Which macros are listed, and how."""

    sort: str = "count"
    status: str | None = None  # None: all
    min_length: int | None = None
    max_length: int | None = None
    contains: tuple[str, ...] = ()  # names of actions, each of which must occur
    no_repeats: bool = False  # leaves out macros of one repeated action
    top: int | None = None


def chosen_bits(document: Mapping[str, Any], kind: str) -> dict[tuple[int, ...], float]:
    """Bits of each macro of the library chosen by compression, where they are known.

    `kind`: `saved_bits`, those that it saves, or `missed_bits`, those that play costs more without
    it alone.
    """
    phrases = (document.get("selection") or {}).get("phrases", ())
    found = {tuple(phrase["actions"]): phrase.get(kind) for phrase in phrases}
    return {actions: bits for actions, bits in found.items() if bits is not None}


def _check_wanted(wanted: Wanted, action_names: Sequence[str]) -> None:
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
    """The wanted macros of a `macros.json`, the best first, as `rank` orders them.

    Raises:
        ConfigError: in one line, for a filter or an order that the library does not know.
    """
    names = document["action_names"]
    _check_wanted(wanted, names)
    has_selection = document.get("selection") is not None
    allowed = "of a library whose selection was measured: without --table it is"
    require(wanted.sort != "saving" or has_selection, "sort", wanted.sort, allowed)
    needed = {names.index(name) for name in wanted.contains}

    def passes(macro: Macro) -> bool:
        fits = (wanted.min_length or 1) <= macro["length"] <= (wanted.max_length or math.inf)
        of_state = wanted.status in (None, macro["status"])
        varied = not wanted.no_repeats or len(set(macro["actions"])) > 1
        return fits and of_state and varied and needed <= set(macro["actions"])

    found = [macro for macro in document["macros"] if passes(macro)]
    return rank(found, wanted.sort, chosen_bits(document, "saved_bits"))[: wanted.top]


def rank(
    macros: Sequence[dict[str, Any]], by: str, saved: Mapping[tuple[int, ...], float] | None = None
) -> list[dict[str, Any]]:
    """Entries of `macros.json`, the best first by one of `SORTS`; `saved` is for "saving".

    Ties go to the higher count, then stay in order.
    """
    bits = saved or {}
    measures = {
        "count": lambda macro: -macro["count"],
        "entropy": lambda macro: macro["mean_entropy"],
        "generality": lambda macro: -macro["generality"],
        "saving": lambda macro: -bits.get(tuple(macro["actions"]), -math.inf),
        # By the bound: 3 of 3 trials say less than 90 of 100.
        "held": lambda macro: (-macro["held_low"], -macro["held"]),
        "trials": lambda macro: -macro["trials"],
    }
    return sorted(macros, key=lambda macro: (measures[by](macro), -macro["count"]))
