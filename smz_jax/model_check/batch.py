"""The model against what really happened in replayed windows of any run."""

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config import Config
from smz_jax.learner import model_metrics
from smz_jax.losses import Batch, loss_terms, unroll_model
from smz_jax.search.model_functions import normalised_entropy
from smz_jax.types import Array, Networks, Params

HISTOGRAM_BINS = 20


def _cosine(x: Array, y: Array) -> Array:
    """Cosine of `[..., D]`; 0 where one of them is 0."""
    norm = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return jnp.sum(x * y, axis=-1) / jnp.maximum(norm, 1e-9)


def batch_check(
    networks: Networks, config: Config, params: Params, rng_key: Array, batch: Batch
) -> dict[str, Array]:
    """Diagnostics of a batch of replayed windows; pure, to be jitted by the caller.

    Args:
        networks: the model.
        config: the run's settings.
        params: the parameters to check.
        rng_key: consumed.
        batch: as `make_batch_builder` gives it.

    Returns:
        `code_perplexity`, `agreement` (of code and most likely code), `chance_entropy_nats`,
        `embedding_variance`, `transition_entropy` (mean normalised H(sigma)): scalars over real
        transitions. `entropy_histogram [HISTOGRAM_BINS]`: their shares over [0, 1].
        `reward_error [K]`, `value_error [K+1]`: mean absolute errors from the targets, per unroll
        step. `consistency [K]`: mean cosine of the unrolled embedding with that of the real next
        observation, both less the batch's mean, since scaled embeddings point nearly one way.
    """
    frozen = networks._replace(
        representation_train=lambda p, x: (networks.representation(p, x), p["batch_stats"])
    )
    unrolled = unroll_model(frozen, params, rng_key, batch, config, jnp.float32(0))
    targets = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch.targets)
    mask = targets.transition_mask

    def over_batch(values: Array, weights: Array) -> Array:
        return jnp.sum(values * weights, axis=-1) / jnp.maximum(weights.sum(axis=-1), 1.0)

    entropy = normalised_entropy(unrolled.chance_logits)
    bins = jnp.clip((entropy * HISTOGRAM_BINS).astype(jnp.int32), 0, HISTOGRAM_BINS - 1)
    total = jnp.maximum(mask.sum(), 1.0)
    reward_error = jnp.abs(networks.reward_of(unrolled.reward_logits) - targets.reward)
    value_error = jnp.abs(networks.value_of(unrolled.value_logits) - targets.value)
    after = jnp.swapaxes(batch.observations[:, 1:], 0, 1)
    real = jax.lax.map(lambda x: networks.representation(params, x), after)
    real = real.reshape(*mask.shape, -1).astype(jnp.float32)
    predicted = unrolled.embeddings[1:].reshape(real.shape).astype(jnp.float32)
    centre = jnp.sum(real * mask[..., None], axis=(0, 1)) / total
    return {
        **{name.removeprefix("model/"): x for name, x in model_metrics(unrolled, mask).items()},
        "transition_entropy": jnp.sum(entropy * mask) / total,
        "entropy_histogram": jnp.zeros(HISTOGRAM_BINS, jnp.float32).at[bins].add(mask) / total,
        "reward_error": over_batch(reward_error, targets.value_mask[1:]),
        "value_error": over_batch(value_error, targets.value_mask),
        "consistency": over_batch(_cosine(predicted - centre, real - centre), mask),
    }


def gradient_shares(
    networks: Networks, config: Config, params: Params, rng_key: Array, batch: Batch
) -> dict[str, Array]:
    """Norm of each weighted loss term's own gradient, over the sum of these norms.

    Pure, to be jitted by the caller; one backward pass for each term. Noise on the codes is off
    and the commitment at its full weight.

    Args:
        networks: the model.
        config: the run's settings.
        params: the parameters to check.
        rng_key: consumed.
        batch: as `make_batch_builder` gives it.
    """

    def terms(trainable: Params) -> dict[str, Array]:
        full = {"params": trainable, "batch_stats": params["batch_stats"]}
        unrolled = unroll_model(networks, full, rng_key, batch, config, jnp.float32(0))
        found = loss_terms(networks, full, unrolled, batch, config)
        return {
            name: getattr(config.loss, name) * jnp.mean(term * batch.weights)
            for name, term in found.items()
        }

    values, pull = jax.vjp(terms, params["params"])
    names = sorted(values)

    def norm(one_hot: Array) -> Array:
        (gradient,) = pull({name: one_hot[i] for i, name in enumerate(names)})
        return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(gradient)))

    norms = jax.lax.map(norm, jnp.eye(len(names), dtype=jnp.float32))
    shares = norms / jnp.maximum(norms.sum(), 1e-30)
    return {name: shares[i] for i, name in enumerate(names)}


def check_row(result: dict[str, Array], prefix: str = "check") -> dict[str, float]:
    """A check as a metrics row: vectors become `name_0`, `name_1`, ..., by unroll step or bin."""
    row = {}
    for name, value in result.items():
        for i, number in enumerate(np.ravel(np.asarray(value, np.float64))):
            row[f"{prefix}/{name}" + (f"_{i}" if np.ndim(value) else "")] = float(number)
    return row
