"""SHA-256 sums of a folder's files, and the manifest that holds them. Imports no JAX.

manifest.json      what the folder holds, with size and sum of every other file
manifest.sha256    the manifest's own sum, as `sha256sum -c` reads it
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from smz_jax.storage.files import opened

MANIFEST, MANIFEST_SUM = "manifest.json", "manifest.sha256"


class Damage(Exception):
    """A file that is missing, was changed, or does not belong there; the text names it."""


def reason_of(error: Exception) -> str:
    """First line of what an error says."""
    text = (str(error).splitlines() or [""])[0][:200]
    return text if isinstance(error, Damage) else f"{type(error).__name__}: {text}"


def sum_of(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _names(folder: Path) -> list[str]:
    """Relative paths of every file below `folder` but the manifest's two, sorted."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(set(paths) - {MANIFEST, MANIFEST_SUM})


def sums_below(folder: Path) -> dict[str, list[Any]]:
    """`{relative path: [size, SHA-256]}` of every file below `folder` but the manifest's two."""
    return {name: list(sum_of(folder / name)) for name in _names(folder)}


def sync_below(folder: Path) -> None:
    """Forces every file and folder below `folder` to the disk, so that a power cut keeps them."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Forces a file, or which names a folder holds, to the disk."""
    with opened(path) as descriptor:
        os.fsync(descriptor)


def _own_sum(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest and its own sum; raises OSError if they cannot be written."""
    data = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_SUM).write_bytes(_own_sum(data))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once its own sum is right.

    Raises:
        Damage: if either file is missing or was changed.
    """
    try:
        data, line = ((folder / name).read_bytes() for name in (MANIFEST, MANIFEST_SUM))
    except OSError as error:
        name = Path(error.filename).name
        raise Damage(f"{name} is missing ({error.strerror})") from None
    if line != _own_sum(data):
        raise Damage(f"{MANIFEST} or {MANIFEST_SUM} was changed")
    manifest = json.loads(data)
    if not isinstance(manifest, dict):
        raise Damage(f"{MANIFEST} holds no mapping")
    return manifest


def verify_files(folder: Path, files: Mapping[str, Any], known: Collection[str] = ()) -> None:
    """Compares every file of `{relative path: [size, SHA-256]}`; if it is `known`, the size alone.

    Raises:
        Damage: naming the first that is missing, was cut or was changed, or lies elsewhere.
    """
    for name, wanted in files.items():
        inner = PurePosixPath(name)
        if inner.is_absolute() or not inner.parts or ".." in inner.parts or "\\" in name:
            raise Damage(f"{name!r} is no path below this folder")
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise Damage(f"{name} is missing")
        if path.stat().st_size != wanted[0]:
            raise Damage(f"{name} has {path.stat().st_size} of {wanted[0]} bytes")
        if name not in known and sum_of(path)[1] != wanted[1]:
            raise Damage(f"{name} was changed: its SHA-256 is another one")


def verify_folder(folder: Path) -> dict[str, Any]:
    """Verifies a folder that `write_manifest` closed; gives its manifest.

    Raises:
        Damage: naming the file that is missing, was changed, or was not there.
    """
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink():
            raise Damage(f"{path.name} is a link: a checkpoint holds files of its own")
    manifest = read_manifest(folder)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise Damage(f"{MANIFEST} lists no files")
    verify_files(folder, files)
    if more := [name for name in _names(folder) if name not in files]:
        raise Damage(f"{more[0]} does not belong there")
    return manifest
