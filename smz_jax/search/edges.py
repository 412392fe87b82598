"""The edges of a node: actions, then macros, then chance outcomes."""

from typing import NamedTuple

import jax.numpy as jnp

from smz_jax.types import Array


class Edges(NamedTuple):
    """Which of a node's edges are what.

    A decision node has actions (and macros), a chance node chance outcomes; every node has room
    for all of them. The slices are of an array's last axis.
    """

    num_actions: int  # A
    num_macros: int = 0  # M, 1 in a search with macros: each node's own

    @property
    def actions(self) -> slice:
        """Edges of a decision node, `[A]`."""
        return slice(0, self.num_actions)

    @property
    def macros(self) -> slice:
        """Edges of a decision node, `[M]`."""
        return slice(self.num_actions, self.first_outcome)

    @property
    def outcomes(self) -> slice:
        """Edges of a chance node, `[C]`."""
        return slice(self.first_outcome, None)

    @property
    def first_outcome(self) -> int:
        """The edge of outcome 0; that of outcome c is as many further on."""
        return self.num_actions + self.num_macros

    def of_decision(self, policy_logits: Array, num_outcomes: int) -> Array:
        """Priors of a decision node `[B, A]` over all edges, -inf where it has none."""
        closed = (len(policy_logits), self.num_macros + num_outcomes)
        return jnp.concatenate([policy_logits, jnp.full(closed, -jnp.inf, jnp.float32)], axis=-1)

    def of_chance(self, chance_logits: Array) -> Array:
        """Priors of a chance node `[B, C]` over all edges, -inf where it has none."""
        closed = (len(chance_logits), self.first_outcome)
        return jnp.concatenate([jnp.full(closed, -jnp.inf, jnp.float32), chance_logits], axis=-1)
