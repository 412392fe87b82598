"""The macro library on the host: names, statistics and rankings (NumPy only)."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import REFUTED, SOUND, expected_false, judge
from smz_jax.storage.documents.macro_form import (
    GATES,
    PRECONDITION_SHARES,
    SCHEMA,
    STATUS_NAMES,
    decode,
)
from smz_jax.types import Array, MacroStats, MacroTable

_judge = jax.jit(judge, static_argnames="config")
"""Of all slots, whose number is fixed: each shape is compiled."""

_STATS = (
    *("total", "play", "tree", "candidates", "dropped", "generality_mean", "generality_max"),
    *("entropy_mean", "deterministic", "sound", "refuted", "tested", "expected_false"),
    *("refusals", *(f"refused_{gate}" for gate in GATES)),
)


def table_stats(table: MacroTable, config: MacroConfig) -> dict[str, float]:
    """Numbers of one moment, cheap enough for every row of the metrics; `table` may be anywhere.

    Returns:
        Of the macros (entries seen `min_occurrences` times): `total`, `play` and `tree` (by
        source), `generality_mean` and `generality_max` (start-state buckets), `entropy_mean`, and
        `deterministic`, `sound` and `refuted` (how many); of the rest, sequences seen too rarely:
        `candidates`; and `dropped`. How many entries had trials enough to be `tested`, and how many
        of the sound ones are false at most, by expectation: `expected_false`. Of all trials of
        macros the share that did not hold, `refusals`, and by gate (`refused_near` and so on) the
        share of those that did not pass it. Means over no macros are 0.
    """
    return dict(zip(_STATS, np.asarray(_table_stats(table, config=config)).tolist(), strict=True))


@functools.partial(jax.jit, static_argnames="config")
def _table_stats(table: MacroTable, config: MacroConfig) -> Array:
    """`table_stats` as one array float32 in the order of `_STATS`: one transfer, not many."""
    macro = (table.length > 0) & (table.count >= config.min_occurrences)
    total, judged = macro.sum(), judge(table, config)
    generality = jnp.where(macro, table.buckets.sum(axis=-1), 0)
    entropy = jnp.where(macro, table.entropy_sum / jnp.maximum(table.count, 1), jnp.inf)
    play = (macro & (table.play_count > 0)).sum()

    def of_macros(x: Array) -> Array:
        return jnp.sum(jnp.where(macro, x, 0.0))

    def share(part: Array, whole: Array) -> Array:
        return part / jnp.where(whole > 0, whole, 1.0)

    def failed(passed: Array) -> Array:
        return jnp.maximum(trials - of_macros(passed), 0.0)  # as in `_part`

    trials = of_macros(table.trials)
    refused = failed(table.held)
    found = {
        "total": total,
        "play": play,
        "tree": total - play,
        "candidates": (table.length > 0).sum() - total,
        "dropped": table.dropped,
        "generality_mean": share(generality.sum(), total),
        "generality_max": generality.max(),
        "entropy_mean": share(of_macros(entropy), total),
        "deterministic": (entropy < config.deterministic_threshold).sum(),
        "sound": (macro & (judged.status == SOUND)).sum(),
        "refuted": (macro & (judged.status == REFUTED)).sum(),
        "tested": judged.tested.sum(),
        "expected_false": expected_false(judged, config),
        "refusals": share(refused, trials),
        **{f"refused_{x}": share(failed(getattr(table, x)), refused) for x in GATES},
    }
    return jnp.stack([found[name].astype(jnp.float32) for name in _STATS])


def run_stats(totals: MacroStats) -> dict[str, float]:
    """What the extraction read over the run, with the rates of certain transitions."""
    stats: dict[str, float] = {name: int(value) for name, value in totals._asdict().items()}
    for name in ("transitions", "certain"):
        stats[name] = stats[f"{name}_tree"] + stats[f"{name}_play"]
    for source in ("", "_tree", "_play"):
        seen = stats[f"transitions{source}"]
        stats[f"certain_rate{source}"] = stats[f"certain{source}"] / (seen or 1)
    return stats


def _share(part: Any, whole: Any) -> np.ndarray:
    return part.astype(np.float64) / np.where(whole > 0, whole, 1)


def _part(some: Any, whole: Any) -> np.ndarray:
    """A share of what it is a part of; sums of floats, in another order, may say a little more."""
    return np.minimum(_share(some, whole), 1.0)


def summarise(
    table: MacroTable,
    totals: MacroStats,
    config: MacroConfig,
    action_names: Sequence[str],
    preconditions: Mapping[tuple[int, ...], Mapping[str, Any]] | None = None,
    played: str = "play",
) -> dict[str, Any]:
    """The whole library as plain Python: what macros.json holds.

    `totals` are sums of the extraction's counts over the run (any integers); `preconditions` are
    those of `slot_entries`, None where none are learned; `played` is the source of macros that are
    in rows of the replay, `dataset` where those were stored by somebody else.

    Returns:
        `schema`, `action_names`, `config`, `stats` (those of `table_stats` and of the run) and
        `macros`, most frequent first, ties in the order of their actions. `windows`, the share of
        them that is `certain` (and its lower bound), which are the `trials`, the shares of those
        that `held` (with its bounds) and passed each gate, `effective` and `p_value` are those of
        `macros.judge.evidence`; shares of none are 0. `slot` is the output of the precondition head
        that is the macro's, and `precondition` how good it is (`windows`, `precision`, `recall`,
        `always_precision` of `macros.quality`); both None for a macro without one.
    """
    host = jax.device_get(table)
    seen = np.flatnonzero((host.length > 0) & (host.count >= config.min_occurrences))
    slots = sorted(seen, key=lambda slot: (-host.count[slot], tuple(host.actions[slot])))
    slots = np.array(slots, np.int64)
    rows: MacroTable = jax.tree.map(lambda x: x[slots], host._replace(dropped=None))
    actions = [row[row >= 0].tolist() for row in rows.actions]
    buckets = [np.flatnonzero(row).tolist() for row in rows.buckets]
    entropy = _share(rows.entropy_sum, rows.count)
    judged = jax.tree.map(lambda x: x[slots], jax.device_get(_judge(host, config=config)))
    columns = {
        "actions": actions,
        "names": [decode(row, action_names) for row in actions],
        "length": rows.length,
        "count": rows.count,
        "play_count": rows.play_count,
        "mean_entropy": entropy,
        "total_reward": rows.reward_sum,
        "mean_reward": _share(rows.reward_sum, rows.count),
        "generality": [len(row) for row in buckets],
        "buckets": buckets,
        "source": np.where(rows.play_count > 0, played, "tree"),
        "deterministic": entropy < config.deterministic_threshold,
        "status": np.array(STATUS_NAMES)[judged.status],
        "windows": rows.windows,
        "certain": _part(rows.trials, rows.windows),
        "certain_low": judged.certain_low,
        "trials": rows.trials,
        "effective": judged.effective,
        **{name: _part(getattr(rows, name), rows.trials) for name in ("held", *GATES)},
        "held_low": judged.held_low,
        "held_high": judged.held_high,
        "p_value": judged.p_value,
    }
    # As Python's own numbers.
    values = [x.tolist() if isinstance(x, np.ndarray) else x for x in columns.values()]
    macros = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    for macro in macros:
        macro.update(precondition_fields((preconditions or {}).get(tuple(macro["actions"]))))
    return {
        "schema": SCHEMA,
        "action_names": list(action_names),
        "config": dataclasses.asdict(config),
        "stats": {**table_stats(host, config), **run_stats(totals)},
        "macros": macros,
    }


def precondition_fields(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last two fields of a macro: of its entry in `slot_entries`, None if it owns no slot."""
    names = ("windows", *PRECONDITION_SHARES)
    quality = None if entry is None else {name: entry[name] for name in names}
    return {"slot": None if entry is None else entry["slot"], "precondition": quality}
