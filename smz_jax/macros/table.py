"""The table of macros: fixed capacity, on the device, exact.

Entries are kept in the order of their keys, empty slots last, so that the table is a function of
what was merged and not of its order. When more sequences are known than fit, those with the
highest count stay, ties going to the lower key, and the loss is added to `dropped`.
"""

import jax
import jax.numpy as jnp

from smz_jax.config import MacroConfig
from smz_jax.macros.keys import PackedWindows, check_num_actions, pack, unpack
from smz_jax.types import MacroTable

Array = jax.Array

_SMALLEST_BUFFER = 1024


def init_table(config: MacroConfig, num_actions: int) -> MacroTable:
    """An empty table.

    Args:
        config: gives the capacity M, the longest macro L and the number of buckets.
        num_actions: A.

    Returns:
        A table with every slot empty.

    Raises:
        ConfigError: if A does not fit the keys.
    """
    check_num_actions(num_actions)
    size = config.capacity
    return MacroTable(
        actions=jnp.full((size, config.max_length), -1, jnp.int32),
        length=jnp.zeros((size,), jnp.int32),
        count=jnp.zeros((size,), jnp.int32),
        entropy_sum=jnp.zeros((size,), jnp.float32),
        reward_sum=jnp.zeros((size,), jnp.float32),
        buckets=jnp.zeros((size, config.num_buckets), jnp.bool_),
        play_count=jnp.zeros((size,), jnp.int32),
        dropped=jnp.zeros((), jnp.int32),
    )


def _assign_slots(high: Array, low: Array, count: Array, capacity: int) -> tuple[Array, Array]:
    """Slot of each row in the new table, `capacity` for none, and the number of lost entries.

    Args:
        high: [R] uint32, first words of the keys; rows with (0, 0) are empty.
        low: [R] uint32, second words.
        count: [R] int32, occurrences of each row.
        capacity: M.

    Returns:
        Slots [R] int32, equal for equal keys, rising with the key; and [] int32.
    """
    num_rows = high.shape[0]
    rows = jnp.arange(num_rows, dtype=jnp.int32)
    high, low, order = jax.lax.sort((high, low, rows), num_keys=2)
    filled = high != 0
    differs = (high != jnp.roll(high, 1)) | (low != jnp.roll(low, 1)) | (rows == 0)
    entry = jnp.cumsum(filled & differs, dtype=jnp.int32) - 1
    num_entries = entry[-1] + 1
    outside = jnp.int32(num_rows)
    entry = jnp.where(filled, entry, outside)

    totals = jnp.zeros((num_rows,), jnp.int32).at[entry].add(count[order], mode="drop")
    least = jnp.sort(totals)[num_rows - capacity]
    above = totals > least
    tied = (totals == least) & (totals > 0)
    room = capacity - jnp.sum(above, dtype=jnp.int32)
    kept = above | (tied & (jnp.cumsum(tied, dtype=jnp.int32) <= room))
    slot_of_entry = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, capacity)
    slot = slot_of_entry.at[entry].get(mode="fill", fill_value=capacity)
    slot = jnp.zeros((num_rows,), jnp.int32).at[order].set(slot, unique_indices=True)
    return slot, num_entries - jnp.sum(kept, dtype=jnp.int32)


def _merge_compact(table: MacroTable, windows: PackedWindows, played: bool) -> MacroTable:
    """`merge` for windows [R] that were already picked out; all of them are sorted."""
    capacity, max_length = table.actions.shape
    table_high, table_low = pack(table.actions)
    high = jnp.concatenate([table_high, windows.key_high])
    low = jnp.concatenate([table_low, windows.key_low])
    weight = jnp.where(windows.key_high != 0, windows.weight, 0)
    slot, lost = _assign_slots(high, low, jnp.concatenate([table.count, weight]), capacity)
    old, new = slot[:capacity], slot[capacity:]

    def moved_sum(of_table: Array, of_windows: Array | None) -> Array:
        total = jnp.zeros_like(of_table).at[old].set(of_table, mode="drop")
        return total if of_windows is None else total.at[new].add(of_windows, mode="drop")

    weight_f = weight.astype(jnp.float32)
    no_word = jnp.zeros((capacity,), jnp.uint32)
    actions = unpack(
        no_word.at[slot].set(high, mode="drop"), no_word.at[slot].set(low, mode="drop"), max_length
    )
    buckets = jnp.zeros_like(table.buckets).at[old].set(table.buckets, mode="drop")
    return MacroTable(
        actions=actions,
        length=jnp.sum(actions >= 0, axis=-1, dtype=jnp.int32),
        count=moved_sum(table.count, weight),
        entropy_sum=moved_sum(table.entropy_sum, weight_f * windows.entropy),
        reward_sum=moved_sum(table.reward_sum, weight_f * windows.reward),
        buckets=buckets.at[new, windows.bucket].set(True, mode="drop"),
        play_count=moved_sum(table.play_count, weight if played else None),
        dropped=table.dropped + lost,
    )


def merge(
    table: MacroTable, windows: PackedWindows, *, played: bool, config: MacroConfig
) -> MacroTable:
    """Takes candidate windows into the table.

    Most slots of `windows` are empty, and sorting is what costs: the windows are first picked out
    into the smallest of three buffers that holds them all, the last of which holds anything.

    Args:
        table: the table so far.
        windows: any leading shape, e.g. [T, P]; empty slots are skipped.
        played: whether the windows were really played (else they are of search trees).
        config: the one that the table was made with.

    Returns:
        The new table: entries in key order, the `capacity` most frequent of all that were known.
    """
    if config.capacity != table.length.shape[0]:
        raise ValueError(f"table of {table.length.shape[0]} slots, not {config.capacity}")
    flat = jax.tree.map(lambda field: field.reshape(-1), windows)
    size = flat.key_high.shape[0]
    valid = flat.key_high != 0
    rank = jnp.cumsum(valid, dtype=jnp.int32) - 1
    total = rank[-1] + 1

    def with_buffer(buffer: int) -> MacroTable:
        target = jnp.where(valid, rank, buffer)
        source = jnp.full((buffer,), size, jnp.int32)
        source = source.at[target].set(jnp.arange(size, dtype=jnp.int32), mode="drop")
        picked = jax.tree.map(lambda field: field.at[source].get(mode="fill", fill_value=0), flat)
        return _merge_compact(table, picked, played)

    buffers = [size // part for part in (16, 4) if size // part >= _SMALLEST_BUFFER] + [size]
    choice = sum(((total > buffer).astype(jnp.int32) for buffer in buffers[:-1]), jnp.int32(0))
    branches = [lambda buffer=buffer: with_buffer(buffer) for buffer in buffers]
    return jax.lax.switch(choice, branches)
