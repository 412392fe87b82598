"""What a macros.json must hold, and the checks of it (no JAX).

`docs/macros_json.md` says what each field means. A change that older readers would misread raises
`SCHEMA`; a field that may be missing does not.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smz_jax.config.settings import ConfigError, MacroConfig, shorten

SCHEMA = 3
STATUS_NAMES = ("candidate", "sound", "refuted")
"""Of a macro, in the order of `macros.evidence`'s numbers."""
_ARROW = " → "
_HUGE = 1e300
"""Above it a number is nonsense, and one that no float can hold may follow."""
_SLACK = 1e-5
"""Shares are kept as float32."""
_KINDS: dict[str, type | tuple[type, ...]] = {
    "actions": list,
    "names": str,
    "buckets": list,
    "source": str,
    "deterministic": bool,
    "status": str,
    "slot": (int, type(None)),
    "precondition": (dict, type(None)),
}
_WHOLE = ("length", "count", "play_count", "generality")
_RANGES: dict[str, tuple[float, float]] = {
    "length": (1, 8),
    "count": (1, 2**63),
    "play_count": (0, 2**63),
    "generality": (0, 1024),
    "mean_entropy": (-_SLACK, 1 + _SLACK),
    "total_reward": (-_HUGE, _HUGE),
    "mean_reward": (-_HUGE, _HUGE),
    "windows": (0, _HUGE),
    "trials": (0, _HUGE),
    **{name: (0, 1) for name in ("certain", "certain_low")},
    **{name: (0, 1) for name in ("held", "held_low", "held_high", "near", "paid", "agreed")},
}
PRECONDITION_SHARES = ("precision", "recall", "always_precision")
_SELECTION_NUMBERS = ("bits_per_action", "bits_per_action_plain", "dictionary_bits")
_SELECTION_SHARES = ("coverage", "redundancy", "redundancy_allowed")
SOURCES = ("replay", "games")
CONTROLS = ("macros", "shuffled play", "random")
ALLOWED = ("sound", "table")
TIMES = "\N{MULTIPLICATION SIGN}"


def decode(actions: Sequence[int], action_names: Sequence[str]) -> str:
    """Action ids in the environment's own words, e.g. "FIRE → RIGHT → RIGHT"."""
    return _ARROW.join(action_names[action] for action in actions)


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
        advice = ": an older version wrote it, which kept less evidence; run the "
        advice += "experiment again, or read it with the commit in the run's summary.json"
    problem = f"schema = {shorten(schema)}, allowed is {SCHEMA}{advice}"
    _check(is_number and schema == SCHEMA, path, problem)


def _is_real(value: Any, low: float = -_HUGE, high: float = _HUGE) -> bool:
    """Whether `value` is a number from `low` to `high`, and no truth value."""
    return type(value) in (int, float) and low <= value <= high


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
        return type(value) is int and 0 <= value <= 2**63

    play = selection.get("play")
    _check(isinstance(play, dict), path, "selection.play is not an object")
    need(play, "source", lambda x: x in SOURCES, "selection.play")
    for name in ("actions", "pieces"):
        need(play, name, is_count, "selection.play")
    need(selection, "of", lambda x: x in ALLOWED, "selection")
    need(selection, "allowed", is_count, "selection")
    for name in _SELECTION_NUMBERS:
        need(selection, name, lambda x: _is_real(x, 0), "selection")
    for name in _SELECTION_SHARES:
        need(selection, name, lambda x: _is_real(x, 0, 1), "selection")
    need(selection, "sampled", lambda x: x is None or (is_count(x) and x > 0), "selection")
    need(selection, "tree_share", lambda x: x is None or _is_real(x, 0), "selection")
    _check_controls(selection.get("controls"), path)
    need(selection, "phrases", lambda x: isinstance(x, list), "selection")
    for index, phrase in enumerate(selection["phrases"]):
        where = f"selection.phrases[{index}]"
        _check(isinstance(phrase, dict), path, f"{where} is not an object")
        _check_actions(phrase.get("actions"), phrase.get("names"), action_names, path, where)
        _check(len(phrase["actions"]) > 0, path, f"{where}.actions = []")
        need(phrase, "uses", is_count, where)
        need(phrase, "saved_bits", _is_real, where)
        need(phrase, "missed_bits", lambda x: x is None or _is_real(x), where)
    _check_distinct(selection["phrases"], "selection.phrases", path)


def _check_controls(controls: Any, path: Path) -> None:
    """Raises ConfigError unless the comparison with controls is null or whole."""
    where = "selection.controls"
    if controls is None:
        return
    _check(isinstance(controls, dict), path, f"{where} is not an object")
    held_out, rows = controls.get("held_out"), controls.get("libraries")
    _check(_is_real(held_out, 0, 2**63), path, f"{where}.held_out = {shorten(held_out)}")
    _check(isinstance(rows, list), path, f"{where}.libraries = {shorten(rows)}")
    for index, row in enumerate(rows):
        at = f"{where}.libraries[{index}]"
        _check(isinstance(row, dict), path, f"{at} is not an object")
        _check(row.get("name") in CONTROLS, path, f"{at}.name = {shorten(row.get('name'))}")
        for name in ("macros", "kept"):
            good = type(row.get(name)) is int and 0 <= row[name] <= 2**63
            _check(good, path, f"{at}.{name} = {shorten(row.get(name))}")
        saved = row.get("saved_bits_per_action")
        _check(_is_real(saved), path, f"{at}.saved_bits_per_action = {shorten(saved)}")
        for name in ("saved_low", "saved_high"):
            bound = row.get(name)
            good = bound is None or _is_real(bound)
            _check(good, path, f"{at}.{name} = {shorten(bound)}")


def _check_distinct(entries: Sequence[Mapping[str, Any]], where: str, path: Path) -> None:
    """Raises ConfigError where two entries have the same actions."""
    seen = Counter(tuple(entry["actions"]) for entry in entries)
    for entry in entries:
        twice = seen[tuple(entry["actions"])] > 1
        _check(not twice, path, f"{where}: {shorten(entry['names'])} is there more than once")


def _check_macro(
    macro: Any, where: str, config: MacroConfig, action_names: Sequence[str], path: Path
) -> None:
    """Raises ConfigError unless one entry of `macros` has every field and agrees with itself."""
    _check(isinstance(macro, dict), path, f"{where} is not an object")
    for name, kind in _KINDS.items():
        value = macro.get(name)
        is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        _check(is_kind, path, f"{where}.{name} = {shorten(value)}")
    for name, (low, high) in _RANGES.items():
        value = macro.get(name)
        is_kind = type(value) is int if name in _WHOLE else type(value) in (int, float)
        allowed = f", allowed is {round(low)} to {round(high)}" if high <= 1024 else ""
        good = is_kind and _is_real(value, low, high)
        _check(good, path, f"{where}.{name} = {shorten(value)}{allowed}")
    _check_actions(macro["actions"], macro["names"], action_names, path, where)
    length, shortest, longest = macro["length"], config.min_length, config.max_length
    _check(length == len(macro["actions"]), path, f"{where}.length is wrong")
    allowed = f"allowed is {shortest} to {longest}, as in config"
    _check(shortest <= length <= longest, path, f"{where}.length = {length}, {allowed}")
    buckets, kinds = macro["buckets"], config.num_buckets
    are_buckets = all(type(bucket) is int and 0 <= bucket < kinds for bucket in buckets)
    are_buckets = are_buckets and len(set(buckets)) == len(buckets)
    allowed = f"allowed are distinct ones of 0..{kinds - 1}"
    _check(are_buckets, path, f"{where}.buckets = {shorten(buckets)}, {allowed}")
    _check(macro["generality"] == len(buckets), path, f"{where}.generality is wrong")
    played, count = macro["play_count"], macro["count"]
    allowed = f"allowed is 0 to count = {count}"
    _check(played <= count, path, f"{where}.play_count = {played}, {allowed}")
    source = "play" if played else "tree"
    found = shorten(macro["source"])
    allowed = f"allowed is {source}, by play_count = {played}"
    _check(macro["source"] == source, path, f"{where}.source = {found}, {allowed}")
    sure = macro["mean_entropy"] < config.deterministic_threshold
    _check(macro["deterministic"] is sure, path, f"{where}.deterministic contradicts mean_entropy")
    _check_status(macro, where, config, path)
    _check_precondition(macro, where, config, path)


def _check_status(macro: Mapping[str, Any], where: str, config: MacroConfig, path: Path) -> None:
    """Raises ConfigError unless the status is what windows and trials say."""
    state, share = macro["status"], config.sound_share
    _check(state in STATUS_NAMES, path, f"{where}.status = {shorten(state)}")
    low, held, high = (macro[name] for name in ("held_low", "held", "held_high"))
    ordered = low <= held + _SLACK and held <= high + _SLACK
    bounds = f"held_low = {low}, held = {held}, held_high = {high}"
    _check(ordered, path, f"{where}: {bounds}, allowed are rising ones")
    enough = macro["trials"] >= config.min_trials
    trials = f"status = {state} after {macro['trials']} trials"
    allowed = f"allowed is {config.min_trials} or more (config.min_trials)"
    _check(state == "candidate" or enough, path, f"{where}: {trials}, {allowed}")
    _check_certainty(macro, where, config, path)
    allowed = f"allowed is config.sound_share = {share} or more of a sound macro"
    good = state != "sound" or low >= share - _SLACK
    _check(good, path, f"{where}: held_low = {low}, {allowed}")
    allowed = f"allowed is below config.sound_share = {share} of a refuted macro"
    good = state != "refuted" or high < share + _SLACK
    _check(good, path, f"{where}: held_high = {high}, {allowed}")


def _check_certainty(macro: Mapping[str, Any], where: str, config: MacroConfig, path: Path) -> None:
    """Raises ConfigError unless the certain share is that of the windows, and what sound asks."""
    windows, certain, low = (macro[name] for name in ("windows", "certain", "certain_low"))
    right = abs(certain * windows - macro["trials"]) <= _SLACK * max(windows, 1.0)
    _check(right, path, f"{where}: certain = {certain}, allowed is trials / windows")
    allowed = f"allowed is at most certain = {certain}"
    _check(low <= certain + _SLACK, path, f"{where}: certain_low = {low}, {allowed}")
    share = config.certain_share
    allowed = f"allowed is config.certain_share = {share} or more of a sound macro"
    good = macro["status"] != "sound" or low >= share - _SLACK
    _check(good, path, f"{where}: certain_low = {low}, {allowed}")


def _check_precondition(
    macro: Mapping[str, Any], where: str, config: MacroConfig, path: Path
) -> None:
    """Raises ConfigError unless slot and precondition are both there and right, or both null."""
    slot, found = macro.get("slot"), macro.get("precondition")
    fits = (slot is None) == (found is None) and (slot is None or 0 <= slot < config.slots)
    _check(fits, path, f"{where}.slot = {shorten(slot)} with precondition = {shorten(found)}")
    if found is None:
        return
    windows = found.get("windows")
    _check(_is_real(windows, 0), path, f"{where}.precondition.windows = {shorten(windows)}")
    for name in PRECONDITION_SHARES:
        share = found.get(name)
        _check(
            share is None or _is_real(share, 0, 1),
            path,
            f"{where}.precondition.{name} = {shorten(share)}",
        )


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
    for name, value in document["stats"].items():
        high = 1 if name.startswith("certain_rate") else _HUGE
        _check(_is_real(value, 0, high), source, f"stats.{shorten(name)} = {shorten(value)}")
    try:
        config = MacroConfig(**document["config"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source} is not a macro library: config: {error}") from None
    macros = document["macros"]
    for index, macro in enumerate(macros):
        _check_macro(macro, f"macros[{index}]", config, names, source)
    _check_distinct(macros, "macros", source)
    slots = Counter(x["slot"] for x in macros if x.get("slot") is not None)
    for slot, count in slots.items():
        _check(count == 1, source, f"macros: {count} of them have slot = {slot}, allowed is one")
    if document.get("selection") is not None:
        _check_selection(document["selection"], document["action_names"], source)
