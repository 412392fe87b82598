"""The root's value is that of the policy that is played, not of the visits that a rule forces."""

import numpy as np
import pytest

from tests.support.search_runs import run_search
from tests.support.tabular import random_tables

STATES = 7


def one_step_game(seed):
    """A game of one step whose every estimate is exact: Q(a) is the reward of a."""
    tables = random_tables(seed, states=STATES, layered=True)
    reward = np.broadcast_to(tables.reward[..., :1], tables.reward.shape).copy()
    reward[1:] = 0.0
    q = reward[:, :, 0]
    successor = np.full_like(tables.successor, STATES - 1)
    value = np.where(np.arange(STATES) == 0, q[0].mean(), 0.0)
    prior = np.random.default_rng(seed).normal(size=q.shape)
    return tables._replace(
        prior=prior, reward=reward, successor=successor, value=value, afterstate_value=q
    ), q[0]


@pytest.mark.parametrize("seed", range(6))
def test_a_gumbel_roots_value_is_that_of_its_improved_policy(seed):
    """By hand, sum_a pi'(a) r(a); the mean over halving's visits is below it."""
    tables, q = one_step_game(seed)
    output = run_search(
        tables, [0], engine="batched", simulations=16, seed=seed, root="gumbel", interior="gumbel"
    )
    expected = float(output.action_weights[0] @ q)
    np.testing.assert_allclose(output.value[0], expected, rtol=1e-4, atol=1e-5)
    visits = output.tree.children_visits[0, 0, :3]
    forced = (q.mean() + visits @ q) / (1 + visits.sum())
    np.testing.assert_allclose(output.tree.node_values[0, 0], forced, rtol=1e-4, atol=1e-5)
    assert forced < expected - 0.02 * np.ptp(q)
    np.testing.assert_allclose(output.spread[0], np.ptp(q[visits > 0]), rtol=1e-4)


def test_an_action_without_a_visit_does_not_count():
    """One of three actions is considered: its Q alone is known."""
    tables, q = one_step_game(0)
    output = run_search(
        tables, [0], engine="batched", simulations=4, root="gumbel", gumbel_considered=1, noise=0.0
    )
    assert (output.tree.children_visits[0, 0, :3] > 0).sum() == 1
    np.testing.assert_allclose(output.value[0], q[output.action[0]], rtol=1e-5)
    assert output.spread[0] == 0


def test_dirichlet_noise_does_not_move_the_value_of_a_puct_root():
    """Over many draws the value stays near that without noise, where the mean over visits does not;
    without noise the two are one."""
    tables, _ = one_step_game(3)
    options = {"engine": "batched", "simulations": 64, "temperature": 1.0}
    plain = run_search(tables, [0], noise=0.0, **options)
    np.testing.assert_allclose(plain.value, plain.tree.node_values[:, 0], rtol=1e-6)
    noisy = run_search(tables, [0] * 256, noise=1.0, dirichlet_fraction=0.5, **options)
    ours = noisy.value - plain.value[0]
    mean = noisy.tree.node_values[:, 0] - plain.value[0]
    assert np.abs(ours.mean()) < 0.5 * np.abs(mean.mean())
    assert np.square(ours).mean() < np.square(mean).mean()
