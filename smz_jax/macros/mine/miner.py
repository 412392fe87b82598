"""Macros of a run: the post-pass after every search, and the merge after every rollout."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.summary import run_stats, table_stats
from smz_jax.macros.mine.buckets import (
    BucketState,
    assign_buckets,
    assign_wanted,
    init_buckets,
    update_buckets,
)
from smz_jax.macros.mine.keys import PackedWindows, why_no_macros
from smz_jax.macros.mine.table import halve, init_table, merge
from smz_jax.macros.mine.windows import PlayCarry, PlayRows, init_carry, play_windows, tree_windows
from smz_jax.model.lanes import LANES, WHOLE, lay, over_lanes, own_sums
from smz_jax.storage.documents.macro_form import MAX_ACTIONS
from smz_jax.types import (
    LEAPT,
    Array,
    Decision,
    MacroStats,
    MacroTable,
    NodeEmbedding,
    Space,
    Trajectory,
)

MOST_STEPS = 8
"""Steps in one post-pass, at most."""
MOST_BYTES = 2**26
"""Bytes of the trees that wait for it, at most, where they are more than one step's."""


class MacroState(NamedTuple):
    """What the search for macros carries through a run; all on the device, saved with the run."""

    table: MacroTable
    buckets: BucketState
    carry: PlayCarry


class TreePart(NamedTuple):
    """What the post-pass reads of an `mctx.Tree`: fewer arrays to hand over."""

    node_visits: Array  # [B, N] int32
    parents: Array  # [B, N] int32
    action_from_parent: Array  # [B, N] int32
    children_rewards: Array  # [B, N, A + C] float32
    children_discounts: Array  # [B, N, A + C] float32, below 0 where the turn passes
    embeddings: NodeEmbedding


class MinedWindows(NamedTuple):
    """What the post-pass found in S steps."""

    windows: PackedWindows | None  # [P]; None where there is no tree, or no search for macros
    stats: MacroStats
    bucket: Array  # [S, B] start-state bucket of each root
    entropy: Array  # [S] mean normalised entropy of the trees' transitions


class Miner:
    """Watches each `Decision` of a rollout, then merges what it saw into the table.

    `begin` with the state of the run, `watch` each step, then `end_rollout` gives the new state.
    `embedding_shape` is that of one embedding. Where `why_no_macros` says why, nothing is searched:
    of the trees only the mean entropy is read. Each device of the `mesh` looks through the
    trees and the play of its own lanes; what all found is merged into one table, which every device
    has. `players` are those of the game.
    """

    def __init__(
        self,
        config: Config,
        space: Space,
        embedding_shape: tuple[int, ...],
        mesh: Mesh | None = None,
        players: int = 1,
    ) -> None:
        self._mesh, self._players = mesh, players
        self._settings, self._num_actions = config.macro, space.size
        self._key_actions = min(space.size, MAX_ACTIONS)
        self._is_off = bool(why_no_macros(space))
        self._length, self._lanes = config.rollout.length, config.env.num_envs
        self._embedding_shape = embedding_shape
        self._warmup_steps = self._settings.bucket_warmup_steps // self._lanes
        self._found: list[MinedWindows] = []
        self._waiting: list[tuple[list[Any], list[Array]]] = []
        nodes = 4 * self._lanes * (config.search.num_simulations + 1) * math.prod(embedding_shape)
        most = max(1, min(MOST_STEPS, MOST_BYTES // nodes))
        self._steps_of_pass = max(x for x in range(1, most + 1) if self._length % x == 0)
        self.init = jax.jit(self._init)
        self._post_pass = jax.jit(self._mine)
        self._merge = jax.jit(self._merge_rollout, donate_argnums=0)

    def _init(self, rng_key: Array) -> MacroState:
        """The state of a run that begins; `rng_key` is of the buckets' projection."""
        return MacroState(
            table=init_table(self._settings, self._key_actions),
            buckets=init_buckets(rng_key, self._embedding_shape, self._settings),
            carry=init_carry(self._settings, self._lanes),
        )

    def begin(self, state: MacroState, steps: int) -> None:
        """Begins a rollout after `steps` steps of every lane; `state` is consumed."""
        self.state, self._steps = state, steps

    def watch(self, *decisions: Decision) -> None:
        """Takes one step's trees; the jitted post-pass is over a few steps at once.

        Nothing returns to the host.

        Args:
            decisions: one for each pool of lanes, in their order. They are taken together, so
                that what is found does not depend on how the lanes are split.
        """
        trees = [slim(decision.search.tree) for decision in decisions]
        self._waiting.append((trees, [decision.embedding for decision in decisions]))
        self._steps += 1
        if (count := len(self._waiting)) == self._steps_of_pass:
            frozen = np.arange(self._steps - count, self._steps) >= self._warmup_steps
            buckets, found = self._post_pass(self.state.buckets, self._waiting, frozen)
            self.state, self._waiting = self.state._replace(buckets=buckets), []
            self._found.append(found)

    def end_rollout(
        self, rows: Trajectory, follows: Array | None = None
    ) -> tuple[MacroState, MacroStats, float]:
        """Merges the windows of the rollout that was watched, `rows`, into the table.

        No window has a step that `follows [B, T]` a macro: what is played because it is a macro
        must not count for it. None: no step does.

        Returns:
            The state, what was searched for macros in this rollout (ints), and the mean normalised
            entropy of its trees' transitions.
        """
        assert self._found and not self._waiting, "watch comes first, for each step"
        rows = rows._replace(frame=None, invalid_actions=None, action_weights=None)
        if follows is not None:
            entropy = jnp.where(follows, LEAPT, rows.transition_entropy)
            rows = rows._replace(transition_entropy=entropy)
        frozen = self._steps >= self._warmup_steps
        halves = self._are_halved_by(self._steps) > self._are_halved_by(self._steps - self._length)
        self.state, counts, entropy = self._merge(self.state, self._found, rows, frozen, halves)
        self._found = []
        counts, entropy = jax.device_get((counts, entropy))
        return self.state, MacroStats(*map(int, counts)), float(entropy)

    def _are_halved_by(self, steps: int) -> int:
        """How often counts have been halved after so many steps of every lane."""
        every = self._settings.halve_every
        return steps * self._lanes // every if every else 0

    def _mine(
        self, buckets: BucketState, steps: list[tuple[list[Any], list[Array]]], frozen: Array
    ) -> tuple[BucketState, MinedWindows]:
        """What some steps show; `frozen [S]`. One pass over all: its many small parts cost most."""
        # Joined first, else XLA adds up the mean pool by pool, and its last bits would differ.
        roots = jnp.stack([jnp.concatenate(embeddings) for _, embeddings in steps])
        roots = jax.lax.optimization_barrier(roots)

        def step(state: BucketState, x: tuple[Array, Array]) -> tuple[BucketState, Any]:
            state = update_buckets(state, x[0], frozen=x[1])
            return state, (state.mean, assign_buckets(state, x[0]))

        none = MacroStats(*[jnp.zeros((), jnp.int32)] * len(MacroStats._fields))
        if self._is_off:
            means = jnp.broadcast_to(buckets.mean, (len(steps), *buckets.mean.shape))
            bucket = jnp.zeros(roots.shape[:2], jnp.int32)
        else:
            buckets, (means, bucket) = jax.lax.scan(step, buckets, (roots, frozen))
        if steps[0][0][0] is None:
            return buckets, MinedWindows(None, none, bucket, jnp.zeros(len(steps), jnp.float32))

        def search(trees: list[Any], roots: list[Array], state: BucketState) -> Any:
            # Of each pool, as the trees are: a device has a part of every pool.
            of_roots = jnp.concatenate(roots)
            trees = [jax.tree.map(lambda *x: jnp.concatenate(x), *pools) for pools in trees]
            states = [x.embeddings.state.reshape(x.parents.size, -1) for x in trees]
            small = [x._replace(embeddings=x.embeddings._replace(state=None)) for x in trees]
            tree = jax.tree.map(lambda *x: jnp.concatenate(x), *small)
            is_root = jnp.arange(tree.parents.shape[1]) == 0

            def bucket_of(starts: Array, exists: Array) -> Array:
                # Few nodes below a root start a window: these alone are hashed, which costs most.
                wanted = jnp.zeros((tree.parents.size,), jnp.bool_)
                wanted = wanted.at[jnp.where(exists, starts, wanted.size)].set(True, mode="drop")
                wanted = (wanted.reshape(tree.parents.shape) & ~is_root).reshape(len(trees), -1)
                below = assign_wanted(state, states, wanted).reshape(tree.parents.shape)
                return jnp.where(is_root, of_roots.T.reshape(-1, 1), below).reshape(-1)[starts]

            windows, stats = None, none
            if not self._is_off:
                sizes = self._key_actions, self._players
                windows, stats = tree_windows(tree, bucket_of, self._settings, *sizes)
            # A chance node, or the decision node at the end of a collapsed one: both follow an
            # action. What a jump led to has no entropy.
            named = tree.embeddings.action
            edge = tree.action_from_parent if named is None else named
            followed = (tree.node_visits > 0) & (edge >= 0) & (edge < self._num_actions)
            followed &= tree.embeddings.entropy < LEAPT
            total, count = (
                x.reshape(len(trees), -1).sum(axis=1)
                for x in (jnp.where(followed, tree.embeddings.entropy, 0.0), followed)
            )
            return windows, own_sums((stats, total, count))

        run = over_lanes(search, self._mesh, (LANES, LANES, WHOLE), (LANES, WHOLE))
        ends = np.cumsum([len(embedding) for embedding in steps[0][1]])[:-1]
        of_pools = jnp.split(bucket.T, ends.tolist())
        given = [trees for trees, _ in steps], of_pools, buckets._replace(mean=means)
        windows, (stats, total, count) = run(*given)
        return buckets, MinedWindows(windows, stats, bucket, total / jnp.maximum(count, 1))

    def _merge_rollout(
        self,
        state: MacroState,
        found: list[MinedWindows],
        rows: Trajectory,
        frozen: Array,
        halves: Array,
    ):
        """Merges windows of play and of trees.

        Start states count only once the mean of the buckets is frozen. (The tree of a final
        observation, at most one a game, is mined like any other.)
        """
        entropy = jnp.concatenate([x.entropy for x in found]).mean()
        if self._is_off:
            return state, found[0].stats, entropy
        fields = rows.action, rows.transition_entropy, rows.reward, rows.discount, rows.is_first
        joined = PlayRows(*fields, jnp.concatenate([x.bucket for x in found]).T)

        def search(rows: PlayRows, carry: PlayCarry) -> tuple[PackedWindows, PlayCarry, MacroStats]:
            found = play_windows(rows, carry, self._settings, self._key_actions)
            return found[0], found[2], own_sums(found[1])

        run = over_lanes(search, self._mesh, (LANES, LANES), (LANES, LANES, WHOLE))
        windows, carry, stats = run(joined, state.carry)
        played = jnp.ones(windows.key_high.shape, jnp.bool_)
        if found[0].windows is not None:
            # One merge for both sources: it is the sort that costs, and its compilation.
            every = lay((windows, *(x.windows for x in found)), self._mesh, WHOLE)
            windows = jax.tree.map(lambda *x: jnp.concatenate(x), *every)
            grown = windows.key_high.shape[0] - played.shape[0]
            played = jnp.pad(played, (0, grown), constant_values=False)
        kind = {"config": self._settings, "num_actions": self._key_actions}
        table = state.table
        if self._settings.halve_every:
            table = jax.lax.cond(halves, halve, lambda same: same, table)
        table = merge(table, windows, played=played, **kind)
        table = table._replace(buckets=table.buckets & frozen)
        counts = jax.tree.map(lambda *x: sum(x), stats, *(x.stats for x in found))
        return MacroState(table, state.buckets, carry), counts, entropy


def mining_row(table: MacroTable, totals: MacroStats, settings: MacroConfig) -> dict[str, float]:
    """The macro part of a metrics row: of the table after a rollout, and of the run so far."""
    run = run_stats(totals)
    counts = ("trees", "trajectories", "transitions_tree", "transitions_play")
    rates = (f"{x}_{source}" for source in ("tree", "play") for x in ("certain", "certain_rate"))
    row = {**table_stats(table, settings), **{name: run[name] for name in (*counts, *rates)}}
    return {f"macros/{name}": value for name, value in row.items()}


def slim(tree: Any) -> TreePart | None:
    """Only what the post-pass reads; None of no tree."""
    return tree and TreePart(*(getattr(tree, name) for name in TreePart._fields))
