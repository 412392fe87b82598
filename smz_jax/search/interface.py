# pyright: reportCallIssue=false
# (mctx's chex dataclasses look to pyright as if they took no arguments.)
"""The model as mctx wants it: a root, and one recurrent function for both kinds of nodes.

The reward and the discount gamma sit on the chance -> decision edge;
the decision -> chance edge has reward 0 and discount 1, so that gamma counts once per step of the
game (Antonoglou et al. 2022, section 4.2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx
from flax.errors import FlaxError

from smz_jax.config.check import ConfigError, require
from smz_jax.model.lanes import own_rows
from smz_jax.model.steps import chance, decide, finite, one_hot_code
from smz_jax.search.edges import Edges
from smz_jax.types import Array, Networks, NodeEmbedding, Params


def add_dirichlet_noise(
    rng_key: Array, logits: Array, *, fraction: Array | float, alpha: float
) -> Array:
    """Mixes Dirichlet noise into root priors (AlphaZero); `logits [B, A]` in and out."""
    each = jnp.full([logits.shape[-1]], alpha, jnp.float32)
    noise = own_rows(lambda n: jax.random.dirichlet(rng_key, each, shape=(n,)), len(logits))
    probs = (1 - fraction) * jax.nn.softmax(logits) + fraction * noise
    return jnp.log(jnp.maximum(probs, jnp.finfo(jnp.float32).tiny))


def mask_invalid(logits: Array, invalid_actions: Array) -> Array:
    """Logits with invalid actions (1 in `invalid_actions [B, A]`) at the float's minimum."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return jnp.where(invalid_actions > 0, jnp.finfo(logits.dtype).min, logits)


def check_model(
    networks: Networks, params: Params, embedding: Array, invalid_actions: Array, num_options: int
) -> int:
    """Checks, by shapes alone, that model, batch and the actions' O options fit each other.

    Returns:
        C, the number of chance outcomes.

    Raises:
        ConfigError: if they do not, or the batch is empty.
    """
    batch_size = embedding.shape[0]
    require(batch_size >= 1, "search: batch size", batch_size, "at least 1")
    shape = (batch_size, num_options)
    given = invalid_actions.shape
    require(given == shape, "invalid_actions.shape", given, str(shape))
    expected = (embedding.shape, str(embedding.dtype))

    def shapes_of(name: str, *inputs: Any) -> Any:
        try:
            return jax.eval_shape(getattr(networks, name), params, *inputs)
        except (TypeError, ValueError, FlaxError) as error:
            given = [x.shape for x in inputs]
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"model: {name} does not take {given}, C or A do not fit its parameters: {reason}"
            ) from None

    logits, _ = shapes_of("prediction", embedding)
    require(logits.shape == shape, "model: policy logits' shape", logits.shape, str(shape))
    afterstate = shapes_of(
        "afterstate_dynamics", embedding, jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    )
    given = (afterstate.shape, str(afterstate.dtype))
    require(given == expected, "model: afterstate", given, f"as the embedding: {expected}")
    logits, _ = shapes_of("afterstate_prediction", afterstate)
    good = len(logits.shape) == 2 and logits.shape[0] == batch_size and logits.shape[1] >= 1
    require(good, "model: chance logits' shape", logits.shape, f"({batch_size}, codebook size)")
    state, _ = shapes_of("dynamics", afterstate, jax.ShapeDtypeStruct(logits.shape, jnp.float32))
    given = (state.shape, str(state.dtype))
    require(given == expected, "model: next embedding", given, f"as the embedding: {expected}")
    return logits.shape[1]


def make_root(
    embedding: Array, prior_logits: Array, value: Array, faults: Array
) -> mctx.RootFnOutput:
    """A decision node as the root of a tree; its priors are over all edges of a node."""
    is_chance, entropy = jnp.zeros(value.shape, bool), jnp.zeros(value.shape, jnp.float32)
    node = NodeEmbedding(embedding, is_chance, entropy, faults)
    return mctx.RootFnOutput(prior_logits=prior_logits, value=value, embedding=node)


def make_recurrent_fn(networks: Networks, *, edges: Edges, gamma: float) -> Callable:
    """Mctx's recurrent function over both kinds of nodes.

    Both model functions run for the whole batch and each row keeps the one that its node needs.

    Returns:
        `(params, rng_key, action [B], NodeEmbedding) -> (RecurrentFnOutput, NodeEmbedding)`.
    """

    def recurrent_fn(params: Params, rng_key: Array, action: Array, node: NodeEmbedding):
        del rng_key
        afterstate, afterstate_faults = finite(decide(networks, params, node.state, action))
        num_outcomes = afterstate.logits.shape[-1]
        code = one_hot_code(action - edges.first_outcome, num_outcomes)
        step, step_faults = finite(chance(networks, params, node.state, code))

        def pick(from_decision: Array, from_chance: Array) -> Array:
            shape = (-1,) + (1,) * (from_decision.ndim - 1)
            return jnp.where(node.is_chance.reshape(shape), from_chance, from_decision)

        zeros = jnp.zeros(action.shape, jnp.float32)
        output = mctx.RecurrentFnOutput(
            reward=pick(zeros, step.reward),
            discount=pick(zeros + 1.0, gamma * step.discount),
            prior_logits=pick(
                edges.of_chance(afterstate.logits),
                edges.of_decision(step.policy_logits, num_outcomes),
            ),
            value=pick(afterstate.value, step.value),
        )
        embedding = NodeEmbedding(
            state=pick(afterstate.state, step.state),
            is_chance=~node.is_chance,
            entropy=pick(afterstate.entropy, zeros),
            faults=pick(afterstate_faults, step_faults),
        )
        return output, embedding

    return recurrent_fn
