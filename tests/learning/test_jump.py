"""The jump: what it learns from, what it is compared with, and that the model does not notice."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.search import SearchConfig
from smz_jax.config.training import LossConfig
from smz_jax.learning import jump as jumps
from smz_jax.learning import jump_check, learner
from smz_jax.model import steps
from smz_jax.model.jump import CLOSED, reward_sum_support
from smz_jax.model.networks import make_networks
from smz_jax.model.values import scalar_to_probs
from smz_jax.types import AfterstatePrediction, DynamicsOutput, Prediction, ReplaySample
from tests.learning import test_learner as toy
from tests.model.test_networks import random_params

L = toy.K + toy.N  # the windows hold no more
GAMMA = 0.9


def make_config(rate=5e-3, **network):
    config = toy.make_config(jump_learning_rate=rate)
    network = dataclasses.replace(config.network, **{"jump_length": L} | network)
    search = SearchConfig(collapse_threshold=0.5)
    return dataclasses.replace(config, network=network, search=search)


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


def no_cuts(count=64, action=0):
    nowhere = jnp.zeros((L, count), jnp.bool_), jnp.full((L, count), action, jnp.int32)
    return jumps.Drawn(*nowhere, length=jnp.zeros(count, jnp.int32))


@pytest.mark.parametrize("cut", [False, True])
def test_windows_equal_plain_loops(cut):
    rows = windows()
    config = make_config(jump_length=L + 1)  # the windows hold no more than L
    drawn = no_cuts(action=toy.A)  # an action that is none
    if cut:
        drawn = drawn._replace(cuts=jax.random.bernoulli(jax.random.key(0), 0.4, (L, 64)))
    got = jumps.jump_windows(jax.tree.map(jnp.asarray, rows), toy.ROOT, config, drawn)
    pieces = 0
    for b in range(64):
        total, factor, real, alive, over, taken = 0.0, 1.0, True, True, False, []
        for i in range(L):
            row = toy.ROOT + i
            over = over or (real and not alive)
            real = real and alive and not rows.is_first[b, row + 1]
            if real:
                total += factor * rows.reward[b, row]
            taken.append(toy.A if over else rows.action[b, row])
            factor *= GAMMA * rows.discount[b, row]
            alive = real and rows.discount[b, row] != 0
            assert bool(got.real[i, b]) == real and bool(got.alive[i, b]) == alive
            assert bool(got.over[i, b]) == over
            if real or over:
                assert float(got.rewards[i, b]) == pytest.approx(total, abs=1e-5)
                expected = taken + [-1] * (L + 1 - len(taken))
                np.testing.assert_array_equal(got.actions[i, b], expected)
            if drawn.cuts[i, b]:
                total, factor, taken, pieces = 0.0, 1.0, [], pieces + 1
    assert 0.1 < float(jnp.mean(got.alive)) < float(jnp.mean(got.real)) < 0.9
    assert float(jnp.mean(got.over)) > 0.05 and (pieces > 64) == cut


def test_pieces_begin_where_the_one_before_them_is_foreseen_to_end():
    config = make_config()
    networks = make_networks(config.network, toy.SPEC)
    key, params = jax.random.key(0), random_params(networks)
    embeddings = jax.random.uniform(key, (L + 1, 64, 8))
    drawn = jumps.draw(jax.random.key(1), (L, 64), toy.A)
    share = np.mean(np.any(drawn.cuts, axis=0))
    assert 0.3 < share < 0.6, share
    rows = jax.tree.map(jnp.asarray, windows())
    rows = jumps.jump_windows(rows, toy.ROOT, config, drawn)
    terms, told = jumps.jump_terms(networks, config, params, rows, embeddings, drawn)
    start = embeddings[0]
    for i in range(L):
        end, logits = networks.jump(params, start, rows.actions[i])
        sums, half = rows.rewards[i], logits.shape[1] // 2
        target = jax.vmap(scalar_to_probs, in_axes=(0, None))(sums, half)
        wanted = -jnp.sum(target * jax.nn.log_softmax(logits), axis=1)
        known = rows.real[i] | rows.over[i]
        np.testing.assert_allclose(terms["rewards"][i], jnp.where(known, wanted, 0.0), atol=1e-5)
        here, action = np.asarray(drawn.length == i), drawn.actions[0]
        certain = steps.decide(networks, params, embeddings[i + 1], action).entropy < 0.5
        foreseen = steps.certainty(networks, params, end, action)
        np.testing.assert_array_equal(told.certain[1][here], certain[here])
        np.testing.assert_allclose(told.logits[1][here], foreseen[here], atol=1e-5)
        np.testing.assert_array_equal(told.known[1][here], rows.alive[i][here])
        start = jnp.where(drawn.cuts[i][:, None], end, start)


def test_the_support_holds_the_largest_sum():
    network = make_config(jump_length=6).network
    classes = dataclasses.replace(network, reward_transform="none", reward_support=1)
    assert reward_sum_support(classes) == 6
    # The bin of 2 stands for h^-1(2) = 7.98; six of them are 47.9, and h(47.9) = sqrt(48.9) - 0.95.
    assert reward_sum_support(network) == 7


def trained(step, state):
    state, memory = jax.tree.map(jnp.copy, (state, toy.fresh_memory(toy.make_rows())))
    for _ in range(2):
        state, memory, metrics = step(state, memory)
    return state, metrics


def test_the_model_does_not_notice():
    """All that is the model's has the same bits, and each part of the jump learns."""
    config, (plain_config, networks, _) = make_config(), toy.parts(1)
    jumping = make_networks(config.network, toy.SPEC)
    plain_step = learner.TrainStep(networks, toy.stub_replay(), plain_config, toy.SPEC)
    step = learner.TrainStep(jumping, toy.stub_replay(), config, toy.SPEC)
    step.program = plain_step.program  # one program; not that of other tests, which count theirs
    state = toy.start_state(step=50)
    jump = random_params(jumping)["jump"] | {"yes": jnp.float32(1), "false_yes": jnp.float32(1)}
    both = {name: {**getattr(state, name), "jump": jump} for name in ("params", "target_params")}
    start = state._replace(**both, jump=jumps.init_jump(config, jump))
    without, plain = trained(plain_step, state)
    with_jump, metrics = trained(step, start)
    assert step._update_jump._cache_size() == 1
    found = with_jump.params.pop("jump")
    with_jump.target_params.pop("jump")
    toy.assert_same(without, with_jump._replace(jump=None))
    names = {f"loss/jump_{x}" for x in ("rewards", "value", "policy", "end", "certain")}
    assert set(metrics) - set(plain) == {*names, "jump/false_yes"}
    assert all(np.isfinite(float(x)) for x in metrics.values())
    assert int(with_jump.jump.updates) == 2
    moved = jax.tree.map(lambda x, y: bool(jnp.any(x != y)), jump, found)
    assert all(jax.tree.leaves(moved["weights"])), moved


def test_no_gradient_reaches_the_model():
    config = make_config()
    networks = make_networks(config.network, toy.SPEC)
    params, embeddings = random_params(networks), np.random.default_rng(0).random((L + 1, 64, 8))
    rows = jumps.jump_windows(jax.tree.map(jnp.asarray, windows()), toy.ROOT, config)

    def total(params, embeddings):
        given = rows, embeddings, no_cuts()
        terms, told = jumps.jump_terms(networks, config, params, *given)
        assert told.certain.shape == (2, 64)
        return sum(jnp.sum(x) for x in terms.values())

    of_params, of_embeddings = jax.grad(total, argnums=(0, 1))(params, jnp.float32(embeddings))
    assert not np.any(of_embeddings)
    of_jump = of_params.pop("jump")["weights"]
    assert not any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(of_params))
    assert all(bool(jnp.any(x != 0)) for x in jax.tree.leaves(of_jump))


def test_ends_are_worth_nothing_and_last_no_longer():
    config = make_config(continuation=True)
    networks = make_networks(config.network, toy.SPEC)
    params, embeddings = random_params(networks), np.random.default_rng(0).random((L + 1, 64, 8))
    rows = jumps.jump_windows(jax.tree.map(jnp.asarray, windows()), toy.ROOT, config)
    given = rows, jnp.float32(embeddings), no_cuts()
    terms, _ = jumps.jump_terms(networks, config, params, *given)
    known = np.asarray(rows.real | rows.over)
    over = known & ~np.asarray(rows.alive)
    assert 5 < over.sum() < np.asarray(rows.real).sum() - 5 and np.any(rows.over)
    for step, window in zip(*np.nonzero(known), strict=True):
        taken = rows.actions[step, window][None]
        leap = networks.jump(params, jnp.float32(embeddings[:1, window]), taken)[0]
        chance = 1 / (1 + np.exp(-float(networks.continuation(params, leap)[0])))
        is_over = over[step, window]
        lasting = -np.log(1 - chance if is_over else chance)
        assert float(terms["lasting"][step, window]) == pytest.approx(lasting, rel=1e-3)
        if is_over:
            logits = np.asarray(networks.prediction(params, leap).value_logits[0], np.float64)
            none = np.log(np.exp(logits).sum()) - logits[len(logits) // 2]  # the bin of 0
            assert float(terms["value"][step, window]) == pytest.approx(none, rel=1e-3)
            assert float(terms["end"][step, window]) == float(terms["policy"][step, window]) == 0
    for name in ("rewards", "value", "end", "policy", "lasting"):
        assert not np.any(np.asarray(terms[name])[~known])


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
        search_spread=np.zeros(shape, np.float32),
    )


def test_it_learns_what_sequences_are_worth():
    """On a ring, beside a model that is not trained: all places and sequences, counted plainly."""
    config = make_config(
        *(1e-2,), embedding_size=16, hidden_size=24, codebook_size=2, reward_support=1,
        reward_transform="none", input_norm=False,
    )  # fmt: skip
    loss = LossConfig(consistency=0.0)  # ends are compared as they are: no projection is trained
    config = dataclasses.replace(config, loss=loss)
    networks = make_networks(config.network, toy.SPEC)
    params = networks.init(jax.random.key(0))
    assert not any(x.weak_type for x in jax.tree.leaves(params))  # else all is compiled twice
    jump, state = params["jump"], jumps.init_jump(config, params["jump"])
    update = jax.jit(jumps.make_jump_update(networks, config, toy.SPEC))
    rng = np.random.default_rng(0)
    for _ in range(450):
        rows = jax.tree.map(jnp.asarray, ring_rows(rng, 64))
        state, jump, metrics = update(state, jump, params, ReplaySample(rows, None, jnp.ones(64)))
    assert float(metrics["loss/jump_end"]) < -0.8
    # The model is sure of some actions, and the jump knows which.
    assert float(metrics["loss/jump_certain"]) < 0.1

    params = {**params, "jump": jump}
    sequences = np.stack(np.meshgrid(*[range(toy.A)] * L, indexing="ij"), -1).reshape(-1, L)
    errors, spread = [], []
    for length in range(1, L + 1):
        for place in range(RING):
            frames = np.eye(7, dtype=np.float32)[[place] * toy.F]
            start = networks.representation(params, jnp.asarray(frames)[None])
            start = jnp.tile(start, (len(sequences), 1))
            actions = np.where(np.arange(L) < length, sequences, -1)
            found = np.asarray(steps.jump(networks, params, start, jnp.asarray(actions)).reward)
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


@pytest.mark.parametrize(("false_yes", "opens"), [(0.06, True), (0.07, False)])
def test_the_gate(false_yes, opens):
    """Closed while more than 1 % of what was foretold was not so; and at the start."""
    networks: Any = SimpleNamespace(certain=lambda p, s: jnp.array([[1.0, -1.0], [-1.0, 1.0]]))
    params: Any = {"jump": {"yes": 6.5, "false_yes": false_yes}}
    told = steps.foretold_certain(networks, params, jnp.zeros((2, 3)), jnp.array([0, 0]))
    np.testing.assert_array_equal(told, [opens, False])
    few: Any = {"jump": {"yes": 0.9, "false_yes": 0.0}}
    assert not np.any(steps.foretold_certain(networks, few, jnp.zeros((2, 3)), jnp.array([0, 1])))
    told = steps.foretold_certain(networks, {"jump": CLOSED}, jnp.zeros((2, 3)), jnp.array([0, 1]))
    assert not np.any(told)


def scripted_check(wrong):
    """A replay of one fixed batch, a model that adds up actions, and a jump that is `wrong`."""
    rows = jax.tree.map(jnp.asarray, windows(96, seed=1))
    total = jnp.cumsum(rows.action, axis=1) - rows.action  # the sum of the actions before each row
    turned = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle), angle], axis=1)  # noqa: E731
    frame = rows.frame.at[..., 0].set(total.astype(jnp.float32))
    rows = rows._replace(frame=frame, discount=jnp.abs(rows.discount))
    networks: Any = SimpleNamespace(
        all_values=None,
        all_rewards=None,
        representation=lambda p, o: turned(o[:, -1, 0]),
        prediction=lambda p, s: Prediction(jnp.zeros((len(s), toy.A)), s[:, 2]),
        afterstate_dynamics=lambda p, s, action: turned(s[:, 2] + action),
        afterstate_prediction=lambda p, s: AfterstatePrediction(jnp.zeros((len(s), 2)), s[:, 2]),
        dynamics=lambda p, s, code: DynamicsOutput(s, jnp.zeros(len(s))),
        discount=None,
        value_of=lambda x: x,
        reward_of=lambda x: x,
        project=lambda p, x, predict, among=None: x,
        jump=lambda p, s, a: (turned(s[:, 2] + jnp.maximum(a, 0).sum(1) + wrong), 0 * s[:, 2]),
        reward_sum_of=lambda x: x + wrong,
    )
    order = jnp.argsort(jax.random.uniform(jax.random.key(0), (96,)))
    sample = ReplaySample(rows, order.astype(jnp.int32) * 1000, jnp.ones(96))
    replay: Any = SimpleNamespace(sample=lambda state, key: sample)
    return rows, sample, networks, replay


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_the_check_equals_plain_loops(monkeypatch, wrong):
    monkeypatch.setattr(jump_check, "CHECK_BATCHES", 1)
    monkeypatch.setattr(jump_check, "HELD_OUT", 2)  # all rows of the batch
    config = make_config()
    rows, sample, networks, replay = scripted_check(wrong)
    check = jump_check.make_jump_check(networks, replay, config, toy.SPEC)
    got = check({}, None, jax.random.key(0))
    held = np.asarray(jump_check.held_out(sample, toy.ROOT))
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
