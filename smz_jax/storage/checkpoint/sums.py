"""SHA-256 sums of a folder's files, and the manifest that holds them. Imports no JAX.

manifest.json      what the folder holds, with size and sum of every other file
manifest.sha256    the manifest's own sum, as `sha256sum -c` reads it
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST, MANIFEST_SUM = "manifest.json", "manifest.sha256"
BLOCK = 2**22


class Damage(Exception):
    """A file that is missing, was changed, or does not belong there; the text names it."""


def sum_of(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def sums_below(folder: Path) -> dict[str, list[Any]]:
    """`{relative path: [size, SHA-256]}` of every file below `folder` but the manifest's two."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: list(sum_of(path))
        for name, path in named.items()
        if name not in (MANIFEST, MANIFEST_SUM)
    }


def sync_below(folder: Path) -> None:
    """Forces every file and folder below `folder` to the disk, so that a power cut keeps them."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Forces a file, or which names a folder holds, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest and its own sum.

    Raises:
        OSError: if they cannot be written.
    """
    data = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
    (folder / MANIFEST).write_bytes(data)
    line = f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n"
    (folder / MANIFEST_SUM).write_bytes(line.encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once its own sum is right.

    Raises:
        Damage: if either file is missing or was changed.
    """
    data, line = (_read(folder / name) for name in (MANIFEST, MANIFEST_SUM))
    if line != f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode():
        raise Damage(f"{MANIFEST} or {MANIFEST_SUM} was changed")
    manifest = json.loads(data)
    if not isinstance(manifest, dict):
        raise Damage(f"{MANIFEST} holds no mapping")
    return manifest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damage(f"{path.name} is missing ({error.strerror})") from None


def check_name(name: str) -> PurePosixPath:
    """A relative path that stays below its folder.

    Raises:
        Damage: for an absolute path or one with `..`.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise Damage(f"{name!r} is no path below this folder")
    return path


def verify_files(
    folder: Path, files: Mapping[str, Any], known: Callable[[str], bool] = lambda _: False
) -> None:
    """Compares every file with its size and sum.

    Args:
        folder: where they lie.
        files: `{relative path: [size, SHA-256]}`.
        known: says of a path that it was verified before: only its size is compared again.

    Raises:
        Damage: naming the first that is missing, was cut or was changed.
    """
    for name, wanted in files.items():
        path = folder / check_name(name)
        if not path.is_file() or path.is_symlink():
            raise Damage(f"{name} is missing")
        if path.stat().st_size != wanted[0]:
            raise Damage(f"{name} has {path.stat().st_size} of {wanted[0]} bytes")
        if not known(name) and sum_of(path)[1] != wanted[1]:
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
    there = {x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file()}
    if more := sorted(there - set(files) - {MANIFEST, MANIFEST_SUM}):
        raise Damage(f"{more[0]} does not belong there")
    return manifest
