"""The unrolled loss of Stochastic MuZero, one function per term.

Terms and targets: Antonoglou et al. 2022, section 4.1; MuZero, appendix G (1/K weight on unrolled
terms, half gradient into the dynamics); EfficientZero, section 4.1 (consistency). Every term is
`[B]` for one unroll step; `unrolled_loss` adds them up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config
from smz_jax.model.values import scalar_to_probs
from smz_jax.types import Array, Networks, Params, UnrollTargets


class Batch(NamedTuple):
    """What one update learns from."""

    observations: Array  # [B, K+1, F, ...] stacks at the root and after each step
    actions: Array  # [B, K] int32, fed to the model
    targets: UnrollTargets  # each [B, ...]
    weights: Array  # [B] importance weights


class Unrolled(NamedTuple):
    """The model's predictions along a window; the time axis comes first."""

    embeddings: Array  # [K+1, B, D]
    afterstates: Array  # [K, B, D]
    policy_logits: Array  # [K+1, B, A]
    value_logits: Array  # [K+1, B, S]
    reward_logits: Array  # [K, B, S]
    chance_logits: Array  # [K, B, C]
    afterstate_value_logits: Array  # [K, B, S]
    code_probs: Array  # [K, B, C] q, before the arg max
    code: Array  # [K, B, C] one-hot forward, straight-through backward
    after_embeddings: Array  # [K, B, D] of the real next observations, gradient stopped
    batch_stats: Params


def categorical_loss(logits: Array, probs: Array) -> Array:
    """Cross-entropy of logits `[B, S]` with target probabilities `[B, S]`; gives `[B]`."""
    return optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(probs))


def scalar_loss(logits: Array, target: Array) -> Array:
    """Cross-entropy with the two-hot code of the transformed scalar target `[B]`."""
    support = logits.shape[-1] // 2
    return categorical_loss(logits, jax.vmap(lambda x: scalar_to_probs(x, support))(target))


def chance_loss(chance_logits: Array, code: Array) -> Array:
    """Cross-entropy of the prior sigma with the encoder's code, gradient into sigma only."""
    return categorical_loss(chance_logits, code)


def commitment_loss(code_probs: Array, code: Array) -> Array:
    """|sg(c) - q|^2 summed over the codebook; without the stop it would have no gradient."""
    return jnp.sum(jnp.square(jax.lax.stop_gradient(code) - code_probs), axis=-1)


def consistency_loss(predicted: Array, target: Array) -> Array:
    """Negative cosine of the projected prediction with the projected, stopped target."""
    return -optax.cosine_similarity(predicted, jax.lax.stop_gradient(target), epsilon=1e-6)


def reconstruction_loss(predicted: Array, target: Array) -> Array:
    """Mean squared error over the pixels of a standardised frame `[B, pixels]`."""
    return jnp.mean(jnp.square(predicted - jax.lax.stop_gradient(target)), axis=-1)


def code_entropy(code_probs: Array, mask: Array) -> Array:
    """Entropy in nats of the mean code over real transitions: `[K, B, C]`, `[K, B]` to a scalar."""
    total = jnp.maximum(mask.sum(), 1.0)
    mean = jnp.sum(code_probs * mask[..., None], axis=(0, 1)) / total
    return -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-9)))


def straight_through_code(
    rng_key: Array, logits: Array, *, noise: Array, uniform: float
) -> tuple[Array, Array]:
    """The encoder's discrete code (Antonoglou et al. 2022, section 4.1).

        q = softmax(logits),  c = onehot(argmax(log q + noise * Gumbel)) + q - sg(q)

    Args:
        rng_key: consumed.
        logits: `[B, C]`.
        noise: scale of the Gumbel noise, float32 scalar.
        uniform: share of the uniform distribution mixed into q.

    Returns:
        q and c, both `[B, C]` float32; c is one-hot in the forward pass, and its gradient is q's.
    """
    size = logits.shape[-1]
    probs = (1 - uniform) * jax.nn.softmax(logits) + uniform / size
    perturbed = jnp.log(probs) + noise * jax.random.gumbel(rng_key, logits.shape, jnp.float32)
    hard = jax.nn.one_hot(jnp.argmax(perturbed, axis=-1), size, dtype=jnp.float32)
    return probs, hard + (probs - jax.lax.stop_gradient(probs))


def scale_gradient(x: Array, scale: float) -> Array:
    """`x` in the forward pass; its gradient is multiplied by `scale`."""
    return x * scale + jax.lax.stop_gradient(x) * (1 - scale)


def unroll_model(
    networks: Networks, params: Params, rng_key: Array, batch: Batch, config: Config, noise: Array
) -> Unrolled:
    """Unrolls the model over the batch's actions, codes coming from the real next observations.

    Args:
        networks: the model.
        params: the trained parameters.
        rng_key: consumed.
        batch: the windows.
        config: the run's settings.
        noise: scale of the Gumbel noise on the codes.

    Returns:
        `Unrolled`, time axis first.
    """
    after = jnp.swapaxes(batch.observations[:, 1:], 0, 1)
    actions = jnp.swapaxes(batch.actions, 0, 1)
    steps = actions.shape[0]
    root, batch_stats = networks.representation_train(params, batch.observations[:, 0])
    needs_after = config.loss.consistency > 0 or config.network.encoder_input == "embedding"
    if needs_after:
        # Step by step: all K B frames at once fall out of a CPU's caches and take twice as long.
        encoded = jax.lax.map(lambda x: networks.representation(params, x), after)
        after_embeddings = jax.lax.stop_gradient(encoded)
    else:
        after_embeddings = jnp.zeros((steps, *root.shape), root.dtype)
    seen = after if config.network.encoder_input == "frames" else after_embeddings

    def step(embedding: Array, inputs: tuple[Array, Array, Array]):
        action, seen_after, key = inputs
        afterstate = networks.afterstate_dynamics(params, embedding, action)
        logits = networks.encoder(params, seen_after, afterstate)
        probs, code = straight_through_code(
            key, logits, noise=noise, uniform=config.network.encoder_uniform
        )
        embedding, reward = networks.dynamics(params, afterstate, code)
        carried = scale_gradient(embedding, config.learner.dynamics_gradient_scale)
        return carried, (afterstate, embedding, reward, probs, code)

    keys = jax.random.split(rng_key, steps)
    # Unrolled: a loop kept a sixth of an update's time on a CPU, Breakout at laptop.
    _, outputs = jax.lax.scan(step, root, (actions, seen, keys), unroll=steps)
    afterstates, embeddings, reward_logits, code_probs, code = outputs
    embeddings = jnp.concatenate([root[None], embeddings])

    def over_time(function, x: Array):
        flat = function(params, x.reshape(-1, *x.shape[2:]))
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), flat)

    policy_logits, value_logits = over_time(networks.prediction, embeddings)
    chance_logits, afterstate_value = over_time(networks.afterstate_prediction, afterstates)
    return Unrolled(
        embeddings=embeddings,
        afterstates=afterstates,
        policy_logits=policy_logits,
        value_logits=value_logits,
        reward_logits=reward_logits,
        chance_logits=chance_logits,
        afterstate_value_logits=afterstate_value,
        code_probs=code_probs,
        code=code,
        after_embeddings=after_embeddings,
        batch_stats=batch_stats,
    )


def loss_terms(
    networks: Networks, params: Params, unrolled: Unrolled, batch: Batch, config: Config
) -> dict[str, Array]:
    """Every term, masked, weighted over the unroll steps and summed: name to `[B]`.

    The root's terms have weight 1, each unrolled step's 1/K. The afterstate after action k has the
    value target of the state that it follows (it is that action's Q).
    """
    targets = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch.targets)
    steps = batch.actions.shape[1]
    unroll = jnp.full((steps, 1), 1.0 / steps, jnp.float32)
    with_root = jnp.concatenate([jnp.ones((1, 1), jnp.float32), unroll])
    transition = targets.transition_mask * unroll
    u = unrolled
    per_step = jax.vmap
    terms = {
        "policy": per_step(categorical_loss)(u.policy_logits, targets.policy)
        * targets.policy_mask
        * with_root,
        "value": per_step(scalar_loss)(u.value_logits, targets.value)
        * targets.value_mask
        * with_root,
        "reward": per_step(scalar_loss)(u.reward_logits, targets.reward)
        * targets.value_mask[1:]
        * unroll,
        "afterstate_value": per_step(scalar_loss)(u.afterstate_value_logits, targets.value[:-1])
        * targets.value_mask[:-1]
        * targets.value_mask[1:]
        * unroll,
        "chance": per_step(chance_loss)(u.chance_logits, u.code) * transition,
        "commitment": per_step(commitment_loss)(u.code_probs, u.code) * transition,
    }
    if config.loss.consistency > 0:
        flat = u.embeddings[1:].reshape(-1, *u.embeddings.shape[2:])
        predicted = networks.project(params, flat, True)
        target = networks.project(params, u.after_embeddings.reshape(flat.shape), False)
        cosine = consistency_loss(predicted, target).reshape(transition.shape)
        terms["consistency"] = cosine * transition
    if config.loss.reconstruction > 0:
        frames = jnp.moveaxis(batch.observations[:, :, -1], 1, 0)
        pairs = (x.reshape(-1, *frames.shape[2:]) for x in (frames[1:], frames[:-1]))
        pixels = networks.frame_target(params, *pairs)
        flat = u.embeddings[1:].reshape(-1, *u.embeddings.shape[2:])
        flat_after = u.afterstates.reshape(flat.shape)
        with_code, without = networks.decode(params, flat, flat_after)
        error = reconstruction_loss(with_code, pixels) + reconstruction_loss(without, pixels)
        terms["reconstruction"] = error.reshape(transition.shape) * transition
    return {name: term.sum(axis=0) for name, term in terms.items()}


def unrolled_loss(
    trainable: Params,
    batch_stats: Params,
    networks: Networks,
    rng_key: Array,
    batch: Batch,
    config: Config,
    *,
    noise: Array,
    commitment_scale: Array,
) -> tuple[Array, tuple[dict[str, Array], Params, Unrolled]]:
    """The total loss, importance-weighted over the batch.

    Args:
        trainable: the parameters that the gradient is taken of.
        batch_stats: running statistics.
        networks: the model.
        rng_key: consumed.
        batch: the windows.
        config: the run's settings.
        noise: scale of the Gumbel noise on the codes.
        commitment_scale: 0..1, the warm-up of the commitment term.

    Returns:
        The scalar loss; and each term's mean, the updated running statistics and the unroll.
    """
    params = {"params": trainable, "batch_stats": batch_stats}
    unrolled = unroll_model(networks, params, rng_key, batch, config, noise)
    terms = loss_terms(networks, params, unrolled, batch, config)
    scales = {name: getattr(config.loss, name) for name in terms}
    per_sample = sum(
        scales[name] * (commitment_scale if name == "commitment" else 1.0) * term
        for name, term in terms.items()
    )
    mask = jnp.moveaxis(batch.targets.transition_mask, 1, 0)
    entropy = code_entropy(unrolled.code_probs, mask)
    total = jnp.mean(per_sample * batch.weights) - config.loss.code_entropy * entropy
    metrics = {f"loss/{name}": term.mean() for name, term in terms.items()}
    metrics["loss/code_entropy"] = entropy
    metrics["loss/total"] = total
    return total, (metrics, unrolled.batch_stats, unrolled)
