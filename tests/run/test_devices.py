"""The mesh of a run: arrays lie on it without a copy, and what is computed with them stays."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from smz_jax.run.devices import make_mesh, replicate


def test_arrays_on_a_mesh_of_one_are_not_copied():
    mesh = make_mesh()
    array = jnp.arange(12, dtype=jnp.float32)
    tree = replicate({"x": array}, mesh)
    assert tree["x"].sharding == NamedSharding(mesh, PartitionSpec())
    assert tree["x"].unsafe_buffer_pointer() == array.unsafe_buffer_pointer()


def test_a_step_keeps_its_state_on_the_mesh_and_compiles_once():
    mesh = make_mesh()
    step = jax.jit(lambda state, x: (state + x, x), donate_argnums=0)
    state = replicate(jnp.zeros(3), mesh)
    for number in range(3):
        state, _ = step(state, jnp.float32(number))
        assert state.sharding == NamedSharding(mesh, PartitionSpec())
    assert step._cache_size() == 1
