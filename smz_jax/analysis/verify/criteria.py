"""What a verification has to show: the run's macros against shares, and against controls."""

from collections.abc import Mapping
from typing import Any

from smz_jax.analysis.verify import tried_libraries as tried

WHOLE, HELD, SURE = 0.80, 0.90, 0.98
"""Shares of applications: in Breakout those that hold in the test of the whole state, and in that
of the effect of the actions; in the grid world those that are true."""


TESTS = (("whole", "whole state", WHOLE), ("held", "effect of the actions and pay", HELD))
"""Of trials: the total, its name, and the share of applications that must hold."""
CONDITIONS = ("certain only", "certain and head")


def judge(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which criteria a verification meets.

    Returns:
        For each criterion its words (`what`), what was `found`, and whether it is `met`; None: it
        is not measured here.
    """
    found = {x["name"]: x for x in document["libraries"]}
    names = [x for x in found if x != tried.CERTAIN and not x.endswith(tried.WITH_HEAD)]
    totals, rows = found[tried.REAL]["totals"], []
    if document["suite"] == "grid":
        for name in ("precision", "recall"):
            value = document["pairs"][0][name] if document["pairs"] else None
            rows.append(_least(f"certain from here: {name}", {"mean": value}, SURE))
        what = "applications that are deterministic and end where foreseen"
        rows.append(_least(what, totals["nearest"], SURE))
    elif not document["sticky"]:
        for key, name, least in TESTS:
            rows.append(_least(f"{name}: macros hold where they apply", totals[key], least))
            for condition, values in fair_pairs(found, key).items():
                what = f"{name}, {condition}: macros hold more often than every control"
                rows.append(_apart(what, values, 100, 1, " points"))
        if document["asked"]["any_status"]:
            rows = [_row(x["what"], None, f"{x['found']}; not only sound ones") for x in rows]
    else:
        count = document["sound"]["changing"]
        said = f"{count} are sound here, and {document['sound']['renamed']} by name alone"
        what = "macros that change action: fewer than 5 % of the deterministic run's number sound"
        rows.append(_row(what, None, f"{said}; hold it against that run's"))
    none = dict.fromkeys(("bits_per_action", "low", "high"))
    saved = {name: {**none, **(found[name]["saved"] or {})} for name in names}
    saved = {name: {**x, "mean": x["bits_per_action"]} for name, x in saved.items()}
    return [*rows, _apart("saved bits exceed every control's", saved, 1, 3, " bits/action")]


def fair_pairs(found: Mapping[str, Any], key: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """A total of the run's macros and of each control under the same condition.

    Args:
        found: libraries by name.
        key: of the total.

    Returns:
        For each condition the estimates by library. Where a control owns no slot of the head, it
        has none under "certain and head".
    """
    headed = tried.CERTAIN in found
    others = tried.SHUFFLED, tried.MIXED, tried.RANDOM, tried.UNTRAINED
    pairs = {
        CONDITIONS[0]: {tried.REAL: tried.CERTAIN if headed else tried.REAL}
        | {x: x for x in others if x in found}
    }
    if headed:
        more = {x: x + tried.WITH_HEAD for x in others if x + tried.WITH_HEAD in found}
        pairs[CONDITIONS[1]] = {tried.REAL: tried.REAL, **more}
    return {
        condition: {name: found[row]["totals"][key] for name, row in rows.items()}
        for condition, rows in pairs.items()
    }


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
    what, low = f"{what}, intervals apart", values[tried.REAL]["low"]
    if low is None:
        return _row(what, None, "no interval of the macros")
    said, met = [], None
    for name, other in values.items():
        if name == tried.REAL:
            continue
        if other["mean"] is None:
            said.append(f"{name}: no trial")
        elif other["high"] is None:
            return _row(what, None, f"no interval of {name}")
        else:
            gap = scale * (low - other["high"])
            met = met is not False and gap > 0
            verb = "apart" if gap > 0 else "overlap"
            said.append(f"{name}: {verb} by {abs(gap):.{digits}f}{unit}")
    return _row(what, met, "; ".join(said) or "no control owns a slot of the head")
