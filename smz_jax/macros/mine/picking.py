"""A few of many rows, picked into the smallest of a few buffers that holds them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.types import Array


def running_count(flags: Array) -> Array:
    """How many of flags [R] are true up to each, int32.

    In blocks, by a product with a triangle, which is exact: XLA adds up so many one by one, in
    three times the time on a CPU.
    """
    block, size = 32, flags.shape[0]
    blocks = jnp.pad(flags, (0, -size % block)).reshape(-1, block).astype(jnp.float32)
    within = (blocks @ jnp.triu(jnp.ones((block, block), jnp.float32))).astype(jnp.int32)
    before = jnp.cumsum(within[:, -1]) - within[:, -1]
    return (within + before[:, None]).reshape(-1)[:size]


def with_buffer(rows: int, smallest: int, total: Array, run: Callable[[int], Any]) -> Any:
    """`run` with the smallest of a few buffers for some of `rows` that holds `total` [] of them.

    All but that for all rows have at least `smallest` rows: each is compiled.
    """
    buffers = [rows // part for part in (8, 3) if rows // part >= smallest] + [rows]
    choice = sum(((total > buffer).astype(jnp.int32) for buffer in buffers[:-1]), jnp.int32(0))
    return jax.lax.switch(choice, [lambda buffer=buffer: run(buffer) for buffer in buffers])
