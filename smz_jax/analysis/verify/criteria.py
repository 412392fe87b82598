"""Criteria of a library: whether each is met, or by how much it is missed."""

from collections.abc import Mapping, Sequence
from typing import Any

from smz_jax.analysis.verify.libraries import CERTAIN, REAL

HELD, SURE = 0.90, 0.98
"""Shares of applications: in Breakout those that hold; in the grid world those that are true."""


def judge(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which criteria a verification meets.

    Returns:
        For each criterion its words (`what`), what was `found`, and whether it is `met`; None: it
        is not measured here.
    """
    own = next(x for x in document["libraries"] if x["name"] == REAL)
    others = [x for x in document["libraries"] if x["name"] not in (REAL, CERTAIN)]
    rows = []
    if document["suite"] == "grid":
        for name in ("precision", "recall"):
            value = document["pairs"][0][name] if document["pairs"] else None
            rows.append(_least(f"certain from here: {name}", {"mean": value}, SURE))
        what = "applications that are deterministic and end where foreseen"
        rows.append(_least(what, own["totals"]["nearest"], SURE))
    elif not document["sticky"]:
        held = own["totals"]["held"]
        rows.append(_least("macros hold where they apply", held, HELD))
        against = {x["name"]: x["totals"]["held"] for x in others}
        rows.append(
            _apart("they hold more often than every control", held, against, 100, " points")
        )
        if document["asked"]["any_status"]:
            rows = [{**row, "met": None, "found": f"{row['found']}; not only sound ones"}
                    for row in rows]  # fmt: skip
    else:
        count = document["sound"]["changing"]
        found = f"{count} are sound here, and {document['sound']['renamed']} by name alone"
        what = "macros that change action: fewer than 5 % of the deterministic run's number sound"
        rows.append(_row(what, None, f"{found}; hold it against that run's"))
    saved = {x["name"]: _bits(x) for x in others}
    rows.append(_apart("saved bits exceed every control's", _bits(own), saved, 1, " bits/action"))
    return rows


def _row(what: str, met: bool | None, found: str) -> dict[str, Any]:
    return {"what": what, "met": met, "found": found}


def _bits(library: Mapping[str, Any]) -> Mapping[str, Any]:
    saved = library["saved"] or {}
    return {"mean": saved.get("bits_per_action"), **{x: saved.get(x) for x in ("low", "high")}}


def _least(what: str, value: Mapping[str, Any], least: float) -> dict[str, Any]:
    """A share that must be at least so large."""
    what = f"{what}: at least {least:.0%}"
    mean = value["mean"]
    if mean is None:
        return _row(what, None, "no trial")
    found = f"{100 * mean:.2f} %"
    if value.get("low") is not None:
        found += f" ({100 * value['low']:.1f} to {100 * value['high']:.1f})"
    if mean < least:
        found += f", missed by {100 * (least - mean):.2f} points"
    return _row(what, mean >= least, found)


def _apart(
    what: str,
    own: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]],
    scale: float,
    unit: str,
) -> dict[str, Any]:
    """The own interval must lie above that of every control."""
    what = f"{what}, intervals apart"
    if own["low"] is None:
        return _row(what, None, "no interval of the macros")
    said, overlaps = [], []
    for name, other in others.items():
        if other["mean"] is None:
            said.append(f"{name}: no trial")
            continue
        if other["high"] is None:
            return _row(what, None, f"no interval of {name}")
        gap = scale * (own["low"] - other["high"])
        overlaps.append(gap <= 0)
        verb = "overlap by" if gap <= 0 else "apart by"
        said.append(f"{name}: {verb} {_digits(abs(gap), scale)}{unit}")
    met = None if not overlaps else not any(overlaps)
    return _row(what, met, "; ".join(said))


def _digits(value: float, scale: float) -> str:
    return f"{value:.1f}" if scale > 1 else f"{value:.3f}"


def criteria_lines(criteria: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each criterion."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [f"{words[x['met']]}: {x['what']}: {x['found']}" for x in criteria]
