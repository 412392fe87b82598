"""A random tabular game as `Networks`, for tests of the search; A, C and D all differ."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.types import AfterstatePrediction, DynamicsOutput, Networks, Prediction


class Tables(NamedTuple):
    prior: np.ndarray  # [n, A] logits
    value: np.ndarray  # [n]
    afterstate_value: np.ndarray  # [n, A]
    chance: np.ndarray  # [n, A, C] logits
    successor: np.ndarray  # [n, A, C] state ids
    reward: np.ndarray  # [n, A, C]


def random_tables(seed, *, states=5, actions=3, outcomes=2, layered=False):
    """Random tables; `layered` makes a game of two steps that ends in a silent last state."""
    generator = np.random.default_rng(seed)
    prior = np.zeros((states, actions)) if layered else generator.normal(size=(states, actions))
    successor = generator.integers(0, states, (states, actions, outcomes))
    reward = generator.normal(size=(states, actions, outcomes))
    value = generator.normal(size=states)
    if layered:
        half = (states - 1) // 2
        successor[0] = generator.integers(1, 1 + half, (actions, outcomes))
        successor[1:] = states - 1
        reward[states - 1] = 0.0
        value[:] = 0.0
    return Tables(
        prior=prior,
        value=value,
        afterstate_value=(
            np.zeros((states, actions)) if layered else generator.normal(size=(states, actions))
        ),
        chance=generator.normal(size=(states, actions, outcomes)),
        successor=successor,
        reward=reward,
    )


def embed(tables, state_ids):
    """State ids `[B]` to the embedding of a decision node `[B, n * A]`: a one-hot of id * A."""
    states, actions = tables.prior.shape
    return jax.nn.one_hot(jnp.asarray(state_ids) * actions, states * actions)


def as_params(tables):
    """The tables as the networks' parameters, so that one compilation serves all games."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32), tables
    )


def make_tabular_networks(states, actions):
    """The six functions over one-hot embeddings; an afterstate's index is id * A + action."""

    def split(embedding):
        index = jnp.argmax(embedding, axis=-1)
        return index // actions, index % actions

    def prediction(t, embedding):
        state, _ = split(embedding)
        return Prediction(t.prior[state], t.value[state][:, None])

    def afterstate_dynamics(t, embedding, action):
        state, _ = split(embedding)
        return jax.nn.one_hot(state * actions + jnp.clip(action, 0, actions - 1), states * actions)

    def afterstate_prediction(t, afterstate):
        state, action = split(afterstate)
        return AfterstatePrediction(
            t.chance[state, action], t.afterstate_value[state, action][:, None]
        )

    def dynamics(t, afterstate, code):
        state, action = split(afterstate)
        outcome = jnp.argmax(code, axis=-1)
        following = t.successor[state, action, outcome]
        embedding = jax.nn.one_hot(following * actions, states * actions)
        return DynamicsOutput(embedding, t.reward[state, action, outcome][:, None])

    def scalar(logits):
        return logits[..., 0]

    return Networks(
        init=lambda key: {},
        representation=lambda params, embedding: embedding,
        prediction=prediction,
        afterstate_dynamics=afterstate_dynamics,
        afterstate_prediction=afterstate_prediction,
        dynamics=dynamics,
        encoder=None,
        representation_train=None,
        project=None,
        decode=None,
        frame_target=None,
        value_of=scalar,
        reward_of=scalar,
    )


def deterministic(tables, seed=0):
    """The same game with certain outcomes: one code a pair, by chance, has all the probability."""
    generator = np.random.default_rng(seed)
    states, actions, outcomes = tables.chance.shape
    certain = generator.integers(0, outcomes, (states, actions))
    return tables._replace(chance=200.0 * np.eye(outcomes)[certain])


def with_ends(networks, ended):
    """The networks, with true ends where `ended [n]` (an array) is 1; where it is 2, with a state
    of the player who did not move before it.
    """
    actions_of = ended.shape[0]

    def discount(params, embedding):
        actions = embedding.shape[-1] // actions_of
        state = jnp.argmax(embedding, axis=-1) // actions
        return 1.0 - jnp.asarray(ended, jnp.float32)[state]

    return networks._replace(discount=discount)
