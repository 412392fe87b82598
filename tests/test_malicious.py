"""Exports, checkpoints and macro libraries made to do harm, with sums that are right.

Each is refused in one line; nothing in it is executed, and nothing outside its folder is read,
written or deleted. Damage, where the sums tell, is tested in `test_export` and
`test_checkpoint_damage`.
"""

import copy
import io
import json
import pickle
import shutil
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from smz_jax.checkpoint import CheckpointStore, Damage, Restored, arrays, rows, sums
from smz_jax.config import Config, ConfigError
from smz_jax.export import ABOUT, REQUIRED, SUMS, Exported, read_export, write_export
from smz_jax.macro_file import check_library
from smz_jax.macros.library import format_rankings
from smz_jax.metrics import PhaseTimers
from smz_jax.run import Run
from smz_jax.run_dir import read_config
from smz_jax.settings import flat_dict
from smz_jax.types import Trajectory
from tests import test_checkpoint_damage as saved
from tests.test_export import Harm, refused, resum
from tests.test_macros_library import document

run, small_files = saved.run, saved.small_files
NONSENSE = (
    *(None, True, -1, 0, 10**18, 1.5, float("inf"), float("nan"), "", "../../x", "\x1b[31m"),
    *([], [[]], [None], {}, {"a": {"b": []}}, "/etc/hostname", [1, "0" * 64]),
)


def nodes(tree, path=()):
    """Path of every node below `tree`."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from nodes(value, (*path, key))


def replaced(tree, path, value):
    """A copy of `tree` with another value at `path`."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def link_out(path, outside):
    """Moves a file or folder out, and leaves a link to it."""
    outside.mkdir(exist_ok=True)
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


# --- exports ---


@pytest.fixture
def model(tmp_path):
    """A small export; its config is the default one."""
    about = {"experiment": "pong", "seed": 0, "checkpoint": "best", "action_names": ["UP", "DOWN"]}
    weights = {"params/x": np.arange(6, dtype=np.float32), "params/y": np.ones((2, 2), np.int8)}
    folder = write_export(tmp_path / "model", Exported(Config(), weights, about, [], None))
    assert read_export(folder).weights.keys() == weights.keys()
    return folder


def npy(header=None, body=bytes(24)):
    """A member's bytes, with this header instead of the right one."""
    if header is None:
        np.save(stream := io.BytesIO(), np.zeros(6, np.float32))
        return stream.getvalue()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def described(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()


def zipped(members, change=lambda archive: None):
    """An archive of stored members; `change` touches its directory before it is written."""
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
        change(archive)
    return stream.getvalue()


def one(data):
    return zipped([("params/x.npy", data)])


def forge(**fields):
    """Sets fields of the first member in the archive's directory."""

    def change(archive):
        for name, value in fields.items():
            setattr(archive.filelist[0], name, value)

    return change


def repeat(archive):
    archive.filelist.extend([archive.filelist[0]] * 50)  # fifty names for the same bytes


WEIGHTS = {
    "a name above": (zipped([("../x.npy", npy())]), "'../x'"),
    "a name further above": (zipped([("a/../../../x.npy", npy())]), "'a/../../../x'"),
    "an absolute name": (zipped([("/etc/cron.d/x.npy", npy())]), "'/etc/cron.d/x'"),
    "a name of another system": (zipped([("C:\\x.npy", npy())]), "path in the parameters"),
    "a name of two lines": (zipped([("a\nb.npy", npy())]), "a\\nb"),
    "an empty name": (zipped([(".npy", npy())]), "''"),
    "a bare pickle": (zipped([("params/x", pickle.dumps([1]))]), "no finite numbers"),
    "a bare text": (zipped([("params/x.npy", b"text")]), "no finite numbers"),
    "an inner pickle": (one(npy(described("(1,)", "'|O'"), pickle.dumps([1]))), "allow_pickle"),
    "fields of objects": (
        one(npy(described("(1,)", "[('a', '|O')]"), pickle.dumps([1]))),
        "allow_pickle",
    ),
    "fields": (one(npy(described("(3,)", "[('a', '<f4'), ('b', '<f4')]"))), "no finite numbers"),
    "a bomb": (zipped([("params/x.npy", npy())], forge(file_size=2**62)), "more than its own"),
    "a bomb for two": (
        zipped([("params/x.npy", npy())], forge(file_size=2**40, compress_size=2**40)),
        "more than its own",
    ),
    "packed in secret": (zipped([("params/x.npy", npy())], forge(compress_type=8)), "compressed"),
    "packed by nobody": (zipped([("params/x.npy", npy())], forge(compress_type=77)), "compressed"),
    "locked": (zipped([("params/x.npy", npy())], forge(flag_bits=1)), "weights.npz"),
    "the same bytes often": (zipped([("params/x.npy", npy())], repeat), "more than its own"),
    "a name twice": (
        zipped([("params/x.npy", npy()), ("params/x.npy", npy()), ("big.npy", npy() * 9)]),
        "twice",
    ),
    "larger than any memory": (one(npy(described("(1" + "0" * 15 + ",)"))), ""),
    "no number of elements": (one(npy(described("(1" + "0" * 40 + ",)"))), ""),
    "less than nothing": (one(npy(described("(-6,)"))), ""),
    "an open bracket": (one(npy(b"{'descr': (\n")), ""),
    "deep brackets": (one(npy(b"(" * 5000)), ""),
    "a call": (one(npy(b"__import__('os').system('touch TRACE')\n")), ""),
    "no archive": (b"PK\x05\x06" + b"\xff" * 30, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_forged_weights(model, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    data, word = WEIGHTS[kind]
    (model / "weights.npz").write_bytes(data)
    resum(model)
    before = sorted(tmp_path.rglob("*"))
    began = time.process_time()
    tracemalloc.start()
    try:
        refused(model, "weights.npz", word)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5
    assert peak < 2**24 or kind == "larger than any memory"  # asked for, and never given
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [*REQUIRED, SUMS])
def test_links_in_an_export_are_not_followed(model, tmp_path, name):
    link_out(model / name, tmp_path / "outside")
    refused(model, f"{name} is missing")


def test_an_endless_list_of_sums_is_not_read(model):
    with (model / SUMS).open("r+b") as file:
        file.truncate(10**8)
    tracemalloc.start()
    try:
        refused(model, SUMS, "more than the 10,000 bytes")
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "alias"),
        ("#" * 60_000, "at most 50,000 bytes"),
        ("env.id: !!python/name:os.system\n", "damaged YAML"),
        ("experiment: ../../up\n", "plain name"),
    ],
)
def test_forged_settings(model, text, word):
    (model / "config.yaml").write_text(text)
    resum(model)
    refused(model, "config.yaml" if "experiment" not in text else "experiment", word)


def test_any_nonsense_in_what_it_is(model):
    """Whatever is accepted can be printed."""
    whole = json.loads((model / ABOUT).read_text())
    refusals = 0
    for path in [*nodes(whole)]:
        for value in NONSENSE:
            (model / ABOUT).write_text(json.dumps(replaced(whole, path, value)))
            resum(model)
            try:
                about = read_export(model).about
            except ConfigError as error:
                assert "\n" not in str(error) and str(error).isprintable() and ABOUT in str(error)
                refusals += 1
            else:
                assert all(name.isprintable() for name in about["action_names"])
                assert about["experiment"].isprintable() and type(about["seed"]) is int
    assert refusals > 70


# --- macro libraries ---


def test_any_nonsense_in_a_library():
    """Refused in one line; whatever is accepted makes a table of plain lines."""
    whole = json.loads(json.dumps(document()))
    path = Path("macros.json")
    refusals = 0
    for where in [*nodes(whole)]:
        for value in NONSENSE:
            changed = replaced(whole, where, value)
            try:
                check_library(changed, path)
            except ConfigError as error:
                assert "\n" not in str(error) and str(error).isprintable(), (where, value)
                assert len(str(error)) < 400 and "macros.json" in str(error)
                refusals += 1
            else:
                table = format_rankings(changed)
                assert all(line.isprintable() for line in table.splitlines()), (where, value)
    assert refusals > 500


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("macros", 0, "names"), "\x1b]0;owned\x07"),
        (("macros", 0, "names"), "FIRE → FIRE"),
        (("macros", 0, "mean_entropy"), float("nan")),
        (("macros", 0, "total_reward"), float("inf")),
        (("macros", 0, "buckets"), [{}] * 2),
        (("macros", 0, "actions"), ["__class__", 0]),
        (("action_names", 0), "\x1b[2J"),
        (("config", "capacity"), 10**30),
        (("config",), {"__class__": 1}),
    ],
)
def test_objects_and_escapes_in_a_library(where, value):
    whole = json.loads(json.dumps(document()))
    check_library(whole, Path("macros.json"))
    with pytest.raises(ConfigError, match=r"macros\.json"):
        check_library(replaced(whole, where, value), Path("macros.json"))


# --- checkpoints ---


def sign(folder, manifest):
    """Writes a manifest that holds anything, with its own sum."""
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (folder / sums.MANIFEST).write_bytes(data)
    digest = sums.hashlib.sha256(data).hexdigest()
    (folder / sums.MANIFEST_SUM).write_text(f"{digest}  {sums.MANIFEST}\n")


def walked_back(run, *words):
    """The newest step is refused in one line with all the words."""
    began = time.process_time()
    step, _, (line,) = CheckpointStore(run).newest_good("last")
    assert step == 16 and "\n" not in line and len(line) < 700, line
    assert all(word in line for word in words), line
    assert time.process_time() - began < 5


def newest(run):
    checkpoints = CheckpointStore(run)
    folder = checkpoints.path("last", 32)
    return folder, sums.read_manifest(folder)


def test_links_in_a_step_are_not_followed(run, tmp_path):
    folder, manifest = newest(run)
    shutil.copytree(run, tmp_path / "good")
    inner = sorted((folder / "state").rglob("*"))
    for path in (folder / "state", *inner, folder / "manifest.json", folder / "manifest.sha256"):
        link_out(path, tmp_path / "outside")
        walked_back(run, path.name, "is a link")
        shutil.rmtree(run)
        shutil.rmtree(tmp_path / "outside")
        shutil.copytree(tmp_path / "good", run)
    link_out(folder, tmp_path / "outside")
    walked_back(run, "is a link")
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "good", run)
    rows_of = run / "checkpoints" / f"rows-{manifest['rows']['set']}"
    link_out(rows_of / manifest["rows"]["files"]["0"][0], tmp_path / "outside")
    walked_back(run, "is missing")


def test_going_on_after_a_link_deletes_nothing_outside(run, tmp_path):
    folder, _ = newest(run)
    link_out(folder, tmp_path / "outside")
    kept = sorted((tmp_path / "outside").rglob("*"))
    (run / "checkpoints/last/x.partial").symlink_to(tmp_path / "outside")
    (run / "checkpoints/last/y.damaged").symlink_to(tmp_path / "outside")
    checkpoints = CheckpointStore(run)
    found = checkpoints.restore("last", saved.state_of(0), experience=saved.EMPTY)
    checkpoints.set_aside("last", found.step)
    saved.save(checkpoints, 32)
    saved.assert_restores(run, 32)
    assert sorted((tmp_path / "outside").rglob("*")) == kept
    assert sorted(x.name for x in (run / "checkpoints/last").iterdir()) == [
        f"{16:012d}",
        f"{32:012d}",
    ]


@pytest.mark.parametrize("name", ["last", "best", "rows-a", "rows-b"])
def test_a_folder_that_lies_elsewhere_is_refused(tmp_path, name):
    """What no step lists is deleted in it: it must be the run's own."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "letter.txt").write_text("mine")
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(ConfigError, match="no link") as caught:
        CheckpointStore(tmp_path / "run")
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert (outside / "letter.txt").read_text() == "mine"


def test_any_nonsense_in_a_manifest(run):
    """Refused and walked back from, or it means nothing."""
    folder, manifest = newest(run)
    assert {"files", "rows", "leaves", "extra", "step", "kind"} <= set(manifest)
    some = {**manifest, "files": dict([*manifest["files"].items()][:2]), "leaves": {}}
    paths = [("leaves",), *nodes(some)]
    refusals = 0
    for path in paths:
        for value in NONSENSE:
            if path == ("format",):
                continue
            sign(folder, replaced(manifest, path, value))
            step, _, damaged = CheckpointStore(run).newest_good("last")
            refusals += step == 16
            assert (step == 16) == (len(damaged) == 1), (path, value)
            assert all("\n" not in line and len(line) < 700 for line in damaged)
    assert refusals > 150


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows", "range_rows"), 0),
        (("rows", "ring_rows"), 8),
        (("rows", "files"), {}),
        (("rows", "total"), -1),
        (("rows", "set"), "../../outside"),
        (("rows", "set"), []),
        (("rows", "files"), {"7": ["00007-0123456789abcdef.npz", 1, "0" * 64]}),
        (("rows", "files", "0"), ["../../../etc/passwd", 1, "0" * 64]),
        (("files", "state/../../../../x"), [1, "0" * 64]),
        (("files", "/etc/hostname"), [1, "0" * 64]),
        (("files", "state/_METADATA"), [1]),
        (("leaves",), [["x"]]),
        (("extra",), None),
        (("step",), float("inf")),
    ],
)
def test_forged_manifests(run, path, value):
    folder, manifest = newest(run)
    sign(folder, replaced(manifest, path, value))
    walked_back(run, "damaged")


def test_a_forged_ring_as_long_as_its_range_is_refused_before_it_is_counted(run):
    folder, manifest = newest(run)
    for total in (10**15, 1):
        listed = {**manifest["rows"], "ring_rows": 10**15, "range_rows": 10**15, "total": total}
        listed["files"] = {"0": manifest["rows"]["files"]["0"]}
        sign(folder, {**manifest, "rows": listed})
        found = CheckpointStore(run).newest_good("last")
        assert found[0] == 32  # of right sums; its rows fit no ring of this run
        with pytest.raises(ConfigError, match="cannot be read: rows-"):
            CheckpointStore(run).restore("last", saved.state_of(0), experience=saved.EMPTY)


def test_a_deep_manifest_is_refused(run):
    sign(newest(run)[0], b"[" * 100_000)
    walked_back(run, "damaged")


def test_a_forged_older_step_does_not_end_the_run(run):
    checkpoints = CheckpointStore(run)
    checkpoints.restore("last", saved.state_of(0), experience=saved.EMPTY)
    folder, manifest = newest(run)
    sign(folder, {**manifest, "rows": {"set": ["a"], "files": 3}})
    saved.save(checkpoints, 48)
    saved.assert_restores(run, 48)


def test_arrays_of_another_shape_under_right_sums_are_refused(run):
    folder, manifest = newest(run)
    state = saved.state_of(32)
    shutil.rmtree(folder / "state")
    arrays.write_arrays(folder / "state", [np.zeros((3, 30), np.float32), np.array(state["n"])])
    sign(folder, {**manifest, "files": sums.sums_below(folder)})
    with pytest.raises(ConfigError, match=r"cannot be read: .*float32") as caught:
        CheckpointStore(run).restore("last", saved.state_of(0))
    assert "\n" not in str(caught.value)


def test_a_pickle_among_the_arrays_is_not_opened(run, tmp_path):
    folder, manifest = newest(run)
    trace = tmp_path / "harm"
    for path in [x for x in (folder / "state").rglob("*") if x.is_file()]:
        path.write_bytes(pickle.dumps(Harm(trace)))
    sign(folder, {**manifest, "files": sums.sums_below(folder)})
    with pytest.raises(ConfigError, match="cannot be read"):
        CheckpointStore(run).restore("last", saved.state_of(0))
    assert not trace.exists()


def test_rows_that_grow_are_not_unpacked():
    part = {name: np.zeros((2, 4), np.float32) for name in Trajectory._fields}
    data = rows.pack(Trajectory(**part))
    limit = sum(x.nbytes + rows.HEAD_BYTES for x in part.values())
    assert rows.unpack(data, limit).reward.shape == (2, 4)
    bomb = rows.pack(Trajectory(**{**part, "frame": np.zeros((2, 10**7), np.float32)}))
    assert len(bomb) < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(Damage, match="no rows: it holds"):
            rows.unpack(bomb, limit)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


class FakeStore:
    """Gives back what a run asks for, beside forged counters."""

    def __init__(self, extra, manifest):
        self.extra, self.manifest = extra, manifest

    def restore(self, kind, state, *, experience, fits):
        fits(self.manifest)
        return Restored(state, self.extra, experience, 64, [])


def test_forged_counters_and_settings_end_the_run_in_one_line(tiny_run):
    config = read_config(tiny_run)
    going = Run(config, PhaseTimers())
    try:
        good = {"config": flat_dict(config)}
        for theirs in ({}, {"config": None}, {"config": [1]}, {"config": {"seed": {}}}):
            with pytest.raises(ConfigError, match="other settings") as caught:
                going.restore(FakeStore({}, theirs))  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)
        for extra in ({}, {"macro_totals": 3}, {"macro_totals": [1] * 99}, {"macro_totals": {}}):
            with pytest.raises(ConfigError, match="the counters of checkpoint 64 are") as caught:
                going.restore(FakeStore(extra, good))  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)
    finally:
        going.close_games()
