"""Checkpoints of a state without rows: round trips, a kill at any moment, one-line refusals."""

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

from smz_jax.config.check import ConfigError
from smz_jax.storage.checkpoint import CheckpointStore, Damage, arrays, sums

ROOT = Path(__file__).resolve().parents[2]


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
    checkpoints = CheckpointStore(tmp_path, about={"versions": {"jax": "1"}})
    state = example_state()
    checkpoints.save("last", 64, state, {"best_score": 1.5, "iteration": 4})
    found = CheckpointStore(tmp_path).restore("last", example_state(seed=9))
    assert_same(found.state, state)
    assert found.extra == {"best_score": 1.5, "iteration": 4}
    assert (found.step, found.rows, found.damaged) == (64, None, [])
    manifest = checkpoints.newest_good("last")[1]
    assert manifest["versions"] == {"jax": "1"} and manifest["extra"]["iteration"] == 4


def test_known_numbers_come_back(tmp_path):
    """Against numbers written out here, not against what was saved."""
    checkpoints = CheckpointStore(tmp_path)
    state = {"a": jnp.asarray([1, 2, 300], jnp.int32), "b": jnp.bfloat16(0.5)}
    checkpoints.save("best", 1, state)
    template = {
        "a": jax.ShapeDtypeStruct((3,), jnp.int32),
        "b": jax.ShapeDtypeStruct((), jnp.bfloat16),
    }
    restored = checkpoints.restore("best", template).state
    np.testing.assert_array_equal(restored["a"], np.array([1, 2, 300], np.int32))
    assert np.asarray(restored["b"]) == ml_dtypes.bfloat16(0.5)


def test_restored_key_draws_the_same_numbers(tmp_path):
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 1, {"key": jax.random.key(3)})
    template = jax.eval_shape(lambda: {"key": jax.random.key(0)})
    restored = checkpoints.restore("last", template).state
    np.testing.assert_array_equal(
        jax.random.uniform(restored["key"], (4,)), jax.random.uniform(jax.random.key(3), (4,))
    )


def test_chunked_array_is_whole(tmp_path, monkeypatch):
    """Many chunks, with a remainder at the edge."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 10_000)
    frames = np.arange(5 * 101 * 84, dtype=np.uint32).astype(np.uint8).reshape(5, 101, 84)
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 1, {"frames": jnp.asarray(frames)})
    template = {"frames": jax.ShapeDtypeStruct(frames.shape, jnp.uint8)}
    np.testing.assert_array_equal(checkpoints.restore("last", template).state["frames"], frames)


def test_restored_state_can_be_donated_to_the_program_of_a_fresh_one(tmp_path):
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 1, {"x": jnp.arange(1000)})
    template = {"x": jax.ShapeDtypeStruct((1000,), jnp.int32)}
    restored = checkpoints.restore("last", template).state
    program = jax.jit(lambda tree: tree["x"].at[0].set(5), donate_argnums=0)
    program({"x": jnp.arange(1000)})
    assert int(program(restored).sum()) == 999 * 1000 // 2 + 5
    assert program._cache_size() == 1  # a resumed run compiles nothing that was


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path):
    """The run goes on while the save is written, and its next step reuses the memory."""
    checkpoints = CheckpointStore(tmp_path)
    state = {"x": jnp.zeros(100_000), "host": np.zeros(3)}
    checkpoints.save("last", 1, state, block=False)
    state["host"][:] = 5
    for _ in range(3):
        state["x"] = jax.jit(lambda x: x + 1, donate_argnums=0)(state["x"])
    checkpoints.wait()
    restored = checkpoints.restore("last", {"x": jnp.ones(100_000), "host": np.ones(3)}).state
    assert not restored["x"].any() and not restored["host"].any()


def test_the_newest_two_are_kept_those_asked_for_and_one_best(tmp_path):
    checkpoints = CheckpointStore(tmp_path, keep_every=100)
    assert not checkpoints.steps("last")
    for step in (60, 100, 130, 160, 190):
        checkpoints.save("last", step, {"x": jnp.int32(step)})
        checkpoints.save("best", step, {"x": jnp.int32(-step)})
    assert checkpoints.steps("last") == [100, 160, 190] and checkpoints.steps("best") == [190]
    template = {"x": jnp.int32(0)}
    assert int(checkpoints.restore("last", template).state["x"]) == 190
    assert int(checkpoints.restore("last", template, step=100).state["x"]) == 100
    assert int(checkpoints.restore("best", template).state["x"]) == -190
    with pytest.raises(ConfigError, match=r"no checkpoint 130 in .*: 100, 160, 190"):
        checkpoints.restore("last", template, step=130)


def test_a_kill_between_the_two_renames_of_a_step_saved_again_loses_nothing(tmp_path):
    CheckpointStore(tmp_path).save("best", 60, {"x": jnp.int32(7)})
    final = CheckpointStore(tmp_path).path("best", 60)
    final.rename(final.with_name(final.name + ".former"))
    assert CheckpointStore(tmp_path).steps("best")
    assert int(CheckpointStore(tmp_path).restore("best", {"x": jnp.int32(0)}).state["x"]) == 7
    assert [x.name for x in final.parent.iterdir()] == [f"{final.name}.former"]  # a reader only
    CheckpointStore(tmp_path).save("best", 60, {"x": jnp.int32(8)})
    assert int(CheckpointStore(tmp_path).restore("best", {"x": jnp.int32(0)}).state["x"]) == 8
    assert [x.name for x in final.parent.iterdir()] == [final.name]


@pytest.mark.parametrize(("kind", "step"), [("best", 60), ("last", 60), ("last", 70)])
def test_a_step_that_is_spoiled_on_its_way_to_the_disk_replaces_nothing(
    tmp_path, monkeypatch, kind, step
):
    """60 is the same step again."""
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 50, {"x": jnp.int32(6)})
    checkpoints.save(kind, 60, {"x": jnp.int32(7)})
    sync = sums.sync_below

    def spoil(folder):
        sync(folder)
        path = max((x for x in (folder / "state").rglob("*") if x.is_file()), key=str)
        path.write_bytes(path.read_bytes() + b"\0")

    with monkeypatch.context() as patch:
        patch.setattr(sums, "sync_below", spoil)
        with pytest.raises(Damage):
            checkpoints.save(kind, step, {"x": jnp.int32(8)})
    found = CheckpointStore(tmp_path).restore(kind, {"x": jnp.int32(0)})
    assert (found.step, int(found.state["x"]), found.damaged) == (60, 7, [])
    checkpoints.save(kind, 80, {"x": jnp.int32(9)})
    found = CheckpointStore(tmp_path).restore(kind, {"x": jnp.int32(0)})
    assert (found.step, int(found.state["x"])) == (80, 9)
    kept = ["000000000060", "000000000080"] if kind == "last" else ["000000000080"]
    below = tmp_path / "checkpoints" / kind
    assert sorted(x.name.removesuffix(".former") for x in below.iterdir()) == kept


def test_what_a_failed_save_wrote_is_dropped(tmp_path, monkeypatch):
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 60, {"x": jnp.int32(7)})

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(arrays, "write_arrays", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save("last", 70, {"x": jnp.int32(8)})
    assert [x.name for x in (tmp_path / "checkpoints" / "last").iterdir()] == ["000000000060"]


def test_steps_that_never_meet_a_multiple_are_kept_past_it(tmp_path):
    """With 48 steps an iteration the first ones at or past 200, 400, 600 and 800 stay."""
    checkpoints = CheckpointStore(tmp_path, keep_every=200, stride=48)
    for step in range(96, 1000, 48):
        checkpoints.save("last", step, {"x": jnp.int32(step)})
    assert checkpoints.steps("last") == [240, 432, 624, 816, 912, 960]


def test_a_step_may_be_saved_again(tmp_path):
    checkpoints = CheckpointStore(tmp_path)
    for value in (1, 2):
        checkpoints.save("last", 64, {"x": jnp.int32(value)})
    assert int(checkpoints.restore("last", {"x": jnp.int32(0)}).state["x"]) == 2
    assert checkpoints.steps("last") == [64]


@pytest.mark.parametrize("moment", ["arrays", "manifest", "rename", "verify", "prune"])
def test_interrupted_save_leaves_the_former_whole(tmp_path, monkeypatch, moment):
    """The save dies while writing, before and after the switch, and while deleting an older one."""
    checkpoints = CheckpointStore(tmp_path)
    for step in (1, 2):
        checkpoints.save("last", step, {"x": jnp.int32(step)})

    def die(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if moment == "arrays":
            patch.setattr(arrays, "write_arrays", die)
        elif moment == "manifest":
            patch.setattr(sums, "write_manifest", die)
        elif moment == "rename":
            patch.setattr(os, "replace", die)
        elif moment == "verify":
            patch.setattr(CheckpointStore, "_verify", die)
        else:
            patch.setattr(shutil, "rmtree", die)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save("last", 3, {"x": jnp.int32(3)})
    expected = 3 if moment in ("verify", "prune") else 2
    template = {"x": jnp.int32(0)}
    assert int(CheckpointStore(tmp_path).restore("last", template).state["x"]) == expected
    checkpoints.save("last", 4, {"x": jnp.int32(4)})
    assert int(checkpoints.restore("last", template).state["x"]) == 4
    assert len(checkpoints.steps("last")) == 2
    assert len(list((tmp_path / "checkpoints/last").iterdir())) == 2


def test_a_save_in_the_background_tells_of_its_failure_once(tmp_path, monkeypatch):
    checkpoints = CheckpointStore(tmp_path)

    def die(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write_arrays", die)
        checkpoints.save("last", 1, {"x": jnp.int32(1)}, block=False)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.wait()
    checkpoints.wait()
    assert not checkpoints.steps("last")


KILLED = """
import sys, jax.numpy as jnp
from smz_jax.storage.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1])
step = 0
while True:
    step += 1
    store.save("last", step, {"x": jnp.full((500, 500), step), "y": jnp.int32(step)})
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
    restored = CheckpointStore(tmp_path).restore("last", template).state
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
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 1, {"w": jnp.ones((3, 4), jnp.float32)})
    with pytest.raises(ConfigError) as excinfo:
        checkpoints.restore("last", template)
    assert expected in one_line(excinfo)


@pytest.mark.parametrize(
    "name", ["x [1]", "[", "a\\b", "a*?b", "%5B1%5D", "a{b,c}", "ä", "a\nb", "a\udce4b", "#?&"]
)
def test_any_name_of_a_folder_will_do(tmp_path, name):
    state = {"a": np.arange(3), "b": jnp.ones((2, 2))}
    CheckpointStore(tmp_path / name).save("last", 7, state)
    found = CheckpointStore(tmp_path / name).restore("last", state).state
    assert_same(found, state)


def test_a_save_counts_once_its_arrays_are_read_back(tmp_path, monkeypatch):
    """Sums of the files would not show that an array is not in them."""
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.save("last", 1, {"a": np.arange(3)})
    write = arrays.write_arrays
    monkeypatch.setattr(
        arrays, "write_arrays", lambda path, them: write(path, [x + 1 for x in them])
    )
    with pytest.raises(Damage, match="not read back as it was written"):
        checkpoints.save("last", 2, {"a": np.arange(3)})
    assert checkpoints.newest_good("last")[0] == 1


@pytest.mark.parametrize("moment", ["begin", "middle"])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_folder_that_goes_in_the_middle_of_a_save_is_not_made_again(
    tmp_path, monkeypatch, moment, deleted
):
    folder, moved, state = tmp_path / "a", tmp_path / "b", example_state()
    folder.mkdir()
    checkpoints = CheckpointStore(folder)
    checkpoints.save("last", 32, state)

    def go():
        shutil.rmtree(folder) if deleted else folder.rename(moved)

    checkpointer = arrays._checkpointer  # made when Orbax's folder is known by its name
    if moment == "begin":
        go()
    else:
        monkeypatch.setattr(arrays, "_checkpointer", lambda: go() or checkpointer())
    with pytest.raises((OSError, ValueError)):
        checkpoints.save("last", 64, state)
    monkeypatch.undo()
    assert not folder.exists()
    if not deleted:
        checkpoints.move(moved)
        checkpoints.save("last", 96, state)
        assert CheckpointStore(moved).steps("last") == [32, 96]
        assert not list(moved.rglob("*.partial"))


def test_the_first_save_makes_the_folder(tmp_path):
    CheckpointStore(tmp_path / "a/b").save("last", 32, example_state())
    assert CheckpointStore(tmp_path / "a/b").steps("last") == [32]
