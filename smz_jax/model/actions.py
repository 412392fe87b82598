"""Actions that are made of several choices: their numbers, and a policy with a factor for each.

An action is one number; its *options* are what is chosen in each of its parts (`types.Space`). The
policy head has the logits of all parts side by side, `[B, O]`, and is their product:

    pi(a) = prod_d softmax(logits of part d)[option d of a]

Where there is one part, O = A and this is the usual policy. The logits of a part that is a number
may be those of a squashed Gaussian (`gaussian_logits`), which has two outputs in place of many.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from smz_jax.model.lanes import own_rows
from smz_jax.types import Array, Part, Space, options_of, strides

DEVIATIONS = 0.05, 4.0
"""Least and most of a Gaussian before it is squashed: from one option of a coarse number, or
several of a fine one, to the two ends alone."""
FARTHEST = 6.0
"""Most of its mean, either way; tanh of it is the end."""
UNIFORM = 0.01
"""Share of the uniform distribution: what the Gaussian rules out costs no more than this allows."""
BEYOND = 1e4
"""Stands for infinity where gradients must be finite."""


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


def head_sizes(space: Space, number_policy: str) -> list[int]:
    """Outputs of the policy head for each part: its options; of a Gaussian two numbers."""
    parts = space.parts or (Part(space.names),)
    is_two = [number_policy == "gaussian" and bool(part.values) for part in parts]
    return [2 if two else size for two, size in zip(is_two, space.sizes, strict=True)]


def policy_logits(outputs: Array, space: Space, number_policy: str) -> Array:
    """Logits `[B, O]` of all options, by the policy head's outputs, `head_sizes` side by side."""
    if number_policy == "bins":
        return outputs
    found, widths = [], head_sizes(space, number_policy)
    for part, where in zip(space.parts, slices(tuple(widths)), strict=True):
        own = outputs[..., where]
        found.append(gaussian_logits(own, part.values) if part.values else own)
    return jnp.concatenate(found, axis=-1)


def gaussian_logits(outputs: Array, values: tuple[float, ...]) -> Array:
    """Log-probabilities `[..., options]` of a number's options by a squashed Gaussian.

    With x ~ N(m, s) the place of the number in its range is y = tanh(x), as in Soft Actor-Critic
    (Haarnoja et al. 2018, appendix C), whose density N(atanh y; m, s) / (1 - y^2) is summed up
    between the middles e of neighbouring options:

        P(i) = Phi((atanh e_i+1 - m) / s) - Phi((atanh e_i - m) / s)

    and mixed with a little of the uniform distribution.

    Args:
        outputs: `[..., 2]`, of which m and s are made: at 0 they are 0 and 1, and the options about
            alike.
        values: ascending places of the options, in [-1, 1].
    """
    places = np.array(values)
    middles = np.arctanh((places[1:] + places[:-1]) / 2)
    ends = np.concatenate([[-BEYOND], middles, [BEYOND]]).astype(np.float32)
    mean = FARTHEST * jnp.tanh(outputs[..., :1] / FARTHEST)
    least, most = DEVIATIONS
    at_one = np.float32(np.log((1 - least) / (most - 1)))
    deviation = least + (most - least) * jax.nn.sigmoid(outputs[..., 1:] + at_one)
    reached = (ends - mean) / deviation
    low, high = reached[..., :-1], reached[..., 1:]
    # Of the two tails the one where both are small: there differences are exact.
    is_above = low + high > 0
    low, high = jnp.where(is_above, -high, low), jnp.where(is_above, -low, high)
    log_low, log_high = (jax.scipy.stats.norm.logcdf(x) for x in (low, high))
    found = log_high + jnp.log(-jnp.expm1(log_low - log_high))
    return jnp.logaddexp(np.float32(np.log1p(-UNIFORM)) + found, np.log(UNIFORM / len(places)))


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


def likeliest(policy: Array, sizes: tuple[int, ...]) -> Array:
    """The likeliest option of each part, int32 `[..., parts]`, by a policy `[..., O]`."""
    each = [jnp.argmax(policy[..., where], axis=-1) for where in slices(sizes)]
    return jnp.stack(each, axis=-1).astype(jnp.int32)


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
