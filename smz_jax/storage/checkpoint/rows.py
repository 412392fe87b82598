"""The replay's rows in files of a fixed range each, which are written only when they changed.

A ring of T rows per lane is cut into ranges of R rows; a file holds one range of all lanes, or of
one process's part of them, named by its own SHA-256. A save writes the ranges that were played
since the last save into the same folder, and lists all of them: a step that is kept never sees its
files change. Saves take turns between two folders, so that two steps share no file: what damages
one leaves the other whole.
"""

import hashlib
import io
import itertools
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.storage.checkpoint.sums import Damage, sum_of, sync, verify_files
from smz_jax.storage.files import atomic_write_bytes
from smz_jax.types import Trajectory

RANGE_BYTES = 2**24
"""The rows in one file take about so much before compression."""
HEAD_BYTES = 1024
"""More than what NumPy writes before the numbers of an array."""
_NAME = re.compile(r"\d{5,}-[0-9a-f]{16}\.npz")

File = tuple[str, int, str]
"""Of a file: name, size, SHA-256."""


class RowChunks(NamedTuple):
    """Rows copied to the host: what a save has to write."""

    ring_rows: int  # T
    range_rows: int  # R
    total: int  # rows that each lane has played, ever
    ranges: dict[int, Trajectory]  # NumPy [own lanes, R, ...] by number
    parts: int = 1  # equal parts of the lanes, one of each process
    part: int = 0  # which of them this is


class SavedRows(NamedTuple):
    """Where the rows of a step are, as its manifest says."""

    ring_rows: int
    range_rows: int
    total: int
    files: dict[int, File]  # by number of the range * parts + part
    parts: int = 1

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {**self._asdict(), "files": {str(k): list(v) for k, v in self.files.items()}}

    @property
    def names(self) -> set[str]:
        """Of its files."""
        return {name for name, _, _ in self.files.values()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "SavedRows":
        """From a manifest that was verified."""
        files = {int(k): (str(v[0]), int(v[1]), str(v[2])) for k, v in value["files"].items()}
        sizes = [int(value[name]) for name in ("ring_rows", "range_rows", "total")]
        return SavedRows(sizes[0], sizes[1], sizes[2], files, int(value.get("parts", 1)))


def range_start(number: int, ring_rows: int, range_rows: int) -> int:
    """First row of a range; the last one is pushed back into the ring and overlaps."""
    return min(number * range_rows, ring_rows - range_rows)


@partial(jax.jit, static_argnums=2)
def _cut(experience: Trajectory, start: jax.Array, size: int) -> Trajectory:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1), experience)


@partial(jax.jit, donate_argnums=0)
def _put(ring: Trajectory, rows: Trajectory, start: jax.Array) -> Trajectory:
    return jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, axis=1), ring, rows
    )


def take_rows(
    experience: Trajectory,
    total: int,
    former: SavedRows | None,
    own: Callable[[jax.Array], np.ndarray] = np.asarray,
    parts: int = 1,
    part: int = 0,
) -> RowChunks:
    """Copies to the host the ranges that hold a row played since `former`.

    Args:
        experience: rows on the device, `[lanes, T, ...]`; fields that are None are left out.
        total: rows that each lane has played, ever.
        former: the last save that this run knows of, with this ring and parts; None: everything
            is taken.
        own: the lanes of an array that this process has, on the host.
        parts: processes that save.
        part: which of them this one is.
    """
    ring_rows = experience.reward.shape[1]
    row_bytes = sum(x.nbytes for x in jax.tree.leaves(experience)) // ring_rows
    range_rows = min(ring_rows, max(1, RANGE_BYTES * parts // row_bytes))
    is_new = np.zeros(ring_rows, bool)
    since = max(former.total if former else 0, total - ring_rows)
    is_new[np.arange(since, total) % ring_rows] = True
    ranges = {}
    for number in range(-(-ring_rows // range_rows)):
        start = range_start(number, ring_rows, range_rows)
        if is_new[start : start + range_rows].any():
            cut = _cut(experience, np.int32(start), range_rows)
            ranges[number] = jax.tree.map(own, cut)
    return RowChunks(ring_rows, range_rows, total, ranges, parts, part)


def pack(rows: Trajectory) -> bytes:
    """One range as the bytes of a compressed npz; frames of few grey levels shrink 100 times.

    Fields that are None are left out.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in rows._asdict().items():
            if array is None:
                continue
            # A fixed date: the same rows give the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, limit: float, names: Sequence[str] = Trajectory._fields) -> dict[str, Any]:
    """The fields `names` of the rows of `pack`; others are not unpacked.

    Raises:
        Damage: for anything but such rows, objects too, or more than `limit` bytes of them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = [archive.getinfo(f"{name}.npy").file_size for name in names]
        if sum(sizes) > limit:
            raise ValueError(f"a field holds {max(sizes):,} bytes, all may hold {limit:,}")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # zipfile and NumPy raise anything over bytes made on purpose
        raise Damage(f"no rows: {(str(error).splitlines() or [''])[0][:120]}") from None


def write_rows(folder: Path, chunks: RowChunks) -> list[tuple[int, str, int, str]]:
    """Writes what `take_rows` took and reads it back; what was there is kept.

    Returns:
        Of each file its number, name, size and SHA-256, as `SavedRows` lists them.

    Raises:
        OSError: if it cannot be written.
        Damage: if it was not read back as it was written.
    """
    written = []
    for number, rows in sorted(chunks.ranges.items()):
        data, place = pack(rows), number * chunks.parts + chunks.part
        digest = hashlib.sha256(data).hexdigest()
        path = folder / f"{place:05d}-{digest[:16]}.npz"
        if not path.exists() or sum_of(path)[1] != digest:
            atomic_write_bytes(path, data)
        written.append((place, path.name, len(data), digest))
    if folder.is_dir():
        sync(folder)
    verify_files(folder, {name: (size, digest) for _, name, size, digest in written})
    return written


def list_rows(
    chunks: RowChunks, former: SavedRows | None, written: Iterable[Iterable[Sequence[Any]]]
) -> SavedRows:
    """Where all rows are: as in `former`, but for what `write_rows` wrote of each part."""
    files = dict(former.files) if former else {}
    for place, name, size, digest in itertools.chain.from_iterable(written):
        files[place] = (name, size, digest)
    return SavedRows(chunks.ring_rows, chunks.range_rows, chunks.total, files, chunks.parts)


def verify_rows(folder: Path, saved: SavedRows, known: SavedRows | None = None) -> None:
    """Verifies every file that a step lists; of those `known` to be right only the size.

    Raises:
        Damage: naming the first that is wrong.
    """
    if odd := [name for name in saved.names if not _NAME.fullmatch(name)]:
        raise Damage(f"{odd[0]!r} is no name of a file of rows")
    ring, size, total, _, parts = saved
    if good := 1 <= size <= ring and total >= 0 and parts >= 1:
        last, played = -(-ring // size) - 1, -(-min(total, ring) // size)
        there = {place // parts for place in saved.files}
        # Counted before they are listed: a forged manifest may tell of any number.
        good = len(saved.files) == parts * len(there) and played <= len(there)
        good = good and all(0 <= x <= last for x in there)
        good = good and all(x in there for x in range(played))
        good = good and (last in there or total <= range_start(last, ring, size))
    if not good:
        raise Damage("the manifest does not list the rows that were played")
    files = {name: (size, digest) for name, size, digest in saved.files.values()}
    right = set(known.files.values()) & set(saved.files.values()) if known else set()
    try:
        verify_files(folder, files, {name for name, _, _ in right})
    except Damage as damage:
        raise Damage(f"{folder.name}/{damage}") from None


def _own_lanes(array: Any) -> tuple[int, int]:
    """Of an array `[lanes, ...]` the first of this process's lanes, and the one after its last."""
    lanes, where = array.shape[0], getattr(array, "sharding", None)
    if where is None or where.is_fully_addressable:
        return 0, lanes
    own = [x[0].indices(lanes) for x in where.addressable_devices_indices_map(array.shape).values()]
    return min(x[0] for x in own), max(x[1] for x in own)


def read_rows(folder: Path, saved: SavedRows, experience: Trajectory) -> Trajectory:
    """Verified rows back in a ring on the device, which is there once and not also on the host.

    The ring is as `experience`, arrays or abstract `[lanes, T, ...]`, and lies where it does; rows
    never played are zeros. Fields that are None in it are not read. Of several processes each
    reads the files that hold a lane of its own, however many wrote them.

    Raises:
        Damage: if the files hold other shapes or types.
    """
    ring = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype, device=getattr(x, "sharding", None)), experience
    )
    lanes, (first, stop) = ring.reward.shape[0], _own_lanes(ring.reward)
    found, wanted = saved.ring_rows, ring.reward.shape[1]
    if lanes % saved.parts or found != wanted:
        there = f"{saved.parts} parts of {found} rows"
        raise Damage(f"the rows are in {there} of each lane, not {wanted} rows of {lanes} lanes")
    width, size = lanes // saved.parts, saved.range_rows
    parts = range(first // width, -(-stop // width))
    shapes = {
        name: jax.ShapeDtypeStruct((width, size, *x.shape[2:]), x.dtype)
        for name, x in ring._asdict().items()
        if x is not None
    }
    for number in sorted({place // saved.parts for place in saved.files}):
        files = [saved.files[number * saved.parts + part][0] for part in parts]
        found = [_read_part(folder / file, shapes) for file in files]
        own = slice(first - parts[0] * width, stop - parts[0] * width)
        rows = {
            name: _onto(np.concatenate([part[name] for part in found])[own], getattr(ring, name))
            for name in shapes
        }
        start = range_start(number, saved.ring_rows, size)
        ring = _put(ring, ring._replace(**rows), np.int32(start))
    return ring


def _read_part(path: Path, shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The fields of a file of rows; raises Damage where they are others than `shapes`."""
    limit = sum(math.prod(x.shape) * x.dtype.itemsize + HEAD_BYTES for x in shapes.values())
    rows = unpack(path.read_bytes(), limit, list(shapes))
    for name, wanted in shapes.items():
        found = rows[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            there = f"{found.dtype} {list(found.shape)}"
            line = f"{there}, not {wanted.dtype} {list(wanted.shape)}"
            raise Damage(f"{path.parent.name}/{path.name} holds {name} as {line}")
    return rows


def _onto(own: np.ndarray, ring: jax.Array) -> Any:
    """Rows of the own lanes as an array that is cut as the ring is."""
    if ring.is_fully_addressable:
        return own
    return jax.make_array_from_process_local_data(ring.sharding, own)


def read_fields(
    folder: Path, saved: SavedRows, lanes: int, names: Sequence[str]
) -> list[np.ndarray]:
    """Fields of verified rows with one number a row, e.g. `action`; frames are not unpacked.

    Returns:
        Of each name an array `[lanes, T]` of the rows that are still there, the oldest first.

    Raises:
        Damage: if the files hold other shapes.
    """
    ring: dict[str, np.ndarray] = {}
    width, size = lanes // saved.parts, saved.range_rows
    limit = len(names) * (width * size * 8 + HEAD_BYTES)
    for place, (file, _, _) in sorted(saved.files.items()):
        number, part = divmod(place, saved.parts)
        start = range_start(number, saved.ring_rows, size)
        for name, found in unpack((folder / file).read_bytes(), limit, names).items():
            if found.shape != (width, size):
                raise Damage(f"no rows: {name} is {list(found.shape)}, not {[width, size]}")
            into = ring.setdefault(name, np.zeros((lanes, saved.ring_rows), found.dtype))
            into[part * width : (part + 1) * width, start : start + size] = found
    rows = np.arange(max(0, saved.total - saved.ring_rows), saved.total) % saved.ring_rows
    return [ring[name][:, rows] for name in names] if ring else []
