"""Checkpoints: exact round trips, a kill at any moment, one-line refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import smz_jax.checkpoint as checkpoint
from smz_jax.checkpoint import CheckpointStore
from smz_jax.config import ConfigError

ROOT = Path(__file__).resolve().parent.parent


class Counters(NamedTuple):
    env_steps: jax.Array
    buckets: jax.Array


def example_state(seed: int = 0):
    """A state as a run has it: parameters, optimiser, frames, keys old and new, numbers."""
    rng = np.random.default_rng(seed)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)}}
    return {
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),
        "frames": jnp.asarray(rng.integers(0, 256, (4, 7, 8, 8)), jnp.uint8),
        "half": jnp.asarray([1.5, -2.25], jnp.bfloat16),
        "old_key": jax.random.PRNGKey(seed),
        "new_key": jax.random.key(seed + 1),
        "counters": Counters(jnp.int32(17 + seed), jnp.asarray([True, False])),
        "empty": jnp.zeros((0, 3), jnp.float32),
        "wide": np.asarray([2**40 + seed], np.int64),
        "number": 41 + seed,
        "nothing": None,
    }


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(got) is type(want)
        if isinstance(want, jax.Array) and jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            got, want = jax.random.key_data(got), jax.random.key_data(want)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want), strict=True)


def test_round_trip_is_exact(tmp_path):
    store = CheckpointStore(tmp_path)
    state = example_state()
    store.save("last", state, {"best_score": 1.5, "iteration": 4})
    restored, extra = CheckpointStore(tmp_path).restore("last", example_state(seed=9))
    assert_same(restored, state)
    assert extra == {"best_score": 1.5, "iteration": 4}
    assert store.read_manifest("last")["extra"]["iteration"] == 4


def test_known_numbers_come_back(tmp_path):
    """Against numbers written out here, not against what was saved."""
    store = CheckpointStore(tmp_path)
    store.save("best", {"a": jnp.asarray([1, 2, 300], jnp.int32), "b": jnp.bfloat16(0.5)})
    template = {
        "a": jax.ShapeDtypeStruct((3,), jnp.int32),
        "b": jax.ShapeDtypeStruct((), jnp.bfloat16),
    }
    restored, _ = store.restore("best", template)
    np.testing.assert_array_equal(restored["a"], np.array([1, 2, 300], np.int32))
    assert np.asarray(restored["b"]) == ml_dtypes.bfloat16(0.5)
    assert isinstance(restored["a"], jax.Array)


def test_restored_key_draws_the_same_numbers(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save("last", {"key": jax.random.key(3)})
    restored, _ = store.restore("last", jax.eval_shape(lambda: {"key": jax.random.key(0)}))
    np.testing.assert_array_equal(
        jax.random.uniform(restored["key"], (4,)), jax.random.uniform(jax.random.key(3), (4,))
    )


def test_chunked_array_is_whole(tmp_path, monkeypatch):
    """Many chunks, with a remainder at the edge."""
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 10_000)
    frames = np.arange(5 * 101 * 84, dtype=np.uint32).astype(np.uint8).reshape(5, 101, 84)
    store = CheckpointStore(tmp_path)
    store.save("last", {"frames": jnp.asarray(frames)})
    restored, _ = store.restore("last", {"frames": jax.ShapeDtypeStruct(frames.shape, jnp.uint8)})
    np.testing.assert_array_equal(restored["frames"], frames)


def test_restored_state_can_be_donated(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save("last", {"x": jnp.arange(1000)})
    restored, _ = store.restore("last", {"x": jax.ShapeDtypeStruct((1000,), jnp.int32)})
    total = jax.jit(lambda tree: tree["x"].at[0].set(5), donate_argnums=0)(restored)
    assert int(total.sum()) == 999 * 1000 // 2 + 5


def test_newest_wins_and_older_goes(tmp_path):
    """Newest by order of saving; kinds are apart."""
    store = CheckpointStore(tmp_path)
    assert not store.exists("last")
    store.save("best", {"x": jnp.int32(7)})
    for step in (64, 128, 96):
        store.save("last", {"x": jnp.int32(step)})
    assert [p.name for p in (tmp_path / "checkpoints/last").iterdir()] == ["000003"]
    template = {"x": jnp.int32(0)}
    assert int(store.restore("last", template)[0]["x"]) == 96
    assert int(store.restore("best", template)[0]["x"]) == 7


@pytest.mark.parametrize("moment", ["_write_arrays", "rename", "switched", "prune"])
def test_interrupted_save_leaves_the_former_whole(tmp_path, monkeypatch, moment):
    """The save dies while writing, before and after the switch, and while deleting the older."""
    store = CheckpointStore(tmp_path)
    store.save("last", {"x": jnp.int32(1)})

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "_write_arrays":
            patch.setattr(CheckpointStore, "_write_arrays", die)
        elif moment == "rename":
            patch.setattr(checkpoint.os, "replace", die)
        elif moment == "switched":  # two complete ones are there: the newer counts
            replace = checkpoint.os.replace
            patch.setattr(
                checkpoint.os,
                "replace",
                lambda a, b: replace(a, b) if str(a).endswith(".partial") else die(),
            )
        else:
            patch.setattr(checkpoint.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            store.save("last", {"x": jnp.int32(2)})
    expected = 2 if moment in ("switched", "prune") else 1
    template = {"x": jnp.int32(0)}
    assert int(CheckpointStore(tmp_path).restore("last", template)[0]["x"]) == expected
    store.save("last", {"x": jnp.int32(3)})
    assert int(store.restore("last", template)[0]["x"]) == 3
    assert len(list((tmp_path / "checkpoints/last").iterdir())) == 1


KILLED = """
import sys, jax.numpy as jnp
from smz_jax.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1])
step = 0
while True:
    step += 1
    store.save("last", {"x": jnp.full((500, 500), step), "y": jnp.int32(step)})
    if step == 1:
        print("saving", flush=True)
"""


@pytest.mark.parametrize("wait", [0.013, 0.05, 0.11])
def test_killed_process_leaves_a_whole_checkpoint(tmp_path, wait):
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, env=env
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"saving\n"
    time.sleep(wait)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    template = {"x": jax.ShapeDtypeStruct((500, 500), jnp.int32), "y": jnp.int32(0)}
    restored, _ = CheckpointStore(tmp_path).restore("last", template)
    assert int(restored["y"]) >= 1
    assert bool((restored["x"] == restored["y"]).all())


def one_line(excinfo) -> str:
    message = str(excinfo.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"w": jnp.zeros((3, 5), jnp.float32)}, "['w'] is ['float32', [3, 4]] in it"),
        ({"w": jnp.zeros((3, 4), jnp.bfloat16)}, "must be ['bfloat16', [3, 4]]"),
        ({"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}, "['b'] is absent in it"),
        ({}, "must be absent"),
        ([jnp.zeros((3, 4))], "[0] is absent in it"),
    ],
)
def test_other_shapes_and_structures_are_refused(tmp_path, template, expected):
    store = CheckpointStore(tmp_path)
    store.save("last", {"w": jnp.ones((3, 4), jnp.float32)})
    with pytest.raises(ConfigError) as excinfo:
        store.restore("last", template)
    assert expected in one_line(excinfo)


def test_missing_and_damaged_are_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    with pytest.raises(ConfigError) as excinfo:
        store.restore("last", {})
    assert "no checkpoint" in one_line(excinfo)
    state = {"x": jnp.arange(10_000)}
    folder = store.save("last", state)
    for file in (folder / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ConfigError) as excinfo:
        store.restore("last", state)
    assert "damaged" in one_line(excinfo) and str(folder) in str(excinfo.value)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        store.restore("last", state)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ConfigError) as excinfo:
        store.restore("last", state)
    assert "damaged" in one_line(excinfo)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_missing_or_cut_array_file_is_named_before_orbax_reads(tmp_path, monkeypatch, damage):
    store = CheckpointStore(tmp_path)
    state = {"x": jnp.arange(10_000)}
    folder = store.save("last", state)
    chunk = next(path for path in sorted((folder / "state").rglob("d/*")) if path.is_file())
    size = chunk.stat().st_size
    if damage == "gone":
        shutil.rmtree(chunk.parent)
    else:
        chunk.write_bytes(chunk.read_bytes()[:-1])
    monkeypatch.setattr(checkpoint, "_make_checkpointer", lambda: pytest.fail("Orbax was called"))
    with pytest.raises(ConfigError) as excinfo:
        store.restore("last", state)
    words = "is missing" if damage == "gone" else f"has {size - 1} of {size} bytes"
    assert f"state/{chunk.relative_to(folder / 'state')} {words}" in one_line(excinfo)
