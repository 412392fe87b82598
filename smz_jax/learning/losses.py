"""The unrolled loss of Stochastic MuZero, one function per term.

Terms and targets: Antonoglou et al. 2022, section 4.1; MuZero, appendix G (1/K weight on unrolled
terms, half gradient into the dynamics); EfficientZero, section 4.1 (consistency). Every term is
`[B]` for one unroll step; `unrolled_loss` adds them up.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config
from smz_jax.learning.single_losses import (
    categorical_loss,
    code_entropy,
    commitment_loss,
    consistency_loss,
    contrast_loss,
    reconstruction_loss,
    representation_loss,
    scalar_loss,
)
from smz_jax.model import actions, steps
from smz_jax.types import (
    AfterstatePrediction,
    Array,
    Networks,
    Params,
    Prediction,
    UnrollTargets,
    is_end,
)


class Batch(NamedTuple):
    """What one update learns from."""

    observations: Array  # [B, K+1, F, ...] stacks at the root and after each step
    actions: Array  # [B, K] int32, fed to the model
    targets: UnrollTargets  # each [B, ...]
    weights: Array  # [B] importance weights


class Unrolled(NamedTuple):
    """The model's predictions along a window; the time axis comes first."""

    embeddings: Array  # [K+1, B, D]
    predictions: Prediction  # [K+1, B, ...]
    judged: AfterstatePrediction  # [K, B, ...] of the afterstates
    followed: steps.Followed  # [K, B, ...]; gradients pass straight through the codes
    after_embeddings: Array  # [K, B, D] of the real next observations, gradient stopped
    batch_stats: Params


def straight_through_code(
    rng_key: Array, logits: Array, *, noise: Array, uniform: float
) -> tuple[Array, Array]:
    """The encoder's discrete code (Antonoglou et al. 2022, section 4.1).

        q = softmax(logits),  c = onehot(argmax(log q + noise * Gumbel)) + q - sg(q)

    A share `uniform` of the uniform distribution is mixed into q.

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

    `rng_key` is consumed; `noise` scales the Gumbel noise on the codes.
    """
    after = jnp.swapaxes(batch.observations[:, 1:], 0, 1)
    actions = jnp.swapaxes(batch.actions, 0, 1)
    root, batch_stats = networks.representation_train(params, batch.observations[:, 0])
    after_embeddings = jax.lax.stop_gradient(steps.embed(networks, params, after))
    forced = None
    if networks.continuation is not None:
        # Past an end any code may come: the model must be absorbing along those that search tries.
        rng_key, code_key = jax.random.split(rng_key)
        drawn = jax.random.randint(code_key, actions.shape, 0, config.network.codebook_size)
        forced = jnp.where(batch.targets.transition_mask.T > 0, -1, drawn)
    followed = steps.follow(
        networks,
        params,
        root,
        actions,
        steps.Seen(after, after_embeddings),
        forced=forced,
        codes=lambda key, logits: straight_through_code(
            key, logits, noise=noise, uniform=config.network.encoder_uniform
        ),
        rng_key=rng_key,
        carry=lambda state: scale_gradient(state, config.learner.dynamics_gradient_scale),
        # Unrolled: a loop kept a sixth of an update's time on a CPU, Breakout at laptop.
        unroll=len(actions),
    )
    embeddings = jnp.concatenate([root[None], followed.states])
    predictions = steps.over_time(networks.prediction, params, embeddings)
    judged = steps.over_time(networks.afterstate_prediction, params, followed.afterstates)
    return Unrolled(
        embeddings=embeddings,
        predictions=Prediction(*predictions),
        judged=AfterstatePrediction(*judged),
        followed=followed,
        after_embeddings=after_embeddings,
        batch_stats=batch_stats,
    )


class Compared(NamedTuple):
    """What a term is computed of; the time axis comes first."""

    networks: Networks
    params: Params
    unrolled: Unrolled
    targets: UnrollTargets  # [K+1, B, ...] or [K, B]
    frames: Array  # [K+1, B, *frame_shape] newest ones
    unroll: Array  # [K, 1] weight of each unrolled step
    config: Config
    rng_key: Array | None  # of the transitions that auxiliary terms are taken of

    @property
    def with_root(self) -> Array:
        """Weight of each step `[K+1, 1]`, the root's 1."""
        return jnp.concatenate([jnp.ones((1, 1), jnp.float32), self.unroll])

    @property
    def transition(self) -> Array:
        """Weight of each real transition `[K, B]`."""
        return self.targets.transition_mask * self.unroll

    @property
    def alive(self) -> Array:
        """Likewise `[K, B]`, but for those that led to an end.

        What is seen after a lost life begins another one: the state past the end must not lie
        near it.
        """
        return self.transition * ~is_end(self.targets.discount)


def _of_chosen(x: Compared, term: Callable[..., Array], *rows: Array) -> Array:
    """A term `[K, B]` of each transition's rows `[K, B, ...]`, or of some in place of all.

    One transition in `loss.auxiliary_every` counts for so many; all have the same chance.
    """
    every, count = x.config.loss.auxiliary_every, x.transition.size
    flat = [y.reshape(count, *y.shape[2:]) for y in rows]
    if every == 1:
        return term(*flat).reshape(x.transition.shape)
    assert x.rng_key is not None
    start, chosen = jax.random.randint(x.rng_key, (), 0, count), count // every
    places = (start + every * jnp.arange(chosen)) % count
    # Rows that are picked within the arithmetic are picked number by number.
    picked = jax.lax.optimization_barrier([y[places] for y in flat])
    found = count / chosen * term(*picked)
    return jnp.zeros(count, jnp.float32).at[places].set(found).reshape(x.transition.shape)


def consistency_term(x: Compared) -> Array:
    """The unrolled embedding comes to lie near that of what was really seen."""

    def term(after: Array, seen: Array) -> Array:
        predicted = x.networks.project(x.params, after, True)
        return consistency_loss(predicted, x.networks.project(x.params, seen, False))

    return x.alive * _of_chosen(x, term, x.unrolled.embeddings[1:], x.unrolled.after_embeddings)


def contrast_term(x: Compared) -> Array:
    """The unrolled embedding is nearest to that of what was seen; both projections learn."""

    def project(embeddings: Array, predict: bool) -> Array:
        flat = embeddings.reshape(-1, *embeddings.shape[2:])
        return x.networks.project(x.params, flat, predict).reshape(*embeddings.shape[:2], -1)

    states = x.unrolled.embeddings
    seen = jnp.concatenate([jax.lax.stop_gradient(states[:1]), x.unrolled.after_embeddings])
    return x.alive * contrast_loss(project(states[1:], True), project(seen, False))


def reconstruction_term(x: Compared) -> Array:
    """The next frame is foreseen from the state after the code and from the afterstate."""

    def term(after: Array, before: Array, state: Array, afterstate: Array) -> Array:
        pixels = x.networks.frame_target(x.params, after, before)
        with_code, without = x.networks.decode(x.params, state, afterstate)
        return reconstruction_loss(with_code, pixels) + reconstruction_loss(without, pixels)

    states = x.unrolled.embeddings[1:], x.unrolled.followed.afterstates
    return x.alive * _of_chosen(x, term, x.frames[1:], x.frames[:-1], *states)


def continuation_term(x: Compared) -> Array:
    """Whether the game goes on, of several players with whom; past a truncation who knows."""
    assert x.networks.continuation is not None
    logits = steps.over_time(x.networks.continuation, x.params, x.unrolled.embeddings[1:])
    discount, known = x.targets.discount, x.targets.value_mask[1:] * x.unroll
    if logits.ndim > discount.ndim:
        turn = x.targets.turn
        kind = jnp.sign(discount).astype(jnp.int32) + 1 if turn is None else turn
        return optax.softmax_cross_entropy_with_integer_labels(logits, kind) * known
    target = (~is_end(discount)).astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, target) * known


def of_all(losses: Array) -> Array:
    """Losses `[K, B]` as they are, those `[K, B, P]` of each player as their mean."""
    return losses if losses.ndim == 2 else losses.mean(axis=-1)


def value_loss(x: Compared, logits: Array, target: Array) -> Array:
    """Cross-entropy `[K, B]` of value logits `[K, B, S]`, or `[K, B, P, S]`, with their targets."""
    n = x.config.network
    return of_all(scalar_loss(logits, target, n.value_transform, n.value_code, n.value_width))


TERMS: dict[str, Callable[[Compared], Array]] = {
    # The policy head learns the search's action weights.
    "policy": lambda x: (
        actions.policy_loss(
            x.networks.parts, x.unrolled.predictions.policy_logits, x.targets.policy
        )
        * x.targets.policy_mask
        * x.with_root
    ),
    # The value head learns the n-step returns.
    "value": lambda x: (
        value_loss(x, x.unrolled.predictions.value_logits, x.targets.of_states)
        * x.targets.value_mask
        * x.with_root
    ),
    "reward": lambda x: (
        of_all(
            scalar_loss(
                x.unrolled.followed.reward_logits,
                x.targets.of_rewards,
                x.config.network.reward_transform,
            )
        )
        * x.targets.value_mask[1:]
        * x.unroll
    ),
    # Q of action k learns the value target of the state that the action is taken in.
    "afterstate_value": lambda x: (
        value_loss(x, x.unrolled.judged.value_logits, x.targets.of_decisions)
        * x.targets.value_mask[:-1]
        * x.targets.value_mask[1:]
        * x.unroll
    ),
    # Sigma learns the encoder's codes, and the encoder keeps to them.
    "chance": lambda x: (
        categorical_loss(x.unrolled.judged.chance_logits, x.unrolled.followed.codes) * x.transition
    ),
    "commitment": lambda x: (
        jax.vmap(commitment_loss)(x.unrolled.followed.code_probs, x.unrolled.followed.codes)
        * x.transition
    ),
    "representation": lambda x: (
        representation_loss(x.unrolled.followed.code_probs, x.unrolled.judged.chance_logits)
        * x.transition
    ),
    "consistency": consistency_term,
    "contrast": contrast_term,
    "reconstruction": reconstruction_term,
    "continuation": continuation_term,
}
"""Every term `[K or K+1, B]` of the loss, masked and weighted over time, by the name of its weight
in `config.loss`; a new one is an entry here, and its weight."""
AUXILIARY = ("representation", "consistency", "contrast", "reconstruction", "continuation")
"""Terms that are left out where their weight is 0: they take heads and time of their own."""


def loss_terms(
    networks: Networks,
    params: Params,
    unrolled: Unrolled,
    batch: Batch,
    config: Config,
    rng_key: Array | None = None,
) -> dict[str, Array]:
    """Every term, masked, weighted over the unroll steps and summed: name to `[B]`.

    The root's terms have weight 1, each unrolled step's 1/K. `rng_key` is consumed where
    `loss.auxiliary_every` draws rows.
    """
    length = batch.actions.shape[1]
    compared = Compared(
        networks,
        params,
        unrolled,
        targets=jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch.targets),
        frames=jnp.moveaxis(batch.observations[:, :, -1], 1, 0),
        unroll=jnp.full((length, 1), 1.0 / length, jnp.float32),
        config=config,
        rng_key=rng_key,
    )
    return {
        name: term(compared).sum(axis=0)
        for name, term in TERMS.items()
        if name not in AUXILIARY or getattr(config.loss, name) > 0
        if name != "continuation" or networks.continuation is not None
    }


class LossOutput(NamedTuple):
    """What an update needs beside the gradient."""

    metrics: dict[str, Array]  # each term's mean, and the total
    batch_stats: Params  # updated running statistics
    unrolled: Unrolled


def unrolled_loss(
    trainable: Params,
    batch_stats: Params,
    networks: Networks,
    rng_key: Array,
    batch: Batch,
    config: Config,
    *,
    noise: Array,
    scales: Mapping[str, Array],
) -> tuple[Array, LossOutput]:
    """The total loss, importance-weighted over the batch: a scalar.

    The gradient is that of `trainable`; `rng_key` is consumed; `noise` scales the Gumbel noise on
    the codes; `scales` are what the weights of terms are multiplied by, 1 where a term has none.
    """
    params = {"params": trainable, "batch_stats": batch_stats}
    term_key = None
    if config.loss.auxiliary_every > 1:
        rng_key, term_key = jax.random.split(rng_key)
    unrolled = unroll_model(networks, params, rng_key, batch, config, noise)
    terms = loss_terms(networks, params, unrolled, batch, config, term_key)
    per_sample = sum(
        getattr(config.loss, name) * scales.get(name, 1.0) * term for name, term in terms.items()
    )
    mask = jnp.moveaxis(batch.targets.transition_mask, 1, 0)
    entropy = code_entropy(unrolled.followed.code_probs, mask)
    total = jnp.mean(per_sample * batch.weights) - config.loss.code_entropy * entropy
    metrics = {f"loss/{name}": term.mean() for name, term in terms.items()}
    metrics |= {"loss/code_entropy": entropy, "loss/total": total}
    return total, LossOutput(metrics, unrolled.batch_stats, unrolled)
