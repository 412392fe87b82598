"""Actions that are made of several choices: their numbers, and a policy with a factor for each.

An action is one number; its *options* are what is chosen in each of its parts (`types.Space`). The
policy head has the logits of all parts side by side, `[B, O]`, and is their product:

    pi(a) = prod_d softmax(logits of part d)[option d of a]

Where there is one part, O = A and this is the usual policy.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from smz_jax.model.lanes import own_rows
from smz_jax.types import Array, Space, options_of, strides


def slices(sizes: tuple[int, ...]) -> list[slice]:
    """Where the options of each part lie among all O."""
    ends = list(itertools.accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def one_hots(actions: Array, sizes: tuple[int, ...]) -> Array:
    """The one-hots of all parts side by side, float32 `[..., O]`."""
    if len(sizes) == 1:
        return jax.nn.one_hot(actions, sizes[0], dtype=jnp.float32)
    options = options_of(actions, sizes)
    each = [
        jax.nn.one_hot(options[..., i], size, dtype=jnp.float32) for i, size in enumerate(sizes)
    ]
    return jnp.concatenate(each, axis=-1)


def encode(actions: Array, space: Space) -> Array:
    """What the model is told of actions `[...]`: float32 `[..., O + numbers]`.

    One-hots, then the value of each part that is a number: what is near in value is alike.
    """
    found = [one_hots(actions, space.sizes)]
    numbers = [(i, part.values) for i, part in enumerate(space.parts) if part.values]
    if numbers:
        options = options_of(actions, space.sizes)
        values = [jnp.array(values, jnp.float32)[options[..., i]] for i, values in numbers]
        found.append(jnp.stack(values, axis=-1))
    return jnp.concatenate(found, axis=-1) if numbers else found[0]


def part_log_probs(logits: Array, sizes: tuple[int, ...]) -> Array:
    """Log-probabilities `[..., O]`, those of each part normalised on their own."""
    return jnp.concatenate(
        [jax.nn.log_softmax(logits[..., where], axis=-1) for where in slices(sizes)], axis=-1
    )


def log_prob(logits: Array, actions: Array, sizes: tuple[int, ...]) -> Array:
    """Log-probabilities `[B, K]` of actions `[B, K]`, by the policy head's `logits [B, O]`."""
    starts = np.array([where.start for where in slices(sizes)], np.int32)
    places = options_of(actions, sizes) + starts
    flat = places.reshape(len(actions), -1)
    found = jnp.take_along_axis(part_log_probs(logits, sizes), flat, axis=-1)
    return jnp.sum(found.reshape(places.shape), axis=-1)


def policy_loss(sizes: tuple[int, ...], logits: Array, weights: Array) -> Array:
    """Cross-entropy of a policy `[..., O]` with a distribution over actions, the latter stopped.

    The sum of those of the parts, each with its own `weights_of_options [..., O]`; `[...]`.
    """
    target = jax.lax.stop_gradient(weights)
    if len(sizes) <= 1:
        return optax.softmax_cross_entropy(logits, target)
    each = [optax.softmax_cross_entropy(logits[..., x], target[..., x]) for x in slices(sizes)]
    return jnp.sum(jnp.stack(each), axis=0)


def weights_of_options(actions: Array, weights: Array, sizes: tuple[int, ...]) -> Array:
    """The weight of each option, float32 `[B, O]`, by weights `[B, K]` of actions `[B, K]`.

    All that a factored policy can learn of a distribution over actions: its cross-entropy is the
    sum of those of its parts with these.
    """
    return jnp.einsum("bk,bko->bo", weights, one_hots(actions, sizes))


def draw(rng_key: Array, logits: Array, count: int, sizes: tuple[int, ...]) -> Array:
    """Actions `[B, count]` int32 drawn from the policy of `logits [B, O]`, independently."""
    uniform = own_rows(lambda n: jax.random.uniform(rng_key, (n, count, len(sizes))), len(logits))
    action = jnp.zeros((len(logits), count), jnp.int32)
    for i, (where, stride) in enumerate(zip(slices(sizes), strides(sizes).tolist(), strict=True)):
        below = jnp.cumsum(jax.nn.softmax(logits[:, where], axis=-1), axis=-1)
        # Over the last one, so that rounding leads to no option without probability.
        below = below / below[:, -1:]
        reached = uniform[:, :, i, None] >= below[:, None]
        action += stride * jnp.sum(reached, axis=-1, dtype=jnp.int32)
    return action
