"""Rewards and ends foreseen open loop, against plain loops over the windows."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.learning.diagnose import EFFECT_EVERY, EFFECT_RIVALS, foresight_sums
from smz_jax.types import AfterstatePrediction, DynamicsOutput, Prediction
from tests.learning import test_learner as toy

STEPS = toy.K + toy.N  # the windows hold no more
COMPARED = 64  # windows whose actions are compared with others
WINDOWS = COMPARED * EFFECT_EVERY


def scripted() -> Any:
    """Foresees what tables say: a state is (window, steps ahead)."""

    def at(table, state):
        return table[state[:, 0].astype(jnp.int32), state[:, 1].astype(jnp.int32)]

    return SimpleNamespace(
        all_values=None,
        all_rewards=None,
        representation=lambda p, o: jnp.stack([o[:, -1, 0], jnp.zeros(len(o))], axis=1),
        prediction=lambda p, s: Prediction(jnp.zeros((len(s), toy.A)), at(p["value"], s)),
        afterstate_dynamics=lambda p, s, action: s,
        afterstate_prediction=lambda p, s: AfterstatePrediction(jnp.zeros((len(s), 2)), s[:, 0]),
        dynamics=lambda p, s, code: DynamicsOutput(s + jnp.array([0.0, 1.0]), at(p["reward"], s)),
        discount=lambda p, s: at(p["discount"], s),
        value_of=lambda x: x,
        reward_of=lambda x: x,
        project=lambda p, x, predict, among=None: x,
    )


def windows(rng):
    rows = jax.tree.map(
        lambda x: np.resize(np.asarray(x), (WINDOWS, *x.shape[1:])), toy.make_rows()
    )
    shape = rows.reward.shape
    first = rng.random(shape) < 0.1
    frame = np.zeros((*shape, 7), np.float32)
    frame[:, toy.ROOT, 0] = np.arange(WINDOWS)
    return rows._replace(
        frame=frame,
        is_first=first,
        reward=rng.choice([-1.0, 0.0, 1.0], shape, p=[0.1, 0.7, 0.2]).astype(np.float32),
        discount=(rng.random(shape) > 0.15).astype(np.float32),
    )


def test_sums_equal_plain_loops():
    rng = np.random.default_rng(0)
    rows = windows(rng)
    params = {
        "reward": rng.choice([-1.0, 0.0, 0.2, 0.9, 1.2], (WINDOWS, STEPS + 1)).astype(np.float32),
        "value": rng.random((WINDOWS, STEPS + 1)).astype(np.float32),
        "discount": rng.random((WINDOWS, STEPS + 1)).astype(np.float32),
    }
    key, config = jax.random.key(0), toy.make_config()
    run = jax.jit(lambda p, x: foresight_sums(scripted(), config, toy.SPEC, p, key, x))
    got = run(params, jax.tree.map(jnp.asarray, rows))
    names = ("rewards", "foreseen", "without", "invented")
    expected = {name: np.zeros(STEPS) for name in names}
    past = worth = counted = 0.0
    for b in range(WINDOWS):
        is_over, discount = False, 1.0
        for k in range(STEPS):
            row = toy.ROOT + k
            discount *= params["discount"][b, k + 1]
            is_real = not rows.is_first[b, toy.ROOT + 1 : row + 2].any()
            if not is_over and is_real:
                reward, error = rows.reward[b, row], 0.0
                error = abs(params["reward"][b, k] - reward)
                kind = ("rewards", "foreseen") if reward else ("without", "invented")
                expected[kind[0]][k] += 1
                expected[kind[1]][k] += error <= 0.25 if reward else error > 0.25
                is_over = rows.discount[b, row] == 0
            if is_over:
                past += 1
                worth += params["value"][b, k + 1]
                counted += discount * params["value"][b, k + 1]
    assert min(expected["foreseen"].sum(), expected["invented"].sum(), past) > 5
    for name in names:
        np.testing.assert_array_equal(got[name], expected[name])
    np.testing.assert_allclose(
        [got["past"], got["worth_past"], got["counted_past"]], [past, worth, counted], rtol=1e-5
    )


def counting(mistaken: float) -> Any:
    """Embeddings turn by the sum of the actions; the model is right, or takes minus that sum."""
    turned = lambda angle: jnp.stack([jnp.cos(angle), jnp.sin(angle), angle], axis=1)  # noqa: E731
    return SimpleNamespace(
        all_values=None,
        all_rewards=None,
        representation=lambda p, o: turned(o[:, -1, 0]),
        prediction=lambda p, s: Prediction(jnp.zeros((len(s), toy.A)), s[:, 0]),
        afterstate_dynamics=lambda p, s, action: turned(s[:, 2] + mistaken * action * 0.1),
        afterstate_prediction=lambda p, s: AfterstatePrediction(jnp.zeros((len(s), 2)), s[:, 0]),
        dynamics=lambda p, s, code: DynamicsOutput(s, s[:, 0]),
        discount=None,
        value_of=lambda x: x,
        reward_of=lambda x: x,
        project=lambda p, x, predict, among=None: x[:, :2],
    )


@pytest.mark.parametrize("mistaken", [1.0, -1.0])
def test_effects_equal_plain_loops(mistaken):
    rng = np.random.default_rng(1)
    rows = windows(rng)
    rows = rows._replace(action=rng.integers(0, toy.A, rows.action.shape).astype(np.int32))
    rows.frame[:, toy.ROOT :, 0] = 0.1 * np.cumsum(
        np.pad(rows.action[:, toy.ROOT : -1], ((0, 0), (1, 0))), axis=1
    )
    key = jax.random.key(3)
    config, networks = toy.make_config(), counting(mistaken)
    run = jax.jit(lambda x: foresight_sums(networks, config, toy.SPEC, {}, key, x))
    got = run(jax.tree.map(jnp.asarray, rows))
    drawn = jax.random.randint(key, (STEPS, EFFECT_RIVALS, COMPARED), 0, toy.A, jnp.int32)
    expected = {"windows": np.zeros(STEPS), "known": np.zeros(STEPS)}
    for b in range(COMPARED):
        for k in range(STEPS):
            part = slice(toy.ROOT, toy.ROOT + k + 1)
            next_part = slice(toy.ROOT + 1, toy.ROOT + k + 2)
            if rows.is_first[b, next_part].any() or not rows.discount[b, part].all():
                break
            own = rows.action[b, part].sum()
            others = [x[: k + 1] for x in np.asarray(drawn)[:, :, b].T]
            rivals = [x.sum() for x in others if (x != rows.action[b, part]).any()]
            away = [abs(own - mistaken * x) for x in rivals]
            expected["windows"][k] += 1
            expected["known"][k] += abs(own - mistaken * own) < min(away, default=np.inf) - 1e-9
    assert expected["windows"].sum() > 50
    assert 0 < expected["known"].sum() < expected["windows"].sum()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])
