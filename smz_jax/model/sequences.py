"""Layers over the F frames of an observation, oldest first, that pass over those of no game.

Frames from before a game's first one are marked as not real: nothing of them reaches a real one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.types import Array


class Lstm(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gates: Gers et al. 2000).

    Forget gates begin at F / (F + 1), so that a state, and a gradient, lasts for the F frames
    (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?").
    """

    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, real: Array) -> Array:
        """`x [B, F, X]`, `real [B, F]` bool to states `[B, F, X]`; no other frame changes them."""
        width, last = x.shape[-1], math.log(x.shape[1])
        for layer in range(self.layers):
            inputs = nn.Dense(4 * width, dtype=self.dtype, name=f"inputs_{layer}")(x)
            shape, init = (width, 4 * width), nn.initializers.orthogonal()
            recurrent = self.param(f"recurrent_{layer}", init, shape).astype(self.dtype)

            def step(
                state: tuple[Array, Array], at: tuple[Array, Array], weights: Array = recurrent
            ) -> tuple[tuple[Array, Array], Array]:
                gates, is_real = at
                put, forget, new, out = jnp.split(gates + state[1] @ weights, 4, axis=-1)
                cell = nn.sigmoid(forget + last) * state[0] + nn.sigmoid(put) * jnp.tanh(new)
                hidden = nn.sigmoid(out) * jnp.tanh(cell)
                cell, hidden = (
                    jnp.where(is_real[:, None], after, before)
                    for after, before in zip((cell, hidden), state, strict=True)
                )
                return (cell, hidden), hidden

            zeros = jnp.zeros((len(x), width), self.dtype)
            frames = jnp.swapaxes(inputs, 0, 1), real.T
            x = jnp.swapaxes(jax.lax.scan(step, (zeros, zeros), frames)[1], 0, 1)
        return x


class Transformer(nn.Module):
    """Pre-norm layers of causal attention (Vaswani et al. 2017; Radford et al. 2019, GPT-2).

    Places are learned, and counted from the newest frame.
    """

    layers: int
    dtype: jnp.dtype
    heads: int

    @nn.compact
    def __call__(self, x: Array, real: Array) -> Array:
        """`x [B, F, X]`, `real [B, F]` bool to `[B, F, X]`: each sees the real up to itself."""
        width = x.shape[-1]
        x = x + self.param("places", nn.initializers.normal(0.5), x.shape[1:]).astype(self.dtype)
        mask = nn.make_causal_mask(real) * real[:, None, None, :]
        for _ in range(self.layers):
            h = nn.LayerNorm(dtype=self.dtype)(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(h, mask=mask)
            h = nn.gelu(nn.Dense(4 * width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x)))
            x = x + nn.Dense(width, dtype=self.dtype)(h)
        return nn.LayerNorm(dtype=self.dtype)(x)
