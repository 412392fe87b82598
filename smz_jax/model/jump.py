"""The jump J: what a whole sequence of actions leads to, in one call.

    s', r = J(s, a_1..a_l)        r = sum_i gamma^i r_i

It takes a sequence, not the number of a macro, so that one network serves all macros, and the
single action too.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.model.heads import Heads, Transition
from smz_jax.model.torsos import FAMILIES
from smz_jax.model.values import TRANSFORMS, logits_to_scalar
from smz_jax.types import Array, EnvSpec, Params

MIN_BLOCKS = 2
"""Residual blocks of J: it does in one call what the model does in two for each action."""


class JumpNetwork(nn.Module):
    """A transition whose input is a sequence, and the rewards on the way."""

    config: Config
    num_actions: int
    support: int

    @nn.compact
    def __call__(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """`[B, D]`, `[B, L]` int32 padded with -1 to `[B, D]` and logits `[B, 2 support + 1]`."""
        c = self.config.network
        dtype = jnp.dtype(jnp.bfloat16 if c.bfloat16 else jnp.float32)
        sequence = jax.nn.one_hot(actions, self.num_actions, dtype=jnp.float32)
        sequence = sequence.reshape(len(actions), -1)  # of -1 zeros
        blocks, lines = max(MIN_BLOCKS, c.num_blocks), FAMILIES[c.family].has_lines
        move = Transition(c.hidden_size, blocks, dtype, lines, c.embedding_scale)
        end = move(state, sequence)
        both = jnp.concatenate([end, state.astype(end.dtype)], axis=-1)
        (reward_logits,) = Heads(c.hidden_size, (2 * self.support + 1,), dtype)(both)
        return end, reward_logits


class Jump(NamedTuple):
    """J as pure functions of its own parameters."""

    init: Callable[..., Params]  # (rng_key, state [B, D]) -> params
    apply: Callable[..., tuple[Array, Array]]  # (params, state, actions [B, L]) -> end, logits
    reward_of: Callable[[Array], Array]  # (logits [..., S]) -> scalar [...]
    support: int  # of the summed rewards


def reward_sum_support(config: Config) -> int:
    """What holds the sum of `macro.max_length` rewards, each the largest that one step's holds."""
    network, transform = config.network, TRANSFORMS[config.network.reward_transform]
    largest = config.macro.max_length * transform.inverse(jnp.float32(network.reward_support))
    return int(jnp.ceil(transform.forward(largest) - 1e-3))


def make_jump(config: Config, spec: EnvSpec) -> Jump:
    """J for sequences of up to `macro.max_length` actions."""
    support, transform = reward_sum_support(config), config.network.reward_transform
    network = JumpNetwork(config, spec.num_actions, support)

    def init(rng_key: Array, state: Array) -> Params:
        actions = jnp.zeros((len(state), config.macro.max_length), jnp.int32)
        return network.init(rng_key, state, actions)

    def reward_of(logits: Array) -> Array:
        one = jnp.vectorize(lambda x: logits_to_scalar(x, support, transform), signature="(s)->()")
        return one(logits)

    apply = jax.jit(network.apply, inline=True)
    return Jump(init, apply, reward_of, support)
