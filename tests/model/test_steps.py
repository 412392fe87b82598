"""The verbs of the model against its functions one by one; A, C, K and B differ."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.settings import Config
from smz_jax.model import steps
from smz_jax.types import is_end
from tests.support.tabular import as_params, embed, make_tabular_networks, random_tables, with_ends

TABLES = random_tables(3, actions=3, outcomes=4)
NETWORKS, PARAMS = make_tabular_networks(5, 3), as_params(TABLES)
ACTIONS = np.array([[0, 2, 1, 1, 0], [2, 2, 0, 1, 0]], np.int32)  # [K, B]
ROOT = embed(TABLES, range(5))


def walk(outcomes):
    """State ids `[K+1, B]` by the tables, for outcomes `[K, B]`."""
    states = [np.arange(5)]
    for action, outcome in zip(ACTIONS, outcomes, strict=True):
        states.append(TABLES.successor[states[-1], action, outcome])
    return np.stack(states)


def ids(states):
    return np.asarray(states).argmax(axis=-1) // 3


def test_decide_and_chance_are_rows_of_the_tables():
    afterstate = steps.decide(NETWORKS, PARAMS, ROOT, ACTIONS[0])
    logits = TABLES.chance[np.arange(5), ACTIONS[0]]
    np.testing.assert_allclose(afterstate.logits, logits, rtol=1e-6)
    np.testing.assert_allclose(
        afterstate.value, TABLES.afterstate_value[np.arange(5), ACTIONS[0]], rtol=1e-6
    )
    np.testing.assert_array_equal(afterstate.likely, logits.argmax(axis=-1))
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    entropy = -(probs * np.log(probs)).sum(axis=-1)
    np.testing.assert_allclose(steps.entropy_nats(afterstate.logits), entropy, rtol=1e-5)
    np.testing.assert_allclose(afterstate.entropy, entropy / np.log(4), rtol=1e-5)

    outcome = np.array([3, 0, 1, 2, 0])
    step = steps.chance(NETWORKS, PARAMS, afterstate.state, steps.one_hot_code(outcome, 4))
    after = TABLES.successor[np.arange(5), ACTIONS[0], outcome]
    np.testing.assert_array_equal(ids(step.state), after)
    np.testing.assert_allclose(
        step.reward, TABLES.reward[np.arange(5), ACTIONS[0], outcome], rtol=1e-6
    )
    np.testing.assert_allclose(step.value, TABLES.value[after], rtol=1e-6)
    np.testing.assert_allclose(step.policy_logits, TABLES.prior[after], rtol=1e-6)
    np.testing.assert_array_equal(step.discount, np.ones(5))
    ended = np.array([False, True, False, True, False])
    model = with_ends(NETWORKS, ended)
    step = steps.chance(model, PARAMS, afterstate.state, steps.one_hot_code(outcome, 4))
    np.testing.assert_array_equal(is_end(step.discount), ended[after])


def test_imagined_outcomes_are_given_or_likely_or_drawn():
    given = np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]], np.int32)
    played = steps.imagine(NETWORKS, PARAMS, ROOT, ACTIONS, given)
    states = walk(given)
    np.testing.assert_array_equal(ids(played.steps.state), states[1:])
    np.testing.assert_allclose(
        played.steps.reward, TABLES.reward[states[:-1], ACTIONS, given], rtol=1e-6
    )
    np.testing.assert_allclose(
        played.afterstates.logits, TABLES.chance[states[:-1], ACTIONS], rtol=1e-6
    )

    likely = steps.imagine(NETWORKS, PARAMS, ROOT, ACTIONS)
    first = TABLES.chance[np.arange(5), ACTIONS[0]].argmax(axis=-1)
    second = TABLES.chance[walk([first, first])[1], ACTIONS[1]].argmax(axis=-1)
    np.testing.assert_array_equal(ids(likely.steps.state), walk([first, second])[1:])
    again = steps.imagine(NETWORKS, PARAMS, ROOT, ACTIONS, np.stack([first, second]))
    jax.tree.map(np.testing.assert_array_equal, likely, again)

    draw = jax.jit(lambda key: steps.imagine(NETWORKS, PARAMS, ROOT, ACTIONS, key).steps.reward)
    rewards = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 2000)))[:, 0]
    logits = TABLES.chance[np.arange(5), ACTIONS[0]]
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean = (probs * TABLES.reward[np.arange(5), ACTIONS[0]]).sum(axis=-1)
    np.testing.assert_allclose(rewards.mean(axis=0), mean, atol=0.15)
    assert (rewards.std(axis=0) > 0.05).all()


@pytest.mark.parametrize("source", ["frames", "embedding"])
def test_following_a_window_takes_the_outcomes_that_the_encoder_tells(source):
    """The encoder reads its code off what it is fed: frames say one outcome, embeddings another."""
    outcomes = {
        "frames": np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]]),
        "embedding": np.array([[1, 1, 0, 2, 3], [0, 2, 2, 1, 1]]),
    }
    seen = steps.Seen(*(jnp.eye(4)[outcomes[name]] for name in ("frames", "embedding")))
    networks = NETWORKS._replace(encoder=lambda p, after, x: 5 * after, encoder_input=source)
    followed = steps.follow(networks, PARAMS, ROOT, ACTIONS, seen)
    states = walk(outcomes[source])
    np.testing.assert_array_equal(ids(followed.states), states[1:])
    np.testing.assert_array_equal(followed.codes.argmax(axis=-1), outcomes[source])
    np.testing.assert_allclose(
        followed.reward_logits[..., 0],
        TABLES.reward[states[:-1], ACTIONS, outcomes[source]],
        rtol=1e-6,
    )
    predicted = steps.over_time(NETWORKS.prediction, PARAMS, followed.states)
    np.testing.assert_allclose(predicted.value_logits[..., 0], TABLES.value[states[1:]], rtol=1e-6)


def test_numbers_that_are_not_finite_are_replaced_and_counted():
    logits = jnp.array([[1.0, 2.0], [np.nan, 0.0], [0.0, np.inf]])
    afterstate = steps.Afterstate(jnp.full((3, 2), np.nan), logits, jnp.array([np.nan, 1e31, 2.0]))
    mended, faults = steps.finite(afterstate)
    np.testing.assert_array_equal(faults, [1, 2, 1])
    np.testing.assert_array_equal(mended.logits, [[1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(mended.value, [0, 0, 2])
    assert np.isnan(mended.state).all()


def test_ends_are_compared_where_the_model_was_trained_to_agree():
    def project(params, x, predict, among):
        return x.reshape(len(x), -1) * (2 if predict else 3) + among

    networks = SimpleNamespace(project=project)
    ends, config = jnp.ones((2, 3, 1)), Config()
    for weight, foreseen, expected in ((1.0, True, 6.0), (1.0, False, 7.0), (0.0, True, 1.0)):
        loss = dataclasses.replace(config.loss, consistency=weight)
        place = steps.make_place(networks, dataclasses.replace(config, loss=loss))  # type: ignore[arg-type]
        np.testing.assert_array_equal(place({}, ends, foreseen, 4.0), np.full((2, 3), expected))
