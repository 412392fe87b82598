"""Which actions a decision node's edges stand for: all of them, or K that are drawn.

Sampled MuZero (Hubert et al. 2021, "Learning and Planning in Complex Action Spaces"): K actions are
drawn independently from a proposal beta, equal ones are one edge, and the prior over the edges is
the policy corrected for how they were drawn,

    P(a) ~ (beta^(a) / beta(a)) pi(a),    beta^ the share of the K draws that are a,

so that a search over the K improves, on average, as one over all actions would. Below the root beta
is pi itself, and P is beta^. At the root of a search that explores a share of the draws is uniform,
which beta counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.check import require
from smz_jax.config.search import SearchConfig
from smz_jax.model import actions
from smz_jax.model.lanes import own_rows
from smz_jax.search.interface import mask_invalid
from smz_jax.types import Array, Space

SAMPLED = 20
"""K where `search.sampled_actions` is unset and actions have several parts: as many as Hubert et
al. use on the DeepMind Control Suite."""


class Candidates(NamedTuple):
    """The edges of a batch of decision nodes."""

    actions: Array | None  # [B, K] int32; None: edge k is action k
    logits: Array  # [B, K] float32, of the prior; -inf where an earlier edge has the same action


class RootCandidates(NamedTuple):
    """The edges of a batch of roots."""

    actions: Array | None  # [B, K] int32; None: edge k is action k
    logits: Array  # [B, K] float32, of the prior
    noisy_logits: Array | None  # [B, K] float32, with the uniform's share of it; None: not sampled
    invalid: Array  # [B, K] float32, 1 = invalid, or the same action as an earlier edge


class EdgeActions(NamedTuple):
    """How many edges a decision node has, and what they stand for."""

    space: Space
    count: int  # K
    is_sampled: bool

    def of_node(self, rng_key: Array, policy_logits: Array) -> Candidates:
        """Edges below the root, by the policy head's logits `[B, O]`; `rng_key` is consumed."""
        if not self.is_sampled:
            return Candidates(None, self.every(policy_logits))
        drawn = actions.draw(rng_key, policy_logits, self.count, self.space.sizes)
        times, is_repeat = repeats(drawn)
        logits = jnp.log(times / self.count)
        return Candidates(drawn, jnp.where(is_repeat, -jnp.inf, logits))

    def of_root(
        self,
        rng_key: Array,
        policy_logits: Array,
        invalid_actions: Array,
        *,
        uniform: Array | float,
        fraction: Array | float,
    ) -> RootCandidates:
        """Edges of the root.

        Args:
            rng_key: consumed.
            policy_logits: `[B, O]`.
            invalid_actions: `[B, O]`, 1 = invalid.
            uniform: share of the draws that are uniform over valid actions.
            fraction: share of the uniform distribution in the noisy prior.
        """
        sizes, is_one = self.space.sizes, len(self.space.sizes) == 1
        if not self.is_sampled:
            shape = (len(policy_logits), self.count)
            invalid = invalid_actions if is_one else jnp.zeros(shape, jnp.float32)
            return RootCandidates(None, self.every(policy_logits), None, invalid)
        flat = jnp.zeros_like(policy_logits)
        if is_one:
            policy_logits, flat = (mask_invalid(x, invalid_actions) for x in (policy_logits, flat))
        policy_key, uniform_key, coin_key = jax.random.split(rng_key, 3)
        chosen = actions.draw(policy_key, policy_logits, self.count, sizes)
        anywhere = actions.draw(uniform_key, flat, self.count, sizes)
        coins = own_rows(lambda n: jax.random.uniform(coin_key, (n, self.count)), len(flat))
        drawn = jnp.where(coins < uniform, anywhere, chosen)
        log_policy, log_flat = (actions.log_prob(x, drawn, sizes) for x in (policy_logits, flat))
        times, is_repeat = repeats(drawn)
        ratio = jnp.log(times / self.count) - log_mixture(log_policy, log_flat, uniform)
        is_invalid = jnp.take_along_axis(invalid_actions, drawn, axis=1) if is_one else 0.0
        return RootCandidates(
            drawn,
            ratio + log_policy,
            ratio + log_mixture(log_policy, log_flat, fraction),
            jnp.maximum(is_repeat.astype(jnp.float32), is_invalid),
        )

    def every(self, policy_logits: Array) -> Array:
        """Logits `[B, A]` of all actions, by those of their options `[B, O]`."""
        if len(self.space.sizes) == 1:
            return policy_logits
        all_actions = jnp.arange(self.space.size, dtype=jnp.int32)
        shape = (len(policy_logits), self.space.size)
        return actions.log_prob(
            policy_logits, jnp.broadcast_to(all_actions, shape), self.space.sizes
        )

    def actions_at(self, candidates: Array | None, edge: Array) -> Array:
        """Actions `[B]` of edges `[B]`; any where an edge is none of a decision node's."""
        if candidates is None:
            return edge
        at = jnp.clip(edge, 0, self.count - 1)[:, None]
        return jnp.take_along_axis(candidates, at, axis=1)[:, 0]

    def weights_of_options(self, candidates: Array | None, weights: Array) -> Array:
        """Weights `[B, K]` of edges as those of options `[B, O]`: what the policy learns."""
        if candidates is None:
            if len(self.space.sizes) == 1:
                return weights
            candidates = jnp.broadcast_to(jnp.arange(self.count, dtype=jnp.int32), weights.shape)
        return actions.weights_of_options(candidates, weights, self.space.sizes)


def make_edge_actions(settings: SearchConfig, space: Space) -> EdgeActions:
    """What the edges of a search stand for: every action, or `search.sampled_actions` of them.

    Raises:
        ConfigError: if the engine cannot do it.
    """
    wanted = settings.sampled_actions
    if wanted is None:
        wanted = SAMPLED if len(space.sizes) > 1 else space.size
    is_sampled = wanted < space.size
    fits = settings.engine == "batched" or (not is_sampled and len(space.sizes) == 1)
    allowed = "batched where actions are sampled or have several parts"
    require(fits, "search.engine", settings.engine, allowed)
    return EdgeActions(space, min(wanted, space.size), is_sampled)


def repeats(drawn: Array) -> tuple[Array, Array]:
    """Of draws `[B, K]`: how often each was drawn, and whether it was drawn before, `[B, K]`."""
    same = drawn[:, :, None] == drawn[:, None, :]
    earlier = np.tril(np.ones(same.shape[1:], np.bool_), -1)
    return jnp.sum(same, axis=-1).astype(jnp.float32), jnp.any(same & earlier, axis=-1)


def log_mixture(first: Array, second: Array, share: Array | float) -> Array:
    """log((1 - share) e^first + share e^second)."""
    return jnp.logaddexp(jnp.log1p(-share) + first, jnp.log(share) + second)
