"""Macros of a run: the post-pass after every search, and the merge after every rollout."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.summary import run_stats, table_stats
from smz_jax.macros.mine.buckets import BucketState, assign_buckets, init_buckets, update_buckets
from smz_jax.macros.mine.keys import MAX_ACTIONS, PackedWindows
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
    stats: MacroStats  # [T] each
    bucket: Array  # [T, B] start-state bucket of each root
    entropy: Array  # [T] mean normalised entropy of the trees' transitions


class Miner:
    """Watches each `Decision` of a rollout, then merges what it saw into the table.

    `begin` with the state of the run, `watch` each step, then `end_rollout` gives the new state.
    `embedding_shape` is that of one embedding. Of more actions than a key can hold, nothing is
    certain: the search for macros is off.
    """

    def __init__(self, config: Config, num_actions: int, embedding_shape: tuple[int, ...]) -> None:
        self._settings, self._num_actions = config.macro, num_actions
        self._key_actions, self.is_off = min(num_actions, MAX_ACTIONS), num_actions > MAX_ACTIONS
        if self.is_off:
            self._settings = replace(config.macro, tree_threshold=0.0, play_threshold=0.0)
        self._length, self._lanes = config.rollout.length, config.env.num_envs
        self._embedding_shape = embedding_shape
        self._warmup_steps = self._settings.bucket_warmup_steps // self._lanes
        self._found: MinedWindows | None = None
        self._step_in_rollout = 0
        self.init = jax.jit(self._init)
        self._post_pass = jax.jit(self._watch_step, donate_argnums=(0, 1))
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
        """The jitted post-pass over one step's trees; nothing returns to the host.

        Args:
            decisions: one for each pool of lanes, in their order. They are taken together, so
                that what is found does not depend on how the lanes are split.
        """
        trees = [slim(decision.search.tree) for decision in decisions]
        embeddings = [decision.embedding for decision in decisions]
        seen = trees, embeddings, self._steps >= self._warmup_steps
        if self._found is None:
            _, one = jax.eval_shape(self._mine, self.state.buckets, *seen)
            shape = (self._length,)
            self._found = jax.tree.map(lambda x: jnp.zeros(shape + x.shape, x.dtype), one)
        step = self._step_in_rollout
        buckets, self._found = self._post_pass(self.state.buckets, self._found, step, *seen)
        self.state = self.state._replace(buckets=buckets)
        self._step_in_rollout += 1
        self._steps += 1

    def end_rollout(self, rows: Trajectory) -> tuple[MacroState, MacroStats, float]:
        """Merges the windows of the rollout that was watched, `rows`, into the table.

        Returns:
            The state, what was searched for macros in this rollout (ints), and the mean normalised
            entropy of its trees' transitions.
        """
        assert self._found is not None, "watch comes first"
        rows = rows._replace(frame=None, invalid_actions=None, action_weights=None)
        frozen = self._steps >= self._warmup_steps
        self.state, counts, entropy = self._merge(self.state, self._found, rows, frozen)
        self._step_in_rollout = 0
        counts, entropy = jax.device_get((counts, entropy))
        return self.state, MacroStats(*map(int, counts)), float(entropy)

    def _mine(
        self, buckets: BucketState, trees: list[Any], embeddings: list[Array], frozen: Array
    ) -> tuple[BucketState, MinedWindows]:
        """What one step shows, without the axis of steps."""
        # Joined first, else XLA adds up the mean pool by pool, and its last bits would differ.
        tree, embedding = _join(trees), jax.lax.optimization_barrier(_join(embeddings))
        buckets = update_buckets(buckets, embedding, frozen=frozen)
        bucket = assign_buckets(buckets, embedding)
        if tree is None:
            none = MacroStats(*[jnp.zeros((), jnp.int32)] * len(MacroStats._fields))
            return buckets, MinedWindows(None, none, bucket, jnp.zeros((), jnp.float32))
        nodes = assign_buckets(buckets, tree.embeddings.state)
        windows, stats = tree_windows(tree, nodes, self._settings, self._key_actions)
        # A chance node, or the decision node at the end of a collapsed one: both follow an action.
        edge = tree.action_from_parent
        followed = (tree.node_visits > 0) & (edge >= 0) & (edge < self._num_actions)
        total = jnp.sum(jnp.where(followed, tree.embeddings.entropy, 0.0))
        entropy = total / jnp.maximum(followed.sum(), 1)
        return buckets, MinedWindows(windows, stats, bucket, entropy)

    def _watch_step(
        self, buckets: BucketState, found: MinedWindows, step: Array, *seen: Any
    ) -> tuple[BucketState, MinedWindows]:
        """Writes what one step shows into `found`."""
        buckets, new = self._mine(buckets, *seen)
        return buckets, jax.tree.map(lambda all_, one: all_.at[step].set(one), found, new)

    def _merge_rollout(
        self, state: MacroState, found: MinedWindows, rows: Trajectory, frozen: Array
    ):
        """Merges windows of play and of trees.

        Start states count only once the mean of the buckets is frozen. (The tree of a final
        observation, at most one a game, is mined like any other.)
        """
        fields = rows.action, rows.transition_entropy, rows.reward, rows.discount, rows.is_first
        joined = PlayRows(*fields, found.bucket.T)
        windows, stats, carry = play_windows(joined, state.carry, self._settings, self._key_actions)
        played = jnp.ones(windows.key_high.shape, jnp.bool_)
        if found.windows is not None:
            # One merge for both sources: it is the sort that costs, and its compilation.
            grown = jax.tree.map(jnp.ravel, found.windows)
            windows = jax.tree.map(lambda *x: jnp.concatenate(x), windows, grown)
            played = jnp.pad(played, (0, grown.key_high.shape[0]), constant_values=False)
        kind = {"config": self._settings, "num_actions": self._key_actions}
        table = merge(state.table, windows, played=played, **kind)
        table = table._replace(buckets=table.buckets & frozen)
        counts = jax.tree.map(lambda trees, play: trees.sum() + play, found.stats, stats)
        return MacroState(table, state.buckets, carry), counts, found.entropy.mean()


def mining_row(table: MacroTable, totals: MacroStats, settings: MacroConfig) -> dict[str, float]:
    """The macro part of a metrics row: of the table after a rollout, and of the run so far."""
    run = run_stats(totals)
    counts = ("trees", "trajectories", "transitions_tree", "transitions_play")
    rates = (f"{x}_{source}" for source in ("tree", "play") for x in ("certain", "certain_rate"))
    row = {**table_stats(table, settings), **{name: run[name] for name in (*counts, *rates)}}
    return {f"macros/{name}": value for name, value in row.items()}


def _join(pools: list[Any]) -> Any:
    """The pools' arrays as those of all lanes; None, the tree of the plain policy, stays None."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *pools)


def slim(tree: Any) -> Any:
    """Only what the post-pass reads: fewer arrays to hand over."""
    if tree is None:
        return None
    unread = (
        *("raw_values", "node_values", "root_invalid_actions", "extra_data"),
        *(f"children_{x}" for x in ("index", "prior_logits", "visits", "discounts", "values")),
    )
    return tree.replace(**dict.fromkeys(unread))
