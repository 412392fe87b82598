"""Certain windows of search trees and of played games.

A transition is (action, normalised H(sigma), reward). A window is the last l transitions
that end at a decision node, min_length <= l <= max_length, read by climbing parent pointers; it is
a candidate where every transition's entropy is strictly under the threshold of its source. A
played game is a tree without branches, so that both sources share the climb.

A window holds one player's actions: what the other one will do is not certain, however certain each
of their transitions is. So it may end where the turn passes, and never goes on from there. Of a
tree the model says so, which may not have learned it yet: see `SAME_PLAYER`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import PackedWindows, check_num_actions, prepend
from smz_jax.types import LEAPT, Array, MacroStats

SAME_PLAYER = 0.5
"""Of several players: least discount with which a window of a tree goes on. It is expected, the
chance that the same player moves again less that of another one; a new model has about 0."""
BucketOf = Callable[[Array, Array], Array]
"""`(states, exists) -> buckets`, all [P]: of states that windows start at; any where none does."""


class PlayRows(NamedTuple):
    """Rows of played games, as in `Trajectory`; also the carry from one rollout to the next."""

    action: Array  # [B, T] int32; -1 marks a row that does not exist (only in the first carry)
    entropy: Array  # [B, T] float32, normalised H(sigma) of the played action; `LEAPT` where no
    #                 search chose it
    reward: Array  # [B, T] float32
    discount: Array  # [B, T] float32, 0 where the transition ended the episode, below 0 where it
    #                  gave the turn to the other player
    is_first: Array  # [B, T] bool
    bucket: Array  # [B, T] int32, start-state bucket of the row's own state


PlayCarry = PlayRows
"""The last max_length rows of each lane, [B, L]; the newest of them is still undecided."""


class _Steps(NamedTuple):
    """For each state, the transition that led to it."""

    up: Array  # [N] int32, the state that it started from
    action: Array  # [N] int32
    entropy: Array  # [N] float32
    reward: Array  # [N] float32
    exists: Array  # [N] bool
    certain: Array  # [N] bool, it exists and its entropy is under the threshold
    final: Array  # [N] bool, it ended an episode or a turn: a window may end with it, not span it


def _climb(
    steps: _Steps, ends: Array, weight: Array, bucket_of: BucketOf, config: MacroConfig
) -> PackedWindows:
    """All windows that end at the states `ends` [E], flat over lengths x ends."""
    node, last_action, windows = ends, steps.action[ends], []
    high = low = jnp.zeros(ends.shape, jnp.uint32)
    entropy = reward = jnp.zeros(ends.shape, jnp.float32)
    alive = repeated = jnp.ones(ends.shape, jnp.bool_)
    for length in range(1, config.max_length + 1):
        alive &= steps.certain[node]
        if length > 1:
            alive &= ~steps.final[node]
        action = steps.action[node]
        repeated &= action == last_action
        high, low = prepend(high, low, action)
        entropy += steps.entropy[node]
        reward += steps.reward[node]
        node = steps.up[node]
        if length >= config.min_length:
            drops_repeats = length > 1 and not config.include_repeats
            valid = alive & ~repeated if drops_repeats else alive
            key_high, key_low = (jnp.where(valid, x, jnp.uint32(0)) for x in (high, low))
            mean = entropy / jnp.float32(length)
            windows.append(PackedWindows(key_high, key_low, mean, reward, node, weight))
    found = jax.tree.map(lambda *fields: jnp.concatenate(fields), *windows)
    return found._replace(bucket=bucket_of(found.bucket, found.key_high != 0))


def _stats(
    source: str, roots: int, exists: Array, certain: Array, windows: PackedWindows
) -> MacroStats:
    """Counts of one source, `tree` or `play`; those of the other are 0."""
    counts = {
        "trees" if source == "tree" else "trajectories": jnp.full((), roots, jnp.int32),
        f"transitions_{source}": jnp.sum(exists, dtype=jnp.int32),
        f"certain_{source}": jnp.sum(certain, dtype=jnp.int32),
        f"candidates_{source}": jnp.sum(windows.key_high != 0, dtype=jnp.int32),
    }
    zeros = dict.fromkeys(MacroStats._fields, jnp.zeros((), jnp.int32))
    return MacroStats(**{**zeros, **counts})


def _tree_steps(tree: Any, threshold: float, least_discount: float, num_actions: int) -> _Steps:
    """Transitions of all trees as one forest of B x N nodes.

    An uncollapsed transition is decision -a-> chance -c-> decision: the entropy lies on the chance
    node and the reward on the edge below it. A collapsed one is decision -a-> decision, with both
    on the new node and its edge. Where a macro's edge leads, and below, nothing is read.
    """
    # Flat indices: gathers with a batch axis take XLA several times as long on a CPU.
    index = jnp.arange(tree.parents.size, dtype=jnp.int32)
    first = index.reshape(tree.parents.shape)[:, :1]
    parent = (jnp.maximum(tree.parents, 0).astype(jnp.int32) + first).reshape(-1)
    edge = tree.action_from_parent.reshape(-1).astype(jnp.int32)
    named = tree.embeddings.action
    action = edge if named is None else named.reshape(-1)
    is_chance = tree.embeddings.is_chance.reshape(-1)
    source = jnp.where(is_chance[parent], parent, index)
    place = parent * tree.children_rewards.shape[-1] + jnp.maximum(edge, 0)
    reward = tree.children_rewards.reshape(-1)[place].astype(jnp.float32)
    discount = tree.children_discounts.reshape(-1)[place]
    entropy = tree.embeddings.entropy.reshape(-1)[source].astype(jnp.float32)
    # A leaf that is expanded again (max_depth) leaves other nodes unused: no visits, no parent.
    exists = ((tree.node_visits > 0) & (tree.parents >= 0)).reshape(-1) & ~is_chance
    exists &= entropy < LEAPT
    if tree.embeddings.macro is not None:
        foreseen, above = edge == num_actions, parent
        for _ in range(tree.parents.shape[1].bit_length()):  # twice as far up each time
            foreseen, above = foreseen | foreseen[above], above[above]
        exists &= ~foreseen
    return _Steps(
        up=parent[source],
        action=action[source],
        entropy=entropy,
        reward=reward,
        exists=exists,
        certain=exists & (entropy < threshold) & jnp.isfinite(reward),
        final=discount < least_discount,
    )


def tree_windows(
    tree: Any, bucket_of: BucketOf, config: MacroConfig, num_actions: int, players: int = 1
) -> tuple[PackedWindows, MacroStats]:
    """Certain windows of a batch of search trees.

    Args:
        tree: `mctx.Tree` whose embeddings are `NodeEmbedding`, [B, N, ...]; children axes unsliced.
        bucket_of: of nodes, numbered over B x N.
        config: lengths, `tree_threshold`, `tree_weight`, `include_repeats`.
        num_actions: A.
        players: of the game.

    Returns:
        Windows flat over lengths x B x N, each tree path once per root, and the counts.

    Raises:
        ConfigError: if A does not fit the keys.
    """
    check_num_actions(num_actions)
    least_discount = SAME_PLAYER if players > 1 else 0.0
    steps = _tree_steps(tree, config.tree_threshold, least_discount, num_actions)
    visits = tree.node_visits.reshape(-1).astype(jnp.int32)
    weight = visits if config.tree_weight == "visits" else jnp.ones_like(visits)
    ends = jnp.arange(visits.shape[0], dtype=jnp.int32)
    windows = _climb(steps, ends, weight, bucket_of, config)
    return windows, _stats("tree", tree.parents.shape[0], steps.exists, steps.certain, windows)


def init_carry(config: MacroConfig, batch_size: int) -> PlayCarry:
    """The carry before the first rollout: rows [B, L] that do not exist, L = `max_length`."""
    zero, one = jnp.float32(0), jnp.float32(1)
    row = PlayRows(jnp.int32(-1), zero, zero, one, jnp.bool_(False), jnp.int32(0))
    return jax.tree.map(lambda x: jnp.full((batch_size, config.max_length), x), row)


def _play_steps(rows: PlayRows, threshold: float) -> _Steps:
    """Transitions of one lane: state t was reached by the transition of row t - 1.

    Row t says whether row t - 1 is real: an action before `is_first` was ignored.
    """

    def shifted(field: Array) -> Array:
        return jnp.concatenate([field[:1], field[:-1]])

    index = jnp.arange(rows.action.shape[0], dtype=jnp.int32)
    real = (index > 0) & (shifted(rows.action) >= 0) & ~rows.is_first
    entropy = shifted(rows.entropy).astype(jnp.float32)
    reward = shifted(rows.reward).astype(jnp.float32)
    real &= entropy < LEAPT
    return _Steps(
        up=jnp.maximum(index - 1, 0),
        action=shifted(rows.action).astype(jnp.int32),
        entropy=entropy,
        reward=reward,
        exists=real,
        certain=real & (entropy < threshold) & jnp.isfinite(reward),
        final=shifted(rows.discount) <= 0,
    )


def play_windows(
    rows: PlayRows, carry: PlayCarry, config: MacroConfig, num_actions: int
) -> tuple[PackedWindows, MacroStats, PlayCarry]:
    """Certain windows of played rows, each once, also across the borders of rollouts.

    The last row's transition is decided by the row after it, so that its windows come with the
    next call.

    Args:
        rows: [B, T], the rows that follow the carry's.
        carry: [B, L] from `init_carry` or from the call before.
        config: lengths, `play_threshold`, `include_repeats`.
        num_actions: A.

    Returns:
        Windows flat over lengths x B x T, the counts (a lane's rollout is one trajectory), and the
        carry for the next call.

    Raises:
        ConfigError: if A does not fit the keys.
    """
    check_num_actions(num_actions)
    batch_size = rows.action.shape[0]
    joined = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), carry, rows)
    steps = jax.vmap(lambda lane: _play_steps(lane, config.play_threshold))(joined)
    real, certain = (x[:, config.max_length :] for x in (steps.exists, steps.certain))
    # As one forest: gathers with a batch axis take XLA several times as long on a CPU.
    steps = jax.tree.map(jnp.ravel, steps)
    index = jnp.arange(joined.action.size, dtype=jnp.int32)
    ends = index.reshape(joined.action.shape)[:, config.max_length :].reshape(-1)
    steps = steps._replace(up=jnp.maximum(index - 1, 0))
    bucket = joined.bucket.reshape(-1)
    windows = _climb(steps, ends, jnp.ones_like(ends), lambda rows, _: bucket[rows], config)
    stats = _stats("play", batch_size, real, certain, windows)
    carry = jax.tree.map(lambda field: field[:, -config.max_length :], joined)
    return windows, stats, carry
