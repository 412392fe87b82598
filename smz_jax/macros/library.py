"""The macro library on the host: names, statistics, rankings and macros.json (NumPy only)."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from smz_jax.config import ConfigError, MacroConfig, shorten
from smz_jax.macros.evidence import CANDIDATE, STATUS_NAMES, status, wilson
from smz_jax.types import MacroStats, MacroTable

SCHEMA = 2
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
_QUALITY = ("precision", "recall", "always_precision")
_SHARES = ("held", "held_low", "held_high", "near", "paid", "agreed")


def decode(actions: Sequence[int], action_names: Sequence[str]) -> str:
    """Action ids in the environment's own words, e.g. "FIRE → RIGHT → RIGHT"."""
    return _ARROW.join(action_names[action] for action in actions)


def table_stats(table: MacroTable, config: MacroConfig) -> dict[str, float]:
    """Numbers of one moment, cheap enough for every row of the metrics.

    Args:
        table: the table, on the device or the host.
        config: gives `min_occurrences` and `deterministic_threshold`.

    Returns:
        Of the macros (entries seen `min_occurrences` times): `total`, `play` and `tree` (by
        source), `generality_mean` and `generality_max` (start-state buckets), `entropy_mean`, and
        `deterministic`, `sound` and `refuted` (how many); of the rest, sequences seen too rarely:
        `candidates`; and `dropped`. Means over no macros are 0.
    """
    host = jax.device_get(table)
    macro = (host.length > 0) & (host.count >= config.min_occurrences)
    total = int(macro.sum())
    states = np.asarray(status(host, config))
    generality = host.buckets[macro].sum(axis=-1)
    entropy = host.entropy_sum[macro] / host.count[macro]
    play = int((host.play_count[macro] > 0).sum())
    return {
        "total": float(total),
        "play": float(play),
        "tree": float(total - play),
        "candidates": float((host.length > 0).sum() - total),
        "dropped": float(host.dropped),
        "generality_mean": float(generality.mean()) if total else 0.0,
        "generality_max": float(generality.max()) if total else 0.0,
        "entropy_mean": float(entropy.mean()) if total else 0.0,
        "deterministic": float((entropy < config.deterministic_threshold).sum()),
        **{
            name: float((macro & (states == state)).sum())
            for state, name in enumerate(STATUS_NAMES)
            if state != CANDIDATE
        },
    }


def _rate(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _run_stats(totals: MacroStats) -> dict[str, float]:
    """What the extraction looked at over the run, with the rates of certain transitions."""
    counts = {name: int(value) for name, value in totals._asdict().items()}
    seen = counts["transitions_tree"] + counts["transitions_play"]
    certain = counts["certain_tree"] + counts["certain_play"]
    return {
        **counts,
        "transitions": seen,
        "certain": certain,
        "certain_rate": _rate(certain, seen),
        "certain_rate_tree": _rate(counts["certain_tree"], counts["transitions_tree"]),
        "certain_rate_play": _rate(counts["certain_play"], counts["transitions_play"]),
    }


def summarise(
    table: MacroTable,
    totals: MacroStats,
    config: MacroConfig,
    action_names: Sequence[str],
    preconditions: Mapping[tuple[int, ...], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The whole library as plain Python: what macros.json holds.

    Args:
        table: the table, on the device or the host.
        totals: sums of the extraction's counts over the run (any integers).
        config: gives `min_occurrences` and `deterministic_threshold`.
        action_names: A names.
        preconditions: by action sequence, as `slot_entries` gives them; None: none are learned.

    Returns:
        `schema`, `action_names`, `config`, `stats` (those of `table_stats` and of the run) and
        `macros`, most frequent first, ties in the order of their actions. `trials` and the shares
        of them that `held` (with its bounds), were `near`, `paid` and `agreed` are those of
        `macros.evidence`; shares of no trials are 0. `slot` is the output of the precondition head
        that is the macro's, and `precondition` how good it is (`windows`, `precision`, `recall`,
        `always_precision` of `macros.quality`); both None for a macro without one.
    """
    host = jax.device_get(table)
    states, bounds = np.asarray(status(host, config)), wilson(host.held, host.trials)
    low, high = (np.asarray(bound) for bound in bounds)
    slots = np.flatnonzero((host.length > 0) & (host.count >= config.min_occurrences))
    macros = []
    for slot in sorted(slots, key=lambda slot: (-host.count[slot], tuple(host.actions[slot]))):
        actions = [int(action) for action in host.actions[slot][: host.length[slot]]]
        count = int(host.count[slot])
        buckets = [int(bucket) for bucket in np.flatnonzero(host.buckets[slot])]
        entropy = float(host.entropy_sum[slot]) / count
        macros.append(
            {
                "actions": actions,
                "names": decode(actions, action_names),
                "length": len(actions),
                "count": count,
                "play_count": int(host.play_count[slot]),
                "mean_entropy": entropy,
                "total_reward": float(host.reward_sum[slot]),
                "mean_reward": float(host.reward_sum[slot]) / count,
                "generality": len(buckets),
                "buckets": buckets,
                "source": "play" if host.play_count[slot] > 0 else "tree",
                "deterministic": entropy < config.deterministic_threshold,
                "status": STATUS_NAMES[states[slot]],
                "trials": float(host.trials[slot]),
                **{
                    name: _rate(float(getattr(host, name)[slot]), float(host.trials[slot]))
                    for name in ("held", "near", "paid", "agreed")
                },
                "held_low": float(low[slot]),
                "held_high": float(high[slot]),
                **_precondition((preconditions or {}).get(tuple(actions))),
            }
        )
    return {
        "schema": SCHEMA,
        "action_names": list(action_names),
        "config": dataclasses.asdict(config),
        "stats": {**table_stats(host, config), **_run_stats(totals)},
        "macros": macros,
    }


def _precondition(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last two fields of a macro."""
    if entry is None:
        return {"slot": None, "precondition": None}
    return {"slot": entry["slot"], "precondition": {k: entry[k] for k in ("windows", *_QUALITY)}}


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


def _check_macro(macro: Any, index: int, action_names: Sequence[str], path: Path) -> None:
    """Raises ConfigError unless one entry of `macros` has every field and agrees with itself."""
    where, num_actions = f"macros[{index}]", len(action_names)
    _check(isinstance(macro, dict), path, f"{where} is not an object")
    for name, kind in _MACRO_FIELDS.items():
        value = macro.get(name)
        is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        is_number = not isinstance(value, float) or math.isfinite(value)
        _check(is_kind and is_number, path, f"{where}.{name} = {shorten(value)}")
    for action in macro["actions"]:
        is_action = type(action) is int and 0 <= action < num_actions
        allowed = f"allowed is 0..{num_actions - 1}"
        _check(is_action, path, f"{where}.actions has {shorten(action)}, {allowed}")
    _check(macro["length"] == len(macro["actions"]) > 0, path, f"{where}.length is wrong")
    _check(macro["generality"] == len(macro["buckets"]), path, f"{where}.generality is wrong")
    are_buckets = all(type(bucket) is int and bucket >= 0 for bucket in macro["buckets"])
    _check(are_buckets, path, f"{where}.buckets = {shorten(macro['buckets'])}")
    _check(macro["count"] > 0, path, f"{where}.count = {macro['count']}, allowed is at least 1")
    source = macro["source"]
    _check(source in ("play", "tree"), path, f"{where}.source = {shorten(source)}")
    names = decode(macro["actions"], action_names)
    _check(macro["names"] == names, path, f"{where}.names = {shorten(macro['names'])}")
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
    for name in _QUALITY:
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
    schema = document.get("schema")
    _check(schema == SCHEMA, source, f"schema = {shorten(schema)}, allowed is {SCHEMA}")
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


def rank_macros(
    document: Mapping[str, Any], by: Literal["generality", "entropy", "count"], top: int = 10
) -> list[dict[str, Any]]:
    """The best macros of a library by one measure.

    Args:
        document: as `summarise` gives it.
        by: generality (most buckets first), entropy (least first) or count (most first); ties go
            to the higher count, then to the order in the document.
        top: how many at most.

    Returns:
        Entries of `document["macros"]`.
    """
    measures = {
        "generality": lambda macro: -macro["generality"],
        "entropy": lambda macro: macro["mean_entropy"],
        "count": lambda macro: -macro["count"],
    }
    measure = measures[by]
    return sorted(document["macros"], key=lambda macro: (measure(macro), -macro["count"]))[:top]


def format_rankings(document: Mapping[str, Any], top: int = 10) -> str:
    """Three plain-text tables: most general, most deterministic, most frequent macros.

    Args:
        document: as `summarise` or `read_macros_json` gives it.
        top: rows of each table at most.

    Returns:
        Text with decoded names, states (generality), length, count, mean entropy and source.
    """
    if not document["macros"]:
        return "no macros found"
    titles = {
        "generality": "Most general macros",
        "entropy": "Most deterministic macros",
        "count": "Most frequent macros",
    }
    width = max(len("macro"), *(len(macro["names"]) for macro in document["macros"]))
    lines: list[str] = []
    for by, title in titles.items():
        head = (
            f"{'#':>3}  {'macro':<{width}}  states  length    count  entropy  source   held  trials"
            "  status"
        )
        lines += [title, head, "-" * len(head)]
        for rank, macro in enumerate(rank_macros(document, by, top), start=1):  # type: ignore
            lines.append(
                f"{rank:>3}  {macro['names']:<{width}}  {macro['generality']:>6}  "
                f"{macro['length']:>6}  {macro['count']:>7}  {macro['mean_entropy']:>7.3f}  "
                f"{macro['source']:<6}  {macro['held']:>5.0%}  {macro['trials']:>6.0f}  "
                f"{macro['status']}"
            )
        lines.append("")
    return "\n".join(lines).rstrip()
