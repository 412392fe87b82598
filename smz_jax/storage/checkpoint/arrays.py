"""Pytrees of arrays, numbers and random keys, written and read with Orbax.

Arrays are written as compressed chunks. Orbax does not notice changed bytes: `sums` does, before
anything here reads.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

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


def _make_checkpointer() -> ocp.Checkpointer:
    """Orbax's blocking checkpointer for a flat dict of arrays."""
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False)
    return ocp.Checkpointer(handler)


def write_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Writes arrays by their position; Orbax refuses empty ones, so those are left out."""
    item = {f"{i:05d}": array for i, array in enumerate(arrays) if array.size}
    save_args = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in item}
    with _make_checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(item, save_args=save_args))


def read_arrays(
    path: Path, wanted: dict[str, Any], positions: list[int] | None = None
) -> list[Any]:
    """Reads what `write_arrays` wrote; NumPy leaves come back as NumPy, numbers as numbers.

    Args:
        path: folder of the arrays.
        wanted: leaves as they were saved, arrays or abstract, by name and in order.
        positions: of these leaves among those that were saved; unset: they are all.

    Raises:
        ValueError: if an array has another shape or type than its leaf.
    """
    numbers = range(len(wanted)) if positions is None else positions
    templates = {f"{i:05d}": leaf for i, leaf in zip(numbers, wanted.values(), strict=True)}
    stored = {name: leaf for name, leaf in templates.items() if np.prod(np.shape(leaf)) > 0}
    restore_args = {name: _restore_args(leaf) for name, leaf in stored.items()}
    item = {name: 0 for name in stored}
    with _make_checkpointer() as checkpointer:
        partial = positions is not None
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=partial)
        arrays = checkpointer.restore(path, args=args)
    leaves = [_as_template(arrays.get(name), leaf) for name, leaf in templates.items()]
    if text := unfit(dict(zip(wanted, map(describe, leaves), strict=True)), wanted):
        raise ValueError(text)
    return leaves


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
    """How Orbax gives back one leaf: on the device for arrays, else as NumPy."""
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    sharding = None if _is_key(leaf) else getattr(leaf, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=sharding)


def _as_template(array: Any, leaf: Any) -> Any:
    """A restored array as the kind of thing that its template is."""
    if array is None:  # empty, so nothing was stored
        array = np.zeros(np.shape(leaf), leaf.dtype)
        return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)
    if _is_key(leaf):
        return jax.random.wrap_key_data(array, impl=leaf.dtype._impl)
    if isinstance(leaf, (bool, int, float)):
        return type(leaf)(array.item())
    return array
