"""Every kind of damage to every file of a checkpoint: found, named, and walked back from."""

import io
import json
import math
import queue
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.storage.checkpoint import CheckpointStore, Damage, rows, sums, take_rows
from smz_jax.types import Trajectory

LANES, RING, STEP = 2, 40, 16  # rows of each lane in the ring; rows between two saves


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Ranges of 16 rows: the ring has three, the last pushed back over the second."""
    monkeypatch.setattr(rows, "RANGE_BYTES", 16 * LANES * (9 * 9 + 4 * 4 + 1 + 3 + 3 * 4 + 3 * 4))


def make_rows(total):
    """The ring after `total` rows of each lane, each with its own number in it."""
    played = np.zeros((LANES, RING), np.int64)
    for number in range(total):
        played[:, number % RING] = 1 + number + 1000 * np.arange(LANES)

    def filled(shape, dtype):
        wide = played.reshape(*played.shape, *[1] * len(shape))
        return jnp.asarray(np.broadcast_to(wide, (*played.shape, *shape)).astype(dtype))

    return Trajectory(
        frame=filled((9, 9), np.uint8),
        action=filled((), np.int32),
        reward=filled((), np.float32),
        discount=filled((), np.float32),
        is_first=filled((), np.bool_),
        invalid_actions=filled((3,), np.uint8),
        action_weights=filled((3,), np.float32),
        search_value=filled((), np.float32),
        search_spread=filled((), np.float32),
        transition_entropy=filled((), np.float32),
        target_step=filled((), np.int32),
    )


EMPTY = jax.eval_shape(lambda: make_rows(0))


def state_of(total):
    rng = np.random.default_rng(total)
    return {"x": jnp.asarray(rng.normal(size=(30, 30)), jnp.float32), "n": jnp.int32(total)}


def save(checkpoints, total):
    chunks = take_rows(make_rows(total), total, checkpoints.saved_rows(total))
    checkpoints.save("last", total, state_of(total), {"total": total}, chunks)
    return sorted(chunks.ranges)


def assert_restores(folder, total):
    found = CheckpointStore(folder).restore("last", state_of(0), experience=EMPTY)
    assert (found.step, found.extra) == (total, {"total": total})
    np.testing.assert_array_equal(found.state["x"], state_of(total)["x"])
    assert found.rows is not None
    jax.tree.map(np.testing.assert_array_equal, found.rows, make_rows(total))
    return found


@pytest.fixture
def run(tmp_path):
    checkpoints = CheckpointStore(tmp_path / "run")
    for total in (16, 32):
        save(checkpoints, total)
    return tmp_path / "run"


# --- rows ---


def test_a_save_writes_what_changed_and_every_step_comes_back_whole(tmp_path):
    checkpoints = CheckpointStore(tmp_path)
    # Two folders in turn: each save writes what was played since the last one but one.
    written = {}
    for total in (10, 16, 20, 33, 41, 50, 200):
        written[total] = save(checkpoints, total)
        assert_restores(tmp_path, total)
    assert written[10] == [0] and written[16] == [0] and written[20] == [0, 1]
    assert written[33] == [1, 2]  # rows 16 to 32; 24 on belong to the last range too
    assert written[50] == [0, 2]  # rows 33 to 49: 33 to 39 and 0 to 9
    assert written[200] == [0, 1, 2]


def test_fields_that_are_none_are_neither_written_nor_read(tmp_path):
    def part(experience):
        return experience._replace(action_weights=None, search_value=None)

    checkpoints = CheckpointStore(tmp_path)
    for total in (16, 33):
        chunks = take_rows(part(make_rows(total)), total, checkpoints.saved_rows(total))
        checkpoints.save("last", total, state_of(total), {}, chunks)
    found = CheckpointStore(tmp_path).restore("last", state_of(0), experience=part(EMPTY))
    assert found.rows is not None and found.rows.action_weights is None
    jax.tree.map(np.testing.assert_array_equal, found.rows, part(make_rows(33)))
    for path in tmp_path.glob("checkpoints/rows-*/*.npz"):
        names = {Path(name).stem for name in zipfile.ZipFile(path).namelist()}
        none = {"action_weights", "search_value", *Trajectory._field_defaults}
        assert names == set(Trajectory._fields) - none
    with pytest.raises(ConfigError, match="cannot be read: no rows"):
        CheckpointStore(tmp_path).restore("last", state_of(0), experience=EMPTY)


def save_in_parts(stores, total, faults=()):
    """A save by as many processes as there are stores, each a thread here; ranges written."""
    parts, told = len(stores), [queue.Queue() for _ in stores]
    former, taken = stores[0].saved_rows(total, parts), []
    for part, store in reversed([*enumerate(stores)]):
        own = slice(part * LANES // parts, (part + 1) * LANES // parts)
        chunks = take_rows(
            make_rows(total), total, former, lambda x, own=own: np.asarray(x)[own], parts, part
        )
        taken.append(sorted(chunks.ranges))
        if part:

            def tell(make, part=part):
                told[part].put(OSError("no room") if part in faults else make())

            store.save_part(stores[0].turn, chunks, tell, block=False)
            continue

        def among(make):
            made = [make(), *(told[other].get(timeout=60) for other in range(1, parts))]
            for answer in made:
                if isinstance(answer, OSError):
                    raise answer
            return made

        store.save("last", total, state_of(total), {"total": total}, chunks, among=among)
    for store in stores:
        store.wait()
    assert all(x == taken[0] for x in taken)
    return taken[0]


def test_each_process_writes_its_own_lanes_and_one_reads_them_all(tmp_path):
    stores = [CheckpointStore(tmp_path) for _ in range(2)]
    for total in (16, 20, 33, 50, 55):
        save_in_parts(stores, total)
        found = assert_restores(tmp_path, total)
        assert found.manifest["rows"]["parts"] == 2
    # Two lanes in two parts, twice as many rows a file: each of the 40 rows' two ranges twice.
    assert found.manifest["rows"]["range_rows"] == 32
    assert sorted(map(int, found.manifest["rows"]["files"])) == [0, 1, 2, 3]
    assert save_in_parts(stores, 57) == [0, 1]  # rows 10 to 16, of which 8 on are in both
    one = CheckpointStore(tmp_path)  # a single process goes on, and writes everything anew
    one.restore("last", state_of(0), experience=EMPTY)
    assert save(one, 58) == save(one, 59) == [0, 1, 2]
    assert save(one, 60) == [1]  # rows 18 and 19
    assert_restores(tmp_path, 60)
    several = [CheckpointStore(tmp_path) for _ in range(2)]  # and two after it
    several[0].restore("last", state_of(0), experience=EMPTY)
    assert save_in_parts(several, 61) == [0, 1]
    assert_restores(tmp_path, 61)


def test_a_part_that_is_not_written_leaves_the_former_step(tmp_path):
    stores = [CheckpointStore(tmp_path) for _ in range(2)]
    save_in_parts(stores, 16)
    with pytest.raises(OSError, match="no room"):
        save_in_parts(stores, 40, faults=(1,))
    assert_restores(tmp_path, 16)
    save_in_parts(stores, 48)
    assert_restores(tmp_path, 48)


def test_ranges_of_which_a_part_is_missing_are_not_whole():
    files = {place: (f"{place:05d}-{'0' * 16}.npz", 1, "0" * 64) for place in range(4)}
    whole = rows.SavedRows(10, 4, 6, files, parts=2)
    with pytest.raises(Damage, match=r"rows/00000-0{16}\.npz is missing"):
        rows.verify_rows(Path("rows"), whole)  # what is listed is right
    for lost in (
        whole._replace(files={place: files[place] for place in range(3)}),
        whole._replace(files={place: files[place] for place in (0, 1, 2, 3)} | {4: files[0]}),
        whole._replace(total=7),  # of the last range too, which begins with row 6
        whole._replace(parts=10**15),
    ):
        with pytest.raises(Damage, match="does not list the rows"):
            rows.verify_rows(Path("rows"), lost)


def test_rows_of_another_ring_are_not_put_into_this_one(tmp_path):
    save(CheckpointStore(tmp_path), 16)
    shorter = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((LANES, 20, *x.shape[2:]), x.dtype), EMPTY
    )
    with pytest.raises(ConfigError, match="1 parts of 40 rows of each lane, not 20 rows of 2"):
        CheckpointStore(tmp_path).restore("last", state_of(0), experience=shorter)


def test_rows_lost_by_one_process_are_damage(tmp_path):
    stores = [CheckpointStore(tmp_path) for _ in range(2)]
    for total in (16, 20):
        save_in_parts(stores, total)
    manifest = json.loads((tmp_path / "checkpoints/last/000000000020/manifest.json").read_text())
    name = manifest["rows"]["files"]["1"][0]
    (tmp_path / "checkpoints" / f"rows-{manifest['rows']['set']}" / name).unlink()
    assert f"{name} is missing" in assert_restores(tmp_path, 16).damaged[0]


def test_a_resumed_store_goes_on_with_what_is_there(run):
    checkpoints = CheckpointStore(run)
    checkpoints.restore("last", state_of(0), experience=EMPTY)
    save(checkpoints, 48)
    assert_restores(run, 48)
    # The folder whose turn comes again holds step 32: what was played since is all that is written.
    assert save(checkpoints, 49) == [0, 2]
    assert_restores(run, 49)


@pytest.mark.parametrize("resumed", [True, False])
def test_the_newest_step_saved_again_leaves_every_later_step_whole(run, resumed):
    """A run that is stopped in the evaluation of a step saves it, and again when it goes on."""
    checkpoints = CheckpointStore(run)
    checkpoints.restore("last", state_of(0), experience=EMPTY)
    if not resumed:  # both times by the same process
        save(checkpoints, 40)
    newest = 32 if resumed else 40
    assert save(checkpoints, newest) == []  # it goes where it was: the other step keeps its files
    for step in CheckpointStore(run).steps("last"):
        CheckpointStore(run).newest_good("last", step)
    for total in (48, 50, 56, 64):
        save(checkpoints, total)
        assert_restores(run, total)
        assert len(CheckpointStore(run).steps("last")) == 2


def test_a_file_that_vanished_is_noticed_by_the_next_save(run):
    checkpoints = CheckpointStore(run)
    checkpoints.restore("last", state_of(0), experience=EMPTY)
    save(checkpoints, 48)
    for path in (run / "checkpoints" / "rows-b").iterdir():
        path.unlink()
    with pytest.raises(Damage, match="is missing"):
        save(checkpoints, 49)  # known, and verified before
    save(checkpoints, 50)
    assert_restores(run, 50)


def test_rows_that_no_step_lists_are_dropped(run):
    checkpoints = CheckpointStore(run)
    checkpoints.restore("last", state_of(0), experience=EMPTY)
    for total in (48, 64, 80):
        save(checkpoints, total)
    listed = []
    for step in checkpoints.steps("last"):
        manifest = checkpoints.newest_good("last", step)[1]
        listed += [file[0] for file in manifest["rows"]["files"].values()]
    there = [path.name for path in (run / "checkpoints").glob("rows-*/*")]
    assert sorted(there) == sorted(listed)


# --- damage ---


def flip(path, share):
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 1 << 4
    path.write_bytes(bytes(data))


def zero(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 512] = bytes(len(data[middle : middle + 512]))
    if bytes(data) == path.read_bytes():
        data[0:4] = b"\0\0\0\0"
    path.write_bytes(bytes(data))


DAMAGES = {
    "first bit": lambda path: flip(path, 0),
    "middle bit": lambda path: flip(path, 0.5),
    "last bit": lambda path: flip(path, 1),
    "zeroed": zero,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def files_of_newest(run):
    """Every file that the newest step needs."""
    checkpoints = CheckpointStore(run)
    manifest = checkpoints.newest_good("last")[1]
    folder = checkpoints.path("last", manifest["step"])
    own = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [file[0] for file in manifest["rows"]["files"].values()]
    return own + [run / "checkpoints" / f"rows-{manifest['rows']['set']}" / x for x in names]


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_to_each_file_is_found_named_and_walked_back_from(run, damage):
    good = run.with_name("good")
    shutil.copytree(run, good)
    files = files_of_newest(run)
    assert len(files) >= 7 and any(path.suffix == ".npz" for path in files)
    for path in files:
        DAMAGES[damage](path)
        step, _, (line,) = CheckpointStore(run).newest_good("last")
        assert step == 16
        assert path.name in line or path.name.startswith("manifest"), (path, line)
        assert "\n" not in line and "000000000032" in line
        if path is files[-1]:
            assert_restores(run, 16)
        shutil.rmtree(run)
        shutil.copytree(good, run)


def test_swapped_files_are_found(run):
    files = [path for path in files_of_newest(run) if path.suffix == ".npz"]
    first, second = (path.read_bytes() for path in files[:2])
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    assert files[0].name in assert_restores(run, 16).damaged[0]


def test_swapped_steps_are_found(run):
    folder = run / "checkpoints/last"
    (folder / f"{16:012d}").rename(folder / "aside")
    (folder / f"{32:012d}").rename(folder / f"{16:012d}")
    (folder / "aside").rename(folder / f"{32:012d}")
    with pytest.raises(ConfigError, match=r"no good checkpoint is left: .*it is the step 16"):
        CheckpointStore(run).restore("last", state_of(0), experience=EMPTY)


def test_empty_step_leftovers_and_strangers(run):
    folder = run / "checkpoints/last"
    (folder / f"{48:012d}").mkdir()
    (folder / f"{64:012d}.partial").mkdir()
    (folder / "notes.txt").write_text("x")
    found = assert_restores(run, 32)
    assert len(found.damaged) == 1 and f"{48:012d}" in found.damaged[0]
    (folder / f"{32:012d}" / "state" / "more").write_text("x")
    assert "more does not belong there" in assert_restores(run, 16).damaged[1]


def test_with_none_good_it_says_so(run):
    for step in (16, 32):
        (run / "checkpoints/last" / f"{step:012d}" / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="no good checkpoint is left") as caught:
        CheckpointStore(run).restore("last", state_of(0))
    assert "\n" not in str(caught.value) and "(and 1 more)" in str(caught.value)


def test_after_walking_back_the_run_goes_on(run):
    flip(files_of_newest(run)[-1], 0.5)
    checkpoints = CheckpointStore(run)
    found = checkpoints.restore("last", state_of(0), experience=EMPTY)
    checkpoints.set_aside("last", found.step)
    for total in (32, 48):
        save(checkpoints, total)
        assert_restores(run, total)
    assert checkpoints.steps("last") == [32, 48]
    assert not list((run / "checkpoints/last").glob("*.damaged"))


# --- malice: sums that are right over what is wrong ---


def forge(run, change):
    """Changes the newest manifest and signs it again."""
    checkpoints = CheckpointStore(run)
    manifest = checkpoints.newest_good("last")[1]
    change(manifest)
    sums.write_manifest(checkpoints.path("last", manifest["step"]), manifest)


@pytest.mark.parametrize("name", ["../../../outside", "/etc/hostname", "state/../../16", ""])
def test_paths_out_of_the_folder_are_refused(run, name):
    forge(run, lambda manifest: manifest["files"].update({name: [1, "0" * 64]}))
    assert "is no path below this folder" in assert_restores(run, 16).damaged[0]


@pytest.mark.parametrize("name", ["../rows-b/x.npz", "/etc/hostname", "00000.npz"])
def test_rows_out_of_the_folder_are_refused(run, name):
    def change(manifest):
        manifest["rows"]["files"]["0"][0] = name

    forge(run, change)
    assert "is no name of a file of rows" in assert_restores(run, 16).damaged[0]


def test_objects_are_refused():
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        for name in Trajectory._fields:
            np.save(inner := io.BytesIO(), np.array([{}], object), allow_pickle=True)
            file.writestr(f"{name}.npy", inner.getvalue())
    with pytest.raises(Damage, match=r"no rows: .*allow_pickle"):
        rows.unpack(buffer.getvalue(), math.inf)


def test_another_format_is_refused(run):
    forge(run, lambda manifest: manifest.update(format=99))
    with pytest.raises(ConfigError, match="has format 99: this version reads format 7"):
        CheckpointStore(run).restore("last", state_of(0))


@pytest.mark.parametrize("former", [5, 6])
def test_of_a_former_format_only_a_part_is_read(run, former):
    """The games of format 5 stood otherwise; rows of format 6 tell no spread."""
    forge(run, lambda manifest: manifest.update(format=former))
    assert CheckpointStore(run).restore("last", {"n": jnp.int32(0)}, partial=True).step == 32
    with pytest.raises(ConfigError, match=f"has format {former}: this version reads format 7"):
        CheckpointStore(run).restore("last", state_of(0))


def test_the_manifest_can_be_checked_by_hand(run):
    """As `sha256sum -c` would."""
    folder = Path(run / "checkpoints/last" / f"{32:012d}")
    digest, name = (folder / "manifest.sha256").read_text().split()
    assert sums.sum_of(folder / name)[1] == digest
    files = json.loads((folder / name).read_text())["files"]
    assert all(list(sums.sum_of(folder / x)) == files[x] for x in files)
