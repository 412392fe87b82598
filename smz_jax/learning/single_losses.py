"""The losses of single outputs: cross-entropies, cosines, squared errors.

`learning.losses` unrolls the model and says what each of them compares, with which mask and weight.
"""

import jax
import jax.numpy as jnp
import optax

from smz_jax.model.values import Code, Transform, scalar_to_probs
from smz_jax.types import Array

CONTRAST_TEMPERATURE = 0.07


def categorical_loss(logits: Array, probs: Array) -> Array:
    """Cross-entropy of logits `[..., S]` with target probabilities, the latter stopped; `[...]`."""
    return optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(probs))


def scalar_loss(
    logits: Array,
    target: Array,
    transform: Transform = "hyperbolic",
    code: Code = "two_hot",
    width: float = 1.0,
) -> Array:
    """Cross-entropy with the code of the transformed scalar target `[...]`, in bins of `width`."""
    probs = jnp.vectorize(
        lambda x: scalar_to_probs(x, logits.shape[-1] // 2, transform, code, width),
        signature="()->(s)",
    )
    return categorical_loss(logits, probs(target))


def commitment_loss(code_probs: Array, code: Array) -> Array:
    """|sg(c) - q|^2 summed over the codebook `[..., C]`; it has no gradient without the stop."""
    return jnp.sum(jnp.square(jax.lax.stop_gradient(code) - code_probs), axis=-1)


def representation_loss(code_probs: Array, chance_logits: Array) -> Array:
    """Cross-entropy -sum q log sg(sigma) `[...]` of both `[..., C]`, for the encoder's q.

    Hafner et al. 2023 (DreamerV3), equation 5, less the entropy of q, which `commitment_loss` has.
    """
    sigma = jax.lax.stop_gradient(jax.nn.log_softmax(chance_logits))
    return -jnp.sum(code_probs * sigma, axis=-1)


def consistency_loss(predicted: Array, target: Array) -> Array:
    """Negative cosine of the projected prediction with the projected, stopped target."""
    return -optax.cosine_similarity(predicted, jax.lax.stop_gradient(target), epsilon=1e-6)


def contrast_loss(predicted: Array, seen: Array) -> Array:
    """Cross-entropy of finding a foreseen end `[K, B, D]` among real ones `[K+1, B, D]`: `[K, B]`.

    InfoNCE (van den Oord et al. 2018) over cosines at `CONTRAST_TEMPERATURE`; `seen` begins with
    the root. The others are what the same window saw at its other times, and what the other windows
    saw after as many steps: what is the same in all of them, as walls are, finds nothing.
    """

    def direction(x: Array) -> Array:
        return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)

    foreseen, every = direction(predicted), direction(seen)
    real, same = every[1:], jnp.eye(seen.shape[1], dtype=bool)
    in_time = jnp.einsum("kbd,jbd->kbj", foreseen, every) / CONTRAST_TEMPERATURE
    elsewhere = jnp.einsum("kbd,kcd->kbc", foreseen, real) / CONTRAST_TEMPERATURE
    rivals = jnp.concatenate([in_time, jnp.where(same, -jnp.inf, elsewhere)], axis=-1)
    own = jnp.sum(foreseen * real, axis=-1) / CONTRAST_TEMPERATURE
    return jax.nn.logsumexp(rivals, axis=-1) - own


def reconstruction_loss(predicted: Array, target: Array) -> Array:
    """Mean squared error over the pixels of a standardised frame `[B, pixels]`."""
    return jnp.mean(jnp.square(predicted - jax.lax.stop_gradient(target)), axis=-1)


def code_entropy(code_probs: Array, mask: Array) -> Array:
    """Entropy in nats of the mean code over real transitions: `[K, B, C]`, `[K, B]` to a scalar."""
    total = jnp.maximum(mask.sum(), 1.0)
    mean = jnp.sum(code_probs * mask[..., None], axis=(0, 1)) / total
    return -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-9)))
