"""The precondition head: from an embedding to where each macro slot's owner applies."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.config.training import MacroConfig
from smz_jax.model.layers import Trunk
from smz_jax.types import Array, Params

OUTPUT = "owners"
"""Name of the output layer, whose columns are the slots'."""


class PreconditionHead(nn.Module):
    """A small MLP; one output for each slot, that of a macro that nothing is known of yet 0."""

    config: MacroConfig

    @nn.compact
    def __call__(self, embedding: Array) -> Array:
        """`[B, ...]` to logits `[B, slots]`; no gradient passes into the embedding."""
        size = self.config.head_size
        x = jax.lax.stop_gradient(embedding).astype(jnp.float32)
        x = Trunk(size, jnp.dtype(jnp.float32))(x)
        x = nn.relu(nn.Dense(size, dtype=jnp.float32)(x))
        zeros = nn.initializers.zeros
        return nn.Dense(self.config.slots, dtype=jnp.float32, kernel_init=zeros, name=OUTPUT)(x)


def reset_columns(params: Params, changed: Array, bias: Array) -> Params:
    """Output columns of slots that changed their owner begin anew: 0, but for the bias `[slots]`.

    `params` are the head's, or of the same structure (an optimiser's moments).
    """
    output = params["params"][OUTPUT]
    new = {"kernel": 0.0, "bias": bias}
    output = {name: jnp.where(changed, new[name], output[name]) for name in new}
    return {**params, "params": {**params["params"], OUTPUT: output}}
