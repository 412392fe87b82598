"""A run on one and on several devices of the host, compared; for a process of its own."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.settings import Config
from smz_jax.run.devices import make_mesh, prepare_jax
from smz_jax.run.loop import iterate
from smz_jax.run.parts import Parts, make_parts
from smz_jax.run.state import RunState, fresh_state, make_store, placed, restore, save
from smz_jax.storage.metrics import PhaseTimers

MOST, ITERATIONS, LANES = 8, 3, 16
# At this rate Adam does not lead apart what differs by rounding, and the run plays the same games.
FLAGS = (
    *("--preset", "tiny", "--network.family", "mlp", "--learner.learning_rate", "1e-6"),
    *("--learner.learning_rate_end", "0", "--learner.batch_size", "8", "--env.num_envs", "8"),
    *("--rollout.pools", "2", "--replay.capacity", "512", "--reanalyse.ratio", "0.25"),
    *("--macro.head_learning_rate", "0.002", "--macro.head_every", "2", "--macro.min_length", "1"),
    *("--macro.bucket_warmup_steps", "32", "--macro.tree_threshold", "1"),
    *("--macro.play_threshold", "1"),
)


def make_config(devices: int) -> Config:
    world = {"env.suite": "grid", "env.id": "GridWorld"}
    argv = (*FLAGS, "--env.num_envs", str(LANES), "--replay.min_size", "128")
    return replace(parse(argv, Experiment("gridworld", "grid", world)).config, devices=devices)


def difference(one: Any, other: Any) -> float:
    """Of all numbers of two trees, as a share of their norm."""
    one, other = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(y)]) for y in (one, other))
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def play(devices: int) -> tuple[Parts, RunState]:
    """A short run."""
    parts = make_parts(make_config(devices), PhaseTimers())
    state, traces = fresh_state(parts), set()
    for _ in range(ITERATIONS):
        state, row = iterate(parts, state)
        program: Any = parts.train_step.program
        traces.add(program._cache_size())
    assert state.counters.skipped == 0 and row["learner_steps"] > 0
    assert len(traces) == 1, "what comes out lies as what goes in"
    rings = state.replay.experience.frame.addressable_shards
    assert [x.data.shape[0] for x in rings] == [LANES // devices] * devices
    assert all(x.is_fully_replicated for x in jax.tree.leaves(state.train.params))
    return parts, state


def check_equal(one: RunState, other: RunState) -> None:
    """Play, priorities and macros are the same; what is learned differs by rounding."""
    assert one.counters == other.counters  # games, and what was searched for macros
    for name in ("frame", "action", "reward", "discount", "is_first", "target_step"):
        rows = (getattr(x.replay.experience, name) for x in (one, other))
        np.testing.assert_array_equal(*rows, err_msg=name)
    trees = (x.replay.sum_tree_state.nodes for x in (one, other))
    # What is left of a priority that was taken back is rounding.
    np.testing.assert_allclose(*trees, rtol=1e-3, atol=1e-6)
    for name in ("actions", "count", "play_count", "dropped", "buckets"):
        tables = (getattr(x.macros.table, name) for x in (one, other))
        np.testing.assert_array_equal(*tables, err_msg=name)
    assert 0 < one.macros.table.play_count.sum() < one.macros.table.count.sum()
    np.testing.assert_allclose(one.macros.table.trials, other.macros.table.trials, rtol=1e-3)
    assert difference(one.train.params, other.train.params) < 1e-5
    gradients = (x.train.opt_state[1][0].mu for x in (one, other))
    found = difference(*gradients)
    print(f"mean gradients differ by {found:.1e}")
    assert found < 1e-4


def main(devices: int, folder: Path) -> None:
    alone, one = play(1)
    one = jax.device_get(one)
    parts, several = play(devices)
    check_equal(one, jax.device_get(several))
    save(parts, several, make_store(parts.config, folder), folder)
    state, _ = restore(alone, make_store(alone.config, folder))
    state = placed(alone, state)
    for x, y in zip(*map(jax.tree.leaves, (several[:3], state[:3])), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(x, y)
    iterate(alone, state)
    try:
        make_mesh(MOST + 1)
    except ConfigError as error:
        wanted = f"devices = {MOST + 1} is not allowed: it must be at most {MOST}:"
        assert str(error).startswith(wanted), error
    else:
        raise AssertionError
    print("the same")


if __name__ == "__main__":
    prepare_jax(fast=True)
    main(int(sys.argv[1]), Path(sys.argv[2]))
