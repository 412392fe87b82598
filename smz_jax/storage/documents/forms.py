"""What a JSON document must hold, as data; a check names the first fault in one line.

A form is a function of a value and of its place in the document, as `macros[3].count`; it gives the
fault, as `macros[3].count = -1`, or None.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError, shorten
from smz_jax.config.sources import require_known
from smz_jax.storage.files import read_json

Form = Callable[[Any, str], str | None]

HUGE = 1e300
"""Above it a number is nonsense, and one that no float can hold may follow."""
COUNT = 2**63
"""Likewise of whole numbers."""


ALLOWED = ", allowed is "
"""Between a wrong value and what it may be, where that is told."""


class _Absent:
    """Stands for a field that is not there."""

    def __repr__(self) -> str:
        return "None"


ABSENT = _Absent()


class Document:
    """A JSON document of a run or an export, and what it must hold.

    Args:
        file: its name.
        agree: the fault of parts that are right each but do not go together, or None.
        kind: what a file that has a fault is not, `a macro library`; empty: it is damaged.
        advice: ends the error of a file that cannot be read.
        parts: the form of each of its fields; there may be others.
    """

    def __init__(
        self,
        file: str,
        agree: Callable[[Any], str | None] = lambda found: None,
        kind: str = "",
        advice: str = "",
        **parts: Form,
    ) -> None:
        self.file, self._agree, self._parts = file, agree, parts
        self._wrong = f"is not {kind}" if kind else "is damaged"
        self._unread = self._wrong.replace("not a ", "not a readable "), advice

    def read(self, folder: Path) -> dict[str, Any]:
        """Reads it from a folder.

        Raises:
            ConfigError: in one line, if it is missing, damaged, or a part is not what it must be.
        """
        found = read_json(folder / self.file, *self._unread)
        self.check(found, folder / self.file)
        return found

    def check(self, found: Any, path: Path | str) -> None:
        """Raises ConfigError in one line unless what was read from `path` is all it must be."""
        if fault := self.fault(found):
            raise ConfigError(f"{path} {self._wrong}: {fault}")

    def fault(self, found: Any) -> str | None:
        """The first fault of what was read."""
        return fields(**self._parts)(found, "") or self._agree(found)

    def wrong_parts(self, found: dict[str, Any]) -> list[str]:
        """Fields that are not what they must be; `?` where they do not go together."""
        parts = self._parts.items()
        wrong = [name for name, form in parts if form(found.get(name, ABSENT), name) is not None]
        return wrong or ["?"] * (self._agree(found) is not None)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number; truth values are none."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and -math.inf < value < math.inf


def value(test: Callable[[Any], bool], allowed: str = "") -> Form:
    """A value that passes a test; `allowed` ends the line of one that does not."""

    def fault(found: Any, where: str) -> str | None:
        if found is not ABSENT and test(found):
            return None
        return f"{where} = {shorten(found)}{allowed}"

    return fault


def number(
    low: float = -HUGE, high: float = HUGE, *, whole: bool = False, slack: float = 0
) -> Form:
    """A number within bounds, give or take `slack`; no truth value."""
    kinds = (int,) if whole else (int, float)
    allowed = f"{ALLOWED}{round(low)} to {round(high)}" if high <= 1024 else ""
    return value(lambda x: type(x) in kinds and low - slack <= x <= high + slack, allowed)


def kind(*types: type) -> Form:
    """A value of one of these types."""
    return value(lambda x: type(x) in types)


def one_of(*options: Any) -> Form:
    """One of some values."""
    return value(lambda x: x in options, ALLOWED + ", ".join(map(str, options)))


def check_keys(tree: Any, parts: dict[str, Form], source: str) -> None:
    """Raises ConfigError in one line for a key that there is not, or one that holds another thing.

    Of what a person typed: `source` says where.
    """
    for name, found in tree.items():
        require_known(f"key in {source}:", str(name), parts)
        if fault := parts[name](found, name):
            wrong, _, allowed = fault.partition(ALLOWED)
            line = f"{source}: {wrong} is not allowed"
            raise ConfigError(f"{line}: it must be {allowed}" if allowed else line)


def nullable(form: Form) -> Form:
    """Null, or what another form allows."""
    return lambda found, where: None if found is None else form(found, where)


def optional(form: Form) -> Form:
    """Left out, null, or what another form allows."""
    return lambda found, where: None if found is ABSENT or found is None else form(found, where)


def every(form: Form, of: type = list, but: Sequence[str] = ()) -> Form:
    """A list, or a dictionary, of what another form allows, except of some names."""

    def fault(found: Any, where: str) -> str | None:
        if not isinstance(found, of):
            return f"{where} = {shorten(found)}"
        items = found.items() if isinstance(found, dict) else enumerate(found)
        given = ((shorten(key), one) for key, one in items if key not in but)
        return next(filter(None, (form(one, f"{where}[{key}]") for key, one in given)), None)

    return fault


def fields(**forms: Form) -> Form:
    """An object with these fields, and any others."""

    def fault(found: Any, where: str) -> str | None:
        if not isinstance(found, dict):
            return f"{where} is not an object" if where else "it holds no object"
        before = f"{where}." if where else ""
        faults = (form(found.get(key, ABSENT), before + key) for key, form in forms.items())
        return next(filter(None, faults), None)

    return fault


COUNTS = number(0, COUNT, whole=True)
TEXT = value(lambda x: isinstance(x, str) and x.isprintable())
TRUTH = kind(bool)
SHARE = number(0, 1)
