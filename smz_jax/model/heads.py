"""Dynamics, predictions, encoder and auxiliary heads on embeddings, flat or planes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.model import layers
from smz_jax.types import Array


class Transition(nn.Module):
    """`embedding, one-hot -> embedding`: the body of both dynamics functions.

    A one-hot (action or chance code) joins a flat embedding as extra features, and planes as
    extra constant planes (MuZero, appendix E), or a board with `lines` as learned ones. The result
    is scaled as all embeddings are.
    """

    hidden_size: int
    num_blocks: int
    dtype: jnp.dtype
    lines: bool = False
    scale: str = "min_max"

    @nn.compact
    def __call__(self, embedding: Array, one_hot: Array) -> Array:
        """`[B, D]` or `[B, H', W', D]` with `[B, X]` to an embedding of the same shape."""
        bound, free = layers.SCALES[self.scale]
        x = free(embedding).astype(self.dtype)
        one_hot = one_hot.astype(self.dtype)
        if x.ndim == 2 or self.lines:
            block = layers.ResidualMlp if x.ndim == 2 else layers.ResidualLines
            for _ in range(self.num_blocks):
                x = block(self.hidden_size, self.dtype)(x, one_hot)
            return bound(x)
        planes = jnp.broadcast_to(one_hot[:, None, None], (*x.shape[:3], one_hot.shape[-1]))
        x = x + nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype)(jnp.concatenate([x, planes], -1))
        for _ in range(self.num_blocks):
            x = layers.ResidualConv(x.shape[-1], self.dtype)(x)
        return bound(x)


class Heads(nn.Module):
    """A trunk and a float32 output for each of `sizes`: (policy, value), (chance, value), ..."""

    hidden_size: int
    sizes: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, embedding: Array) -> tuple[Array, ...]:
        """An embedding to logits `[B, size]` each."""
        trunks = [layers.Trunk(self.hidden_size, self.dtype)(embedding) for _ in self.sizes]
        return tuple(layers.Linear(size)(x) for size, x in zip(self.sizes, trunks, strict=True))


class CodeHead(nn.Module):
    """The encoder's head: features of what followed, and the afterstate, to code logits."""

    hidden_size: int
    codebook_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, after: Array, afterstate: Array | None) -> Array:
        """`[B, ...]` features (and an afterstate, its gradient stopped) to `[B, C]` logits."""
        x = nn.LayerNorm(dtype=self.dtype)(after.reshape(after.shape[0], -1))
        if afterstate is not None:
            stopped = jax.lax.stop_gradient(afterstate).astype(self.dtype)
            x = jnp.concatenate([x, stopped.reshape(stopped.shape[0], -1)], axis=-1)
        x = nn.relu(nn.Dense(self.hidden_size, dtype=self.dtype)(x))
        return nn.Dense(self.codebook_size, dtype=jnp.float32)(x.astype(jnp.float32))


class Projector(nn.Module):
    """EfficientZero's projection and prediction heads, with batch norm against collapse."""

    hidden_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, embedding: Array, predict: bool, rows: int | None = None) -> Array:
        """`[B, hidden_size]`; `predict` adds the online branch's predictor.

        Features are standardised by their statistics over the first `rows` embeddings; None: all.
        """
        x = embedding.astype(self.dtype).reshape(embedding.shape[0], -1)
        x = nn.relu(layers.batch_standardise(nn.Dense(self.hidden_size, dtype=self.dtype)(x), rows))
        x = layers.batch_standardise(nn.Dense(self.hidden_size, dtype=self.dtype)(x), rows)
        hidden = nn.Dense(self.hidden_size // 2, dtype=self.dtype, name="predict_hidden")
        output = nn.Dense(self.hidden_size, dtype=self.dtype, name="predict_output")
        predicted = output(nn.relu(layers.batch_standardise(hidden(x), rows)))
        return (predicted if predict else x).astype(jnp.float32)
