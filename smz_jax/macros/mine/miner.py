"""Macros of a run: the post-pass after every search, and the merge after every rollout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.summary import table_stats
from smz_jax.macros.mine.buckets import BucketState, assign_buckets, init_buckets, update_buckets
from smz_jax.macros.mine.keys import PackedWindows
from smz_jax.macros.mine.table import init_table, merge
from smz_jax.macros.mine.windows import PlayCarry, PlayRows, init_carry, play_windows, tree_windows
from smz_jax.types import Array, Decision, MacroStats, MacroTable, Trajectory


class MacroState(NamedTuple):
    """What the search for macros carries through a run; all on the device, saved with the run."""

    table: MacroTable
    buckets: BucketState
    carry: PlayCarry


class MinedWindows(NamedTuple):
    """What the post-pass found since the rollout began; T steps of P windows each."""

    windows: PackedWindows | None  # [T, P]; None in plain-policy mode, which grows no tree
    stats: MacroStats  # summed over the steps
    bucket: Array  # [T, B] start-state bucket of each root
    entropy: Array  # [T] mean normalised entropy of the trees' transitions


class Miner:
    """Watches each `Decision` of a rollout, then merges what it saw into the table.

    `begin` with the state of the run, `watch` each step, then `end_rollout` gives the new state.

    Args:
        config: the run's settings.
        num_actions: A.
        embedding_shape: of one embedding.
    """

    def __init__(self, config: Config, num_actions: int, embedding_shape: tuple[int, ...]) -> None:
        self._settings, self._num_actions = config.macro, num_actions
        self._length, self._lanes = config.rollout.length, config.env.num_envs
        self._embedding_shape = embedding_shape
        self._warmup_steps = self._settings.bucket_warmup_steps // self._lanes
        self._found: MinedWindows | None = None
        self._step_in_rollout = 0
        self.init = jax.jit(self._init)
        self._post_pass = jax.jit(self._watch_step, donate_argnums=(0, 1))
        self._merge = jax.jit(self._merge_rollout, donate_argnums=(0, 1))

    def _init(self, rng_key: Array) -> MacroState:
        """The state of a run that begins; `rng_key` is of the buckets' projection."""
        return MacroState(
            table=init_table(self._settings, self._num_actions),
            buckets=init_buckets(rng_key, self._embedding_shape, self._settings),
            carry=init_carry(self._settings, self._lanes),
        )

    def begin(self, state: MacroState, steps: int) -> None:
        """Begins a rollout.

        Args:
            state: of the macros, consumed.
            steps: of every lane, watched before.
        """
        self.state, self._steps = state, steps

    def watch(self, *decisions: Decision) -> None:
        """The jitted post-pass over one step's trees; nothing returns to the host.

        Args:
            decisions: one for each pool of lanes, in their order. They are taken together, so
                that what is found does not depend on how the lanes are split.
        """
        trees = [slim(decision.search.tree) for decision in decisions]
        if self._found is None:
            self._found = self._empty(trees)
        buckets, self._found = self._post_pass(
            self.state.buckets,
            self._found,
            trees,
            [decision.embedding for decision in decisions],
            self._step_in_rollout,
            self._steps >= self._warmup_steps,
        )
        self.state = self.state._replace(buckets=buckets)
        self._step_in_rollout += 1
        self._steps += 1

    def end_rollout(self, rows: Trajectory) -> tuple[MacroState, MacroStats, float]:
        """Merges the rollout's windows into the table.

        Args:
            rows: the rollout that was watched.

        Returns:
            The state, what was searched for macros in this rollout (ints), and the mean normalised
            entropy of its trees' transitions.
        """
        assert self._found is not None, "watch comes first"
        rows = rows._replace(frame=None, invalid_actions=None, action_weights=None)
        frozen = self._steps >= self._warmup_steps
        merged = self._merge(self.state, self._found, rows, frozen)
        self.state, self._found, counts, entropy = merged
        self._step_in_rollout = 0
        counts, entropy = jax.device_get((counts, entropy))
        return self.state, MacroStats(*map(int, counts)), float(entropy)

    def _windows(self, buckets: BucketState, tree: Any):
        nodes = assign_buckets(buckets, tree.embeddings.state)
        return tree_windows(tree, nodes, self._settings, self._num_actions)

    def _empty(self, trees: list[Any]) -> MinedWindows:
        """Zeros in the shape of a rollout's findings."""
        steps, lanes = self._length, self._lanes
        windows = None
        if trees[0] is not None:
            tree = jax.eval_shape(_join, trees)
            shapes, _ = jax.eval_shape(self._windows, self.state.buckets, tree)
            windows = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)
        return MinedWindows(
            windows=windows,
            # One array each: the buffers are donated.
            stats=MacroStats(*(jnp.zeros((), jnp.int32) for _ in MacroStats._fields)),
            bucket=jnp.zeros((steps, lanes), jnp.int32),
            entropy=jnp.zeros((steps,), jnp.float32),
        )

    def _watch_step(
        self,
        buckets: BucketState,
        found: MinedWindows,
        trees: list[Any],
        embeddings: list[Array],
        step: Array,
        frozen: Array,
    ) -> tuple[BucketState, MinedWindows]:
        """Writes one step's windows, buckets and entropy into `found`."""
        # Joined first, else XLA adds up the mean pool by pool, and its last bits would differ.
        tree, embedding = _join(trees), jax.lax.optimization_barrier(_join(embeddings))
        buckets = update_buckets(buckets, embedding, frozen=frozen)
        bucket = found.bucket.at[step].set(assign_buckets(buckets, embedding))
        if tree is None:
            return buckets, found._replace(bucket=bucket)
        windows, stats = self._windows(buckets, tree)
        # A chance node, or the decision node at the end of a collapsed one: both follow an action.
        edge = tree.action_from_parent
        followed = (tree.node_visits > 0) & (edge >= 0) & (edge < self._num_actions)
        total = jnp.sum(jnp.where(followed, tree.embeddings.entropy, 0.0))
        return buckets, MinedWindows(
            windows=jax.tree.map(lambda all_, new: all_.at[step].set(new), found.windows, windows),
            stats=jax.tree.map(jnp.add, found.stats, stats),
            bucket=bucket,
            entropy=found.entropy.at[step].set(total / jnp.maximum(followed.sum(), 1)),
        )

    def _merge_rollout(
        self, state: MacroState, found: MinedWindows, rows: Trajectory, frozen: Array
    ):
        """Merges windows of play and of trees; also gives `found` emptied for the next rollout.

        Start states count only once the mean of the buckets is frozen. (The tree of a final
        observation, at most one a game, is mined like any other.)
        """
        joined = PlayRows(
            action=rows.action,
            entropy=rows.transition_entropy,
            reward=rows.reward,
            discount=rows.discount,
            is_first=rows.is_first,
            bucket=found.bucket.T,
        )
        windows, stats, carry = play_windows(joined, state.carry, self._settings, self._num_actions)
        played = jnp.ones(windows.key_high.shape, jnp.bool_)
        if found.windows is not None:
            # One merge for both sources: it is the sort that costs, and its compilation.
            grown = jax.tree.map(jnp.ravel, found.windows)
            windows = jax.tree.map(lambda *x: jnp.concatenate(x), windows, grown)
            played = jnp.pad(played, (0, grown.key_high.shape[0]), constant_values=False)
        table = merge(
            state.table,
            windows,
            played=played,
            config=self._settings,
            num_actions=self._num_actions,
        )
        table = table._replace(buckets=table.buckets & frozen)
        counts = jax.tree.map(jnp.add, found.stats, stats)
        emptied = found._replace(stats=jax.tree.map(jnp.zeros_like, found.stats))
        return MacroState(table, state.buckets, carry), emptied, counts, found.entropy.mean()


def mining_row(table: MacroTable, totals: MacroStats, settings: MacroConfig) -> dict[str, float]:
    """The macro part of a metrics row.

    Args:
        table: after a rollout.
        totals: of the run so far.
        settings: of macros.
    """
    row = {f"macros/{name}": value for name, value in table_stats(table, settings).items()}
    for name in ("trees", "trajectories", "transitions_tree", "transitions_play"):
        row[f"macros/{name}"] = getattr(totals, name)
    for source in ("tree", "play"):
        certain = getattr(totals, f"certain_{source}")
        row[f"macros/certain_{source}"] = certain
        seen = getattr(totals, f"transitions_{source}")
        row[f"macros/certain_rate_{source}"] = certain / seen if seen else 0.0
    return row


def _join(pools: list[Any]) -> Any:
    """The pools' arrays as those of all lanes; None, the tree of the plain policy, stays None."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *pools)


def slim(tree: Any) -> Any:
    """Only what the post-pass reads: fewer arrays to hand over."""
    if tree is None:
        return None
    return tree.replace(
        raw_values=None,
        node_values=None,
        children_index=None,
        children_prior_logits=None,
        children_visits=None,
        children_discounts=None,
        children_values=None,
        root_invalid_actions=None,
        extra_data=None,
    )
