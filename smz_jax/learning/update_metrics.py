"""What an update says of its batch, and of several updates as one."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.config.network import NetworkConfig
from smz_jax.learning.losses import Unrolled
from smz_jax.model.steps import entropy_nats
from smz_jax.model.values import TRANSFORMS
from smz_jax.types import Array, UnrollTargets


def model_metrics(unrolled: Unrolled, mask: Array) -> dict[str, Array]:
    """Diagnostics of one batch: is the code alive, does the prior know it, do embeddings differ.

    `mask [K, B]` is 1 for real transitions.
    """
    total = jnp.maximum(mask.sum(), 1.0)
    usage = (
        jnp.sum(jax.lax.stop_gradient(unrolled.followed.codes) * mask[..., None], axis=(0, 1))
        / total
    )
    perplexity = jnp.exp(-jnp.sum(usage * jnp.log(jnp.maximum(usage, 1e-9))))
    agrees = jnp.argmax(unrolled.judged.chance_logits, -1) == jnp.argmax(
        unrolled.followed.codes, -1
    )
    entropy = entropy_nats(unrolled.judged.chance_logits)
    root = unrolled.embeddings[0].astype(jnp.float32)
    return {
        "model/code_perplexity": perplexity,
        "model/agreement": jnp.sum(agrees * mask) / total,
        "model/chance_entropy_nats": jnp.sum(entropy * mask) / total,
        "model/embedding_variance": root.var(axis=0).mean(),
    }


def support_metrics(targets: UnrollTargets, network: NetworkConfig) -> dict[str, Array]:
    """Share of the real rewards and value targets beyond their support, and how far they reach.

    A reach is the support that would hold the largest one. Targets under a zero mask are 0.
    """
    found = {}
    reward = TRANSFORMS[network.reward_transform].forward(targets.reward)
    value = TRANSFORMS[network.value_transform].forward(targets.value)
    for name, target, mask, support in (
        ("reward", reward, targets.transition_mask, network.reward_support),
        ("value", value, targets.value_mask, network.value_support),
    ):
        size = jnp.abs(target)
        found[f"learner/{name}s_cut"] = jnp.sum(size > support) / jnp.maximum(mask.sum(), 1.0)
        found[f"learner/{name}_reach"] = jnp.ceil(size.max())
    return found


def over_updates(metrics: Mapping[str, Any], of: ModuleType) -> dict[str, Any]:
    """Metrics `[updates]` as one's: the largest reach, else the mean; `of` is NumPy or JAX's.

    An update that was skipped has no numbers.
    """
    return {
        name: (of.nanmax if name.endswith("_reach") else of.nanmean)(of.asarray(x), axis=0)
        for name, x in metrics.items()
    }
