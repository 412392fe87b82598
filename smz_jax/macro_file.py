"""macros.json: what it holds, reading and writing it (no JAX, so that a table of it is quick).

`docs/macros_json.md` says what each field means. A change that older readers would misread raises
`SCHEMA`; a field that may be missing does not.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from smz_jax.config import ConfigError, MacroConfig, require, shorten

SCHEMA = 2
STATUS_NAMES = ("candidate", "sound", "refuted")
"""Of a macro, in the order of `macros.evidence`'s numbers."""
_ARROW = " → "
_MACRO_FIELDS: dict[str, type | tuple[type, ...]] = {
    "actions": list,
    "names": str,
    "length": int,
    "count": int,
    "play_count": int,
    "mean_entropy": (int, float),
    "total_reward": (int, float),
    "mean_reward": (int, float),
    "generality": int,
    "buckets": list,
    "source": str,
    "deterministic": bool,
    "status": str,
    "trials": (int, float),
    "held": (int, float),
    "held_low": (int, float),
    "held_high": (int, float),
    "near": (int, float),
    "paid": (int, float),
    "agreed": (int, float),
    "slot": (int, type(None)),
    "precondition": (dict, type(None)),
}
PRECONDITION_SHARES = ("precision", "recall", "always_precision")
_SHARES = ("held", "held_low", "held_high", "near", "paid", "agreed")
_SELECTION_NUMBERS = ("bits_per_action", "bits_per_action_plain", "dictionary_bits")
_SELECTION_SHARES = ("coverage", "redundancy", "redundancy_allowed")
SOURCES = ("replay", "games")
ALLOWED = ("sound", "table")
TIMES = "\N{MULTIPLICATION SIGN}"


def decode(actions: Sequence[int], action_names: Sequence[str]) -> str:
    """Action ids in the environment's own words, e.g. "FIRE → RIGHT → RIGHT"."""
    return _ARROW.join(action_names[action] for action in actions)


def fold(names: Sequence[str]) -> str:
    """Action names with repeats folded: FIRE, then RIGHT twice."""
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return _ARROW.join(name if times == 1 else f"{name} {TIMES}{times}" for name, times in runs)


def prefix_share(phrases: Sequence[Sequence[int]]) -> float:
    """Share of the phrases that are a proper prefix of another one; 0 where there are none."""
    whole = {tuple(phrase) for phrase in phrases}
    starts = {phrase[:end] for phrase in whole for end in range(len(phrase))}
    return len(whole & starts) / len(whole) if whole else 0.0


def check_fits(document: Mapping[str, Any], action_names: Sequence[str], longest: int) -> None:
    """Checks that a library is of the game and the settings of a model.

    Args:
        document: as `read_macros_json` gives it.
        action_names: of the model.
        longest: `macro.max_length` of the model's settings.

    Raises:
        ConfigError: in one line, if its actions are others, or a macro is longer.
    """
    names = document["action_names"]
    shown = ", ".join(map(str, action_names))
    allowed = f"those of the model: {shown}; take a library of the same game and action set"
    require(names == list(action_names), "macros.json: action_names", names, allowed)
    length = max((macro["length"] for macro in document["macros"]), default=0)
    allowed = f"at most macro.max_length = {longest} of the model's settings"
    require(length <= longest, "macros.json: length", length, allowed)


def write_macros_json(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Writes the library; a reader sees the old file or the new one, never a part.

    Args:
        path: where to; its folder must exist.
        document: as `summarise` gives it.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _check(condition: bool, path: Path, problem: str) -> None:
    if not condition:
        raise ConfigError(f"{path} is not a macro library: {problem}")


def _check_schema(schema: Any, path: Path) -> None:
    """Raises ConfigError unless the file is of the schema that is read here; says what is to do."""
    is_number = type(schema) is int
    advice = ""
    if is_number and schema > SCHEMA:
        advice = ": a newer version wrote it; update this project, or read it with the commit in "
        advice += "the run's summary.json"
    elif is_number:
        advice = ": an older version wrote it, which kept no evidence of trials; run the "
        advice += "experiment again, or read it with the commit in the run's summary.json"
    problem = f"schema = {shorten(schema)}, allowed is {SCHEMA}{advice}"
    _check(is_number and schema == SCHEMA, path, problem)


def _is_real(value: Any) -> bool:
    """Whether `value` is a finite number; truth values are none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _check_actions(actions: Any, names: Any, action_names: Sequence[str], path: Path, where: str):
    """Raises ConfigError unless `actions` are known ones, and `names` are theirs."""
    num_actions = len(action_names)
    _check(isinstance(actions, list), path, f"{where}.actions = {shorten(actions)}")
    for action in actions:
        is_action = type(action) is int and 0 <= action < num_actions
        allowed = f"allowed is 0..{num_actions - 1}"
        _check(is_action, path, f"{where}.actions has {shorten(action)}, {allowed}")
    right = names == decode(actions, action_names)
    _check(right, path, f"{where}.names = {shorten(names)}")


def _check_selection(selection: Any, action_names: Sequence[str], path: Path) -> None:
    """Raises ConfigError unless the library chosen by compression has every field."""
    _check(isinstance(selection, dict), path, "selection is not an object")

    def need(where: Mapping[str, Any], name: str, good: Callable[[Any], bool], of: str) -> None:
        _check(good(where.get(name)), path, f"{of}.{name} = {shorten(where.get(name))}")

    def is_count(value: Any) -> bool:
        return type(value) is int and value >= 0

    play = selection.get("play")
    _check(isinstance(play, dict), path, "selection.play is not an object")
    need(play, "source", lambda x: x in SOURCES, "selection.play")
    for name in ("actions", "pieces"):
        need(play, name, is_count, "selection.play")
    need(selection, "of", lambda x: x in ALLOWED, "selection")
    need(selection, "allowed", is_count, "selection")
    for name in _SELECTION_NUMBERS:
        need(selection, name, lambda x: _is_real(x) and x >= 0, "selection")
    for name in _SELECTION_SHARES:
        need(selection, name, lambda x: _is_real(x) and 0 <= x <= 1, "selection")
    need(selection, "phrases", lambda x: isinstance(x, list), "selection")
    for index, phrase in enumerate(selection["phrases"]):
        where = f"selection.phrases[{index}]"
        _check(isinstance(phrase, dict), path, f"{where} is not an object")
        _check_actions(phrase.get("actions"), phrase.get("names"), action_names, path, where)
        _check(len(phrase["actions"]) > 0, path, f"{where}.actions = []")
        need(phrase, "uses", is_count, where)
        need(phrase, "saved_bits", _is_real, where)


def _check_macro(macro: Any, index: int, action_names: Sequence[str], path: Path) -> None:
    """Raises ConfigError unless one entry of `macros` has every field and agrees with itself."""
    where = f"macros[{index}]"
    _check(isinstance(macro, dict), path, f"{where} is not an object")
    for name, kind in _MACRO_FIELDS.items():
        value = macro.get(name)
        is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        is_number = not isinstance(value, float) or math.isfinite(value)
        _check(is_kind and is_number, path, f"{where}.{name} = {shorten(value)}")
    _check_actions(macro["actions"], macro["names"], action_names, path, where)
    _check(macro["length"] == len(macro["actions"]) > 0, path, f"{where}.length is wrong")
    _check(macro["generality"] == len(macro["buckets"]), path, f"{where}.generality is wrong")
    are_buckets = all(type(bucket) is int and bucket >= 0 for bucket in macro["buckets"])
    _check(are_buckets, path, f"{where}.buckets = {shorten(macro['buckets'])}")
    _check(macro["count"] > 0, path, f"{where}.count = {macro['count']}, allowed is at least 1")
    source = macro["source"]
    _check(source in ("play", "tree"), path, f"{where}.source = {shorten(source)}")
    state = macro["status"]
    _check(state in STATUS_NAMES, path, f"{where}.status = {shorten(state)}")
    for name in _SHARES:
        share = macro[name]
        _check(0 <= share <= 1, path, f"{where}.{name} = {share}, allowed is 0 to 1")
    _check_precondition(macro, where, path)


def _check_precondition(macro: Mapping[str, Any], where: str, path: Path) -> None:
    """Raises ConfigError unless slot and precondition are both there and right, or both null."""
    slot, found = macro.get("slot"), macro.get("precondition")
    fits = (slot is None) == (found is None) and (slot is None or slot >= 0)
    _check(fits, path, f"{where}.slot = {shorten(slot)} with precondition = {shorten(found)}")
    if found is None:
        return
    windows = found.get("windows")
    is_count = type(windows) in (int, float) and 0 <= windows < math.inf
    _check(is_count, path, f"{where}.precondition.windows = {shorten(windows)}")
    for name in PRECONDITION_SHARES:
        share = found.get(name)
        is_share = share is None or (type(share) in (int, float) and 0 <= share <= 1)
        _check(is_share, path, f"{where}.precondition.{name} = {shorten(share)}")


def read_macros_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a library.

    Args:
        path: a file that `write_macros_json` wrote.

    Returns:
        The document, as `summarise` gave it.

    Raises:
        ConfigError: in one line, if the file is missing, damaged or of another schema.
    """
    source = Path(path)
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{source} is not a readable macro library: {reason}") from None
    check_library(document, source)
    return document


def check_library(document: Any, source: Path) -> None:
    """Checks a library that was read from JSON.

    Args:
        document: what was read.
        source: the file, for the message.

    Raises:
        ConfigError: in one line, if it is damaged or of another schema.
    """
    _check(isinstance(document, dict), source, "it holds no object")
    _check_schema(document.get("schema"), source)
    names = document.get("action_names")
    named = isinstance(names, list) and all(
        isinstance(name, str) and name.isprintable() for name in names
    )
    _check(named, source, "action_names is not a list of names")
    for part in ("stats", "config"):
        _check(isinstance(document.get(part), dict), source, f"{part} is missing")
    _check(isinstance(document.get("macros"), list), source, "macros is missing")
    try:
        MacroConfig(**document["config"])
    except (TypeError, ConfigError) as error:
        _check(False, source, f"config: {error}")
    for index, macro in enumerate(document["macros"]):
        _check_macro(macro, index, document["action_names"], source)
    if document.get("selection") is not None:
        _check_selection(document["selection"], document["action_names"], source)
