"""The jump: what it learns from, what it is compared with, and that the model does not notice."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.settings import NetworkConfig
from smz_jax.config.training import LossConfig, MacroConfig
from smz_jax.learning import jump as jumps
from smz_jax.learning import learner
from smz_jax.model.jump import Jump, make_jump, reward_sum_support
from smz_jax.model.networks import make_networks
from smz_jax.types import AfterstatePrediction, DynamicsOutput, Prediction, ReplaySample
from tests.learning import test_learner as toy

L = toy.K + toy.N  # the windows hold no more
GAMMA = 0.9


def make_config(**macro):
    settings = {"max_length": L, "jump_every": 1, "jump_learning_rate": 5e-3} | macro
    return dataclasses.replace(toy.make_config(), macro=MacroConfig(**settings))


def windows(count=64, seed=0):
    """Ends, games that begin, and a player to move that changes."""
    rng = np.random.default_rng(seed)
    rows = jax.tree.map(lambda x: np.resize(np.asarray(x), (count, *x.shape[1:])), toy.make_rows())
    shape = rows.reward.shape
    return rows._replace(
        frame=rng.normal(size=(*shape, 7)).astype(np.float32),
        is_first=rng.random(shape) < 0.1,
        reward=rng.choice([-1.0, 0.0, 1.0], shape, p=[0.1, 0.6, 0.3]).astype(np.float32),
        discount=rng.choice([-1.0, 0.0, 1.0], shape, p=[0.2, 0.15, 0.65]).astype(np.float32),
        action=rng.integers(0, toy.A, shape).astype(np.int32),
    )


def test_windows_equal_plain_loops():
    rows = windows()
    got = jumps.jump_windows(jax.tree.map(jnp.asarray, rows), toy.ROOT, L, GAMMA)
    for b in range(64):
        total, factor, real, alive = 0.0, 1.0, True, True
        for i in range(L):
            row = toy.ROOT + i
            real = real and alive and not rows.is_first[b, row + 1]
            if real:
                total += factor * rows.reward[b, row]
            factor *= GAMMA * rows.discount[b, row]
            alive = real and rows.discount[b, row] != 0
            assert bool(got.real[i, b]) == real and bool(got.alive[i, b]) == alive
            if real:
                assert float(got.rewards[i, b]) == pytest.approx(total, abs=1e-5)
    np.testing.assert_array_equal(got.actions, rows.action[:, toy.ROOT : toy.ROOT + L])
    assert 0.1 < float(jnp.mean(got.alive)) < float(jnp.mean(got.real)) < 0.9


def test_the_support_holds_the_largest_sum():
    config = make_config(max_length=6)
    classes = dataclasses.replace(config.network, reward_transform="none", reward_support=1)
    assert reward_sum_support(dataclasses.replace(config, network=classes)) == 6
    # The bin of 2 stands for h^-1(2) = 7.98; six of them are 47.9, and h(47.9) = sqrt(48.9) - 0.95.
    assert reward_sum_support(config) == 7


def trained(step, state):
    state, memory = jax.tree.map(jnp.copy, (state, toy.fresh_memory(toy.make_rows())))
    for _ in range(2):
        state, memory, metrics = step(state, memory)
    return state, metrics


def test_the_model_does_not_notice():
    """All that is the model's has the same bits, and each part of the jump learns."""
    config, (_, networks, plain_step) = make_config(), toy.parts(1)
    jump, state = make_jump(config, toy.SPEC), toy.start_state(step=50)
    first = jumps.init_jump(jump, config, jax.random.key(1), (8,))
    step = learner.TrainStep(networks, toy.stub_replay(), config, toy.SPEC)
    step.program = plain_step.program  # compiled already, for other tests
    without, plain = trained(plain_step, state)
    with_jump, metrics = trained(step, state._replace(jump=first))
    toy.assert_same(without, with_jump._replace(jump=None))
    names = {f"loss/jump_{x}" for x in ("rewards", "value", "policy", "end")}
    assert set(metrics) - set(plain) == names
    assert all(np.isfinite(float(x)) for x in metrics.values())
    assert int(with_jump.jump.updates) == 2
    moved = jax.tree.map(lambda x, y: bool(jnp.any(x != y)), first.params, with_jump.jump.params)
    assert all(jax.tree.leaves(moved)), moved


def test_no_gradient_reaches_the_model():
    config = make_config()
    networks, jump = make_networks(config.network, toy.SPEC), make_jump(config, toy.SPEC)
    params = toy.start_state().params
    state = jumps.init_jump(jump, config, jax.random.key(1), (8,))
    rng = np.random.default_rng(0)

    def total(params, root, end):
        terms = jumps.jump_loss(
            *(networks, jump, config, params, state.params),
            state=root,
            actions=jnp.zeros((4, L), jnp.int32),
            rewards=jnp.ones(4),
            real_end=end,
            alive=jnp.array([True, True, True, False]),
        )
        return sum(jnp.sum(x) for x in terms.values())

    ends = [jnp.asarray(rng.random((4, 8)), jnp.float32) for _ in range(2)]
    gradients = jax.grad(total, argnums=(0, 1, 2))(params, *ends)
    assert not any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(gradients))


RING = 5


def ring_rows(rng, count):
    """Play on a ring: 0 stays, 1 and 2 go on by as many; a point for each arrival at 0."""
    shape = (count, toy.W)
    action = rng.integers(0, toy.A, shape).astype(np.int32)
    place = np.zeros(shape, np.int64)
    place[:, 0] = rng.integers(0, RING, count)
    for t in range(1, toy.W):
        place[:, t] = (place[:, t - 1] + action[:, t - 1]) % RING
    arrived = ((place + action) % RING == 0) & (action > 0)
    rows = jax.tree.map(lambda x: np.resize(np.asarray(x), (count, *x.shape[1:])), toy.make_rows())
    return rows._replace(
        frame=np.eye(7, dtype=np.float32)[place],
        action=action,
        reward=arrived.astype(np.float32),
        discount=np.ones(shape, np.float32),
        is_first=np.zeros(shape, bool),
        search_value=rng.random(shape).astype(np.float32),
    )


def test_it_learns_what_sequences_are_worth():
    """On a ring, beside a model that is not trained: all places and sequences, counted plainly."""
    config = make_config(jump_learning_rate=1e-2)
    network = NetworkConfig(
        family="mlp", embedding_size=16, hidden_size=24, codebook_size=2, value_support=3,
        reward_support=1, reward_transform="none", input_norm=False,
    )  # fmt: skip
    loss = LossConfig(consistency=0.0)  # ends are compared as they are: no projection is trained
    config = dataclasses.replace(config, network=network, loss=loss)
    networks, jump = make_networks(network, toy.SPEC), make_jump(config, toy.SPEC)
    params = networks.init(jax.random.key(0))
    state = jumps.init_jump(jump, config, jax.random.key(1), (16,))
    update = jax.jit(jumps.make_jump_update(networks, jump, config, toy.SPEC))
    rng = np.random.default_rng(0)
    for number in range(500):
        rows = jax.tree.map(jnp.asarray, ring_rows(rng, 64))
        sample = ReplaySample(rows, None, jnp.ones(64))
        state, metrics = update(state, params, sample, jax.random.key(number))
    assert float(metrics["loss/jump_end"]) < -0.8

    sequences = np.stack(np.meshgrid(*[range(toy.A)] * L, indexing="ij"), -1).reshape(-1, L)
    errors, spread = [], []
    for length in range(1, L + 1):
        for place in range(RING):
            frames = np.eye(7, dtype=np.float32)[[place] * toy.F]
            start = networks.representation(params, jnp.asarray(frames)[None])
            start = jnp.tile(start, (len(sequences), 1))
            acts = jumps.cut(jnp.asarray(sequences, jnp.int32), jnp.full(len(sequences), length))
            found = np.asarray(jump.reward_of(jump.apply(state.params, start, acts)[1]))
            true = []
            for sequence in sequences:
                at, total = place, 0.0
                for i, action in enumerate(sequence[:length]):
                    at = (at + int(action)) % RING
                    total += GAMMA**i * (action > 0 and at == 0)
                true.append(total)
            errors.append(np.mean(np.abs(found - np.array(true))))
            spread.append(np.mean(np.abs(np.array(true) - np.mean(true))))
    assert np.mean(errors) < 0.25 * np.mean(spread), (np.mean(errors), np.mean(spread))


def scripted_check(wrong):
    """A replay of one fixed batch, a model that adds up actions, and a jump that is `wrong`."""
    rows = jax.tree.map(jnp.asarray, windows(96, seed=1))
    total = jnp.cumsum(rows.action, axis=1) - rows.action  # the sum of the actions before each row
    turned = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle), angle], axis=1)  # noqa: E731
    frame = rows.frame.at[..., 0].set(total.astype(jnp.float32))
    rows = rows._replace(frame=frame, discount=jnp.abs(rows.discount))
    networks: Any = SimpleNamespace(
        representation=lambda p, o: turned(o[:, -1, 0]),
        prediction=lambda p, s: Prediction(jnp.zeros((len(s), toy.A)), s[:, 2]),
        afterstate_dynamics=lambda p, s, action: turned(s[:, 2] + action),
        afterstate_prediction=lambda p, s: AfterstatePrediction(jnp.zeros((len(s), 2)), s[:, 2]),
        dynamics=lambda p, s, code: DynamicsOutput(s, jnp.zeros(len(s))),
        discount=None,
        value_of=lambda x: x,
        reward_of=lambda x: x,
        project=lambda p, x, predict, among=None: x,
    )
    jump = Jump(
        init=lambda *_: None,
        apply=lambda p, s, a: (turned(s[:, 2] + jnp.maximum(a, 0).sum(1) + wrong), 0 * s[:, 2]),
        reward_of=lambda x: x + wrong,
        support=1,
    )
    order = jnp.argsort(jax.random.uniform(jax.random.key(0), (96,)))
    sample = ReplaySample(rows, order.astype(jnp.int32) * 1000, jnp.ones(96))
    replay: Any = SimpleNamespace(sample=lambda state, key: sample)
    return rows, sample, networks, jump, replay


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_the_check_equals_plain_loops(monkeypatch, wrong):
    monkeypatch.setattr(jumps, "CHECK_BATCHES", 1)
    monkeypatch.setattr(jumps, "HELD_OUT", 2)  # all rows of the batch
    config = make_config()
    rows, sample, networks, jump, replay = scripted_check(wrong)
    check = jumps.make_jump_check(networks, jump, replay, config, toy.SPEC)
    got = check(jumps.JumpState({}, None, jnp.int32(0)), None, None, jax.random.key(0))
    held = np.asarray(jumps.held_out(sample, toy.ROOT))
    assert 5 < held.sum() < 40
    gamma = config.learner.gamma
    for length in range(1, L + 1):
        none = some = paid = invented = 0
        for b in np.flatnonzero(held):
            part = slice(toy.ROOT, toy.ROOT + length)
            ends = np.asarray(rows.discount[b, part]) == 0
            if np.any(rows.is_first[b, toy.ROOT + 1 : toy.ROOT + length + 1]) or ends[:-1].any():
                continue
            came = float(np.sum(gamma ** np.arange(length) * np.asarray(rows.reward[b, part])))
            if came:
                some, paid = some + 1, paid + (abs(wrong - came) <= 0.25)
            else:
                none, invented = none + 1, invented + (abs(wrong) > 0.25)
        assert some and none
        assert float(got["paid"][length - 1]) == pytest.approx(paid / some)
        assert float(got["invented"][length - 1]) == pytest.approx(invented / none)
    np.testing.assert_allclose(got["value_error"], wrong, atol=1e-4)
    np.testing.assert_allclose(got["value_error_stepped"], 0.0, atol=1e-4)
    np.testing.assert_array_equal(got["near_stepped"], 1.0)
    assert np.all(np.asarray(got["invented_stepped"]) == 0.0)
    if not wrong:
        for name in ("near", "paid", "invented", "reward_error", "value_error"):
            np.testing.assert_allclose(got[name], got[f"{name}_stepped"], atol=1e-5)
