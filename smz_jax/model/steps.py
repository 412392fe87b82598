"""Steps of the model, spelled out once."""

import jax
import jax.numpy as jnp

from smz_jax.types import Array, Networks, Params


def normalised_entropy(logits: Array) -> Array:
    """H(sigma) / ln C of chance logits `[..., C]`, in [0, 1]; 0 when C = 1."""
    if logits.shape[-1] == 1:
        return jnp.zeros(logits.shape[:-1], jnp.float32)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.clip(entropy / jnp.log(jnp.float32(logits.shape[-1])), 0.0, 1.0)


def finite_scalars(values: Array) -> tuple[Array, Array]:
    """Values `[B]` with 0 for each that is not finite, and how many were: int32 `[B]`.

    Beyond 1e30 counts as not finite: sums of such values would overflow in a backup.
    """
    finite = jnp.abs(values) <= 1e30  # false of NaN
    return jnp.where(finite, values, 0.0).astype(jnp.float32), (~finite).astype(jnp.int32)


def finite_logits(logits: Array) -> tuple[Array, Array]:
    """Logits `[B, ...]`, all equal in a row where one is not finite, and 1 there: int32 `[B]`."""
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    logits = jnp.where(finite[..., None], logits, 0.0).astype(jnp.float32)
    return logits, (~finite).astype(jnp.int32)


def discount_after(
    networks: Networks, params: Params, state: Array, gamma: float
) -> tuple[Array, Array]:
    """Discount of the edge that led to the decision nodes `state`: gamma, 0 past an end.

    Returns:
        float32 `[B]`, and how many had to be replaced because they were not finite, int32 `[B]`.
    """
    discount = jnp.full(state.shape[:1], gamma, jnp.float32)
    if networks.goes_on is not None:
        discount = discount * networks.goes_on(params, state)
    return finite_scalars(discount)


def to_afterstate(networks: Networks, params: Params, inputs: tuple[Array, Array]):
    """A decision by the model: `(state, action)` to what a chance node holds.

    Returns:
        afterstate, chance logits `[B, C]`, value `[B]`, faults `[B]`.
    """
    afterstate = networks.afterstate_dynamics(params, *inputs)
    chance_logits, value = networks.afterstate_prediction(params, afterstate)
    chance_logits, bad_logits = finite_logits(chance_logits)
    value, bad_value = finite_scalars(networks.value_of(value))
    return afterstate, chance_logits, value, bad_logits + bad_value


def to_state(
    networks: Networks, params: Params, gamma: float, codes: int, inputs: tuple[Array, Array]
):
    """A chance outcome by the model: `(afterstate, outcome)` to what a decision node holds.

    Returns:
        state, policy logits `[B, A]`, value `[B]`, reward `[B]`, discount `[B]`, faults `[B]`.
    """
    afterstate, outcome = inputs
    code = jax.nn.one_hot(outcome, codes, dtype=jnp.float32)
    state, reward = networks.dynamics(params, afterstate, code)
    policy_logits, value = networks.prediction(params, state)
    policy_logits, bad_logits = finite_logits(policy_logits)
    value, bad_value = finite_scalars(networks.value_of(value))
    reward, bad_reward = finite_scalars(networks.reward_of(reward))
    discount, bad_discount = discount_after(networks, params, state, gamma)
    faults = bad_logits + bad_value + bad_reward + bad_discount
    return state, policy_logits, value, reward, discount, faults
