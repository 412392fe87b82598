"""The model against the true rules of a world that are known, the grid world's above all."""

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.settings import Config
from smz_jax.types import Array, Networks, Params


def entropy_nats(logits: Array) -> Array:
    """H(sigma) in nats of logits `[..., C]`."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of `scores` as a classifier of `positive`; ties count half.

    The rank form (Mann and Whitney 1947): (sum of the positives' ranks - n+ (n+ + 1) / 2)
    / (n+ n-), tied scores sharing their mean rank.

    Args:
        scores: `[N]`.
        positive: `[N]` bool.

    Returns:
        NaN where one of the two kinds is missing.
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

    Pure, to be jitted by the caller.

    Args:
        networks: the model.
        params: its parameters.
        observations: `[S, F, ...]`, one of each state.
        num_actions: A.
    """
    embedding = networks.representation(params, observations)

    def of_action(action: Array) -> tuple[Array, Array]:
        actions = jnp.full(len(observations), action, jnp.int32)
        afterstate = networks.afterstate_dynamics(params, embedding, actions)
        logits, _ = networks.afterstate_prediction(params, afterstate)
        return entropy_nats(logits), jnp.argmax(logits, axis=-1)

    entropy, code = jax.lax.map(of_action, jnp.arange(num_actions))
    return entropy.T, code.T


def transition_codes(
    networks: Networks, config: Config, params: Params, before: Array, action: Array, after: Array
) -> Array:
    """The encoder's code `[N]` of each transition; pure, to be jitted by the caller.

    Args:
        networks: the model.
        config: the run's settings.
        params: its parameters.
        before: observations `[N, F, ...]`.
        action: `[N]` int32.
        after: observations `[N, F, ...]` after the step.
    """
    embedding = networks.representation(params, before)
    afterstate = networks.afterstate_dynamics(params, embedding, action)
    from_embedding = config.network.encoder_input == "embedding"
    seen = networks.representation(params, after) if from_embedding else after
    return jnp.argmax(networks.encoder(params, seen, afterstate), axis=-1)


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

    def mean(values: np.ndarray, where: np.ndarray) -> float:
        return float(values[where].mean()) if where.any() else float("nan")

    weights = np.where(seen, visits, 0)
    scale = np.log(codebook_size) if codebook_size > 1 else 1.0
    return {
        "roc_area": roc_area(entropy[seen], random[seen]),
        "roc_area_reachable": roc_area(entropy[pairs], random[pairs]),
        "entropy_error": mean(np.abs(entropy - true_entropy), seen),
        "entropy_random": mean(entropy, pairs & random),
        "entropy_certain": mean(entropy, pairs & ~random),
        "transition_entropy": float(np.sum(entropy * weights) / max(weights.sum(), 1) / scale),
        "pairs_visited": float(seen.sum() / max(pairs.sum(), 1)),
    }


def unroll_errors(
    networks: Networks,
    config: Config,
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
        config: the run's settings.
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
    if config.network.encoder_input == "embedding":
        after = jax.lax.map(lambda x: networks.representation(params, x), after)

    def step(embedding: Array, inputs: tuple[Array, ...]) -> tuple[Array, dict[str, Array]]:
        action, seen, reward, value, real = inputs
        afterstate = networks.afterstate_dynamics(params, embedding, action)
        chosen = jnp.argmax(networks.encoder(params, seen, afterstate), axis=-1)
        code = jax.nn.one_hot(chosen, config.network.codebook_size, dtype=jnp.float32)
        embedding, reward_logits = networks.dynamics(params, afterstate, code)
        _, value_logits = networks.prediction(params, embedding)
        errors = {
            "reward": jnp.abs(networks.reward_of(reward_logits) - reward),
            "value": jnp.abs(networks.value_of(value_logits) - value),
        }
        total = jnp.maximum(real.sum(), 1.0)
        return embedding, {name: jnp.sum(x * real) / total for name, x in errors.items()}

    embedding = networks.representation(params, observations[:, 0])
    inputs = (actions.T, after, rewards.T, values[:, 1:].T, mask.T)
    return jax.lax.scan(step, embedding, inputs)[1]


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

    def step(embedding: Array, inputs: tuple[Array, ...]) -> tuple[Array, dict[str, Array]]:
        action, key, reward, value = inputs
        fed = jnp.repeat(action, num_samples)
        afterstate = networks.afterstate_dynamics(params, embedding, fed)
        logits, _ = networks.afterstate_prediction(params, afterstate)
        drawn = jax.random.categorical(key, logits)
        code = jax.nn.one_hot(drawn, logits.shape[-1], dtype=jnp.float32)
        embedding, reward_logits = networks.dynamics(params, afterstate, code)
        _, value_logits = networks.prediction(params, embedding)
        return embedding, {
            "reward": error(networks.reward_of(reward_logits), reward),
            "value": error(networks.value_of(value_logits), value),
        }

    embedding = jnp.repeat(networks.representation(params, observations), num_samples, axis=0)
    keys = jax.random.split(rng_key, actions.shape[1])
    inputs = (actions.T, keys, mean_rewards.T, mean_values.T)
    return jax.lax.scan(step, embedding, inputs)[1]
