"""The search from a root: a tree, and the action, policy target and value that it gives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.config.search import SearchConfig
from smz_jax.config.seeds import CANDIDATES_KEY
from smz_jax.config.settings import Config
from smz_jax.model import steps
from smz_jax.model.lanes import own_rows
from smz_jax.search import interface
from smz_jax.search.candidates import make_edge_actions
from smz_jax.search.edges import Edges
from smz_jax.search.engines import gumbel_decision, make_batched_tree, make_mctx_tree
from smz_jax.search.interface import check_model
from smz_jax.search.macro_edges import folded_root
from smz_jax.search.selection import decision_view, root_qvalues
from smz_jax.search.usage import usage
from smz_jax.types import Array, EnvSpec, Networks, Params, SearchOutput, Space


def sample_by_temperature(rng_key: Array, action_weights: Array, temperature: Array) -> Array:
    """Draws actions `[B]` in proportion to `action_weights^(1 / temperature)`; 0 is greedy.

    Weights `[B, A]` are 0 where invalid; `rng_key` is consumed.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    logits = jnp.log(jnp.maximum(action_weights, tiny))
    logits = jnp.where(action_weights > 0, logits, -jnp.inf) / jnp.maximum(temperature, 1e-6)
    noise = own_rows(lambda n: jax.random.gumbel(rng_key, (n, logits.shape[1])), len(logits))
    drawn = jnp.argmax(noise + logits, axis=-1)
    return jnp.where(temperature > 0, drawn, jnp.argmax(action_weights, axis=-1)).astype(jnp.int32)


def make_search(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., SearchOutput]:
    """The search of `config.search`, by its engine and root rule.

    Returns:
        `(params, rng_key, embedding, invalid_actions [B, O], temperature, noise) -> SearchOutput`;
        `noise` scales the root's noise (the Dirichlet fraction, or the Gumbel; and the share of
        uniform candidates): 1 in training, `eval.noise` in evaluation. A gumbel root acts by its
        own rule and ignores the temperature. Values and logits that are not finite are replaced (by
        0; by equal ones) and counted.

    Raises:
        ConfigError: if the engine cannot do it; at the first trace, if the model's outputs do not
            fit the number of actions or each other, or the batch is empty.
    """
    settings = config.search
    choices = make_edge_actions(settings, spec.action_space)
    edges = Edges(choices.count, int(settings.macros))
    make_tree = make_mctx_tree if settings.engine == "mctx" else make_batched_tree
    grow_tree = make_tree(networks, config, choices)

    def search(
        params: Params,
        rng_key: Array,
        embedding: Array,
        invalid_actions: Array,
        temperature: Array,
        noise: Array | float,
    ) -> SearchOutput:
        num_outcomes = check_model(networks, params, embedding, invalid_actions, spec.num_options)
        judged, faults = steps.finite(steps.predict(networks, params, embedding))
        value, all_invalid = judged.value, jnp.all(invalid_actions > 0, axis=-1)
        actions, policy_logits, noisy_logits, invalid_actions = choices.of_root(
            jax.random.fold_in(rng_key, CANDIDATES_KEY),
            judged.policy_logits,
            invalid_actions,
            uniform=settings.uniform_candidates * noise,
            fraction=settings.dirichlet_fraction * noise,
        )
        if settings.root == "gumbel":
            # The order of splits is mctx's, so that the same key gives the same search.
            search_key, noise_key = jax.random.split(rng_key)
            drawn = own_rows(lambda n: jax.random.gumbel(noise_key, (n, choices.count)), len(value))
            gumbel = noise * drawn
            logits = interface.mask_invalid(policy_logits, invalid_actions)
        else:
            rng_key, noise_key, search_key = jax.random.split(rng_key, 3)
            gumbel, fraction = None, settings.dirichlet_fraction * noise
            logits = noisy_logits
            if logits is None:
                logits = interface.add_dirichlet_noise(
                    noise_key, policy_logits, fraction=fraction, alpha=settings.dirichlet_alpha
                )
            masked = interface.mask_invalid(policy_logits, invalid_actions)
            logits = interface.mask_invalid(logits, invalid_actions)
        prior_logits = edges.of_decision(logits, num_outcomes)
        root = interface.make_root(embedding, prior_logits, value, faults)
        of_root = invalid_actions, gumbel, actions, judged.values
        tree = grow_tree(params, search_key, root, *of_root)
        seen = folded_root(tree, edges)
        if gumbel is not None:
            action, action_weights = gumbel_decision(seen, logits, gumbel, settings)
            value, values = mean_over_visited(seen, action_weights)
        else:
            action_weights = visit_weights(seen, logits, settings.num_simulations)
            action = sample_by_temperature(rng_key, action_weights, temperature)
            value, values = mean_without_noise(seen, masked, logits)
        return SearchOutput(
            action=choices.actions_at(actions, action),
            action_weights=choices.weights_of_options(actions, action_weights),
            value=value,
            tree=tree,
            faults=jnp.sum(tree.embeddings.faults, axis=1),
            all_invalid=all_invalid,
            usage=usage(tree, edges) if settings.macros or settings.jump_collapses else None,
            values=values,
            spread=spread_over_visited(decision_view(seen, Edges(choices.count))),
        )

    return search


def mean_over_visited(tree: Any, weights: Array) -> tuple[Array, Array | None]:
    """The root's value `[B]` under the improved policy `weights [B, A]`.

        v = sum_a pi'(a) Q(a) / sum_a pi'(a),  over visited actions

    Sequential halving visits every considered action, whatever it is worth: the mean over visits,
    which is mctx's, lies below the value of the policy that is played, most where actions differ.
    Without a visit it is the value head's.
    """
    root = decision_view(tree, Edges(weights.shape[-1]))
    weights = jnp.where(root.children_visits[:, 0] > 0, weights, 0.0)
    return _weighted(weights, root, 0.0)


def mean_without_noise(tree: Any, logits: Array, noisy_logits: Array) -> tuple[Array, Array | None]:
    """The root's value `[B]`: the mean over its visits, as if its prior had had no noise.

    PUCT's visits are proportional to the prior, at given Q (Grill et al. 2020, "Monte-Carlo Tree
    Search as Regularized Policy Optimization"): a visit counts as much as the prior of its action
    without noise over that with it. Both are masked `[B, A]`. Without noise it is mctx's value.
    """
    root = decision_view(tree, Edges(logits.shape[-1]))
    ratio = jnp.exp(jax.nn.log_softmax(logits) - jax.nn.log_softmax(noisy_logits))
    visits = root.children_visits[:, 0]
    return _weighted(jnp.where(visits > 0, visits * ratio, 0.0), root, 1.0)


def spread_over_visited(tree: Any) -> Array:
    """Largest less smallest Q of the root's visited edges `[B]`: what the choice can matter."""
    visited, qvalues = tree.children_visits[:, 0] > 0, root_qvalues(tree)
    most = jnp.max(jnp.where(visited, qvalues, -jnp.inf), axis=-1)
    least = jnp.min(jnp.where(visited, qvalues, jnp.inf), axis=-1)
    return jnp.where(jnp.any(visited, axis=-1), most - least, 0.0)


def _weighted(weights: Array, root: Any, own: float) -> tuple[Array, Array | None]:
    """Mean of Q by `weights [B, A]`, with the value head's for `own`; that alone if all are 0.

    The second is that of all players `[B, P]`, where there are more than two.
    """
    qvalues = root_qvalues(root)
    total = jnp.sum(weights, axis=-1) + own

    def mean(qvalues: Array, raw: Array) -> Array:
        found = (jnp.sum(weights * qvalues, axis=-1) + own * raw) / jnp.where(total > 0, total, 1.0)
        return jnp.where(total > 0, found, raw)

    value, worth = mean(qvalues, root.raw_values[:, 0]), root.embeddings.worth
    if worth is None:
        return value, None
    child = jnp.maximum(root.children_index[:, 0], 0)
    of_each = jnp.take_along_axis(worth, child[:, :, None], axis=1)
    return value, jax.vmap(mean, in_axes=-1, out_axes=-1)(of_each, worth[:, 0])


def visit_weights(tree: Any, logits: Array, num_simulations: int) -> Array:
    """Shares of the root's visits `[B, A]`; without any simulation, the masked prior."""
    if num_simulations == 0:
        return jax.nn.softmax(logits)
    return decision_view(tree, Edges(logits.shape[-1])).summary().visit_probs


def make_prior_policy(
    networks: Networks, settings: SearchConfig, space: Space
) -> Callable[..., SearchOutput]:
    """The plain-policy mode: epsilon-greedy on the policy head, no search.

    Spreads of action values from `settings.q_epsilon` on are stretched to 1.

    Returns:
        `(params, rng_key, embedding, invalid_actions [B, O], temperature, epsilon)
        -> SearchOutput` without a tree; it acts by the prior, and its action weights (the policy
        target) are the prior improved by one step. Both are over the candidates of a search.
    """
    choices = make_edge_actions(settings, space)

    def afterstate_value(params: Params, embedding: Array, action: Array) -> tuple[Array, Array]:
        actions = jnp.broadcast_to(action, embedding.shape[:1])
        return steps.finite_scalars(steps.decide(networks, params, embedding, actions).value)

    def act(
        params: Params,
        rng_key: Array,
        embedding: Array,
        invalid_actions: Array,
        temperature: Array,
        epsilon: Array,
    ) -> SearchOutput:
        judged, faults = steps.finite(steps.predict(networks, params, embedding))
        policy_logits, value = judged.policy_logits, judged.value
        all_invalid = jnp.all(invalid_actions > 0, axis=-1)
        candidates, policy_logits, _, invalid_actions = choices.of_root(
            jax.random.fold_in(rng_key, CANDIDATES_KEY),
            policy_logits,
            invalid_actions,
            uniform=epsilon,
            fraction=0.0,
        )
        prior = jax.nn.softmax(interface.mask_invalid(policy_logits, invalid_actions))
        # What the policy learns: its own prior would teach it nothing, so one step of improvement
        # by the afterstate values, Q relative to the value in units of the actions' spread.
        actions = jnp.arange(prior.shape[-1], dtype=jnp.int32)
        if candidates is not None:
            actions = candidates.T
        q, bad_q = jax.vmap(lambda a: afterstate_value(params, embedding, a), out_axes=1)(actions)
        spread = jnp.maximum(jnp.ptp(q, axis=-1, keepdims=True), settings.q_epsilon)
        improved = interface.mask_invalid(
            policy_logits + (q - value[:, None]) / spread, invalid_actions
        )
        prior_key, uniform_key, coin_key = jax.random.split(rng_key, 3)
        chosen = sample_by_temperature(prior_key, prior, temperature)
        valid = jnp.where(invalid_actions > 0, 0.0, 1.0)
        explored = sample_by_temperature(uniform_key, valid, jnp.float32(1.0))
        explores = own_rows(lambda n: jax.random.uniform(coin_key, (n,)), len(value)) < epsilon
        return SearchOutput(
            action=choices.actions_at(candidates, jnp.where(explores, explored, chosen)),
            action_weights=choices.weights_of_options(candidates, jax.nn.softmax(improved)),
            value=value,
            tree=None,
            faults=faults + jnp.sum(bad_q, axis=-1),
            all_invalid=all_invalid,
            values=judged.values,
        )

    return act
