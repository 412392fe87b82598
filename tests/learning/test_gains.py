"""What macros gain: targets by plain steps, gates by plain counts, new owners, and no gradient."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.learning import gains
from smz_jax.learning import jump as jumps
from smz_jax.macros.precondition.slots import MacroSlots
from smz_jax.model.networks import make_networks
from smz_jax.types import ReplaySample
from tests.learning import test_learner as toy
from tests.learning.test_jump import GAMMA, L, make_config, windows
from tests.model.test_networks import random_params

OWNERS = [(0, 1), (2, 2, 1), (), (1, 0)]


def slots_of(owners, longest=6):
    actions = np.full((len(owners), longest), -1, np.int32)
    for slot, owner in enumerate(owners):
        actions[slot, : len(owner)] = owner
    return MacroSlots(jnp.asarray(actions), jnp.int32([len(owner) for owner in owners]))


def gain_config(**network):
    config = make_config(gain_slots=len(OWNERS), **network)
    # Some of the random model's steps are certain at this threshold, and some are not.
    return dataclasses.replace(config, macro=dataclasses.replace(config.macro, play_threshold=0.93))


def test_owners_that_the_jump_cannot_hold_are_left_out():
    config = gain_config(jump_length=2)
    found = gains.owners_of(slots_of(OWNERS), config)
    np.testing.assert_array_equal(found, [[0, 1], [-1, -1], [-1, -1], [1, 0]])
    wide = gains.owners_of(slots_of(OWNERS, longest=3), gain_config(jump_length=5))
    assert wide.shape == (4, 5) and list(wide[1]) == [2, 2, 1, -1, -1]


def test_gains_equal_plain_steps():
    config = gain_config()
    networks = make_networks(config.network, toy.SPEC)
    params, root = random_params(networks), jax.random.uniform(jax.random.key(0), (16, 8))
    owners = gains.owners_of(slots_of(OWNERS), config)
    some = [0, 1, 3]
    for slot in some:
        actions = jnp.tile(owners[slot], (16, 1))
        found = gains.step_through(networks, config, params, root, actions)
        state, total, factor, certain = root, 0.0, 1.0, True
        for action in OWNERS[slot]:
            after = networks.afterstate_dynamics(params, state, jnp.full(16, action))
            logits = networks.afterstate_prediction(params, after)[0]
            probs = jax.nn.softmax(logits)
            entropy = -jnp.sum(probs * jnp.log(probs), axis=1) / np.log(probs.shape[1])
            certain = certain & (entropy < 0.93)
            code = jax.nn.one_hot(jnp.argmax(logits, axis=1), probs.shape[1])
            state, reward = networks.dynamics(params, after, code)
            total, factor = total + factor * networks.reward_of(reward), factor * GAMMA
        value = [networks.value_of(networks.prediction(params, x)[1]) for x in (root, state)]
        np.testing.assert_allclose(found.gain, total + factor * value[1] - value[0], atol=1e-4)
        np.testing.assert_array_equal(found.certain, certain)


def scripted(monkeypatch, true, certain):
    """Steps through macros find the tables `[N, G]`, whose rows the states number."""
    tables = jnp.float32(true), jnp.asarray(certain)

    def step_through(networks, config, params, root, actions):
        row = root[:, 0].astype(jnp.int32)
        slot = jnp.argmax(jnp.all(actions[:, None] == params["owners"], axis=-1), axis=1)
        return gains.Stepped(tables[0][row, slot], tables[1][row, slot])

    monkeypatch.setattr(gains, "step_through", step_through)


def test_the_head_is_judged_as_plain_counts_judge_it(monkeypatch):
    monkeypatch.setattr(gains, "HELD_STATES", 6)
    rng, config = np.random.default_rng(2), gain_config()
    owners = gains.owners_of(slots_of([*OWNERS[:2], (1, 1), OWNERS[3]]), config)
    true, told = rng.normal(size=(2, 8, 4))
    certain, said = rng.random((2, 8, 4)) < 0.7
    scripted(monkeypatch, true, certain)
    networks: Any = SimpleNamespace(
        gains=lambda p, s: tuple(
            jnp.float32(x)[s[:, 0].astype(int)] for x in (told, np.where(said, 3.0, 2.0))
        )
    )
    held = np.array([1, 0, 1, 1, 0, 1, 1, 0], bool)
    params = {"owners": owners, "jump": {"gains": {"actions": owners}}}
    states = jnp.arange(8.0)[:, None]
    sums, related = gains.judge_gains(networks, config, params, states, jnp.asarray(held))
    best = realised = yes = false = 0.0
    correlations = []
    for row in np.flatnonzero(held):
        fit, yes = certain[row], yes + said[row].sum()
        false += (said[row] & ~fit).sum()
        if fit.sum() > 1 and said[row].any():
            mean = true[row][fit].mean()
            best += true[row][fit].max() - mean
            choice = max(np.flatnonzero(said[row]), key=lambda slot, row=row: told[row, slot])
            realised += true[row][choice] - mean
        if fit.sum() > 2:
            correlations.append(np.corrcoef(true[row][fit], told[row][fit])[0, 1])
    expected = {"best": best, "realised": realised, "yes": yes, "false_yes": false}
    for name, number in expected.items():
        assert float(sums[name]) == pytest.approx(number, rel=1e-5), name
    assert float(related) == pytest.approx(np.mean(correlations), abs=1e-5)


@pytest.mark.parametrize(
    ("realised", "false", "held", "usable"),
    [(0.9, 0.02, 100.0, True), (0.8, 0.02, 100.0, False), (0.9, 0.04, 100.0, False),
     (0.9, 0.02, 92.0, False)],
)  # fmt: skip
def test_the_gates(realised, false, held, usable):
    """Closed while the choice gains too little, too much is held certain, or jumps are wrong."""
    owners = gains.owners_of(slots_of(OWNERS), gain_config())
    zeros = jnp.zeros(4)
    known = {"best": 1.0, "realised": realised, "yes": 10.0, "false_yes": 10 * false}
    counts = jnp.float32([100.0, 100.0, 100.0, 19.0]), jnp.float32([held, held, held, 19.0])
    state = {**known, "actions": owners, "trials": zeros, "held": zeros}
    sums = {name: jnp.float32(x) for name, x in known.items()}
    found = gains.count_gains(state, sums, *counts)
    # The third slot has no owner, the fourth too few trials.
    np.testing.assert_array_equal(found["usable"], [usable, usable, False, False])
    fresh = jax.eval_shape(lambda: found)
    assert fresh["usable"].dtype == jnp.bool_


def update_of(config):
    networks = make_networks(config.network, toy.SPEC)
    params = random_params(networks)
    known = networks.init(jax.random.key(0))["jump"]["gains"]
    params["jump"] |= {"yes": jnp.float32(1), "false_yes": jnp.float32(1), "gains": known}
    return networks, params, jax.jit(jumps.make_jump_update(networks, config, toy.SPEC))


def test_it_learns_what_the_model_steps_to_and_a_new_owner_begins_anew():
    config = gain_config()
    _, params, update = update_of(config)
    jump, state = params["jump"], jumps.init_jump(config, params["jump"])
    rows = jax.tree.map(jnp.asarray, windows())
    slots, places = slots_of(OWNERS), jnp.arange(64, dtype=jnp.int32) * 1000
    sample = ReplaySample(rows, places, jnp.ones(64))
    losses = []
    for _ in range(150):
        state, jump, metrics = update(state, jump, params, sample, slots)
        losses.append([float(metrics[f"loss/jump_{name}"]) for name in ("gain", "sure")])
    first, last = np.mean(losses[:20], axis=0), np.mean(losses[-20:], axis=0)
    assert np.all(last < 0.5 * first), (first, last)
    assert {"gains/share", "gains/false_yes", "gains/correlation", "gains/usable"} <= set(metrics)
    # Nothing of it was learned for the slot without an owner; one that changes begins anew.
    before = jump["weights"]["gain_head"]["Linear_0"]["Dense_0"]["kernel"]
    other = slots_of([OWNERS[0], (0, 0), (), OWNERS[3]])
    owners = gains.owners_of(other, config)
    renewed, opt_state = gains.renew(jump, state.opt_state, owners)
    for tree in (renewed["weights"], opt_state[0].mu, opt_state[0].nu):
        for name in ("Linear_0", "Linear_1"):
            kernel = tree["gain_head"][name]["Dense_0"]["kernel"]
            assert np.all(kernel[:, 1] == 0) and np.any(kernel[:, 0] != 0)
    kernel = renewed["weights"]["gain_head"]["Linear_0"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(np.delete(kernel, 1, 1), np.delete(before, 1, 1))
    np.testing.assert_array_equal(renewed["gains"]["actions"], owners)
    assert update._cache_size() == 1


def test_no_gradient_of_gains_reaches_the_model():
    config = gain_config()
    networks, params, _ = update_of(config)
    known = params["jump"]["gains"] | {"actions": gains.owners_of(slots_of(OWNERS), config)}
    root, real = jax.random.uniform(jax.random.key(0), (16, 8)), jnp.ones(16, bool)

    def total(model, weights):
        full = {**model, "jump": {**params["jump"], "weights": weights, "gains": known}}
        given = jax.lax.stop_gradient({**model}) | {"jump": full["jump"]}
        terms = gains.gain_terms(networks, config, given, root, real, jax.random.key(1))
        assert all(np.shape(x) == (gains.PAIRS, 16) for x in terms.values())
        return sum(jnp.sum(x) for x in terms.values())

    model = {name: params[name] for name in ("params", "batch_stats")}
    of_model, of_jump = jax.grad(total, argnums=(0, 1))(model, params["jump"]["weights"])
    assert not any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(of_model))
    assert any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(of_jump["gain_head"]))
    of_jump.pop("gain_head")
    assert not any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(of_jump))


def test_right_jumps_equal_plain_loops():
    rng, config = np.random.default_rng(2), gain_config()
    rows = jax.tree.map(jnp.asarray, windows())
    drawn = jumps.draw(jax.random.key(1), (L, 64), toy.A)
    found = jumps.jump_windows(rows, toy.ROOT, config, drawn)
    owners = gains.owners_of(slots_of([(0,), (1, 2), (2, 1), ()]), config)
    seen = jnp.float32(rng.normal(size=(L, 64, 5)))
    is_near = rng.random((L, 64, 1)) < 0.6
    ends = jnp.where(is_near, seen, -seen)
    rewards = found.rewards + np.where(rng.random((L, 64)) < 0.6, 0.1, 0.4)
    told = jumps.Told(*[jnp.zeros(0)] * 3, ends, seen, rewards)
    apart = rng.random(64) < 0.5
    trials, held = jumps.right_jumps(config, told, found, drawn, jnp.asarray(apart), owners)
    expected = np.zeros((2, 4))
    for step in range(L):
        for b in np.flatnonzero(apart & np.asarray(found.real[step])):
            if np.any(drawn.cuts[:step, b]):
                continue
            for slot in range(3):
                if list(found.actions[step, b]) == list(owners[slot]):
                    away = is_near[step, b, 0] or not found.alive[step, b]
                    paid = abs(float(rewards[step, b] - found.rewards[step, b])) <= 0.25
                    expected[:, slot] += 1, away and paid
    np.testing.assert_array_equal([trials, held], expected)
    assert expected[0].sum() > 10 and expected[1].sum() < expected[0].sum()


def test_owners_are_not_averaged():
    """The parameters that play may be an average: of numbers, not of whose slots they are."""
    step = toy.parts(1)[2]
    old = {"weight": jnp.float32(0), "owner": jnp.int32(1), "usable": jnp.array(True)}
    new = {"weight": jnp.float32(1), "owner": jnp.int32(4), "usable": jnp.array(False)}
    moved = step._move(old, new, np.float32(0.25), np.int32(0))
    assert {name: x.item() for name, x in moved.items()} == {
        "weight": 0.25,
        "owner": 4,
        "usable": False,
    }
