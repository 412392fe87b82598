"""Checkpoints made to do harm, with sums that are right.

Each is refused in one line or walked back from; nothing in it is executed, and nothing outside its
folder is read, written or deleted. Damage, where the sums tell, is in `test_checkpoint_damage`.
"""

import json
import pickle
import shutil
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.run.state import Counters, RunState
from smz_jax.run.state import restore as restore_run
from smz_jax.storage.checkpoint import CheckpointStore, Damage, Restored, arrays, rows, sums
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Trajectory
from tests.storage import test_checkpoint_damage as saved
from tests.storage.test_export import Harm
from tests.support.malice import NONSENSE, link_out, nodes, replaced

run, small_files = saved.run, saved.small_files


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
        with pytest.raises(
            ConfigError, match=r"cannot be read: the rows are in 1 parts of 10{15} rows"
        ):
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
    assert rows.unpack(data, limit)["reward"].shape == (2, 4)
    bomb = rows.pack(Trajectory(**{**part, "frame": np.zeros((2, 10**7), np.float32)}))
    assert len(bomb) < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(Damage, match="no rows: a field holds"):
            rows.unpack(bomb, limit)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


class FakeStore:
    """Gives back what a run asks for, beside forged counters and settings."""

    def __init__(self, extra, config):
        self.extra, self.config = extra, config

    def restore(self, kind, state, *, experience, fits):
        fits(self.config)
        replay = SimpleNamespace(replace=lambda experience: SimpleNamespace(experience=None))
        return Restored(
            {"train": 1, "replay": replay, "macros": 1}, self.extra, None, 64, [], self.config
        )


def test_forged_counters_and_settings_end_the_run_in_one_line(monkeypatch):
    """A run is stood in for: what `restore` touches before the games."""
    blank = Trajectory(*[None] * len(Trajectory._fields))  # type: ignore[list-item]
    ring = SimpleNamespace(experience=blank, replace=lambda experience: None)
    wanted = RunState(None, ring, None, None, Counters())  # type: ignore[arg-type]
    monkeypatch.setattr("smz_jax.run.state.abstract_state", lambda parts: wanted)
    parts: Any = SimpleNamespace(config=Config(), timers=PhaseTimers())
    counters = {**Counters()._asdict(), "seconds": {}}

    def restore(extra, manifest, words):
        with pytest.raises(ConfigError, match=words) as caught:
            restore_run(parts, FakeStore(extra, manifest))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    for manifest in ({}, {"config": None}, {"config": [1]}, {"config": {"seed": {}}}):
        restore({}, manifest, "other settings")
    good = {"config": flat_dict(Config())}
    for extra in (
        {},
        {"macro_totals": 3},
        {"macro_totals": [1] * 99},
        {"macro_totals": {}},
        {"cpu_seconds": "1"},
    ):
        restore(extra and {**counters, **extra}, good, "the counters of checkpoint 64 are wrong: ")
