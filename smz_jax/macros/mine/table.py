"""The table of macros: fixed capacity, on the device, exact.

Entries are kept in the order of their keys, empty slots last, so that the table is a function of
what was merged and not of its order. When more sequences are known than fit, those with the
highest count stay, ties going to the lower key, and the loss is added to `dropped`.
"""

import jax
import jax.numpy as jnp

from smz_jax.config.check import require
from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import MAX_ACTIONS, PackedWindows, check_num_actions, pack, unpack
from smz_jax.storage.documents.macro_form import GATES
from smz_jax.types import Array, MacroTable

EVIDENCE = ("windows", "squares", "trials", "held", *GATES)
"""Fields that a sequence keeps for as long as it is in the table."""
_SMALLEST_BUFFER = 4096  # below it, a sort costs less than the compilation of another


def init_table(config: MacroConfig, num_actions: int) -> MacroTable:
    """A table whose M = `config.capacity` slots are all empty.

    Raises:
        ConfigError: if A does not fit the keys.
    """
    check_num_actions(num_actions)
    size = config.capacity
    counts, sums = ("length", "count", "play_count"), ("entropy_sum", "reward_sum", *EVIDENCE)
    return MacroTable(
        actions=jnp.full((size, config.max_length), -1, jnp.int32),
        buckets=jnp.zeros((size, config.num_buckets), jnp.bool_),
        dropped=jnp.zeros((), jnp.int32),
        **{name: jnp.zeros((size,), jnp.int32) for name in counts},
        **{name: jnp.zeros((size,), jnp.float32) for name in sums},
    )


def _ranks(high: Array, low: Array, num_actions: int, max_length: int) -> Array:
    """Numbers [R] uint32 in the order of the keys, 0 for an empty one; equal for equal keys alone.

    One word is sorted in a sixth of the time that two and their places take, and most keys fit.
    """
    bits = num_actions.bit_length()
    if bits * max_length <= 32:
        number = jnp.zeros_like(high)
        for place in range(max_length):
            word = high if place < 4 else low
            byte = (word >> jnp.uint32(24 - 8 * (place % 4))) & jnp.uint32(255)
            number = (number << bits) | byte
        return number
    rows = jnp.arange(high.shape[0], dtype=jnp.int32)
    high, low, order = jax.lax.sort((high, low, rows), num_keys=2)
    differs = (high != jnp.roll(high, 1)) | (low != jnp.roll(low, 1))
    rank = jnp.cumsum((high != 0) & (differs | (rows == 0)), dtype=jnp.uint32)
    return jnp.zeros_like(high).at[order].set(rank, unique_indices=True)


def _nth_largest(counts: Array, n: int) -> Array:
    """The n-th largest of counts [R] int32, none negative; 0 where there are fewer. Bit by bit."""

    def with_bit(step: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - step))
        return jnp.where(jnp.sum(counts >= tried, dtype=jnp.int32) >= n, tried, found)

    return jax.lax.fori_loop(0, 31, with_bit, jnp.zeros((), jnp.int32))


def _assign_slots(ranks: Array, count: Array, capacity: int) -> tuple[Array, Array]:
    """Slots [R] int32 of rows in the new table, M for none, rising with the key; [] lost entries.

    `ranks` [R] are those of `_ranks`, `count` [R] int32 are occurrences.
    """
    num_rows = ranks.shape[0]
    ordered = jnp.sort(ranks)
    # An entry lies where its key comes first.
    place = jnp.searchsorted(ordered, ranks).astype(jnp.int32)
    totals = jnp.zeros((num_rows,), jnp.int32)
    totals = totals.at[jnp.where(ranks > 0, place, num_rows)].add(count, mode="drop")
    least = _nth_largest(totals, capacity)
    above = totals > least
    tied = (totals == least) & (totals > 0)
    room = capacity - jnp.sum(above, dtype=jnp.int32)
    kept = above | (tied & (jnp.cumsum(tied, dtype=jnp.int32) <= room))
    slot_of_place = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, capacity)
    slot = jnp.where(ranks > 0, slot_of_place[place], capacity)
    return slot, jnp.sum(totals > 0, dtype=jnp.int32) - jnp.sum(kept, dtype=jnp.int32)


def _move(table: MacroTable, windows: PackedWindows, slot: Array, played: Array) -> MacroTable:
    """Sums table rows and windows [P] into their new slots [M + P]; `dropped` stays as it is."""
    capacity, max_length = table.actions.shape
    old, new = slot[:capacity], slot[capacity:]

    def moved(of_table: Array) -> Array:
        return jnp.zeros_like(of_table).at[old].set(of_table, mode="drop")

    def added(of_table: Array, of_windows: Array) -> Array:
        # One addition per merge: single windows would vanish in a large float32 sum, and XLA
        # folds the two scatters into one unless it is kept from it.
        total = jnp.zeros_like(of_table).at[new].add(of_windows, mode="drop")
        return moved(of_table) + jax.lax.optimization_barrier(total)

    keys = zip(pack(table.actions), (windows.key_high, windows.key_low), strict=True)
    high, low = (moved(word).at[new].set(of_windows, mode="drop") for word, of_windows in keys)
    actions = unpack(high, low, max_length)
    weight = windows.weight.astype(jnp.float32)
    sums = {
        "count": windows.weight,
        "entropy_sum": weight * windows.entropy,
        "reward_sum": weight * windows.reward,
        "play_count": jnp.where(played, windows.weight, 0),
    }
    return table._replace(
        actions=actions,
        length=jnp.sum(actions >= 0, axis=-1, dtype=jnp.int32),
        buckets=moved(table.buckets).at[new, windows.bucket].set(True, mode="drop"),
        **{name: added(getattr(table, name), of_windows) for name, of_windows in sums.items()},
        **{name: moved(getattr(table, name)) for name in EVIDENCE},
    )


def merge(
    table: MacroTable,
    windows: PackedWindows,
    *,
    played: bool | Array,
    config: MacroConfig,
    num_actions: int = MAX_ACTIONS,
) -> MacroTable:
    """Takes candidate windows into the table.

    Most slots of `windows` are empty, and sorting is what costs: the windows are first picked out
    into the smallest of a few buffers that holds them all, the last of which holds anything.

    Args:
        table: the table so far.
        windows: any leading shape, e.g. [T, P]; empty slots are skipped.
        played: whether the windows were really played (else they are of search trees): one for
            all, or a bool array of the windows' shape.
        config: the one that the table was made with.
        num_actions: A; few actions are sorted faster.

    Returns:
        The new table: entries in key order, the `capacity` most frequent of all that were known.

    Raises:
        ConfigError: if the table has another capacity than `config`.
    """
    capacity = table.length.shape[0]
    require(config.capacity == capacity, "macro.capacity", config.capacity, f"{capacity} as before")
    is_played = jnp.broadcast_to(jnp.asarray(played), windows.key_high.shape).reshape(-1)
    flat = jax.tree.map(lambda field: field.reshape(-1), windows)
    size = flat.key_high.shape[0]
    valid = flat.key_high != 0
    rank = jnp.cumsum(valid, dtype=jnp.int32) - 1
    total = rank[-1] + 1
    high, low = pack(table.actions)

    def with_buffer(buffer: int) -> MacroTable:
        place, index = jnp.where(valid, rank, buffer), jnp.arange(size, dtype=jnp.int32)
        source = jnp.full((buffer,), size, jnp.int32).at[place].set(index, mode="drop")
        picked, is_picked_played = jax.tree.map(
            lambda field: field.at[source].get(mode="fill", fill_value=0), (flat, is_played)
        )
        highs = jnp.concatenate([high, picked.key_high])
        lows = jnp.concatenate([low, picked.key_low])
        ranks = _ranks(highs, lows, num_actions, config.max_length)
        slot, lost = _assign_slots(ranks, jnp.concatenate([table.count, picked.weight]), capacity)
        moved = _move(table, picked, slot, is_picked_played)
        return moved._replace(dropped=moved.dropped + lost)

    buffers = [size // part for part in (8, 3) if size // part >= _SMALLEST_BUFFER] + [size]
    choice = sum(((total > buffer).astype(jnp.int32) for buffer in buffers[:-1]), jnp.int32(0))
    branches = [lambda buffer=buffer: with_buffer(buffer) for buffer in buffers]
    return jax.lax.switch(choice, branches)
