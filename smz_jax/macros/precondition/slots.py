"""Slots: which macros have an output of the precondition head, and what they learn.

There are fewer slots than entries in the table, and an entry's place in the table changes with
every merge; the head needs outputs that stay whose they are. A slot has an owner, a macro, and
keeps it as long as `assign_slots` says. What an output is to learn, `slot_targets` reads from
replayed windows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import REFUTED, SOUND, Trials, matching, outcomes
from smz_jax.macros.mine.keys import pack, same_keys
from smz_jax.types import Array, MacroTable


class MacroSlots(NamedTuple):
    """The owner of each slot; [slots, ...] each. A free slot has length 0."""

    actions: Array  # [slots, L] int32, padded with -1
    length: Array  # [slots] int32


def init_slots(config: MacroConfig) -> MacroSlots:
    """All slots free."""
    actions = jnp.full((config.slots, config.max_length), -1, jnp.int32)
    return MacroSlots(actions, length=jnp.zeros((config.slots,), jnp.int32))


def assign_slots(
    slots: MacroSlots, table: MacroTable, status: Array, config: MacroConfig
) -> tuple[MacroSlots, Array]:
    """Gives each slot its owner of the next while.

    Macros are those that were seen `min_occurrences` times and are not refuted. The slots go to
    sound ones that own one, then to other sound ones, to candidates that own one, to other
    candidates; within each by count, ties in the order of the table (that of their actions). So an
    owner keeps its slot while it is a macro, but for a candidate whose slot a sound one needs.
    Newcomers take the free slots in their order. `status [M]` is that of `macros.judge.evidence`.

    Returns:
        The new owners, and [slots] bool: which slots have another one than before, or none any
        more.
    """
    size = slots.length.shape[0]
    entries = jnp.arange(table.length.shape[0], dtype=jnp.int32)
    fit = (table.length > 0) & (table.count >= config.min_occurrences) & (status != REFUTED)
    match = same_keys(slots.actions, *pack(table.actions)) & fit
    owns = jnp.any(match, axis=0)
    order = jnp.where(status == SOUND, 0, 2) + jnp.where(owns, 0, 1)
    order = jnp.where(fit, order, 4).astype(jnp.int32)
    *_, ranked = jax.lax.sort((order, -table.count, entries), num_keys=3)
    ranked = ranked[:size]
    chosen = jnp.zeros_like(fit).at[ranked].set(True) & fit
    keeps = jnp.any(match & chosen, axis=1)
    # The n-th newcomer of the ranking goes to the n-th free slot.
    comes = (chosen & ~owns)[ranked]
    turn = jnp.where(comes, jnp.cumsum(comes) - 1, size)
    entry_of_turn = jnp.full((size,), -1, jnp.int32).at[turn].set(ranked, mode="drop")
    newcomer = jnp.where(keeps, -1, entry_of_turn[jnp.maximum(jnp.cumsum(~keeps) - 1, 0)])
    gains = (newcomer >= 0)[:, None]
    newcomers = jnp.where(gains, table.actions[newcomer], -1)
    actions = jnp.where(keeps[:, None], slots.actions, newcomers)
    length = jnp.sum(actions >= 0, axis=1, dtype=jnp.int32)
    changed = jnp.any(actions != slots.actions, axis=1)
    return MacroSlots(actions, length), changed


def slot_targets(
    slots: MacroSlots, trials: Trials, worth: Array, config: MacroConfig
) -> tuple[Array, Array]:
    """What replayed windows say of the owners: a window speaks of those whose actions it begins by.

    One whose game ends speaks of all that begin with its actions up to there: none applies, whether
    the end was foreseen or not.

    `worth [B, K]` says whether what step k led to is worth as much as the best action. No window
    speaks of an owner longer than K.

    Returns:
        `relevant [B, slots]` bool: the window's actions, all of them really played, begin with the
        owner's. `target [B, slots]` bool: also it was played to its last action, every transition
        was certain, the trial held (`macros.judge.evidence`), and it was worth it.
    """
    found = outcomes(trials, config)
    relevant = matching(found, slots.actions) & (slots.length > 0)
    is_whole = found.known == found.length
    holds = (
        is_whole & found.certain & found.held & worth.T[config.min_length - 1 :][: len(is_whole)]
    )
    return jnp.any(relevant, axis=0), jnp.any(relevant & holds[..., None], axis=0)
