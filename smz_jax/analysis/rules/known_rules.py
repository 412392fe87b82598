"""The model against the true rules of a world that are known, the grid world's above all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.model.steps import (
    Seen,
    decide,
    embed,
    encode,
    entropy_nats,
    follow,
    imagine,
    over_time,
    predict,
)
from smz_jax.types import Array, Networks, Params


def mean_where(values: np.ndarray, where: np.ndarray) -> float:
    """Mean of the values under a mask of their shape; NaN where it is empty."""
    return float(values[where].mean()) if where.any() else float("nan")


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of `scores [N]` as a classifier of `positive [N]`; ties count half.

    The rank form (Mann and Whitney 1947): (sum of the positives' ranks - n+ (n+ + 1) / 2)
    / (n+ n-), tied scores sharing their mean rank. NaN where one of the two kinds is missing.
    """
    _, kind, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[kind]
    positives = int(np.sum(positive))
    negatives = len(scores) - positives
    if not positives or not negatives:
        return float("nan")
    above = ranks[np.asarray(positive, bool)].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def pair_entropies(
    networks: Networks, params: Params, observations: Array, num_actions: int
) -> tuple[Array, Array]:
    """H(sigma) in nats and the most likely code of every (state, action), both `[S, A]`.

    `observations [S, F, ...]` are one of each state. Pure, to be jitted by the caller.
    """
    embedding = networks.representation(params, observations)

    def of_action(action: Array) -> tuple[Array, Array]:
        actions = jnp.full(len(observations), action, jnp.int32)
        afterstate = decide(networks, params, embedding, actions)
        return entropy_nats(afterstate.logits), afterstate.likely

    entropy, code = jax.lax.map(of_action, jnp.arange(num_actions))
    return entropy.T, code.T


def transition_codes(
    networks: Networks, params: Params, before: Array, action: Array, after: Array
) -> Array:
    """The encoder's code `[N]` of each transition; pure, to be jitted by the caller.

    `before` and `after` are observations `[N, F, ...]` around the step, `action` is `[N]` int32.
    """
    afterstate = decide(networks, params, networks.representation(params, before), action).state
    seen = Seen(after, networks.representation(params, after))
    return jnp.argmax(encode(networks, params, seen, afterstate), axis=-1)


def rules_check(
    entropy: np.ndarray,
    true_entropy: np.ndarray,
    *,
    reachable: np.ndarray,
    visits: np.ndarray,
    codebook_size: int,
) -> dict[str, float]:
    """The model's transition entropies against the true ones, in a world with known rules.

    Args:
        entropy: `[S, A]` the model's, in nats.
        true_entropy: `[S, A]`, in nats; 0 (up to 1e-9) is certain.
        reachable: `[S]` bool, states in which an action is chosen at some time.
        visits: `[S, A]` how often each pair was really played.
        codebook_size: C.

    Returns:
        `roc_area` of entropy as a classifier of random against certain pairs (NaN if there is one
        kind alone), and `entropy_error`, the mean |H(model) - H(true)|, both over the pairs
        visited; `roc_area_reachable`, `entropy_random`, `entropy_certain` over reachable pairs,
        also those never seen; `transition_entropy`, the mean normalised one over visits;
        `pairs_visited`, their share.
    """
    pairs = np.broadcast_to(reachable[:, None], entropy.shape)
    random = true_entropy > 1e-9
    seen = (visits > 0) & pairs

    weights = np.where(seen, visits, 0)
    scale = np.log(codebook_size) if codebook_size > 1 else 1.0
    return {
        "roc_area": roc_area(entropy[seen], random[seen]),
        "roc_area_reachable": roc_area(entropy[pairs], random[pairs]),
        "entropy_error": mean_where(np.abs(entropy - true_entropy), seen),
        "entropy_random": mean_where(entropy, pairs & random),
        "entropy_certain": mean_where(entropy, pairs & ~random),
        "transition_entropy": float(np.sum(entropy * weights) / max(weights.sum(), 1) / scale),
        "pairs_visited": float(seen.sum() / max(pairs.sum(), 1)),
    }


def unroll_errors(
    networks: Networks,
    params: Params,
    observations: Array,
    actions: Array,
    rewards: Array,
    values: Array,
    mask: Array,
) -> dict[str, Array]:
    """Errors along fixed action sequences when the model is told what happened by its own codes.

    Pure, to be jitted by the caller. A model with one code is told nothing, and can at best
    predict means.

    Args:
        networks: the model.
        params: its parameters.
        observations: `[N, K+1, F, ...]` that were seen.
        actions: `[N, K]` int32.
        rewards: `[N, K]` that were given.
        values: `[N, K+1]`, the true values of the states that were reached.
        mask: `[N, K]`, 1 where the step was taken, 0 past an end.

    Returns:
        `reward` and `value`, `[K]`: the mean absolute error after 1 to K steps.
    """
    after = observations[:, 1:].swapaxes(0, 1)
    root = networks.representation(params, observations[:, 0])
    seen = Seen(after, embed(networks, params, after))
    followed = follow(networks, params, root, actions.T, seen)
    predicted = over_time(functools.partial(predict, networks), params, followed.states)
    total = jnp.maximum(mask.sum(axis=0), 1.0)

    def error(guess: Array, truth: Array) -> Array:
        return jnp.sum(jnp.abs(guess - truth.T) * mask.T, axis=1) / total

    return {
        "reward": error(networks.reward_of(followed.reward_logits), rewards),
        "value": error(predicted.value, values[:, 1:]),
    }


def open_loop_errors(
    networks: Networks,
    params: Params,
    rng_key: Array,
    observations: Array,
    actions: Array,
    mean_rewards: Array,
    mean_values: Array,
    *,
    num_samples: int = 256,
) -> dict[str, Array]:
    """Errors of the model's *expectations* along fixed action sequences, codes drawn from sigma.

    Pure, to be jitted by the caller. The mean over `num_samples` draws is compared with the exact
    expectation; the draws' own variance is taken off, so that the number of draws does not count.

    Args:
        networks: the model.
        params: its parameters.
        rng_key: consumed.
        observations: `[N, F, ...]` of the states that the sequences start from.
        actions: `[N, K]` int32.
        mean_rewards: `[N, K]`, E[r] of each step.
        mean_values: `[N, K]`, E[V] of the state after each step.
        num_samples: draws for each sequence, at least 2.

    Returns:
        `reward` and `value`, `[K]`: the root of the mean squared error after 1 to K steps.
    """

    def error(guess: Array, truth: Array) -> Array:
        guesses = guess.reshape(-1, num_samples)
        noise = guesses.var(axis=1, ddof=1) / num_samples
        excess = jnp.mean(jnp.square(guesses.mean(axis=1) - truth) - noise)
        return jnp.sqrt(jnp.maximum(excess, 0.0))

    root = jnp.repeat(networks.representation(params, observations), num_samples, axis=0)
    fed = jnp.repeat(actions.T, num_samples, axis=1)
    steps = imagine(networks, params, root, fed, rng_key).steps
    return {
        "reward": jax.vmap(error)(steps.reward, mean_rewards.T),
        "value": jax.vmap(error)(steps.value, mean_values.T),
    }
