"""Checked dataclasses: a field's range stands on its line, and a wrong value is one line.

A `Checked` dataclass verifies type and range of every field when it is made:

    num_envs: Annotated[int, Between(1, 4096)] = 32

Standard library alone, so that a mistake is answered before JAX or an environment loads.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

LARGEST_INT = 10**12
"""Largest size of a whole number whose range does not say otherwise."""


class ConfigError(ValueError):
    """A setting is wrong; the message is one line naming field, value and what is allowed."""


def shorten(value: Any) -> str:
    """A value as Python writes it, in at most 80 printable characters."""
    try:
        shown = repr(value)
    except ValueError:  # of a number: Python writes 4,300 digits at most
        shown = f"a number of {value.bit_length()} bits"
    return shown if len(shown) <= 80 else shown[:77] + "..."


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Dict of JSON pairs; raises ValueError on a duplicate key."""
    for key, count in Counter(key for key, _ in pairs).most_common(1):
        if count > 1:
            raise ValueError(f"{shorten(key)} is given twice")
    return dict(pairs)


def json_object(text: str) -> tuple[dict[str, Any] | None, str]:
    """A JSON object that a setting holds, and its text in one spelling; None and "": it is none."""
    try:
        found = json.loads(text, object_pairs_hook=unique)
        plain = json.dumps(found, sort_keys=True, allow_nan=False)
    except (ValueError, RecursionError):
        return None, ""
    return (found, plain) if isinstance(found, dict) and len(plain) <= 10_000 else (None, "")


def require(condition: bool, field_name: str, value: Any, allowed: str) -> None:
    """Raises ConfigError in one line unless `condition` holds of a setting's value.

    The setting is named with its section, as `search.num_simulations`; `allowed` says in words what
    would be accepted.
    """
    if not condition:
        raise ConfigError(f"{field_name} = {shorten(value)} is not allowed: it must be {allowed}")


@dataclasses.dataclass(frozen=True)
class Between:
    """The range of a number; a field that may be None is checked where it is not."""

    low: float
    high: float = math.inf
    ends: str = "[]"
    """`(` or `)`: that end itself is not in the range."""
    words: str = ""
    """What is allowed; empty: spelled from the bounds, `in 1..9` for whole ones."""

    def holds(self, value: float) -> bool:
        """Whether the number is in the range; NaN is in none."""
        above = self.low < value if self.ends[0] == "(" else self.low <= value
        return above and (value < self.high if self.ends[1] == ")" else value <= self.high)

    def __str__(self) -> str:
        if self.words:
            return self.words
        if self.high == math.inf:
            return f"{'above' if self.ends[0] == '(' else 'at least'} {self.low}"
        if isinstance(self.low, int):
            return f"in {self.low}..{self.high}"
        return f"in {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"


class Alone(typing.NamedTuple):
    """What a flag means that is given without a value."""

    value: str


class Several:
    """Marks a flag of several values that takes all words up to the next flag."""


class FieldType(typing.NamedTuple):
    """A field's declared type, taken apart."""

    kind: Any
    """int, float, bool, str, Path, a Literal or tuple[X, ...]; without `| None`."""
    optional: bool
    notes: tuple[Any, ...]
    """What `Annotated` adds to the type."""


def field_type(declared: Any) -> FieldType:
    """Takes `Annotated[X | None, ...]` apart."""
    notes = ()
    if typing.get_origin(declared) is Annotated:
        declared, *rest = typing.get_args(declared)
        notes = tuple(rest)
    if typing.get_origin(declared) in (types.UnionType, typing.Union):  # of a Literal: the latter
        kind = next(x for x in typing.get_args(declared) if x is not types.NoneType)
        return FieldType(kind, True, notes)
    return FieldType(declared, False, notes)


def check_value(name: str, value: Any, declared: Any) -> None:
    """Raises ConfigError unless a value has its field's type and range.

    A file may hold anything, and the device must be able to hold a number.
    """
    kind, optional, notes = field_type(declared)
    if optional and value is None:
        return
    bounds = [note for note in notes if isinstance(note, Between)]
    if kind is bool:
        require(isinstance(value, bool), name, value, "true or false")
    elif kind is int:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        most = max([LARGEST_INT, *(x.high for x in bounds if x.high < math.inf)])
        fits = is_int and abs(value) <= most
        require(fits, name, value, "a whole number, at most 10^12")
    elif kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = is_number and (value == 0 or 1e-30 <= abs(value) <= 1e30)  # NaN is in no range
        require(fits, name, value, "a finite number, 0 or of a size in 1e-30..1e30")
    elif kind in (str, Path):
        require(isinstance(value, kind), name, value, "text")
    elif typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        require(value in choices, name, value, "one of " + ", ".join(map(str, choices)))
    elif typing.get_origin(kind) is tuple:
        require(isinstance(value, tuple), name, value, "a list")
        item_kind = typing.get_args(kind)[0]
        for item in value:
            check_value(name, item, Annotated[item_kind, *notes] if notes else item_kind)
        return
    for bound in bounds:
        require(bound.holds(value), name, value, str(bound))


class Checked:
    """Base of frozen dataclasses whose fields are checked on construction.

    A `section` stands before the field's name in messages: `env` of `env.num_envs`.
    """

    _prefix = ""

    def __init_subclass__(cls, section: str = "") -> None:
        """Keeps the section's name."""
        cls._prefix = f"{section}." if section else ""

    def __post_init__(self) -> None:
        """Checks types and ranges; raises ConfigError in one line."""
        for spec in dataclasses.fields(typing.cast(Any, self)):
            if not dataclasses.is_dataclass(spec.type):
                check_value(self._prefix + spec.name, getattr(self, spec.name), spec.type)

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        """Raises ConfigError unless what is said of the field `name`, its dotted name, holds."""
        value = functools.reduce(getattr, name.removeprefix(self._prefix).split("."), self)
        require(holds, name, value, allowed)
