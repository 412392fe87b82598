"""Actions of several parts: numbers, encodings, and the factored policy, by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, stats

from smz_jax.model import actions
from smz_jax.types import Part, Space, options_of, strides

SIZES = (2, 3, 2)
EVERY = list(itertools.product(*map(range, SIZES)))  # in the order of their numbers
LOGITS = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)


def joint(row):
    """pi of the 12 actions, by multiplication."""
    parts = [np.exp(x) / np.exp(x).sum() for x in np.split(row, [2, 5])]
    return np.array([np.prod([p[i] for p, i in zip(parts, a, strict=True)]) for a in EVERY])


def test_numbers_count_the_last_part_fastest():
    options = options_of(np.arange(12), SIZES)
    np.testing.assert_array_equal(options, EVERY)
    np.testing.assert_array_equal(options @ strides(SIZES), np.arange(12))
    # The largest number there may be.
    sizes, largest = (2**15, 2**16 - 1), jnp.array(2**15 * (2**16 - 1) - 1, jnp.int32)
    found = np.asarray(options_of(largest, sizes))
    np.testing.assert_array_equal(found, [2**15 - 1, 2**16 - 2])


def test_the_encoding_has_one_hots_and_the_values_of_numbers():
    space = Space(6, (), (Part(("a", "b")), Part(("-2", "0", "2"), (-1.0, 0.0, 1.0))))
    found = actions.encode(jnp.array([[0, 5]]), space)
    np.testing.assert_array_equal(found, [[[1, 0, 1, 0, 0, -1], [0, 1, 0, 0, 1, 1]]])
    plain = actions.encode(jnp.array([2]), Space(3, ("a", "b", "c")))
    np.testing.assert_array_equal(plain, [[0, 0, 1]])


def test_the_policy_is_the_product_of_its_parts():
    every = jnp.broadcast_to(jnp.arange(12), (3, 12))
    found = np.exp(actions.log_prob(jnp.asarray(LOGITS), every, SIZES))
    np.testing.assert_allclose(found, [joint(row) for row in LOGITS], rtol=1e-5)


def test_the_likeliest_action_has_the_likeliest_option_of_each_part():
    wanted = [EVERY[joint(row).argmax()] for row in LOGITS]
    np.testing.assert_array_equal(actions.likeliest(jnp.asarray(LOGITS), SIZES), wanted)


def test_draws_follow_the_policy():
    drawn = np.asarray(actions.draw(jax.random.key(0), jnp.asarray(LOGITS), 40_000, SIZES))
    for row, found in zip(LOGITS, drawn, strict=True):
        share = np.bincount(found, minlength=12) / 40_000
        np.testing.assert_allclose(share, joint(row), atol=0.01)


def test_options_without_probability_are_never_drawn():
    least = np.finfo(np.float32).min
    logits = jnp.array([[least, 0.0, 1.0, least, least], [0.0, 0.0, least, least, 0.0]])
    drawn = np.asarray(actions.draw(jax.random.key(1), logits, 20_000, (5,)))
    assert [set(x) for x in drawn.tolist()] == [{1, 2}, {0, 1, 4}]


def test_the_loss_is_the_cross_entropy_of_the_joint_distribution():
    """Of all that a factored policy can learn the weights of options tell."""
    weights = np.random.default_rng(1).dirichlet(np.ones(12), 3).astype(np.float32)
    every = jnp.broadcast_to(jnp.arange(12), (3, 12))
    of_options = actions.weights_of_options(every, jnp.asarray(weights), SIZES)
    found = actions.policy_loss(SIZES, jnp.asarray(LOGITS), of_options)
    wanted = [-(w * np.log(joint(row))).sum() for w, row in zip(weights, LOGITS, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    table = weights.reshape(3, *SIZES)
    by_hand = [table.sum((2, 3)), table.sum((1, 3)), table.sum((1, 2))]
    np.testing.assert_allclose(of_options, np.concatenate(by_hand, axis=1), rtol=1e-5)


def squashed_density(y, mean, deviation):
    """Of tanh(x), x normal, by the change of variables."""
    return stats.norm.pdf(np.arctanh(y), mean, deviation) / (1 - y**2)


def deviation_of(width):
    """Plain Python's: a logistic curve from 0.05 to 4, which is 1 at 0."""
    share = 0.95 / 3.95
    return 0.05 + 3.95 / (1 + (1 / share - 1) * np.exp(-width))


def test_a_squashed_gaussian_has_its_density_summed_up_around_each_option():
    places = (-1.0, -0.6, -0.1, 0.0, 0.3, 0.9, 1.0)
    edges = [-1 + 1e-12, -0.8, -0.35, -0.05, 0.15, 0.6, 0.95, 1 - 1e-12]
    outputs = [(0.0, 0.0), (1.5, -1.0), (-0.7, -3.0), (2.5, 2.0)]
    found = np.exp(actions.gaussian_logits(jnp.array(outputs), places))
    for (first, width), row in zip(outputs, found, strict=True):
        mean, deviation = 6 * np.tanh(first / 6), deviation_of(width)
        masses = [
            integrate.quad(squashed_density, *ends, args=(mean, deviation), limit=500)[0]
            for ends in itertools.pairwise(edges)
        ]
        np.testing.assert_allclose(row, 0.99 * np.array(masses) + 0.01 / 7, atol=2e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    # Between fine options it is the log-probability of the squashed number itself.
    fine = tuple(np.linspace(-1, 1, 1001).tolist())
    row = actions.gaussian_logits(jnp.array([0.4, -1.0]), fine)
    mean = 6 * np.tanh(0.4 / 6)
    for option in (300, 700, 900):
        density = squashed_density(fine[option], mean, deviation_of(-1.0))
        wanted = np.log(0.99 * density * 0.002 + 0.01 / 1001)
        np.testing.assert_allclose(row[option], wanted, atol=2e-3)


def test_a_gaussian_far_outside_is_finite_and_pulled_back():
    outputs = jnp.array([[1e6, 1e6], [-1e6, -1e6], [40.0, -40.0], [0.0, -90.0]])
    for places in ((0.0,), (-1.0, 1.0), tuple(np.linspace(-1, 1, 501).tolist())):
        logits, grad = jax.vmap(
            jax.value_and_grad(lambda x, places=places: actions.gaussian_logits(x, places).sum())
        )(outputs)
        assert np.isfinite(logits).all() and np.isfinite(grad).all()
    toward = jax.grad(lambda x: actions.gaussian_logits(x, (-1.0, 0.0, 1.0))[0])
    assert toward(jnp.array([3.0, -1.0]))[0] < 0


def test_only_numbers_are_gaussian():
    space = Space(6, (), (Part(("a", "b")), Part(("-2", "0", "2"), (-1.0, 0.0, 1.0))))
    assert actions.head_sizes(space, "bins") == [2, 3]
    assert actions.head_sizes(space, "gaussian") == [2, 2]
    outputs = jnp.array([[0.5, -0.5, 1.0, 0.2]])
    found = actions.policy_logits(outputs, space, "gaussian")
    wanted = actions.gaussian_logits(outputs[:, 2:], (-1.0, 0.0, 1.0))
    np.testing.assert_array_equal(found, np.concatenate([outputs[:, :2], wanted], axis=1))
    assert actions.head_sizes(Space(3, ("a", "b", "c")), "gaussian") == [3]
