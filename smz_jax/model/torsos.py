"""Torsos: from a standardised observation `[B, F, *frame_shape]` to raw features."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from smz_jax.config.settings import NetworkConfig
from smz_jax.model.layers import ResidualConv, ResidualLines
from smz_jax.types import Array


def patches(x: Array, size: int) -> Array:
    """Cuts frames into non-overlapping squares; a strided convolution without its slow gradient.

    `[B, F, H, W]`, H and W padded with zeros to a multiple of `size`, to
    `[B, ceil(H / size), ceil(W / size), F * size * size]`.
    """
    pads = [(0, 0), (0, 0), *((0, -length % size) for length in x.shape[2:])]
    x = jnp.pad(x, pads)
    batch, stack, height, width = x.shape
    rows, columns = height // size, width // size
    x = x.reshape(batch, stack, rows, size, columns, size).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, rows, columns, stack * size * size)


class LightTorso(nn.Module):
    """4x4 patches, one strided convolution, one dense layer: trains in minutes on two cores."""

    channels: int
    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, H, W]` to `[B, features]`."""
        x = patches(x.astype(self.dtype), 4)
        x = nn.relu(nn.Dense(self.channels, dtype=self.dtype)(x))
        x = nn.relu(nn.Conv(2 * self.channels, (3, 3), (2, 2), "VALID", dtype=self.dtype)(x))
        return nn.Dense(self.features, dtype=self.dtype)(x.reshape(x.shape[0], -1))


class MlpTorso(nn.Module):
    """Two dense layers on the flattened observation; also for observations that are no images."""

    hidden_size: int
    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, ...]` to `[B, features]`."""
        x = x.astype(self.dtype).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype)(x))
        return nn.Dense(self.features, dtype=self.dtype)(x)


class BoardTorso(nn.Module):
    """A dense layer shared by all cells of a board, then lines that see their cells together."""

    hidden_size: int
    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, H, W, planes]` to `[B, H, W, features]`."""
        batch, stack, height, width, planes = x.shape
        x = x.astype(self.dtype).transpose(0, 2, 3, 1, 4)
        x = x.reshape(batch, height, width, stack * planes)
        x = nn.Dense(self.features, dtype=self.dtype)(x)
        return ResidualLines(self.hidden_size, self.dtype)(x)


class ResNetTorso(nn.Module):
    """Residual downsampling to planes of a sixteenth of the frame (84 -> 42 -> 21 -> 11 -> 6)."""

    channels: int
    num_blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, H, W]` to `[B, ceil(H / 16), ceil(W / 16), channels]`."""
        x = x.astype(self.dtype).transpose(0, 2, 3, 1)
        x = nn.Conv(self.channels // 2, (3, 3), (2, 2), dtype=self.dtype)(x)
        for _ in range(self.num_blocks):
            x = ResidualConv(self.channels // 2, self.dtype)(x)
        x = nn.Conv(self.channels, (3, 3), (2, 2), dtype=self.dtype)(x)
        for _ in range(self.num_blocks):
            x = ResidualConv(self.channels, self.dtype)(x)
        x = nn.avg_pool(x, (3, 3), (2, 2), "SAME")
        for _ in range(self.num_blocks):
            x = ResidualConv(self.channels, self.dtype)(x)
        return nn.avg_pool(x, (3, 3), (2, 2), "SAME")


def _light(config: NetworkConfig, features: int, dtype: jnp.dtype, slim: bool) -> nn.Module:
    return LightTorso(max(1, config.torso_channels // (2 if slim else 1)), features, dtype)


def _mlp(config: NetworkConfig, features: int, dtype: jnp.dtype, slim: bool) -> nn.Module:
    del slim
    return MlpTorso(config.hidden_size, features, dtype)


def _board(config: NetworkConfig, features: int, dtype: jnp.dtype, slim: bool) -> nn.Module:
    return BoardTorso(max(1, config.hidden_size // (2 if slim else 1)), features, dtype)


def _resnet(config: NetworkConfig, features: int, dtype: jnp.dtype, slim: bool) -> nn.Module:
    del slim
    return ResNetTorso(features, config.num_blocks, dtype)


class Family(NamedTuple):
    """A family of networks.

    `make_torso` is called as `(NetworkConfig, features, dtype, slim)`: `features` is the length of
    a flat output, or the channels of planes; a slim torso is the encoder's, half as wide where the
    family can be.
    """

    observations: tuple[str, ...]  # what it reads: images [H, W], boards [H, W, planes], vectors
    make_torso: Callable[[NetworkConfig, int, jnp.dtype, bool], nn.Module]
    is_spatial: bool = False  # embeddings are planes
    has_lines: bool = False  # transitions see the rows and columns of a board


FAMILIES = {
    "board": Family(("boards",), _board, is_spatial=True, has_lines=True),
    "light": Family(("images",), _light),
    "mlp": Family(("images", "boards", "vectors"), _mlp),
    "resnet": Family(("images",), _resnet, is_spatial=True),
}
"""Every value of `network.family`; a new one is a torso and a line here."""
