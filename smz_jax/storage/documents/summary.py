"""What figures and tables need of summary.json and grid.json, which are read part by part."""

from collections.abc import Callable
from typing import Any

from smz_jax.storage.documents.forms import is_number


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_evaluation(value: Any) -> bool:
    """Whether an evaluation holds numbers only, beside its list of scores."""
    return isinstance(value, dict) and all(
        number is None or is_number(number) for name, number in value.items() if name != "scores"
    )


def _is_baselines(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    random, constant = value.get("random"), value.get("constant")
    if not isinstance(constant, (dict, type(None))):
        return False
    known = [part for part in (random, *(constant or {}).values()) if part is not None]
    return all(map(_is_evaluation, known))


def _is_seconds(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


SUMMARY: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("env_steps", "env_frames", "learner_steps", "seconds_total"), is_number),
    "seconds": _is_seconds,
    "evaluation": _is_evaluation,
    "evaluation_sticky": _is_evaluation,
    "baselines": _is_baselines,
    **dict.fromkeys(("macros", "model_check", "versions"), _is_mapping),
}
"""What each key of `summary.json` must be, where it is given and not null."""


def wrong_keys(summary: dict[str, Any]) -> list[str]:
    """Keys of a `summary.json` whose values are not what they must be."""
    return [
        name
        for name, is_right in SUMMARY.items()
        if summary.get(name) is not None and not is_right(summary[name])
    ]


def _is_pairs(value: Any) -> bool:
    """Whether a part of `grid.json` has one number for each state and action."""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        return False
    return len({len(row) for row in value}) == 1 and all(is_number(x) for row in value for x in row)


def is_grid(value: dict[str, Any]) -> bool:
    """Whether `grid.json` has what the figures of known rules show, pair by pair."""
    names = ("entropy_errors", "true_entropy", "visits")
    given = [value[name] for name in names if name in value]
    if not all(map(_is_pairs, given)):
        return False
    returns = value.get("returns")
    shapes = {(len(pairs), len(pairs[0])) for pairs in given}
    return len(shapes) <= 1 and (returns is None or isinstance(returns, dict))
