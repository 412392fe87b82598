"""Root policies: the searched one, and the bare policy head of the plain mode."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx

from smz_jax.config import Config
from smz_jax.search import model_functions
from smz_jax.search.selection import decision_view, make_action_selection
from smz_jax.types import Array, EnvSpec, Networks, Params, SearchOutput


def sample_by_temperature(rng_key: Array, action_weights: Array, temperature: Array) -> Array:
    """Draws actions in proportion to `weights^(1 / temperature)`; 0 is greedy.

    Args:
        rng_key: consumed.
        action_weights: `[B, A]`, 0 where invalid.
        temperature: float32 scalar, at least 0.

    Returns:
        int32 `[B]`.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    logits = jnp.log(jnp.maximum(action_weights, tiny))
    logits = jnp.where(action_weights > 0, logits, -jnp.inf) / jnp.maximum(temperature, 1e-6)
    drawn = jax.random.categorical(rng_key, logits)
    return jnp.where(temperature > 0, drawn, jnp.argmax(action_weights, axis=-1)).astype(jnp.int32)


def make_search(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., SearchOutput]:
    """The reference engine: `mctx.search` over decision and chance nodes.

    Agrees with `mctx.stochastic_muzero_policy` visit for visit, and keeps the whole tree.

    Args:
        networks: the model.
        config: uses `search` and `learner.gamma`.
        spec: the environment's number of actions.

    Returns:
        `(params, rng_key, embedding, invalid_actions [B, A], temperature, noise) -> SearchOutput`;
        `noise` scales the Dirichlet fraction: 1 in training, 0 in evaluation.
    """
    settings = config.search
    select = make_action_selection(
        spec.num_actions,
        pb_c_init=settings.pb_c_init,
        pb_c_base=settings.pb_c_base,
        q_epsilon=settings.q_epsilon,
    )
    recurrent_fn = model_functions.make_recurrent_fn(
        networks, num_actions=spec.num_actions, gamma=config.learner.gamma
    )

    def search(
        params: Params,
        rng_key: Array,
        embedding: Array,
        invalid_actions: Array,
        temperature: Array,
        noise: Array | float,
    ) -> SearchOutput:
        policy_logits, value_logits = networks.prediction(params, embedding)
        value = networks.value_of(value_logits)
        # The order of splits is mctx's, so that the same key gives the same search.
        rng_key, dirichlet_key, search_key = jax.random.split(rng_key, 3)
        logits = model_functions.add_dirichlet_noise(
            dirichlet_key,
            policy_logits,
            fraction=settings.dirichlet_fraction * noise,
            alpha=settings.dirichlet_alpha,
        )
        logits = model_functions.mask_invalid(logits, invalid_actions)
        tree: Any = mctx.search(
            params,
            search_key,
            root=model_functions.make_root(networks, params, embedding, logits, value),
            recurrent_fn=recurrent_fn,
            root_action_selection_fn=functools.partial(select, depth=jnp.int32(0)),
            interior_action_selection_fn=select,
            num_simulations=settings.num_simulations,
            max_depth=settings.max_depth,
            invalid_actions=invalid_actions,
        )
        if settings.num_simulations == 0:
            action_weights = jax.nn.softmax(logits)
        else:
            action_weights = decision_view(tree, spec.num_actions).summary().visit_probs
        return SearchOutput(
            action=sample_by_temperature(rng_key, action_weights, temperature),
            action_weights=action_weights,
            value=tree.node_values[:, 0],
            tree=tree,
        )

    return search


def make_prior_policy(networks: Networks, q_epsilon: float) -> Callable[..., SearchOutput]:
    """The plain-policy mode: epsilon-greedy on the policy head, no search.

    Args:
        networks: the model.
        q_epsilon: smallest spread of action values that is stretched to 1.

    Returns:
        `(params, rng_key, embedding, invalid_actions [B, A], temperature, epsilon)
        -> SearchOutput` without a tree; it acts by the prior, and its action weights (the policy
        target) are the prior improved by one step.
    """

    def afterstate_value(params: Params, embedding: Array, action: Array) -> Array:
        actions = jnp.broadcast_to(action, embedding.shape[:1])
        afterstate = networks.afterstate_dynamics(params, embedding, actions)
        return networks.value_of(networks.afterstate_prediction(params, afterstate)[1])

    def act(
        params: Params,
        rng_key: Array,
        embedding: Array,
        invalid_actions: Array,
        temperature: Array,
        epsilon: Array,
    ) -> SearchOutput:
        policy_logits, value_logits = networks.prediction(params, embedding)
        prior = jax.nn.softmax(model_functions.mask_invalid(policy_logits, invalid_actions))
        value = networks.value_of(value_logits)
        # What the policy learns: its own prior would teach it nothing, so one step of improvement
        # by the afterstate values, Q relative to the value in units of the actions' spread.
        actions = jnp.arange(prior.shape[-1], dtype=jnp.int32)
        q = jax.vmap(lambda a: afterstate_value(params, embedding, a), out_axes=1)(actions)
        spread = jnp.maximum(jnp.ptp(q, axis=-1, keepdims=True), q_epsilon)
        improved = model_functions.mask_invalid(
            policy_logits + (q - value[:, None]) / spread, invalid_actions
        )
        prior_key, uniform_key, coin_key = jax.random.split(rng_key, 3)
        chosen = sample_by_temperature(prior_key, prior, temperature)
        valid = jnp.where(invalid_actions > 0, 0.0, 1.0)
        explored = sample_by_temperature(uniform_key, valid, jnp.float32(1.0))
        explores = jax.random.uniform(coin_key, value.shape) < epsilon
        return SearchOutput(
            action=jnp.where(explores, explored, chosen),
            action_weights=jax.nn.softmax(improved),
            value=value,
            tree=None,
        )

    return act
