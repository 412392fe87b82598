"""Pytrees of arrays, numbers and random keys, written and read with Orbax.

Arrays are written as compressed chunks. Orbax does not notice changed bytes: `sums` does, before
anything here reads.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from smz_jax.config.check import ConfigError
from smz_jax.storage.checkpoint.sums import Damage, reason_of
from smz_jax.storage.files import by_descriptor, opened

CHUNK_BYTES = 32 * 2**20


def _is_key(leaf: Any) -> bool:
    """Whether `leaf` is a typed random key, which Orbax cannot store as it is."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their path in the tree, e.g. `.params['dense']['kernel']`."""
    return {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def to_host(leaf: Any) -> np.ndarray:
    """A copy on the host that no later step of the run changes; of a typed random key, its data."""
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def describe(leaf: Any) -> list[Any]:
    """`[dtype name, shape]` of a leaf, array or abstract."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return [str(leaf.dtype), list(leaf.shape)]


def unfit(saved: dict[str, list[Any]], wanted: dict[str, Any]) -> str | None:
    """Says where saved leaves differ from those wanted, in name, shape or dtype; None: nowhere."""
    described = {name: describe(leaf) for name, leaf in wanted.items()}
    differing = [name for name in {**described, **saved} if described.get(name) != saved.get(name)]
    if not differing and list(described) == list(saved):
        return None
    name = differing[0] if differing else "the order of the leaves"
    here, there = described.get(name, "absent"), saved.get(name, "absent")
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    return f"{name} is {there} in it, but must be {here}{more}"


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """`path` by a name that TensorStore takes as it is.

    It loses arrays below a folder with brackets or a backslash in its name, and fails where a name
    is no UTF-8; and it makes folders that are gone. Through a descriptor of the parent no folder
    has a name, and it is there under any later one.
    """
    with opened(path.parent) as parent:
        yield by_descriptor(parent, path.parent) / path.name


def _checkpointer() -> ocp.Checkpointer:
    """Orbax's blocking checkpointer for a flat dict of arrays, which this process alone calls."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        own, active_processes={own} if jax.process_count() > 1 else None
    )
    options: dict[str, Any] = {"multiprocessing_options": alone}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, **options)
    return ocp.Checkpointer(handler, **options)


def write_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Writes arrays by their position; Orbax refuses empty ones, so those are left out.

    Raises:
        OSError: if they cannot fit, which Orbax would say in a hundred lines.
    """
    size, free = sum(array.nbytes for array in arrays), shutil.disk_usage(path.parent).free
    if free < size:
        need = f"a checkpoint needs {size / 2**20:.1f} MiB, {free / 2**20:.1f} are free"
        reason = f"{os.strerror(errno.ENOSPC)}: {need}"
        raise OSError(errno.ENOSPC, reason, str(path.parent))
    item = {f"{i:05d}": array for i, array in enumerate(arrays) if array.size}
    save_args = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in item}
    with _plain(path) as place, _checkpointer() as checkpointer:
        checkpointer.save(place, args=ocp.args.PyTreeSave(item, save_args=save_args))


def check_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Reads back what `write_arrays` wrote; raises Damage where an array is another one.

    Sums of the files do not show whether the arrays are in them.
    """
    item = {f"{i:05d}": array for i, array in enumerate(arrays) if array.size}
    try:
        with _plain(path) as place, _checkpointer() as checkpointer:
            found = checkpointer.restore(place, args=ocp.args.PyTreeRestore(item))
    except Exception as error:
        raise Damage(f"what was written cannot be read: {reason_of(error)}") from None
    for name, array in item.items():
        there = np.asarray(found[name])
        if (there.dtype, there.shape) != (array.dtype, array.shape) or (
            there.tobytes() != array.tobytes()
        ):
            raise Damage(f"array {name} was not read back as it was written")


def read_state(
    folder: Path, saved: dict[str, list[Any]], abstract: Any, *, partial: bool = False
) -> Any:
    """A pytree of a verified step like `abstract`, all that was saved or (`partial`) some of it.

    NumPy leaves come back as NumPy, numbers as numbers. What was saved is `saved`: leaves as
    `describe` gives them, by name and in order.

    Raises:
        ConfigError: in one line, if a leaf is missing or another one, or cannot be read.
    """
    wanted = named_leaves(abstract)
    there = {name: x for name, x in saved.items() if name in wanted or not partial}
    if text := unfit(there, wanted):
        fault = "is of another model" if partial else "does not fit this run"
        raise ConfigError(f"checkpoint {str(folder)!r} {fault}: {text}")
    places = {f"{i:05d}": wanted[name] for i, name in enumerate(saved) if name in wanted}
    stored = {place: leaf for place, leaf in places.items() if np.prod(np.shape(leaf)) > 0}
    args = ocp.args.PyTreeRestore(
        item=dict.fromkeys(stored, 0),
        restore_args={place: _restore_args(leaf) for place, leaf in stored.items()},
        partial_restore=partial,
    )
    with readable(folder):
        with _plain(folder / "state") as place, _checkpointer() as checkpointer:
            arrays = checkpointer.restore(place, args=args)
        leaves = [_as_template(arrays.get(place), leaf) for place, leaf in places.items()]
        if text := unfit(dict(zip(wanted, map(describe, leaves), strict=True)), wanted):
            raise ValueError(text)
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(abstract), leaves)


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Raises ConfigError in one line where bytes as written are of another version, or forged."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        raise ConfigError(f"checkpoint {str(folder)!r} cannot be read: {reason}") from None


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
    """How Orbax gives back one leaf: where its template lies, if that is tied to devices."""
    sharding = None if _is_key(leaf) else getattr(leaf, "sharding", None)
    if sharding is None or not getattr(leaf, "committed", True):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=sharding)


def _as_template(array: Any, leaf: Any) -> Any:
    """A restored array as the kind of thing that its template is."""
    if array is None:  # empty, so nothing was stored
        array = np.zeros(np.shape(leaf), leaf.dtype)
        return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)
    if _is_key(leaf):
        return jax.random.wrap_key_data(_untied(array), impl=leaf.dtype._impl)
    if isinstance(leaf, (bool, int, float)):
        return type(leaf)(array.item())
    return array if isinstance(leaf, np.ndarray) else _untied(array)


def _untied(array: Any) -> Any:
    """Tied to no device, as a fresh array: else each program would be compiled once more."""
    return jax.device_put(array, may_alias=False) if isinstance(array, np.ndarray) else array
