"""Exports and macro libraries made to do harm, with sums that are right.

Each is refused in one line; nothing in it is executed, and nothing outside its folder is read,
written or deleted. Damage, where the sums tell, is tested in `test_export`.
"""

import io
import json
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.report.macro_tables import format_rankings
from smz_jax.storage.documents.macro_form import LIBRARY
from smz_jax.storage.export import ABOUT, REQUIRED, SUMS, Exported, read_export, write_export
from tests.macros.test_macros_library import document
from tests.storage.test_export import refused, resum
from tests.support.malice import NONSENSE, link_out, nodes, replaced

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
                LIBRARY.check(changed, path)
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
    LIBRARY.check(whole, Path("macros.json"))
    with pytest.raises(ConfigError, match=r"macros\.json"):
        LIBRARY.check(replaced(whole, where, value), Path("macros.json"))
