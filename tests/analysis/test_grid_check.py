"""Checks of a model of the grid world: one that is exactly right, and ones wrong in a known way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.analysis.rules.grid_check import (
    NUM_STEPS,
    check_grid,
    draw_sequences,
    replay_transitions,
)
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.envs.grid.grid_env import grid_observations
from smz_jax.envs.grid.map import read_map
from smz_jax.envs.grid.rules import (
    make_rules,
    optimal_values,
    reachable,
    sample_paths,
    true_entropy,
)
from smz_jax.types import Networks, Trajectory

MAP = "S~$/O~./.~G"
# No two outcomes of a pair are equally likely: the likeliest one is never a tie.
RULES = make_rules(read_map(MAP, prize_prob=0.3, slip=0.4))
STATES, OUTCOMES = RULES.num_states, RULES.probability.shape[2]
CONFIG = Config(
    env=EnvConfig(
        suite="grid",
        id="GridWorld",
        frame_stack=1,
        kwargs=f'{{"map": "{MAP}", "prize_prob": 0.3, "slip": 0.4}}',
    ),
    network=NetworkConfig(family="mlp", codebook_size=OUTCOMES),
)
VALUES, _ = optimal_values(RULES, CONFIG.learner.gamma)
PARAMS = {"params": {}, "batch_stats": {}}


def exact_networks(certain=False, reward_shift=0.0, value_shift=0.0):
    """The grid's rules as a model: embedding and afterstate are one-hots, the codes the outcomes.

    With `certain` it holds the likeliest outcome for the only one.
    """
    possible = RULES.probability > 0
    chances = RULES.probability
    if certain:
        chances = np.eye(OUTCOMES)[chances.argmax(axis=-1)]
    log_chance = np.log(np.maximum(chances, 1e-30)).reshape(-1, OUTCOMES)
    leads = (np.eye(STATES)[RULES.next_state] * possible[..., None]).reshape(-1, OUTCOMES, STATES)
    pays = (RULES.reward + reward_shift).reshape(-1, OUTCOMES)

    def representation(params, observation):
        return observation[:, -1].astype(jnp.float32) / 255

    def afterstate_dynamics(params, embedding, action):
        return jnp.einsum("bs,ba->bsa", embedding, jax.nn.one_hot(action, 4)).reshape(
            len(action), -1
        )

    return Networks(
        init=lambda key: PARAMS,
        representation=representation,
        prediction=lambda params, x: (x[:, :4], (x @ VALUES + value_shift)[:, None]),
        afterstate_dynamics=afterstate_dynamics,
        afterstate_prediction=lambda params, x: (x @ log_chance, x[:, :1]),
        dynamics=lambda params, x, code: (
            jnp.einsum("bx,bo,xos->bs", x, code, leads),
            jnp.einsum("bx,bo,xo->b", x, code, pays)[:, None],
        ),
        encoder=lambda params, after, x: (
            20 * jnp.einsum("bs,bx,xos->bo", representation(params, after), x, leads)
        ),
        representation_train=lambda params, x: (representation(params, x), {}),
        project=lambda params, x, predict, among=None: x,
        decode=lambda params, x, y: (x, y),
        frame_target=lambda params, frame, before: frame,
        value_of=lambda logits: logits[..., 0],
        reward_of=lambda logits: logits[..., 0],
    )


class FakeReplay(NamedTuple):
    experience: Trajectory
    current_index: int
    is_full: bool


def played_rows(lanes=16, length=200, seed=0):
    """Rows of random play as the replay keeps them, and what was really in them."""
    generator = np.random.default_rng(seed)
    state, over = np.zeros(lanes, np.int64), np.ones(lanes, bool)
    states, actions, firsts = [], [], []
    for _ in range(length):
        state = np.where(over, 0, state)
        action = generator.integers(0, 4, lanes)
        states.append(state)
        actions.append(action)
        firsts.append(over)
        over = RULES.terminal[state]
        paths, _ = sample_paths(RULES, generator, state, action[:, None])
        state = paths[:, 1]
    states, actions, firsts = (np.stack(x, axis=1) for x in (states, actions, firsts))
    blank = np.zeros((lanes, length), np.float32)
    rows = Trajectory(
        frame=grid_observations(RULES, "vector")[states],
        action=actions.astype(np.int32),
        reward=blank,
        discount=blank,
        is_first=firsts,
        invalid_actions=blank,
        action_weights=blank,
        search_value=blank,
        search_spread=blank,
        transition_entropy=blank,
        target_step=blank,
    )
    return rows, states


def wrap(rows: Trajectory, index: int) -> FakeReplay:
    """The same rows in a ring whose write head stands at `index`."""
    return FakeReplay(jax.tree.map(lambda x: np.roll(x, index, axis=1), rows), index, True)


def test_replayed_transitions_are_the_real_ones():
    rows, states = played_rows()
    for replay in (wrap(rows, 0), wrap(rows, 37), FakeReplay(rows, 120, False)):
        length = 200 if replay.is_full else 120
        frames = grid_observations(RULES, "vector")
        found = replay_transitions(replay, frames)
        expected = [
            (states[lane, t], rows.action[lane, t], states[lane, t + 1])
            for t in range(length - 1)
            for lane in range(16)
            if not RULES.terminal[states[lane, t]]
        ]
        np.testing.assert_array_equal(np.stack(found, axis=1), expected)


def test_sequences_are_those_of_a_good_player_whatever_a_run_has_seen():
    _, action_value = optimal_values(RULES, CONFIG.learner.gamma)
    start, actions = draw_sequences(RULES, np.random.default_rng(3), 4_000, action_value)
    assert actions.shape == (4_000, NUM_STEPS) and not RULES.terminal[start].any()
    assert reachable(RULES)[start].all() and len(np.unique(start)) > 3
    # 3 in 4 actions are the best ones, and of random ones some.
    best = np.mean(actions[:, 0] == action_value[start].argmax(axis=1))
    assert 0.75 < best < 0.75 + 0.25 * 0.5
    (one, two) = (
        check_grid(exact_networks(), CONFIG, PARAMS, wrap(played_rows(seed=seed)[0], 0))
        for seed in (1, 2)
    )
    assert (one.visits != two.visits).any()
    keys = [x for x in one.numbers if x.startswith(("unroll", "open_loop"))]
    assert len(keys) == 5 and all(one.numbers[x] == two.numbers[x] for x in keys)


def test_an_exact_model_passes():
    rows, states = played_rows()
    check = check_grid(exact_networks(), CONFIG, PARAMS, wrap(rows, 11))
    numbers = check.numbers
    assert numbers["roc_area"] == 1.0
    assert numbers["entropy_error"] < 1e-5
    np.testing.assert_allclose(check.entropy, true_entropy(RULES), atol=1e-5)
    # The likeliest outcome is the code as often as it happens.
    before, action, after = states[:, :-1], np.asarray(rows.action)[:, :-1], states[:, 1:]
    likely = RULES.next_state[before, action, RULES.probability[before, action].argmax(axis=-1)]
    real = ~RULES.terminal[before]
    assert numbers["agreement"] == pytest.approx(np.mean((likely == after)[real]))
    assert 0.3 < numbers["agreement"] < 0.9
    np.testing.assert_allclose(numbers["unroll_reward"], 0, atol=1e-6)
    np.testing.assert_allclose(numbers["unroll_value"], 0, atol=1e-6)
    np.testing.assert_allclose(numbers["unroll_own_value"], 0, atol=1e-6)
    # 1,024 sequences of 64 draws: what remains is the draws' own noise.
    assert max(numbers["open_loop_reward"] + numbers["open_loop_value"]) < 0.02
    assert check.visits.sum() == real.sum()


def test_a_model_that_calls_everything_certain_fails():
    rows, _ = played_rows()
    check = check_grid(exact_networks(certain=True), CONFIG, PARAMS, wrap(rows, 0))
    assert check.numbers["roc_area"] == 0.5 and check.entropy.max() < 1e-5
    seen = (check.visits > 0) & reachable(RULES)[:, None]
    expected = true_entropy(RULES)[seen].mean()
    assert check.numbers["entropy_error"] == pytest.approx(expected, abs=1e-5)
    # Told what happened it is right; left to itself it expects what it holds for certain.
    assert max(check.numbers["unroll_value"]) < 1e-6
    assert min(check.numbers["open_loop_value"]) > 0.05


def test_errors_of_a_model_that_is_off_by_a_constant():
    rows, _ = played_rows()
    networks = exact_networks(reward_shift=0.25, value_shift=-0.5)
    numbers = check_grid(networks, CONFIG, PARAMS, wrap(rows, 0)).numbers
    np.testing.assert_allclose(numbers["unroll_reward"], 0.25, atol=1e-5)
    np.testing.assert_allclose(numbers["unroll_value"], 0.5, atol=1e-5)
    assert max(numbers["unroll_own_value"]) < 0.2  # it is off at the real states too, but the ends
    np.testing.assert_allclose(numbers["open_loop_reward"][0], 0.25, atol=0.01)
    np.testing.assert_allclose(numbers["open_loop_value"], 0.5, atol=0.02)
