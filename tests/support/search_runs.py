"""Searches of random tabular games by either engine and by mctx's own policies, compiled once."""

import functools
from copy import copy

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.config.training import LearnerConfig
from smz_jax.search.root_search import make_search
from smz_jax.types import EnvSpec, Space
from tests.support.tabular import as_params, embed, make_tabular_networks, with_ends

GAMMA = 0.9


def tabular_networks(states, actions, ended):
    """The tabular model, with true ends where `ended` `[n]` says so, and turns: `with_ends`."""
    networks = make_tabular_networks(states, actions)
    return networks if ended is None else with_ends(networks, ended)


def constant_and_argument(depth):
    """An int is a constant of the program, as in a run; an array its argument: one serves all."""
    return (depth, None) if depth is None or isinstance(depth, int) else (None, depth)


@functools.cache
def compiled_search(states, actions, settings):
    """This project's search."""
    spec = EnvSpec("tabular", (1,), 1, np.dtype("float32"), Space(actions, ("?",) * actions), 1)

    @jax.jit
    def run(params, key, embedding, invalid, temperature, noise, ended=None, depth=None):
        used = copy(settings)
        if depth is not None:
            object.__setattr__(used, "max_depth", depth)  # past the check of its range
        config = Config(search=used, learner=LearnerConfig(gamma=GAMMA))
        search = make_search(tabular_networks(states, actions, ended), config, spec)
        return search(params, key, embedding, invalid, temperature, noise=noise)

    return run


def run_search(tables, state_ids, *, simulations, invalid=None, seed=0, noise=1.0, depth=None,
               temperature=1.0, ended=None, **search):  # fmt: skip
    """A `SearchOutput` on the host."""
    states, actions = tables.prior.shape
    invalid = np.zeros((len(state_ids), actions), np.float32) if invalid is None else invalid
    constant, depth = constant_and_argument(depth)
    settings = SearchConfig(num_simulations=simulations, max_depth=constant, **search)
    output = compiled_search(states, actions, settings)(
        as_params(tables),
        jax.random.key(seed),
        embed(tables, state_ids),
        invalid,
        jnp.float32(temperature),
        jnp.float32(noise),
        None if ended is None else jnp.asarray(ended),
        depth,
    )
    return jax.device_get(output)


def recurrent_functions(networks, outcomes, policy):
    """The model as mctx's stochastic or plain policy takes it."""

    def discount(params, embedding):
        gamma = jnp.full(embedding.shape[:1], GAMMA)
        ends = networks.discount
        return gamma if ends is None else gamma * ends(params, embedding)

    def decision_fn(params, key, action, embedding):
        afterstate = networks.afterstate_dynamics(params, embedding, action)
        logits, value = networks.afterstate_prediction(params, afterstate)
        output = mctx.DecisionRecurrentFnOutput(chance_logits=logits, afterstate_value=value[:, 0])
        return output, afterstate

    def chance_fn(params, key, outcome, afterstate):
        code = jax.nn.one_hot(outcome, outcomes)
        embedding, reward = networks.dynamics(params, afterstate, code)
        logits, value = networks.prediction(params, embedding)
        output = mctx.ChanceRecurrentFnOutput(
            action_logits=logits,
            value=value[:, 0],
            reward=reward[:, 0],
            discount=discount(params, embedding),
        )
        return output, embedding

    def plain_fn(params, key, action, embedding):
        """A whole step through the most likely outcome: MuZero's own recurrent function."""
        chance, afterstate = decision_fn(params, key, action, embedding)
        likely = jnp.argmax(chance.chance_logits, axis=-1)
        step, embedding = chance_fn(params, key, likely, afterstate)
        output = mctx.RecurrentFnOutput(
            reward=step.reward,
            discount=step.discount,
            prior_logits=step.action_logits,
            value=step.value,
        )
        return output, embedding

    if policy is mctx.stochastic_muzero_policy:
        return {"decision_recurrent_fn": decision_fn, "chance_recurrent_fn": chance_fn}
    return {"recurrent_fn": plain_fn}


@functools.cache
def compiled_mctx(states, actions, outcomes, simulations, constant_depth, policy):
    """mctx's own stochastic or plain policy over the same networks."""

    @jax.jit
    def run(params, key, embedding, invalid, ended, depth):
        networks = tabular_networks(states, actions, ended)
        logits, value = networks.prediction(params, embedding)
        return policy(
            params,
            key,
            root=mctx.RootFnOutput(prior_logits=logits, value=value[:, 0], embedding=embedding),
            num_simulations=simulations,
            invalid_actions=invalid,
            max_depth=constant_depth if depth is None else depth,
            **recurrent_functions(networks, outcomes, policy),
        )

    return run


def run_mctx(tables, state_ids, *, simulations, invalid=None, seed=0, depth=None, ended=None,
             policy=mctx.stochastic_muzero_policy):  # fmt: skip
    """mctx's `PolicyOutput` on the host."""
    states, actions, outcomes = tables.chance.shape
    invalid = np.zeros((len(state_ids), actions), np.float32) if invalid is None else invalid
    constant, depth = constant_and_argument(depth)
    run = compiled_mctx(states, actions, outcomes, simulations, constant, policy)
    params, key, root = as_params(tables), jax.random.key(seed), embed(tables, state_ids)
    ended = None if ended is None else jnp.asarray(ended)
    return jax.device_get(run(params, key, root, invalid, ended, depth))


def random_invalid(seed, batch_size, actions):
    """Different invalid actions in each row, at least one valid."""
    generator = np.random.default_rng(seed)
    invalid = (generator.random((batch_size, actions)) < 0.3).astype(np.float32)
    invalid[np.arange(batch_size), generator.integers(0, actions, batch_size)] = 0.0
    return invalid


def depths(tree):
    """Edges from the root to each node `[B, N]`; -1 where there is none."""
    depth = np.full(tree.parents.shape, -1)
    depth[:, 0] = 0
    for row in range(depth.shape[0]):
        for node in range(1, depth.shape[1]):
            if tree.node_visits[row, node] > 0:
                depth[row, node] = depth[row, tree.parents[row, node]] + 1
    return depth
