"""Macros of a run: the post-pass after every search, and the merge after every rollout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax import macros
from smz_jax.config import Config
from smz_jax.macros import BucketState, PackedWindows, PlayCarry, PlayRows
from smz_jax.rollout import Decision
from smz_jax.types import Array, MacroStats, MacroTable, Trajectory


class MacroState(NamedTuple):
    """What the search for macros carries through a run; all on the device, saved with the run."""

    table: MacroTable
    buckets: BucketState
    carry: PlayCarry


class Found(NamedTuple):
    """The post-pass of one step's search trees."""

    windows: PackedWindows | None  # [P]; None in plain-policy mode, which grows no tree
    stats: MacroStats | None
    bucket: Array  # [B] start-state bucket of each root
    tree_entropy: Array  # [] mean normalised entropy of the trees' transitions


class Miner:
    """Watches each `Decision` of a rollout, then merges what it saw into the table.

    Args:
        config: the run's settings.
        num_actions: A.
        rng_key: of the buckets' projection.
        embedding_shape: of one embedding.
    """

    def __init__(
        self, config: Config, num_actions: int, rng_key: Array, embedding_shape: tuple[int, ...]
    ) -> None:
        settings = config.macro
        self.state = MacroState(
            table=macros.init_table(settings, num_actions),
            buckets=macros.init_buckets(rng_key, embedding_shape, settings),
            carry=macros.init_carry(settings, config.env.num_envs),
        )
        self.totals = MacroStats(*(0 for _ in MacroStats._fields))
        self._found: list[Found] = []
        self._settings = settings
        self._warmup_steps = settings.bucket_warmup_steps // config.env.num_envs
        self.steps = 0  # steps of every lane watched so far; a resumed run sets it

        def post_pass(buckets: BucketState, decision: Decision, frozen: Array):
            buckets = macros.update_buckets(buckets, decision.embedding, frozen=frozen)
            root = macros.assign_buckets(buckets, decision.embedding)
            tree = decision.search.tree
            if tree is None:
                return buckets, Found(None, None, root, jnp.float32(0))
            nodes = macros.assign_buckets(buckets, tree.embeddings.state)
            windows, stats = macros.tree_windows(tree, nodes, settings, num_actions)
            chance = tree.embeddings.is_chance & (tree.node_visits > 0)
            total = jnp.sum(jnp.where(chance, tree.embeddings.entropy, 0.0))
            mean = total / jnp.maximum(chance.sum(), 1)
            return buckets, Found(windows, stats, root, mean)

        def merge(state: MacroState, found: list[Found], rows: Trajectory):
            joined = PlayRows(
                action=rows.action,
                entropy=rows.transition_entropy,
                reward=rows.reward,
                discount=rows.discount,
                is_first=rows.is_first,
                bucket=jnp.stack([one.bucket for one in found], axis=1),
            )
            windows, stats, carry = macros.play_windows(joined, state.carry, settings, num_actions)
            table = macros.merge(state.table, windows, played=True, config=settings)
            seen = [stats]
            if found[0].windows is not None:
                grown = jax.tree.map(lambda *x: jnp.stack(x), *[one.windows for one in found])
                table = macros.merge(table, grown, played=False, config=settings)
                seen += [one.stats for one in found]
            counts = jax.tree.map(lambda *x: jnp.sum(jnp.stack(x)), *seen)
            entropy = jnp.mean(jnp.stack([one.tree_entropy for one in found]))
            return MacroState(table, state.buckets, carry), counts, entropy

        self._post_pass = jax.jit(post_pass)
        self._merge = jax.jit(merge)

    def watch(self, decision: Decision) -> None:
        """The jitted post-pass over one step's trees; nothing returns to the host."""
        frozen = jnp.asarray(self.steps >= self._warmup_steps)
        search = decision.search._replace(action=None, action_weights=None)
        buckets, found = self._post_pass(
            self.state.buckets, decision._replace(search=search), frozen
        )
        self.state = self.state._replace(buckets=buckets)
        self._found.append(found)
        self.steps += 1

    def end_rollout(self, rows: Trajectory) -> dict[str, float]:
        """Merges the rollout's windows into the table.

        Args:
            rows: the rollout that was watched.

        Returns:
            The macro part of a metrics row.
        """
        rows = rows._replace(frame=None, invalid_actions=None, action_weights=None)
        self.state, counts, entropy = self._merge(self.state, self._found, rows)
        self._found = []
        counts = jax.device_get(counts)
        self.totals = MacroStats(*(a + int(b) for a, b in zip(self.totals, counts, strict=True)))
        document = macros.table_stats(jax.device_get(self.state.table), self._settings)
        totals = self.totals
        row = {f"macros/{name}": value for name, value in document.items()}
        for name in ("trees", "trajectories", "transitions_tree", "transitions_play"):
            row[f"macros/{name}"] = getattr(totals, name)
        for source in ("tree", "play"):
            certain = getattr(totals, f"certain_{source}")
            row[f"macros/certain_{source}"] = certain
            seen = getattr(totals, f"transitions_{source}")
            row[f"macros/certain_rate_{source}"] = certain / seen if seen else 0.0
        return row | {"search/tree_entropy": float(entropy)}
