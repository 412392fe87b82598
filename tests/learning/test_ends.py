"""Ends in the model, rewards as classes, frames decoded in part, the moving average that plays."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.training import LearnerConfig, LossConfig
from smz_jax.learning import learner, losses
from smz_jax.model import values
from smz_jax.model.networks import make_networks
from smz_jax.model.steps import chance
from smz_jax.types import TrainState
from tests.learning import test_learner as toy
from tests.learning.test_losses import B, make_batch, make_config, make_unrolled

STEPS = 3
MASKS = {
    # Row 0 goes on; 1 terminates at step 1; 2 is truncated at step 2; 3 starts at an end.
    "value_mask": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]],
    "policy_mask": [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    "transition_mask": [[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]],
    "discount": [[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]],
}


def windows_with_ends():
    batch = make_batch(STEPS)
    masks = {name: jnp.asarray(x, jnp.float32) for name, x in MASKS.items()}
    return batch._replace(targets=batch.targets._replace(**masks))


def compared(config, networks, key=None):
    batch, u = windows_with_ends(), make_unrolled(STEPS, np.random.default_rng(1))
    return losses.loss_terms(networks, {}, u, batch, config, key), batch, u


def test_the_continuation_term_equals_a_numpy_twin():
    """Cross-entropy of a sigmoid: 0 past the termination, unknown past the truncation."""
    config = make_config(STEPS, consistency=0.0, contrast=0.0, reconstruction=0.0)
    networks = SimpleNamespace(parts=(), continuation=lambda params, x: x[:, 0])
    got, batch, u = compared(config, networks)
    logits, expected = np.asarray(u.embeddings, np.float64)[1:, :, 0], np.zeros(B)
    for b in range(B):
        for k in range(STEPS):
            p = 1 / (1 + np.exp(-logits[k, b]))
            loss = -np.log(p if MASKS["discount"][b][k] else 1 - p)
            expected[b] += MASKS["value_mask"][b][k + 1] * loss / STEPS
    np.testing.assert_allclose(got["continuation"], expected, rtol=1e-5)
    without = losses.loss_terms(SimpleNamespace(parts=(), continuation=None), {}, u, batch, config)
    assert set(got) - set(without) == {"continuation"}


def test_of_two_players_the_head_learns_whose_turn_it_is():
    """Cross-entropy of three kinds; the discount is the chance of +1 less that of -1."""
    config = make_config(STEPS, consistency=0.0, contrast=0.0, reconstruction=0.0)
    networks = SimpleNamespace(parts=(), continuation=lambda params, x: x[:, :3])
    batch, u = windows_with_ends(), make_unrolled(STEPS, np.random.default_rng(1))
    turns = np.array([[1, -1, -1], [0, 0, 0], [-1, 1, 0], [0, 0, 0]], np.float32)
    batch = batch._replace(targets=batch.targets._replace(discount=jnp.asarray(turns)))
    got = losses.loss_terms(networks, {}, u, batch, config, None)["continuation"]
    logits, expected = np.asarray(u.embeddings, np.float64)[1:, :, :3], np.zeros(B)
    for b in range(B):
        for k in range(STEPS):
            p = np.exp(logits[k, b]) / np.exp(logits[k, b]).sum()
            loss = -np.log(p[[-1, 0, 1].index(turns[b, k])])
            expected[b] += MASKS["value_mask"][b][k + 1] * loss / STEPS
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    config, spec = toy.make_config(), toy.SPEC._replace(players=2)
    network = dataclasses.replace(config.network, continuation=True)
    networks = make_networks(network, spec)
    params, state = toy.random_params(networks, 0), jax.random.uniform(jax.random.key(0), (5, 8))
    p = jax.nn.softmax(networks.continuation(params, state))
    assert p.shape == (5, 3)
    np.testing.assert_allclose(
        networks.discount(params, state), p @ jnp.array([-1.0, 0, 1]), rtol=1e-5, atol=1e-7
    )
    with pytest.raises(ConfigError, match=r"network\.continuation"):
        make_networks(config.network, spec)
    with pytest.raises(ConfigError, match=r"network\.jump_length"):
        make_networks(dataclasses.replace(network, jump_length=1), spec)


def test_of_three_players_heads_are_vectors_and_the_next_seat_is_foreseen():
    config, spec = toy.make_config(), toy.SPEC._replace(players=3)
    network = dataclasses.replace(config.network, continuation=True, value_transform="none")
    networks = make_networks(network, spec)
    params, state = toy.random_params(networks, 0), jax.random.uniform(jax.random.key(0), (5, 8))
    logits = networks.continuation(params, state)
    assert logits.shape == (5, 4)
    p, seat = np.asarray(jax.nn.softmax(logits)), np.asarray(logits)[:, :3].argmax(axis=1)
    np.testing.assert_array_equal(networks.turn(params, state), seat)
    expected = (1 - p[:, 3]) * np.where(seat == 0, 1, -1)
    np.testing.assert_allclose(networks.discount(params, state), expected, rtol=1e-5)
    value_logits = networks.prediction(params, state).value_logits
    bins = 2 * network.value_support + 1
    assert value_logits.shape == (5, 3, bins)
    values = networks.all_values(value_logits)
    means = jax.nn.softmax(value_logits) @ (jnp.arange(bins) - network.value_support)
    np.testing.assert_allclose(values, means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(networks.value_of(value_logits), values[:, 0])
    # The loss of a vector is the mean of its entries', and the kind is the target's seat.
    alone = losses.of_all(jnp.asarray([[[1.0, 2.0, 6.0]], [[0.0, 0.0, 3.0]]]))
    np.testing.assert_allclose(alone, [[3.0], [1.0]])
    batch, u = windows_with_ends(), make_unrolled(STEPS, np.random.default_rng(1))
    turn = np.random.default_rng(2).integers(0, 4, (B, STEPS))
    batch = batch._replace(targets=batch.targets._replace(turn=jnp.asarray(turn)))
    toy_networks = SimpleNamespace(parts=(), continuation=lambda params, x: x[:, :4])
    plain = make_config(STEPS, consistency=0.0, contrast=0.0, reconstruction=0.0)
    got = losses.loss_terms(toy_networks, {}, u, batch, plain, None)["continuation"]
    scores, expected = np.asarray(u.embeddings, np.float64)[1:, :, :4], np.zeros(B)
    for k, b in np.ndindex(STEPS, B):
        chances = np.exp(scores[k, b]) / np.exp(scores[k, b]).sum()
        known = MASKS["value_mask"][b][k + 1]
        expected[b] -= known * np.log(chances[turn[b, k]]) / STEPS
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_step_that_ends_is_neither_compared_nor_reconstructed():
    config = make_config(STEPS)
    networks = SimpleNamespace(
        parts=(),
        continuation=None,
        project=lambda params, x, predict: x,
        frame_target=lambda params, after, before: jnp.zeros((len(after), 5)),
        decode=lambda params, state, afterstate: (jnp.ones((len(state), 5)),) * 2,
    )
    got, _, _ = compared(config, networks)
    alive = np.array([3, 0, 2, 0])  # transitions of each window that led on
    np.testing.assert_allclose(got["reconstruction"], 2 * alive / STEPS, rtol=1e-6)
    assert float(got["consistency"][1]) == 0.0 != float(got["consistency"][0])


@pytest.mark.parametrize("every", [2, 5])
def test_frames_decoded_in_part_are_the_same_on_average(every):
    config = make_config(STEPS, consistency=0.0, contrast=0.0)
    part = dataclasses.replace(config.loss, auxiliary_every=every)
    decoded = []

    def decode(params, state, afterstate):
        decoded.append(len(state))
        return state, afterstate

    networks = SimpleNamespace(
        parts=(), continuation=None, frame_target=lambda params, after, before: 0.0, decode=decode
    )
    whole = compared(config, networks)[0]["reconstruction"]
    config = dataclasses.replace(config, loss=part)
    of_key = jax.jit(lambda key: compared(config, networks, key)[0]["reconstruction"])
    drawn = jax.vmap(of_key)(jax.random.split(jax.random.key(0), 3000))
    assert decoded[-1] == STEPS * B // every
    np.testing.assert_allclose(drawn.mean(axis=0), whole, rtol=0.1, atol=0.02)
    assert np.asarray(drawn).std(axis=0)[0] > 0.1


def network_with_ends():
    config = toy.make_config()
    network = dataclasses.replace(config.network, continuation=True)
    config = dataclasses.replace(config, network=network)
    return config, make_networks(network, toy.SPEC)


def test_the_discount_of_a_step_is_the_chance_that_the_game_goes_on():
    _, networks = network_with_ends()
    params = toy.random_params(networks, 0)
    afterstate = jax.random.uniform(jax.random.key(0), (5, 8))
    after = chance(networks, params, afterstate, jnp.eye(6)[:5])
    logits = np.asarray(networks.continuation(params, after.state), np.float64)
    np.testing.assert_allclose(after.discount, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert np.ptp(after.discount) > 1e-3


def test_past_an_end_the_model_meets_every_code():
    """The encoder would give one code for the root's observation, seen again and again."""
    config, networks = network_with_ends()
    params = toy.random_params(networks, 0)
    build = learner.make_batch_builder(networks, config, toy.SPEC)
    sample = toy.ReplaySample(toy.make_rows(), None, jnp.ones(toy.B))
    batch = build(params, jax.random.key(0), sample)
    unroll = jax.jit(
        lambda key: losses.unroll_model(networks, params, key, batch, config, jnp.float32(0))
    )
    keys = jax.random.split(jax.random.key(1), 200)
    codes = np.asarray(jax.vmap(lambda key: unroll(key).followed.codes)(keys))  # [200, K, B, C]
    real = np.asarray(batch.targets.transition_mask).T > 0
    used = codes.mean(axis=0)
    assert np.allclose(used[real].max(axis=-1), 1.0)  # without noise: one code
    np.testing.assert_allclose(used[~real], 1 / 6, atol=0.11)


def test_a_clipped_reward_is_one_class_and_comes_back():
    for reward, place in ((-1.0, 0), (0.0, 1), (1.0, 2)):
        probs = values.scalar_to_probs(jnp.float32(reward), 1, "none")
        np.testing.assert_array_equal(probs, np.eye(3)[place])
        back = values.logits_to_scalar(jnp.log(probs + 1e-12), 1, "none")
        assert float(back) == pytest.approx(reward, abs=1e-6)
    logits = jnp.log(jnp.asarray([0.1, 0.2, 0.7]))
    assert float(values.logits_to_scalar(logits, 1, "none")) == pytest.approx(0.6, rel=1e-5)
    loss = losses.scalar_loss(logits[None], jnp.asarray([1.0]), "none")
    assert float(loss[0]) == pytest.approx(-np.log(0.7), rel=1e-5)


def test_weights_of_terms_over_the_run():
    loss = LossConfig(commitment_start=100, reconstruction=50.0, reconstruction_end=5.0)
    for step, rises, falls in (
        (0, 0, 1),
        (100, 0, 1),
        (350, 0.5, 1),
        (750, 1, 0.55),
        (2000, 1, 0.1),
    ):
        scales = learner.term_scales(loss, jnp.int32(step), 500)
        assert float(scales["commitment"]) == pytest.approx(rises)
        assert float(scales["reconstruction"]) == pytest.approx(falls)
    assert set(learner.term_scales(LossConfig(), jnp.int32(0), 500)) == {
        "commitment",
        "representation",
    }


def test_the_moving_average_plays_and_follows_the_parameters():
    """By hand: plain averages first, then a share of 0.25 every second update."""
    config, networks, _ = toy.parts(1)
    average = dataclasses.replace(config.learner, target_update_period=2, target_update_share=0.25)
    config = dataclasses.replace(config, learner=average)
    step = learner.TrainStep(networks, toy.stub_replay(), config, toy.SPEC)
    state, memory = toy.start_state(step=20), toy.fresh_memory(toy.golden_rows())
    expected = None
    for number in range(12):
        state, memory, _ = step(state, memory, None, number)
        if number % 2 == 1:
            new = jax.tree.map(np.asarray, state.params)
            share = max(0.25, 1 / (number // 2 + 1))
            expected = jax.tree.map(
                lambda old, x, share=share: share * x + (1 - share) * old, expected or new, new
            )
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                state.target_params,
                expected,
            )
    assert learner.acting_params(state, config) is state.target_params
    assert learner.acting_params(state, Config(learner=LearnerConfig())) is state.params
    assert isinstance(state, TrainState)
