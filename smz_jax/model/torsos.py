"""Torsos: from a standardised observation `[B, F, *frame_shape]` to raw features."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.config.network import NetworkConfig
from smz_jax.model.layers import ResidualConv, ResidualLines
from smz_jax.model.sequences import Lstm, Transformer
from smz_jax.types import Array

PATCH = 4


def patches(x: Array) -> Array:
    """Cuts frames into squares of 4x4; a strided convolution without its slow gradient.

    `[B, F, H, W]`, H and W padded with zeros to a multiple of 4, to
    `[B, ceil(H / 4), ceil(W / 4), F * 16]`.
    """
    pads = [(0, 0), (0, 0), *((0, -length % PATCH) for length in x.shape[2:])]
    x = jnp.pad(x, pads)
    batch, stack, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    x = x.reshape(batch, stack, rows, PATCH, columns, PATCH)
    if x.dtype == jnp.uint8:  # four bytes move as one word
        x = jax.lax.bitcast_convert_type(x, jnp.uint32).transpose(0, 2, 4, 1, 3)
        x = jax.lax.bitcast_convert_type(x, jnp.uint8)
    else:
        x = x.transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, rows, columns, stack * PATCH * PATCH)


class Torso(nn.Module):
    """From an observation `[B, F, *frame_shape]` to raw features.

    `features` is the length of a flat output, or the channels of planes. A slim torso is the
    encoder's, half as wide where the family can be.
    """

    config: NetworkConfig
    features: int
    dtype: jnp.dtype
    slim: bool

    def width(self, full: int) -> int:
        """Of a layer: half of `full`, if the torso is slim."""
        return max(1, full // 2) if self.slim else full


class LightTorso(Torso):
    """4x4 patches, one strided convolution, one dense layer: trains in minutes on two cores."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`patches` of `[B, F, H, W]` to `[B, features]`."""
        channels = self.width(self.config.torso_channels)
        x = x.astype(self.dtype)
        x = nn.relu(nn.Dense(channels, dtype=self.dtype)(x))
        x = nn.relu(nn.Conv(2 * channels, (3, 3), (2, 2), "VALID", dtype=self.dtype)(x))
        return nn.Dense(self.features, dtype=self.dtype)(x.reshape(x.shape[0], -1))


class MlpTorso(Torso):
    """Two dense layers on the flattened observation; also for observations that are no images."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, ...]` to `[B, features]`."""
        x = x.astype(self.dtype).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.config.hidden_size, dtype=self.dtype)(x))
        return nn.Dense(self.features, dtype=self.dtype)(x)


class BoardTorso(Torso):
    """A dense layer shared by all cells of a board, then lines that see their cells together."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, H, W, planes]` to `[B, H, W, features]`."""
        x = x.astype(self.dtype).transpose(0, 2, 3, 1, 4)
        x = nn.Dense(self.features, dtype=self.dtype)(x.reshape(*x.shape[:3], -1))
        return ResidualLines(self.width(self.config.hidden_size), self.dtype)(x)


class ResNetTorso(Torso):
    """Residual downsampling to planes of a sixteenth of the frame (84 -> 42 -> 21 -> 11 -> 6)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, F, H, W]` to `[B, ceil(H / 16), ceil(W / 16), features]`; slim: half of them."""
        features = self.width(self.features)

        def blocks(x: Array, channels: int) -> Array:
            for _ in range(self.config.num_blocks):
                x = ResidualConv(channels, self.dtype)(x)
            return x

        x = x.astype(self.dtype).transpose(0, 2, 3, 1)
        for channels in (features // 2, features):
            x = nn.Conv(channels, (3, 3), (2, 2), dtype=self.dtype)(x)
            x = blocks(x, channels)
        x = nn.avg_pool(x, (3, 3), (2, 2), "SAME")
        return nn.avg_pool(blocks(x, features), (3, 3), (2, 2), "SAME")


class SequenceTorso(Torso):
    """An LSTM or a transformer over the frames, each seen by a torso of its own before.

    No state is carried from one observation to the next: every one is read from its oldest frame.
    """

    frame: type[Torso] | None = None  # of one frame; None: a dense layer alone
    attends: bool = False  # a transformer

    @nn.compact
    def __call__(self, x: Array, count: Array) -> Array:
        """`[B, F, ...]`, the newest `count [B]` frames of the game, to `[B, features]`."""
        batch, stack = x.shape[:2]
        width, dtype, layers = self.width(self.config.hidden_size), self.dtype, self.config.layers
        real = jnp.arange(stack) >= stack - count[:, None]
        x = jnp.where(real.reshape(batch, stack, *[1] * (x.ndim - 2)), x, 0.0).astype(dtype)
        if self.frame is not None:
            x = x.reshape(batch * stack, *x.shape[2:])
            planes = self.frame is ResNetTorso
            features = 2 * self.config.torso_channels if planes else width
            x = self.frame(self.config, features, dtype, self.slim)(x[:, None] if planes else x)
            x = nn.LayerNorm(dtype=dtype)(x)
        x = nn.relu(nn.Dense(width, dtype=dtype)(x.reshape(batch, stack, -1)))
        if self.attends:
            x = Transformer(layers, dtype, self.config.heads)(x, real)
        else:
            x = Lstm(layers, dtype)(x, real)
        return nn.Dense(self.features, dtype=dtype)(x[:, -1])


def frame_patches(x: Array) -> Array:
    """`patches` of each frame by itself, `[B, F, H, W]` to `[B, F, H / 4, W / 4, 16]`."""
    cut = patches(x.reshape(-1, 1, *x.shape[2:]))
    return cut.reshape(*x.shape[:2], *cut.shape[1:])


class Family(NamedTuple):
    """A family of networks."""

    observations: tuple[str, ...]  # what it reads: images [H, W], boards [H, W, planes], vectors
    torso: Callable[..., Torso]
    is_spatial: bool = False  # embeddings are planes
    has_lines: bool = False  # transitions see the rows and columns of a board
    arrange: Callable[[Array], Array] | None = None  # of pixels, before they are standardised


ANY = ("images", "boards", "vectors")
ATTENDING = functools.partial(SequenceTorso, attends=True)
LIGHT_FRAMES = functools.partial(SequenceTorso, frame=LightTorso)
RESNET_FRAMES = functools.partial(SequenceTorso, frame=ResNetTorso)
FAMILIES = {
    "board": Family(("boards",), BoardTorso, is_spatial=True, has_lines=True),
    "light": Family(("images",), LightTorso, arrange=patches),
    "light_lstm": Family(("images",), LIGHT_FRAMES, arrange=frame_patches),
    "lstm": Family(ANY, SequenceTorso),
    "mlp": Family(ANY, MlpTorso),
    "resnet": Family(("images",), ResNetTorso, is_spatial=True),
    "resnet_lstm": Family(("images",), RESNET_FRAMES),
    "resnet_transformer": Family(("images",), functools.partial(RESNET_FRAMES, attends=True)),
    "transformer": Family(ANY, ATTENDING),
}
"""Every value of `network.family`; a new one is a torso and a line here."""
