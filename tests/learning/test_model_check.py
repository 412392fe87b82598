"""Formulas of the model checks by hand, and the checks of any run's batch on an exact model."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.analysis.rules.known_rules import roc_area, rules_check
from smz_jax.config.training import LossConfig
from smz_jax.envs.grid.grid_env import grid_observations
from smz_jax.envs.grid.rules import sample_paths, true_entropy
from smz_jax.learning.diagnose import batch_check, check_row, gradient_check
from smz_jax.learning.losses import TERMS, Batch, unrolled_loss
from smz_jax.model.networks import make_networks
from smz_jax.model.steps import entropy_nats
from smz_jax.types import UnrollTargets
from tests.analysis.test_grid_check import (
    CONFIG,
    OUTCOMES,
    PARAMS,
    RULES,
    STATES,
    VALUES,
    exact_networks,
)
from tests.learning import test_losses
from tests.model import test_networks

# --- single formulas ------------------------------------------------------------------------------


def test_roc_area_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    for size, values in ((7, 1000), (40, 1000), (60, 4), (25, 1)):
        scores = generator.integers(0, values, size) / 7
        positive = generator.random(size) < 0.4
        positive[:2] = True, False
        pairs = [
            1.0 if a > b else 0.5 if a == b else 0.0
            for a, b in itertools.product(scores[positive], scores[~positive])
        ]
        assert roc_area(scores, positive) == pytest.approx(np.mean(pairs))
    assert roc_area(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
    assert np.isnan(roc_area(np.array([0.1, 0.9]), np.array([True, True])))


def test_entropy_by_hand():
    logits = jnp.log(jnp.asarray([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [1.0, 1e-30, 1e-30]]))
    np.testing.assert_allclose(
        entropy_nats(logits), [1.0986123, 1.5 * 0.6931472, 0.0], rtol=1e-5, atol=1e-6
    )


def test_rules_check_by_hand():
    truth = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    model = np.array([[0.2, 0.7], [0.1, 0.0], [9.0, 9.0]])
    found = rules_check(
        model,
        truth,
        reachable=np.array([True, True, False]),
        visits=np.array([[3, 1], [0, 0], [5, 5]]),
        codebook_size=4,
    )
    # Random 0.7 and 0.1 against certain 0.2 and 0.0: three of four pairs in order.
    assert found["roc_area_reachable"] == 0.75
    assert found["roc_area"] == 1.0  # 0.7 above 0.2; the other state was never visited
    assert found["entropy_error"] == pytest.approx((0.2 + 0.3) / 2)
    assert found["entropy_random"] == pytest.approx(0.4)
    assert found["entropy_certain"] == pytest.approx(0.1)
    assert found["transition_entropy"] == pytest.approx((3 * 0.2 + 0.7) / 4 / np.log(4))
    assert found["pairs_visited"] == 0.5


# --- any run's batch ------------------------------------------------------------------------------


def grid_batch(count=64, steps=3, seed=0):
    """Windows of random play with their exact targets, some of them over the game's end."""
    generator = np.random.default_rng(seed)
    starts = generator.choice(np.flatnonzero(~RULES.terminal), count)
    actions = generator.integers(0, 4, (count, steps)).astype(np.int32)
    states, rewards = sample_paths(RULES, generator, starts, actions)
    alive = (~RULES.terminal[states]).astype(np.float32)
    frames = grid_observations(RULES, "vector")[states][:, :, None]
    ones = np.ones((count, steps + 1), np.float32)
    targets = UnrollTargets(
        policy=np.full((count, steps + 1, 4), 0.25, np.float32),
        value=VALUES[states].astype(np.float32),
        reward=rewards.astype(np.float32),
        discount=alive[:, 1:],
        value_mask=ones,
        policy_mask=ones,
        transition_mask=alive[:, :-1],
    )
    batch = Batch(frames, actions, targets, np.ones(count, np.float32))
    return jax.tree.map(jnp.asarray, batch), states


def test_batch_check_of_an_exact_model():
    batch, states = grid_batch()
    key = jax.random.key(0)
    found = jax.device_get(batch_check(exact_networks(), CONFIG, PARAMS, key, batch))
    before, after, actions = states[:, :-1], states[:, 1:], np.asarray(batch.actions)
    real = ~RULES.terminal[before]
    chances = RULES.probability[before, actions]
    same = (RULES.next_state[before, actions] == after[..., None]) & (chances > 0)
    code = same.argmax(axis=-1)[real]
    share = np.bincount(code) / len(code)
    share = share[share > 0]
    entropy = true_entropy(RULES)[before, actions][real] / np.log(OUTCOMES)
    assert found["code_perplexity"] == pytest.approx(np.exp(-np.sum(share * np.log(share))), 1e-4)
    assert found["agreement"] == pytest.approx(np.mean(code == chances.argmax(axis=-1)[real]))
    assert found["transition_entropy"] == pytest.approx(entropy.mean(), abs=1e-5)
    bins = np.histogram(entropy, bins=20, range=(0, 1))[0] / len(entropy)
    np.testing.assert_allclose(found["entropy_histogram"], bins, atol=1e-6)
    variance = np.eye(STATES)[states[:, 0]].var(axis=0).mean()
    assert found["embedding_variance"] == pytest.approx(variance, rel=1e-4)
    np.testing.assert_allclose(found["reward_error"], 0, atol=1e-6)
    np.testing.assert_allclose(found["value_error"], 0, atol=1e-6)
    np.testing.assert_allclose(found["consistency"], 1, atol=1e-5)
    row = check_row(found)
    assert row["check/reward_error_2"] == found["reward_error"][2]
    assert "check/value_error_3" in row and "check/entropy_histogram_19" in row
    assert all(type(value) is float for value in row.values())


def test_batch_check_counts_only_what_is_known():
    batch, _ = grid_batch()
    networks = exact_networks(reward_shift=0.25, value_shift=-0.5)
    key = jax.random.key(0)
    # Half of the rewards and values are unknown, and far off where they are.
    unknown = jnp.arange(64) % 2 == 0
    targets = batch.targets._replace(
        reward=jnp.where(unknown[:, None], 99.0, batch.targets.reward),
        value=jnp.where(unknown[:, None], 99.0, batch.targets.value),
        value_mask=jnp.where(unknown[:, None], 0.0, batch.targets.value_mask),
        transition_mask=jnp.ones_like(batch.targets.transition_mask),
    )
    shifted = batch_check(networks, CONFIG, PARAMS, key, batch._replace(targets=targets))
    np.testing.assert_allclose(shifted["reward_error"], 0.25, atol=1e-5)
    np.testing.assert_allclose(shifted["value_error"], 0.5, atol=1e-5)


def test_each_unroll_step_against_plain_loops():
    """An exact model, targets and next observations that are off by random amounts."""
    batch, states = grid_batch(count=24)
    rewards, steps = np.asarray(batch.targets.reward), batch.actions.shape[1]
    generator = np.random.default_rng(5)
    draw = generator.normal
    targets = batch.targets._replace(
        value=draw(size=(24, steps + 1)).astype(np.float32),
        reward=draw(size=(24, steps)).astype(np.float32),
        value_mask=generator.integers(0, 2, (24, steps + 1)).astype(np.float32),
        transition_mask=generator.integers(0, 2, (24, steps)).astype(np.float32),
    )
    # Too little noise to change which outcome it was.
    noise = generator.integers(0, 60, batch.observations[:, 1:].shape)
    frames = np.asarray(batch.observations).astype(np.int64)
    frames[:, 1:] = np.abs(frames[:, 1:] - noise)
    noisy = batch._replace(observations=jnp.asarray(frames, jnp.uint8), targets=targets)
    networks, key = exact_networks(), jax.random.key(0)
    found = jax.jit(lambda x: batch_check(networks, CONFIG, PARAMS, key, x))(noisy)
    found = jax.device_get(found)

    for step in range(steps + 1):
        known = [b for b in range(24) if targets.value_mask[b, step]]
        errors = [abs(VALUES[states[b, step]] - targets.value[b, step]) for b in known]
        assert float(found["value_error"][step]) == pytest.approx(np.mean(errors), rel=1e-4)
        if step:
            errors = [abs(rewards[b, step - 1] - targets.reward[b, step - 1]) for b in known]
            assert float(found["reward_error"][step - 1]) == pytest.approx(
                np.mean(errors), rel=1e-4
            )
    real = {
        (b, k): frames[b, k + 1, -1] / 255
        for b in range(24)
        for k in range(steps)
        if targets.transition_mask[b, k]
    }
    centre = np.mean(list(real.values()), axis=0)
    for step in range(steps):
        cosines = []
        for (b, k), after in real.items():
            if k == step:
                x, y = np.eye(STATES)[states[b, k + 1]] - centre, after - centre
                cosines.append(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
        assert 0.2 < np.mean(cosines) < 0.99
        assert float(found["consistency"][step]) == pytest.approx(np.mean(cosines), rel=1e-4)


def test_batch_check_uses_running_statistics():
    """The root's embedding is the search's own, not one that knows the rest of the batch."""
    batch, _ = grid_batch()

    def poisoned(params: Any, observation: Any) -> Any:
        raise AssertionError("training mode")

    networks = exact_networks()._replace(representation_train=poisoned)
    batch_check(networks, CONFIG, PARAMS, jax.random.key(0), batch)


WEIGHTS = (*TERMS, "code_entropy")
GRADIENT_CONFIG = test_losses.make_config(1, network={"continuation": True})
GRADIENT_KEY = jax.random.key(2)


def gradient_model():
    networks = make_networks(GRADIENT_CONFIG.network, test_losses.SPEC)
    return networks, test_networks.random_params(networks)


def gradient_of(weights, networks, params, batch):
    """Gradient of the training loss itself under other weights."""
    config = dataclasses.replace(GRADIENT_CONFIG, loss=LossConfig(**weights))
    gradient, _ = jax.jit(jax.grad(unrolled_loss, has_aux=True), static_argnums=(2, 5))(
        params["params"],
        params["batch_stats"],
        networks,
        GRADIENT_KEY,
        batch,
        config,
        noise=jnp.float32(0),
        scales={},
    )
    return gradient


def plain_norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))))


def test_gradient_shares_are_those_of_each_term_alone():
    networks, params = gradient_model()
    batch = test_losses.make_batch(1)
    run = jax.jit(lambda p: gradient_check(networks, GRADIENT_CONFIG, p, GRADIENT_KEY, batch))
    found = {name: float(x) for name, x in run(params).items()}
    shares = {name: found[name] for name in found if name.startswith("gradient_share/")}
    assert set(shares) == {f"gradient_share/{name}" for name in WEIGHTS}
    assert sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) > 0
    none = dict.fromkeys(WEIGHTS, 0.0)
    norms = {}
    for name in ("value", "chance", "code_entropy"):
        weights = none | {name: getattr(GRADIENT_CONFIG.loss, name)}
        norms[name] = plain_norm(gradient_of(weights, networks, params, batch))
    for name, norm in norms.items():
        ratio = found[f"gradient_share/{name}"] / found["gradient_share/value"]
        assert ratio == pytest.approx(norm / norms["value"], rel=1e-3), name

    full = {name: getattr(GRADIENT_CONFIG.loss, name) for name in WEIGHTS}
    through_codes = full | dict.fromkeys(("commitment", "representation", "code_entropy"), 0.0)
    gradient = gradient_of(through_codes, networks, params, batch)
    of_encoder = [part for name, part in gradient.items() if name.startswith("encoder")]
    assert found["encoder_gradient"] == pytest.approx(plain_norm(of_encoder), rel=1e-3)
    assert found["encoder_gradient"] > 1e-3


def test_a_code_without_a_straight_through_gradient_is_seen():
    """An integer index in the code's place: commitment and entropy still reach the encoder."""
    networks, params = gradient_model()
    cut = networks._replace(
        dynamics=lambda p, x, code: networks.dynamics(p, x, jax.lax.stop_gradient(code))
    )
    batch = test_losses.make_batch(1)
    found = jax.jit(lambda p: gradient_check(cut, GRADIENT_CONFIG, p, GRADIENT_KEY, batch))(params)
    assert float(found["encoder_gradient"]) == 0.0
    assert float(found["gradient_share/commitment"]) > 0.0
