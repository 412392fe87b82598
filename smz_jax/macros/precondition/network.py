"""The precondition head: from an embedding to where each macro slot's owner applies."""

from collections.abc import Callable
from typing import NamedTuple

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

    hidden_size: int
    slots: int

    @nn.compact
    def __call__(self, embedding: Array) -> Array:
        """`[B, ...]` to logits `[B, slots]`; no gradient passes into the embedding."""
        x = jax.lax.stop_gradient(embedding).astype(jnp.float32)
        x = Trunk(self.hidden_size, jnp.dtype(jnp.float32))(x)
        x = nn.relu(nn.Dense(self.hidden_size, dtype=jnp.float32)(x))
        zeros = nn.initializers.zeros
        return nn.Dense(self.slots, dtype=jnp.float32, kernel_init=zeros, name=OUTPUT)(x)


class Precondition(NamedTuple):
    """The head as pure functions; holds no arrays."""

    init: Callable[..., Params]  # (rng_key, embedding shape without batch) -> params
    logits: Callable[..., Array]  # (params, embedding [B, ...]) -> [B, slots]


def make_precondition(config: MacroConfig) -> Precondition:
    """The precondition head as pure functions."""
    head = PreconditionHead(config.head_size, config.slots)

    def init(rng_key: Array, embedding_shape: tuple[int, ...]) -> Params:
        return head.init(rng_key, jnp.zeros((1, *embedding_shape), jnp.float32))

    return Precondition(init=init, logits=head.apply)  # type: ignore[arg-type]


def reset_columns(params: Params, changed: Array, bias: Array) -> Params:
    """Output columns of slots that changed their owner begin anew: 0, but for the bias `[slots]`.

    `params` are the head's, or of the same structure (an optimiser's moments).
    """
    output = params["params"][OUTPUT]
    output = {
        "kernel": jnp.where(changed, 0.0, output["kernel"]),
        "bias": jnp.where(changed, bias, output["bias"]),
    }
    return {**params, "params": {**params["params"], OUTPUT: output}}
