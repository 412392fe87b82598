"""The macro library on the host: names, statistics and rankings (NumPy only)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import CANDIDATE, share_bounds, status
from smz_jax.storage.documents.macro_form import PRECONDITION_SHARES, SCHEMA, STATUS_NAMES, decode
from smz_jax.types import MacroStats, MacroTable


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
        `macros`, most frequent first, ties in the order of their actions. `windows`, the share of
        them that is `certain` (and its lower bound), which are the `trials`, and the shares of
        those that `held` (with its bounds), were `near`, `paid` and `agreed` are those of
        `macros.evidence`; shares of none are 0. `slot` is the output of the precondition head
        that is the macro's, and `precondition` how good it is (`windows`, `precision`, `recall`,
        `always_precision` of `macros.quality`); both None for a macro without one.
    """
    host = jax.device_get(table)
    states, bounds = np.asarray(status(host, config)), share_bounds(host.held, host.trials)
    low, high = (np.asarray(bound) for bound in bounds)
    certain_low = np.asarray(share_bounds(host.trials, host.windows)[0])
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
                "windows": float(host.windows[slot]),
                "certain": _rate(float(host.trials[slot]), float(host.windows[slot])),
                "certain_low": float(certain_low[slot]),
                "trials": float(host.trials[slot]),
                **{
                    name: _rate(float(getattr(host, name)[slot]), float(host.trials[slot]))
                    for name in ("held", "near", "paid", "agreed")
                },
                "held_low": float(low[slot]),
                "held_high": float(high[slot]),
                **precondition_fields((preconditions or {}).get(tuple(actions))),
            }
        )
    return {
        "schema": SCHEMA,
        "action_names": list(action_names),
        "config": dataclasses.asdict(config),
        "stats": {**table_stats(host, config), **_run_stats(totals)},
        "macros": macros,
    }


def precondition_fields(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last two fields of a macro: of its entry in `slot_entries`, None if it owns no slot."""
    if entry is None:
        return {"slot": None, "precondition": None}
    return {
        "slot": entry["slot"],
        "precondition": {k: entry[k] for k in ("windows", *PRECONDITION_SHARES)},
    }
