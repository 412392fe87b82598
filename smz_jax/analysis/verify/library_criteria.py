"""Criteria of a library: whether each is met, or by how much it is missed."""

from collections.abc import Mapping, Sequence
from typing import Any

from smz_jax.analysis.verify.tried_libraries import CERTAIN, REAL

HELD, SURE = 0.90, 0.98
"""Shares of applications: in Breakout those that hold; in the grid world those that are true."""


def judge(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which criteria a verification meets.

    Returns:
        For each criterion its words (`what`), what was `found`, and whether it is `met`; None: it
        is not measured here.
    """
    libraries = {x["name"]: x for x in document["libraries"] if x["name"] != CERTAIN}
    totals, rows = libraries[REAL]["totals"], []
    if document["suite"] == "grid":
        for name in ("precision", "recall"):
            value = document["pairs"][0][name] if document["pairs"] else None
            rows.append(_least(f"certain from here: {name}", {"mean": value}, SURE))
        what = "applications that are deterministic and end where foreseen"
        rows.append(_least(what, totals["nearest"], SURE))
    elif not document["sticky"]:
        rows.append(_least("macros hold where they apply", totals["held"], HELD))
        held = {name: x["totals"]["held"] for name, x in libraries.items()}
        rows.append(_apart("they hold more often than every control", held, 100, 1, " points"))
        if document["asked"]["any_status"]:
            rows = [_row(x["what"], None, f"{x['found']}; not only sound ones") for x in rows]
    else:
        count = document["sound"]["changing"]
        found = f"{count} are sound here, and {document['sound']['renamed']} by name alone"
        what = "macros that change action: fewer than 5 % of the deterministic run's number sound"
        rows.append(_row(what, None, f"{found}; hold it against that run's"))
    none = dict.fromkeys(("bits_per_action", "low", "high"))
    saved = {name: x["saved"] or none for name, x in libraries.items()}
    saved = {name: {**x, "mean": x["bits_per_action"]} for name, x in saved.items()}
    return [*rows, _apart("saved bits exceed every control's", saved, 1, 3, " bits/action")]


def _row(what: str, met: bool | None, found: str) -> dict[str, Any]:
    return {"what": what, "met": met, "found": found}


def _least(what: str, value: Mapping[str, Any], least: float) -> dict[str, Any]:
    """A share that must be at least so large."""
    what, mean = f"{what}: at least {least:.0%}", value["mean"]
    if mean is None:
        return _row(what, None, "no trial")
    found = f"{100 * mean:.2f} %"
    if value.get("low") is not None:
        found += f" ({100 * value['low']:.1f} to {100 * value['high']:.1f})"
    if mean < least:
        found += f", missed by {100 * (least - mean):.2f} points"
    return _row(what, mean >= least, found)


def _apart(
    what: str, values: Mapping[str, Mapping[str, Any]], scale: float, digits: int, unit: str
) -> dict[str, Any]:
    """The interval of the run's own macros must lie above that of every control."""
    what, low = f"{what}, intervals apart", values[REAL]["low"]
    if low is None:
        return _row(what, None, "no interval of the macros")
    said, gaps = [], []
    for name, other in values.items():
        if name == REAL:
            continue
        if other["mean"] is None:
            said.append(f"{name}: no trial")
            continue
        if other["high"] is None:
            return _row(what, None, f"no interval of {name}")
        gaps.append(scale * (low - other["high"]))
        verb = "apart" if gaps[-1] > 0 else "overlap"
        said.append(f"{name}: {verb} by {abs(gaps[-1]):.{digits}f}{unit}")
    return _row(what, min(gaps) > 0 if gaps else None, "; ".join(said))


def criteria_lines(criteria: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each criterion."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [f"{words[x['met']]}: {x['what']}: {x['found']}" for x in criteria]
