"""The jump's loss as a term of the model's own: what it is, where its gradient goes, and off."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from smz_jax.config.seeds import JUMP_KEY
from smz_jax.learning import jump as jumps
from smz_jax.learning import learner
from smz_jax.learning.losses import unroll_model
from smz_jax.macros.precondition.updates import held_out
from smz_jax.model.networks import make_networks
from smz_jax.model.steps import make_place
from smz_jax.model.values import scalar_to_probs
from smz_jax.types import ReplaySample
from tests.learning import test_learner as toy
from tests.learning.test_jump import make_config, windows
from tests.model.test_networks import random_params

COUNT, LONGEST = 32, 2  # of K = 2 unrolled steps


@pytest.fixture(scope="module")
def given():
    """The networks, their parameters, a sample, and a function that unrolls the model over it."""
    config = make_config(jump_length=LONGEST)
    networks = make_networks(config.network, toy.SPEC)
    params, rows = random_params(networks), jax.tree.map(jnp.asarray, windows(COUNT))
    weights = jnp.linspace(0.5, 1.0, COUNT)
    sample = ReplaySample(rows, jnp.arange(COUNT, dtype=jnp.int32) * 1000, weights)
    build, key = learner.make_batch_builder(networks, config, toy.SPEC), jax.random.key(4)

    def unroll(params):
        batch = build(params, key, sample)
        return unroll_model(networks, params, key, batch, config, jnp.float32(0))

    return config, networks, params, sample, unroll


def by_hand(config, networks, params, sample, unrolled, key):
    """Window by window and piece by piece, with the weights of `jump.WEIGHTS`."""
    drawn = jumps.draw(jax.random.fold_in(key, JUMP_KEY), (LONGEST, COUNT), toy.A)
    rows = jumps.jump_windows(sample.rows, toy.ROOT, config, drawn)
    place, start, total = make_place(networks, config), unrolled.embeddings[0], 0.0
    half = config.network.value_support
    weights = sample.weights * ~held_out(sample, toy.ROOT)
    placed = []
    for i in range(LONGEST):
        end, logits = networks.jump(params, start, rows.actions[i])
        seen, alive = unrolled.after_embeddings[i], rows.alive[i]
        known = rows.real[i] | rows.over[i]
        sums = jax.vmap(scalar_to_probs, in_axes=(0, None))(rows.rewards[i], logits.shape[1] // 2)
        rewards = -jnp.sum(sums * jax.nn.log_softmax(logits), axis=1)
        (policy, value), (real_policy, real_value) = (
            networks.prediction(params, x)[:2] for x in (end, seen)
        )
        cross = -jnp.sum(jax.nn.softmax(real_policy) * jax.nn.log_softmax(policy), axis=1)
        wanted = jnp.where(alive[:, None], jax.nn.softmax(real_value), jnp.eye(2 * half + 1)[half])
        worth = -jnp.sum(wanted * jax.nn.log_softmax(value), axis=1)
        terms = rewards * known + 0.25 * worth * known + 0.25 * cross * alive
        total += jnp.mean(terms * weights) / LONGEST
        placed.append((end, seen, alive))
        start = jnp.where(drawn.cuts[i][:, None], unrolled.embeddings[i + 1], start)
    ends, seen, alive = (jnp.concatenate(x) for x in zip(*placed, strict=True))
    filler = jnp.tile(unrolled.embeddings[0], (LONGEST, 1))
    own, real = (
        place(params, jnp.where(alive[:, None], x, filler), is_own)
        for x, is_own in ((ends, True), (seen, False))
    )
    cosine = jnp.sum(own * real, axis=1) / (
        jnp.linalg.norm(own, axis=1) * jnp.linalg.norm(real, axis=1)
    )
    assert bool(jnp.any(drawn.cuts[0])) and 0 < float(jnp.mean(alive)) < 1
    return total - 2.0 * jnp.mean(cosine * alive * jnp.tile(weights, LONGEST))


def test_the_term_is_the_jumps_loss_from_the_models_own_steps(given):
    config, networks, params, sample, unroll = given
    key, unrolled = jax.random.key(9), unroll(params)
    loss = jumps.make_trunk_loss(networks, config, toy.SPEC)
    found = loss(params, sample, key, unrolled)
    np.testing.assert_allclose(found, by_hand(*given[:4], unrolled, key), rtol=1e-4)


def test_its_gradient_reaches_representation_and_dynamics_alone(given):
    config, networks, params, sample, unroll = given
    loss = jumps.make_trunk_loss(networks, config, toy.SPEC)

    def total(trained):
        full = {**params, "params": trained}
        return loss(full, sample, jax.random.key(9), unroll(full))

    gradient = jax.grad(total)(params["params"])
    moved = {name for name, x in gradient.items() if float(optax.tree.norm(x)) > 0}
    trunk = {"representation_torso", "representation_norm"}
    trunk |= {"dynamics_transition", "afterstate_transition"}
    assert trunk <= moved | {"representation_norm"}
    # Codes pass their gradient straight through to the encoder, as in every unrolled term.
    assert moved <= trunk | {"encoder_head", "encoder_torso"}


def test_an_update_weighs_it(given):
    """Beside the model's own terms; the jump's own weights are not touched."""
    config, networks, params, sample, _ = given
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, jump=0.5))
    state, sample = toy.start_state(step=50), sample._replace(weights=jnp.ones(COUNT))
    state = state._replace(params={**state.params, "jump": params["jump"]})
    update = jax.jit(learner.make_update(networks, config, toy.SPEC))
    after, _, metrics = update(state, sample)
    own = {name.removeprefix("loss/"): x for name, x in metrics.items() if name[:5] == "loss/"}
    total, sign = own.pop("total"), {"code_entropy": -1.0}
    wanted = sum(getattr(config.loss, x) * sign.get(x, 1.0) * y for x, y in own.items())
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert own["jump"] > 0
    toy.assert_same(after.params["jump"], params["jump"])
