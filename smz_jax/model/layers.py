"""Layers shared by torsos, dynamics and heads."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.types import Array

SIMPLEX = 8
SMALL_INIT = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")


@jax.custom_jvp
def highest(x: Array) -> Array:
    """The maximum of `[B, ...]` over all features, kept as axes of length one.

    Its gradient is that of `jnp.max`, shared by the entries that equal the maximum, but for one
    case: at low levels of optimisation XLA may compute `x` twice, with different roundings, so
    that none does. The first of the highest has it then; in `jnp.max` it is 0 / 0.
    """
    return x.max(axis=tuple(range(1, x.ndim)), keepdims=True)


@highest.defjvp
def _highest_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    high, flat = highest(x), x.reshape(len(x), -1)
    equal = flat == high.reshape(-1, 1)
    first = jnp.argmax(flat, axis=1)[:, None] == jnp.arange(flat.shape[1])
    share = (equal | first).astype(x.dtype)
    moved = (tangent.reshape(flat.shape) * share).sum(axis=1) / share.sum(axis=1)
    return high, moved.reshape(high.shape)


def min_max_scale(embedding: Array) -> Array:
    """Scales each embedding `[B, ...]` to [0, 1] over all its features; a constant one becomes 0.

    MuZero, appendix G.
    """
    low, high = -highest(-embedding), highest(embedding)
    return (embedding - low) / jnp.maximum(high - low, 1e-5)


def simplex_scale(logits: Array) -> Array:
    """Softmax over each `SIMPLEX` neighbouring features of `[..., D]`.

    SimNorm (Hansen et al. 2024, TD-MPC2, section 3.1; appendix: groups of 8).
    """
    groups = logits.reshape(*logits.shape[:-1], -1, SIMPLEX)
    return jax.nn.softmax(groups, axis=-1).reshape(logits.shape)


class Scale(NamedTuple):
    """How embeddings are kept within bounds."""

    bound: Callable[[Array], Array]  # any numbers `[B, ..., D]` to an embedding in [0, 1]
    free: Callable[[Array], Array]  # back: what a residual layer adds to; `bound` of it is the same


SCALES = {
    "min_max": Scale(min_max_scale, lambda x: x),
    "simplex": Scale(simplex_scale, lambda x: jnp.log(x + 1e-6)),
}
"""Every value of `network.embedding_scale`."""


def batch_standardise(x: Array, rows: int | None = None) -> Array:
    """Standardises every feature of `x [B, D]` over the batch; keeps a cosine loss from collapsing.

    The first `rows` are the batch whose mean and variance are taken; None: all.
    """
    x32 = x.astype(jnp.float32)
    mean = x32[:rows].mean(axis=0, keepdims=True)
    variance = x32[:rows].var(axis=0, keepdims=True)
    return ((x32 - mean) * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)


def as_float(observation: Array) -> Array:
    """Bytes as numbers in [0, 1]; numbers as they are. Gives float32."""
    is_bytes = observation.dtype == jnp.uint8
    return observation.astype(jnp.float32) * (1 / 255 if is_bytes else 1.0)


def newest_share(count: Array, momentum: float) -> Array:
    """Weight of the newest of `count` batches in running statistics; at first a plain average."""
    return jnp.maximum(1 / count, 1 - momentum)


class PixelNorm(nn.Module):
    """Standardises each pixel by its running mean and deviation over all frames seen.

    Atari frames are nearly equal: a ball is a few pixels. Measured against its own deviation,
    such a pixel is as loud as the whole background.
    """

    frame_shape: tuple[int, ...]
    enabled: bool = True
    momentum: float = 0.99

    def setup(self) -> None:
        """Makes the running statistics."""
        if self.enabled:
            shape = self.frame_shape
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
            self.square = self.variable("batch_stats", "square", jnp.ones, shape, jnp.float32)
            self.count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.float32)

    def variance(self) -> Array:
        """Of each pixel, `[*frame_shape]`."""
        return jnp.maximum(self.square.value - jnp.square(self.mean.value), 0.0) + 1e-4

    def __call__(
        self, observation: Array, train: bool, arrange: Callable[[Array], Array] | None = None
    ) -> Array:
        """Maps `[B, F, *frame_shape]` (uint8 or float) to float32 of about unit variance.

        `arrange` gives the pixels their places before they are numbers, where that is cheap: bytes
        are moved in a pass of their own, for within one with the arithmetic it took most of a
        representation's time on a CPU.
        """
        place = arrange or (lambda x: x)
        if not self.enabled:
            return as_float(place(observation))
        if train and not self.is_initializing():
            # The first updates are plain averages, so that the zeros at the start leave no trace.
            self.count.value = self.count.value + 1
            step = newest_share(self.count.value, self.momentum)
            newest = as_float(observation[:, -1])
            self.mean.value += step * (newest.mean(axis=0) - self.mean.value)
            self.square.value += step * (jnp.square(newest).mean(axis=0) - self.square.value)
        mean, deviation = self.mean.value, jnp.sqrt(self.variance())
        if arrange is not None:
            shape = (1, *observation.shape[1:])
            mean = place(jnp.broadcast_to(mean, shape))
            deviation = 1 + place(jnp.broadcast_to(deviation - 1, shape))  # 1 where it pads
            observation, mean, deviation = jax.lax.optimization_barrier(
                (place(observation), mean, deviation)
            )
        return jnp.clip((as_float(observation) - mean) / deviation, -5.0, 5.0)

    def difference(self, frame: Array, before: Array) -> Array:
        """`frame - before`, both `[B, *frame_shape]`, over the deviation of a pixel on average."""
        x = as_float(frame) - as_float(before)
        return x / jnp.sqrt(self.variance().mean()) if self.enabled else x


class ChangeNorm(nn.Module):
    """Measures how pixels change from frame to frame, so that large and small things count.

    With m the mean square of all changes and v that of a pixel, a change is multiplied by

        sqrt((1 / m + u / mean(v u)) / 2),  u = 1 / (v + FLOOR m)

    so that its mean square is 1: half of it is that of changes measured by one deviation (in
    Breakout three quarters of that is the paddle), half that of changes measured by each pixel's
    own (three quarters of that is the ball).
    """

    pixels: int
    momentum: float = 0.99
    FLOOR = 0.03

    def setup(self) -> None:
        """Makes the running statistics."""
        self.square = self.variable("batch_stats", "square", jnp.zeros, self.pixels, jnp.float32)
        self.count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.float32)

    def update(self, change: Array) -> None:
        """Counts changes `[B, pixels]`."""
        self.count.value = self.count.value + 1
        step = newest_share(self.count.value, self.momentum)
        self.square.value += step * (jnp.square(change).mean(axis=0) - self.square.value)

    def __call__(self, change: Array) -> Array:
        """`change [B, pixels]`, scaled."""
        square = self.square.value + 1e-8  # where nothing ever changed
        own = 1 / (square + self.FLOOR * square.mean())
        return change * jnp.sqrt((1 / square.mean() + own / (square * own).mean()) / 2)


class EmbeddingNorm(nn.Module):
    """Normalises an embedding before it is scaled."""

    kind: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """`[B, ...]` to the same shape; `batch` uses running statistics unless `train`."""
        if self.kind == "layer":
            return nn.LayerNorm(dtype=x.dtype)(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.95, dtype=x.dtype)(x)


class ResidualMlp(nn.Module):
    """Pre-activation residual block on a flat embedding."""

    hidden_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, extra: Array | None = None) -> Array:
        """`x + MLP(norm(x), extra)`; `[B, D]` in and out."""
        h = nn.LayerNorm(dtype=self.dtype)(x)
        if extra is not None:
            h = jnp.concatenate([h, extra.astype(h.dtype)], axis=-1)
        h = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype)(h))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype)(h)


class ResidualConv(nn.Module):
    """Pre-activation residual block on planes, LayerNorm over channels."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, channels]` in and out."""
        h = nn.relu(nn.LayerNorm(dtype=self.dtype)(x))
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(h)
        h = nn.relu(nn.LayerNorm(dtype=self.dtype)(h))
        return x + nn.Conv(self.channels, (3, 3), dtype=self.dtype)(h)


class ResidualLines(nn.Module):
    """Pre-activation residual block on a board: each line's cells together, weights shared.

    What a move does to a line (in 2048: slide and merge) is the same for all rows, and for all
    columns; where an outcome falls is not, so that a one-hot enters as a map of its own.
    """

    hidden_size: int
    dtype: jnp.dtype
    map_channels: int = 8

    @nn.compact
    def __call__(self, x: Array, one_hot: Array | None = None) -> Array:
        """`[B, H, W, D]` in and out, `one_hot [B, X]`."""
        height, width, features = x.shape[1:]
        h = nn.LayerNorm(dtype=self.dtype)(x)
        if one_hot is not None:
            board = (height, width, self.map_channels)
            places = nn.DenseGeneral(board, dtype=self.dtype)(one_hot.astype(self.dtype))
            h = jnp.concatenate([h, places], axis=-1)

        def lines(cells: Array) -> Array:
            batch, count, length, _ = cells.shape
            seen = cells.reshape(batch, count, -1)
            seen = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype)(seen))
            seen = nn.Dense(length * features, dtype=self.dtype)(seen)
            return seen.reshape(batch, count, length, features)

        return x + lines(h) + lines(h.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)


class Trunk(nn.Module):
    """Flattens an embedding (planes through a 1x1 convolution first) into a hidden layer."""

    hidden_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, D]` or `[B, H', W', D]` to `[B, hidden_size]`."""
        if x.ndim == 4:
            x = nn.relu(nn.LayerNorm(dtype=self.dtype)(nn.Conv(16, (1, 1), dtype=self.dtype)(x)))
            x = x.reshape(x.shape[0], -1)
        h = nn.Dense(self.hidden_size, dtype=self.dtype)(x)
        return nn.relu(nn.LayerNorm(dtype=self.dtype)(h))


class Linear(nn.Module):
    """A float32 output layer with a small start, so that heads begin near uniform."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, D]` to float32 `[B, features]`."""
        layer = nn.Dense(self.features, dtype=jnp.float32, kernel_init=SMALL_INIT)
        return layer(x.astype(jnp.float32))
