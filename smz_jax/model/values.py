"""Scalars as categorical distributions over a support, and back."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from smz_jax.config.network import MARGIN
from smz_jax.types import Array

Transform = Literal["hyperbolic", "none"]
"""What is done to a scalar before it is spread over its bins."""


Code = Literal["two_hot", "hl_gauss"]
"""How it is spread over them."""
GAUSS_BINS = 0.75
"""Deviation of `hl_gauss`, in bins."""


def signed_hyperbolic(x: Array, eps: float = 1e-3) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x; any shape, float32.

    `eps` keeps the inverse Lipschitz continuous. Source: Pohlen et al. 2018, "Observe and Look
    Further", Proposition A.2.
    """
    x = jnp.asarray(x, jnp.float32)
    # |x| / (sqrt(|x| + 1) + 1) is sqrt(|x| + 1) - 1 without the cancellation near 0.
    return x / (jnp.sqrt(jnp.abs(x) + 1.0) + 1.0) + eps * x


def signed_parabolic(y: Array, eps: float = 1e-3) -> Array:
    """h^-1(y), the exact inverse of `signed_hyperbolic`; any shape, float32.

    With s = sqrt(|x| + 1) - 1 the transform reads |y| = s + eps (s^2 + 2 s): the positive root of
    that quadratic, in the form that does not cancel, then |x| = s (s + 2).
    """
    y = jnp.asarray(y, jnp.float32)
    size, slope = jnp.abs(y), 1.0 + 2.0 * eps
    s = 2.0 * size / (slope + jnp.sqrt(slope * slope + 4.0 * eps * size))
    return jnp.sign(y) * s * (s + 2.0)


def two_hot(y: Array, support: int) -> Array:
    """Spreads a scalar over its two neighbouring integer bins so that the mean is the scalar.

    Source: MuZero (2020), appendix F.

    Args:
        y: [] float, already transformed; clipped to [-support, support].
        support: the bins are the integers -support..support.

    Returns:
        Probabilities `[2 * support + 1]`, float32; an integer gives a single 1, so do both ends.
    """
    y = jnp.clip(jnp.asarray(y, jnp.float32), -support, support)
    chex.assert_rank(y, 0)
    bins = jnp.arange(-support, support + 1, dtype=jnp.float32)
    return jnp.maximum(0.0, 1.0 - jnp.abs(y - bins))


def hl_gauss(y: Array, support: int) -> Array:
    """Spreads a scalar over the bins as a normal distribution around it does, of deviation 0.75.

    Each bin has the mass between its borders, as a share of what lies within them all. The outer
    `MARGIN` bins of each side are for the bell of the ends: without them a sure win, the last of
    a few bins, would have a mean of 0.37 bins less.
    Source: Farebrother et al. 2024, "Stop Regressing", section 3.1.

    Args:
        y: [] float, already transformed; clipped to `MARGIN` bins within the support.
        support: the bins are the integers -support..support, and half a bin reaches beyond both.

    Returns:
        Probabilities `[2 * support + 1]`, float32. Their mean is y to 2e-4.
    """
    most = support - MARGIN
    y = jnp.clip(jnp.asarray(y, jnp.float32), -most, most)
    chex.assert_rank(y, 0)
    borders = jnp.arange(-support, support + 2, dtype=jnp.float32) - 0.5
    mass = jnp.diff(jax.scipy.special.ndtr((borders - y) / GAUSS_BINS))
    return mass / jnp.sum(mass)


CODES: dict[Code, Callable[[Array, int], Array]] = {"two_hot": two_hot, "hl_gauss": hl_gauss}


class _Pair(NamedTuple):
    forward: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


TRANSFORMS: dict[Transform, _Pair] = {
    "hyperbolic": _Pair(signed_hyperbolic, signed_parabolic),
    "none": _Pair(lambda x: jnp.asarray(x, jnp.float32), lambda y: jnp.asarray(y, jnp.float32)),
}


def scalar_to_probs(
    x: Array,
    support: int,
    transform: Transform = "hyperbolic",
    code: Code = "two_hot",
    width: float = 1.0,
) -> Array:
    """The categorical target `[2 * support + 1]` of a raw scalar `x` []: h(x) in bins of `width`.

    `support` counts bins. Without a transform an integer within the support is a class.
    """
    return CODES[code](TRANSFORMS[transform].forward(x) / width, support)


def logits_to_scalar(
    logits: Array, support: int, transform: Transform = "hyperbolic", width: float = 1.0
) -> Array:
    """`h^-1(mean of softmax(logits))`: the raw scalar that a categorical head stands for.

    `logits [2 * support + 1]` of any float type, of bins `width` wide, to [] float32; the softmax
    is taken in float32.
    """
    chex.assert_shape(logits, (2 * support + 1,))
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    mean = jnp.sum(probs * jnp.arange(-support, support + 1, dtype=jnp.float32))
    return TRANSFORMS[transform].inverse(mean * width)
