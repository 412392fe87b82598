"""Lanes over several devices: who holds what, who computes what, and whose random numbers.

A mesh has one axis of devices. Arrays with lanes or windows first are cut along it; all others are
whole on every device. A mesh of one device, or none, changes no program. The devices of one process
follow each other in it: a process has its part of the lanes of each pool.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from smz_jax.types import Array

AXIS = "data"
LANES, WHOLE = P(AXIS), P()
"""Cut along the first axis, or the same on every device."""


def count_devices(mesh: Mesh | None) -> int:
    """Devices of a mesh; without one, 1."""
    return 1 if mesh is None else mesh.size


def shardings(tree: Any, mesh: Mesh, how: Any) -> Any:
    """Where each array of `tree` lies; `how` is a prefix of it, of `LANES` and `WHOLE`."""

    def of_part(spec: P, part: Any) -> Any:
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), part)

    return jax.tree.map(of_part, how, tree)


def lay(tree: Any, mesh: Mesh | None, how: Any) -> Any:
    """Within a compiled program: has the arrays of `tree` lie as `shardings` says."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh, how))


def over_lanes(function: Callable, mesh: Mesh | None, given: Any, gives: Any) -> Callable:
    """`function` on each device's own lanes; what it `gives` as `WHOLE` are its `own_sums`.

    `given` and `gives` are `LANES` or `WHOLE` for each argument and result, as `jax.shard_map`
    takes them.
    """
    if mesh is None or mesh.size == 1:
        return function
    specs = {"in_specs": given, "out_specs": gives}
    return jax.shard_map(function, mesh=mesh, check_vma=False, **specs)


def own_sums(tree: Any) -> Any:
    """Within `over_lanes`: sums of the own lanes, added up over all devices."""
    return tree if jax.sharding.get_abstract_mesh().empty else jax.lax.psum(tree, AXIS)


def own_rows(draw: Callable[[int], Array], rows: int) -> Array:
    """Random numbers of so many own lanes: `draw(n)` gives n rows.

    Within `over_lanes` those of all lanes are drawn, and each device takes its part, so that a
    lane's do not depend on how many devices there are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return draw(rows)
    first = jax.lax.axis_index(AXIS) * rows
    return jax.lax.dynamic_slice_in_dim(draw(rows * mesh.shape[AXIS]), first, rows)


def count_processes(mesh: Mesh | None) -> int:
    """Processes that the devices of a mesh belong to; without one, 1."""
    return 1 if mesh is None else len({device.process_index for device in mesh.devices.flat})


def from_own(pools: Sequence[np.ndarray], mesh: Mesh | None) -> Any:
    """What this process knows of its own lanes, `[own lanes, ...]` of each pool, as one array.

    Its lanes `[B, ...]` are in the order of the pools, those of all processes. All call this.
    """
    if mesh is None or not mesh.is_multi_process:
        return pools[0] if len(pools) == 1 else np.concatenate(pools)
    cut = NamedSharding(mesh, LANES)
    arrays = [jax.make_array_from_process_local_data(cut, part) for part in pools]
    return arrays[0] if len(arrays) == 1 else jax.jit(jnp.concatenate, out_shardings=cut)(arrays)


def placed(tree: Any, places: Any, mesh: Mesh) -> Any:
    """`tree` with every array where `places` says, as `shardings` gives them.

    Of several processes each has the same arrays; those that lie on the mesh already stay there.
    """
    if not mesh.is_multi_process:
        return jax.device_put(tree, places)

    def place(array: Any, where: NamedSharding) -> Array:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            return array
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            kind = jax.random.key_impl(array)
            return jax.random.wrap_key_data(place(jax.random.key_data(array), where), impl=kind)
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, where, lambda part: host[part])

    return jax.tree.map(place, tree, places)


def to_own(array: Array, mesh: Mesh | None) -> np.ndarray:
    """The part `[own lanes, ...]` of an array `[B, ...]` that this process has, on the host."""
    if mesh is None or not mesh.is_multi_process:
        return np.asarray(array)
    parts = sorted(array.addressable_shards, key=lambda part: part.index[0].start or 0)
    return np.concatenate([np.asarray(part.data) for part in parts])


def brought_home(tree: Any) -> Any:
    """`tree` with the arrays of all processes whole, on a device of this one.

    All processes call this where an array is cut: what the others have is sent.
    """
    leaves, shape = jax.tree.flatten(tree)
    away = [
        i for i, x in enumerate(leaves) if isinstance(x, jax.Array) and not x.is_fully_addressable
    ]
    cut = {i: leaves[i] for i in away if not leaves[i].is_fully_replicated}
    if cut:
        mesh = next(iter(cut.values())).sharding.mesh
        sent = jax.jit(_same, out_shardings=NamedSharding(mesh, WHOLE))(list(cut.values()))
        leaves = [dict(zip(cut, sent, strict=True)).get(i, x) for i, x in enumerate(leaves)]
    for i in away:
        leaves[i] = leaves[i].addressable_data(0)
    return jax.tree.unflatten(shape, leaves)


def _same(arrays: list[Array]) -> list[Array]:
    return arrays


def of_all_processes(array: np.ndarray) -> np.ndarray:
    """`[processes, ...]` of an array that each has, of equal shapes and types. All call this."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # JAX has no 64 bits
    return multihost_utils.process_allgather(flat).view(array.dtype).reshape(-1, *array.shape)
