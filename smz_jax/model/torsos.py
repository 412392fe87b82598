"""Torsos: from a standardised observation `[B, F, *frame_shape]` to raw features."""

import flax.linen as nn
import jax.numpy as jnp

from smz_jax.model.layers import ResidualConv, ResidualLines
from smz_jax.types import Array


def patches(x: Array, size: int) -> Array:
    """Cuts frames into non-overlapping squares; a strided convolution without its slow gradient.

    Args:
        x: `[B, F, H, W]`; H and W are padded with zeros to a multiple of `size`.
        size: height and width of a patch.

    Returns:
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


def make_torso(config, *, features: int, dtype: jnp.dtype, slim: bool = False) -> nn.Module:
    """The torso of `config.family`.

    Args:
        config: a `NetworkConfig`.
        features: length of a flat output, or channels of the resnet's planes.
        dtype: what to compute in.
        slim: a torso for the encoder, with the same layers and half of the width.
    """
    if config.family == "light":
        channels = max(1, config.torso_channels // (2 if slim else 1))
        return LightTorso(channels, features, dtype)
    if config.family == "board":
        hidden = max(1, config.hidden_size // (2 if slim else 1))
        return BoardTorso(hidden, features, dtype)
    if config.family == "mlp":
        return MlpTorso(config.hidden_size, features, dtype)
    return ResNetTorso(features, config.num_blocks, dtype)
