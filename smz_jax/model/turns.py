"""Three players and more: what each one gains, and from whose side it is told.

With one or two players a value is one number, the mover's: what the one gains the other loses. With
P > 2 it is a vector `[..., P]`. The model tells it from the side of who moves: entry i is of who
sits i seats after the mover. A tree and the returns of a window add vectors up by seat instead, so
that an edge turns nothing around, whoever moves next.
"""

import jax.numpy as jnp

from smz_jax.types import Array


def turned(x: Array, seats: Array) -> Array:
    """`x [..., P]` read from `seats [...]` seats on: entry i of the result is entry i + seats.

    By the seat of who moves it tells a vector by seat from the mover's side; `by_seat` is the way
    back.
    """
    size = x.shape[-1]
    return jnp.take_along_axis(x, (jnp.arange(size) + seats[..., None]) % size, axis=-1)


def by_seat(x: Array, mover: Array) -> Array:
    """A vector `[..., P]` that is told from the side of `mover [...]`, by seat."""
    return turned(x, -mover)


def of_seat(x: Array, seat: Array | None) -> Array:
    """The entry `[...]` of one `seat [...]`; without one `x` has no vectors, and is given back."""
    return x if seat is None else jnp.take_along_axis(x, seat[..., None], axis=-1)[..., 0]


def beside(x: Array, values: Array) -> Array:
    """`x [...]` so that it multiplies or masks `values [...]` or `[..., P]`."""
    return x.reshape(x.shape + (1,) * (values.ndim - x.ndim))
