"""Lanes over several devices: who holds what, who computes what, and whose random numbers.

A mesh has one axis of devices. Arrays with lanes or windows first are cut along it; all others are
whole on every device. A mesh of one device, or none, changes no program.
"""

from collections.abc import Callable
from typing import Any

import jax
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
