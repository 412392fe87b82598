"""The table of macros: fixed capacity, on the device, exact.

Entries are kept in the order of their keys, empty slots last, so that the table is a function of
what was merged and not of its order. When more sequences are known than fit, those with the
highest count stay, ties going to the lower key, and the loss is added to `dropped`. Where counts
are halved now and then (`macro.halve_every`), an eighth of the slots goes to those of the rest that
are seen most often now, so that a newcomer has the time to rise.
"""

import jax
import jax.numpy as jnp

from smz_jax.config.check import require
from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import PackedWindows, check_num_actions, pack, unpack
from smz_jax.storage.documents.macro_form import GATES, MAX_ACTIONS
from smz_jax.types import Array, MacroTable

EVIDENCE = ("windows", "squares", "trials", "held", *GATES)
"""Fields that a sequence keeps for as long as it is in the table."""
LARGEST = 8192
"""Slots where every sequence has one, at most."""
MOST_PLACES = 2**15
"""So many different sequences are counted without sorting."""
PROBATION = 8
"""Where counts are halved, one slot in so many is for sequences that are seen often now."""
_SMALLEST_BUFFER = 4096  # below it, a sort costs less than the compilation of another


def number_of_sequences(num_actions: int, longest: int) -> int:
    """How many sequences of 0 to `longest` actions there are."""
    return sum(num_actions**length for length in range(longest + 1))


def table_size(config: MacroConfig, num_actions: int) -> int:
    """M: `macro.capacity`, or as many slots as there are sequences, at least 8, at most 8,192."""
    if config.capacity is not None:
        return config.capacity
    shorter = number_of_sequences(num_actions, config.min_length - 1)
    every = number_of_sequences(num_actions, config.max_length) - shorter
    return min(max(every, 8), LARGEST)


def init_table(config: MacroConfig, num_actions: int) -> MacroTable:
    """A table whose M = `table_size` slots are all empty.

    Raises:
        ConfigError: if A does not fit the keys.
    """
    check_num_actions(num_actions)
    size = table_size(config, num_actions)
    counts, sums = ("length", "count", "play_count"), ("entropy_sum", "reward_sum", *EVIDENCE)
    return MacroTable(
        actions=jnp.full((size, config.max_length), -1, jnp.int32),
        buckets=jnp.zeros((size, config.num_buckets), jnp.bool_),
        dropped=jnp.zeros((), jnp.int32),
        **{name: jnp.zeros((size,), jnp.int32) for name in counts},
        **{name: jnp.zeros((size,), jnp.float32) for name in sums},
    )


def halve(table: MacroTable) -> MacroTable:
    """Counts halved, rounded up so that no entry vanishes; means stay as they are."""
    count = (table.count + 1) // 2
    share = count / jnp.maximum(table.count, 1)
    return table._replace(
        count=count,
        play_count=(table.play_count + 1) // 2,
        entropy_sum=table.entropy_sum * share,
        reward_sum=table.reward_sum * share,
    )


def _ranks(high: Array, low: Array, num_actions: int, max_length: int) -> Array:
    """Numbers [R] uint32 in the order of the keys, 0 for an empty one; equal for equal keys alone.

    Where it fits into a word, the number of sequences that come before it: of those of up to L
    actions, in the order of a walk through their tree. One word is sorted in a sixth of the time
    that two and their places take; and where the numbers are few, nothing is sorted at all.
    """
    below = [number_of_sequences(num_actions, max_length - 1 - x) for x in range(max_length)]
    if number_of_sequences(num_actions, max_length) <= 2**32:
        number = jnp.zeros_like(high)
        for place, step in enumerate(below):
            word = high if place < 4 else low
            byte = (word >> jnp.uint32(24 - 8 * (place % 4))) & jnp.uint32(255)
            number += jnp.where(byte > 0, 1 + (byte - 1) * jnp.uint32(step), 0)
        return number
    rows = jnp.arange(high.shape[0], dtype=jnp.int32)
    high, low, order = jax.lax.sort((high, low, rows), num_keys=2)
    differs = (high != jnp.roll(high, 1)) | (low != jnp.roll(low, 1))
    rank = jnp.cumsum((high != 0) & (differs | (rows == 0)), dtype=jnp.uint32)
    return jnp.zeros_like(high).at[order].set(rank, unique_indices=True)


def _nth_largest(counts: Array, n: int | Array) -> Array:
    """The n-th largest of counts [R] int32, none negative; 0 where there are fewer. Bit by bit."""

    def with_bit(step: Array, found: Array) -> Array:
        tried = found | (jnp.int32(1) << (30 - step))
        return jnp.where(jnp.sum(counts >= tried, dtype=jnp.int32) >= n, tried, found)

    return jax.lax.fori_loop(0, 31, with_bit, jnp.zeros((), jnp.int32))


def _largest(counts: Array, n: int | Array) -> Array:
    """Which counts [R] int32 are the n largest, `[R]` bool; ties to the first, none that is 0."""
    least = _nth_largest(counts, n)
    above = counts > least
    tied = (counts == least) & (counts > 0)
    room = n - jnp.sum(above, dtype=jnp.int32)
    return above | (tied & (jnp.cumsum(tied, dtype=jnp.int32) <= room))


def _assign_slots(
    ranks: Array, count: Array, capacity: int, num_sequences: int, probation: int
) -> tuple[Array, Array]:
    """Slots [R] int32 of rows in the new table, M for none, rising with the key; [] lost entries.

    `ranks` [R] are those of `_ranks`, `count` [R] int32 are occurrences, the M first of the table.
    `probation` slots go to those seen most often now, the others to those seen most often ever.
    """
    num_places = num_sequences
    place = ranks.astype(jnp.int32)
    if num_sequences > MOST_PLACES:
        num_places = ranks.shape[0]
        # An entry lies where its key comes first.
        place = jnp.searchsorted(jnp.sort(ranks), ranks).astype(jnp.int32)
    place = jnp.where(ranks > 0, place, num_places)

    def of_places(counts: Array, places: Array) -> Array:
        return jnp.zeros((num_places,), jnp.int32).at[places].add(counts, mode="drop")

    totals = of_places(count, place)
    if num_sequences - 1 <= capacity:
        kept = totals > 0
    elif probation:
        established = _largest(totals, capacity - probation)
        now = jnp.minimum(of_places(count[capacity:], place[capacity:]), 2**10 - 1)
        score = (now << 20) + jnp.minimum(totals, 2**20 - 1)
        score = jnp.where(established | (totals == 0), 0, score)
        kept = established | _largest(score, probation)
    else:
        kept = _largest(totals, capacity)
    slot_of_place = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, capacity)
    slot = slot_of_place.at[place].get(mode="fill", fill_value=capacity)
    return slot, jnp.sum(totals > 0, dtype=jnp.int32) - jnp.sum(kept, dtype=jnp.int32)


def _running_count(flags: Array) -> Array:
    """How many of flags [R] are true up to each, int32.

    In blocks, by a product with a triangle, which is exact: XLA adds up so many one by one, in
    three times the time on a CPU.
    """
    block, size = 32, flags.shape[0]
    blocks = jnp.pad(flags, (0, -size % block)).reshape(-1, block).astype(jnp.float32)
    within = (blocks @ jnp.triu(jnp.ones((block, block), jnp.float32))).astype(jnp.int32)
    before = jnp.cumsum(within[:, -1]) - within[:, -1]
    return (within + before[:, None]).reshape(-1)[:size]


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
    given = config.capacity
    require(given in (None, capacity), "macro.capacity", given, f"{capacity} as before")
    probation = capacity // PROBATION if config.halve_every else 0
    num_sequences = number_of_sequences(num_actions, config.max_length)
    is_played = jnp.broadcast_to(jnp.asarray(played), windows.key_high.shape).reshape(-1)
    flat = jax.tree.map(lambda field: field.reshape(-1), windows)
    size = flat.key_high.shape[0]
    valid = flat.key_high != 0
    rank = _running_count(valid) - 1
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
        count = jnp.concatenate([table.count, picked.weight])
        slot, lost = _assign_slots(ranks, count, capacity, num_sequences, probation)
        moved = _move(table, picked, slot, is_picked_played)
        return moved._replace(dropped=moved.dropped + lost)

    buffers = [size // part for part in (8, 3) if size // part >= _SMALLEST_BUFFER] + [size]
    choice = sum(((total > buffer).astype(jnp.int32) for buffer in buffers[:-1]), jnp.int32(0))
    branches = [lambda buffer=buffer: with_buffer(buffer) for buffer in buffers]
    return jax.lax.switch(choice, branches)
