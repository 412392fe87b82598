"""The jump J: what a whole sequence of actions leads to, in one call.

    s', r = J(s, a_1..a_l)        r = sum_i gamma^i r_i

It takes a sequence, not the number of a macro, so that one network serves all macros, and the
single action too. Its parameters are a collection of their own beside the model's.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax.config.network import NetworkConfig
from smz_jax.model.heads import Heads, Transition
from smz_jax.model.values import TRANSFORMS
from smz_jax.types import Array, Params

CLOSED = {"yes": 1.0, "false_yes": 1.0}
"""Running counts, for a batch of held-out states, of what `certain` says of an action: yes, and yes
where the model itself is not certain. As long as it is wrong too often, no search believes it."""
GATES = {"best": 1.0, "realised": 0.0, "yes": 1.0, "false_yes": 1.0}
"""Running sums, for a batch of held-out states, of what `gains` says of macros: the best gain above
the mean one, and the chosen macro's; how many were held certain, and how many wrongly so."""
MIN_BLOCKS = 2
"""Residual blocks of J: it does in one call what the model does in two for each action."""


class Jump(nn.Module):
    """A transition whose input is a sequence, and the rewards on the way."""

    config: NetworkConfig
    num_actions: int
    has_lines: bool
    dtype: jnp.dtype

    def setup(self) -> None:
        """Makes the sub-modules."""
        c, blocks = self.config, max(MIN_BLOCKS, self.config.num_blocks)
        sizes = c.hidden_size, blocks, self.dtype, self.has_lines
        self.move = Transition(*sizes, scale=c.embedding_scale)
        self.reward_head = Heads(c.hidden_size, (2 * reward_sum_support(c) + 1,), self.dtype)
        self.certain_head = Heads(c.hidden_size, (self.num_actions,), self.dtype)
        if c.gain_slots:
            self.gain_head = Heads(c.hidden_size, (c.gain_slots,) * 2, self.dtype)

    def __call__(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """`[B, D]`, `[B, L]` int32 padded with -1 to `[B, D]` and logits `[B, 2 support + 1]`."""
        sequence = jax.nn.one_hot(actions, self.num_actions, dtype=jnp.float32)
        end = self.move(state, sequence.reshape(len(actions), -1))  # of -1 zeros
        both = jnp.concatenate([end, state.astype(end.dtype)], axis=-1)
        return end, self.reward_head(both)[0]

    def certain(self, state: Array) -> Array:
        """Logits `[B, A]` that the model holds what an action leads to for certain."""
        return self.certain_head(state)[0]

    def gains(self, state: Array) -> tuple[Array, Array]:
        """Of each slot's macro `[B, G]`: what it gains here, and logits that it is certain."""
        gain, certain = self.gain_head(state)
        return gain, certain

    def everything(self, state: Array) -> None:
        """Calls all of it once; used to initialise the parameters."""
        self(state, jnp.zeros((len(state), self.config.jump_length), jnp.int32))
        self.certain(state)
        if self.config.gain_slots:
            self.gains(state)


def fresh_jump(jump: Jump, rng_key: Array, state: Array) -> Params:
    """Parameters of a jump from `state [B, D]`, which no search believes yet."""
    weights = jump.init(rng_key, state, method=Jump.everything)["params"]
    fresh = {"weights": weights, **jax.tree.map(jnp.float32, CLOSED)}
    if jump.config.gain_slots:
        slots = jump.config.gain_slots
        fresh["gains"] = {
            # A slot's owner, and what held-out windows with its actions say of the jump.
            "actions": jnp.full((slots, jump.config.jump_length), -1, jnp.int32),
            "trials": jnp.zeros((slots,), jnp.float32),
            "held": jnp.zeros((slots,), jnp.float32),
            "usable": jnp.zeros((slots,), jnp.bool_),  # a search may take it
            **jax.tree.map(jnp.float32, GATES),
        }
    return fresh


def jump_functions(jump: Jump, scalar_of: Callable[..., Any]) -> dict[str, Any]:
    """The jump's entries of `Networks`.

    `scalar_of(support, transform)` gives the function from logits to the scalar they stand for.
    """

    def pure(method: Callable[..., Any]) -> Callable[..., Any]:
        def function(params: Params, *inputs: Any) -> Any:
            return jump.apply({"params": params["jump"]["weights"]}, *inputs, method=method)

        return jax.jit(function, inline=True)

    sums = scalar_of(reward_sum_support(jump.config), jump.config.reward_transform)
    gains = pure(Jump.gains) if jump.config.gain_slots else None
    functions = {"jump": pure(Jump.__call__), "certain": pure(Jump.certain), "gains": gains}
    return functions | {"reward_sum_of": sums}


def without_jump(params: Params) -> Params:
    """The parameters of the model alone."""
    return {name: part for name, part in params.items() if name != "jump"}


def reward_sum_support(config: NetworkConfig) -> int:
    """What holds the sum of the most rewards, each the largest that one step's support holds."""
    transform = TRANSFORMS[config.reward_transform]
    with jax.ensure_compile_time_eval():
        largest = config.jump_length * transform.inverse(jnp.float32(config.reward_support))
        return int(jnp.ceil(transform.forward(largest) - 1e-3))
