"""Each term by hand, the codes, and where every gradient goes and where it must not."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import LearnerConfig, LossConfig
from smz_jax.learning import losses
from smz_jax.learning import single_losses as single
from smz_jax.learning.losses import Batch, Unrolled
from smz_jax.model.networks import make_networks
from smz_jax.model.steps import Followed
from smz_jax.types import AfterstatePrediction, EnvSpec, Prediction, Space, UnrollTargets
from tests.model.test_networks import random_params

B, F, A, C, D = 4, 2, 3, 6, 8
VALUE_BINS, REWARD_BINS = 7, 5
SHAPE = (4, 4)
ENCODER = {"encoder_head", "encoder_torso"}
ROOT = {"representation_torso", "representation_norm"}


def make_config(steps, *, network=None, **loss):
    sizes = {
        "family": "mlp",
        "embedding_size": D,
        "hidden_size": 12,
        "codebook_size": C,
        "value_support": VALUE_BINS // 2,
        "reward_support": REWARD_BINS // 2,
        "decoder_size": 3,
    }
    return Config(
        env=EnvConfig(frame_stack=F),
        network=NetworkConfig(**(sizes | (network or {}))),
        learner=LearnerConfig(unroll_steps=steps),
        loss=LossConfig(**({"reconstruction": 0.7, "representation": 0.3, "contrast": 0.2} | loss)),
    )


SPEC = EnvSpec("toy", SHAPE, F, np.dtype(np.float32), Space(A, ("a", "b", "c")), 1)


def make_targets(steps, rng):
    draw = functools.partial(rng.normal, size=(B, steps + 1))
    policy = rng.dirichlet(np.ones(A), size=(B, steps + 1))
    value, reward = draw(), draw()[:, 1:]
    masks = np.ones((B, steps + 1)), np.ones((B, steps + 1)), np.ones((B, steps))
    targets = UnrollTargets(policy, value, reward, np.ones((B, steps)), *masks)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), targets)


def make_batch(steps, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        observations=jnp.asarray(rng.normal(size=(B, steps + 1, F, *SHAPE)), jnp.float32),
        actions=jnp.asarray(rng.integers(0, A, (B, steps)), jnp.int32),
        targets=make_targets(steps, rng),
        weights=jnp.ones(B, jnp.float32),
    )


# --- single terms by hand -------------------------------------------------------------------------


def test_single_terms_by_hand():
    logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.2]]))
    cross_entropy = -(0.25 * np.log(0.5) + 0.75 * np.log(0.2))
    probs = jnp.asarray([[0.25, 0.0, 0.75]])
    np.testing.assert_allclose(single.categorical_loss(logits, probs), [cross_entropy], rtol=1e-5)
    # h(0.5) = sqrt(1.5) - 1 + 0.0005 = 0.225245: that much on bin 1, the rest on bin 0.
    high = np.sqrt(1.5) - 1 + 0.0005
    expected = -(high * np.log(0.2) + (1 - high) * np.log(0.3))
    got = single.scalar_loss(logits, jnp.asarray([0.5]))
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    code = jnp.asarray([[0.0, 0.0, 1.0]])
    np.testing.assert_allclose(single.categorical_loss(logits, code), [-np.log(0.2)], rtol=1e-5)
    q = jnp.asarray([[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(single.commitment_loss(q, code), [0.25 + 0.09 + 0.64], rtol=1e-5)
    told = -(0.5 * np.log(0.25) + 0.3 * np.log(0.25) + 0.2 * np.log(0.5))
    sigma = jnp.log(jnp.asarray([[1.0, 1.0, 2.0]]))
    np.testing.assert_allclose(single.representation_loss(q, sigma), [told], rtol=1e-5)
    cosine = single.consistency_loss(jnp.asarray([[3.0, 4.0]]), jnp.asarray([[2.0, 0.0]]))
    np.testing.assert_allclose(cosine, [-0.6], rtol=1e-5)
    error = single.reconstruction_loss(jnp.asarray([[1.0, 2.0]]), jnp.asarray([[0.0, 4.0]]))
    np.testing.assert_allclose(error, [2.5], rtol=1e-6)
    # Mean code over the two masked-in rows: (0.5, 0.5).
    codes = jnp.asarray([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    mask = jnp.asarray([[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(single.code_entropy(codes, mask), np.log(2), rtol=1e-5)


def test_the_value_alone_learns_its_own_code():
    """Bins of 0.5, 2 and a margin of 3 on each side; a target of h(x) = 0.5 is bin 7 of 11."""
    network = NetworkConfig(
        value_support=1, value_width=0.5, value_code="hl_gauss", value_transform="none"
    )
    assert network.value_bins == 5
    given = [0.02, 0.02, 0.02, 0.1, 0.1, 0.2, 0.4, 0.1, 0.02, 0.01, 0.01]
    # Phi(2/3), Phi(2), Phi(10/3) and Phi(14/3): 0.74751, 0.97725, 0.99957, 1.
    mass = np.array([0, 0, 0, 0.00043, 0.02232, 0.22974, 0.49502, 0.22974, 0.02232, 0.00043, 0])
    x = SimpleNamespace(config=SimpleNamespace(network=network))
    got = losses.value_loss(x, jnp.log(jnp.asarray([[given]])), jnp.asarray([[0.5]]))
    np.testing.assert_allclose(got, [[-(mass @ np.log(given)) / mass.sum()]], rtol=1e-4)


def test_contrast_finds_an_end_among_other_times_and_other_windows():
    rng = np.random.default_rng(0)
    foreseen = rng.normal(size=(3, 4, 5)).astype(np.float32)
    seen = rng.normal(size=(4, 4, 5)).astype(np.float32)  # of the root, and after each step
    expected = np.zeros((3, 4))
    for step, row in np.ndindex(3, 4):
        rivals = [seen[other, row] for other in range(4)]
        rivals += [seen[step + 1, other] for other in range(4) if other != row]
        cosines = [x @ foreseen[step, row] / np.linalg.norm(x) for x in rivals]
        odds = np.exp(np.array(cosines) / np.linalg.norm(foreseen[step, row]) / 0.07)
        expected[step, row] = -np.log(odds[step + 1] / odds.sum())
    got = single.contrast_loss(jnp.asarray(foreseen), jnp.asarray(seen))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    # One step, two windows, ends at right angles to each other and to the roots: cosines 1 and 0.
    ends = jnp.eye(3)[None, :2]
    roots = jnp.eye(3)[None, [2, 2]]
    np.testing.assert_allclose(
        single.contrast_loss(ends, jnp.concatenate([roots, ends])),
        [[np.log1p(2 * np.exp(-1 / 0.07))] * 2],
        atol=1e-6,
    )


def test_targets_of_single_terms_get_no_gradient():
    key = jax.random.key(0)
    one, two = jax.random.normal(key, (2, B, C))
    for term in (
        single.categorical_loss,
        single.consistency_loss,
        single.reconstruction_loss,
    ):
        first, second = jax.grad(lambda x, y, f=term: f(x, y).sum(), (0, 1))(one, two)
        assert float(jnp.abs(first).max()) > 1e-3, term.__name__
        np.testing.assert_array_equal(second, 0.0)
    # Commitment: through q only, and there 2 (q - c).
    q, c = jax.nn.softmax(one), jax.nn.one_hot(jnp.arange(B), C)
    to_q, to_c = jax.grad(lambda x, y: single.commitment_loss(x, y).sum(), (0, 1))(q, c)
    np.testing.assert_allclose(to_q, 2 * (q - c), rtol=1e-5)
    np.testing.assert_array_equal(to_c, 0.0)
    # The chance prior learns nothing from it; q is to be where sigma is.
    to_q, to_sigma = jax.grad(lambda x, y: single.representation_loss(x, y).sum(), (0, 1))(q, two)
    np.testing.assert_allclose(to_q, -jax.nn.log_softmax(two), rtol=1e-5)
    np.testing.assert_array_equal(to_sigma, 0.0)


# --- the code -------------------------------------------------------------------------------------


@pytest.mark.parametrize("uniform", [0.0, 0.1])
def test_code_is_exactly_one_hot_forward_and_softmax_backward(uniform):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(B, C)), jnp.float32)
    pull = jnp.asarray(rng.normal(size=(B, C)), jnp.float32)
    make = functools.partial(losses.straight_through_code, noise=jnp.float32(1), uniform=uniform)
    probs, code = jax.jit(make)(jax.random.key(0), logits)
    assert set(np.unique(code)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.sum(code, axis=-1), 1.0)
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probs, (1 - uniform) * soft + uniform / C, rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(make(jax.random.key(0), x)[1] * pull))(logits)
    inner = np.sum(soft * np.asarray(pull), -1, keepdims=True)
    np.testing.assert_allclose(gradient, (1 - uniform) * soft * (pull - inner), atol=1e-5)


def test_noise_draws_from_q_and_none_is_the_arg_max():
    logits = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    many = jnp.broadcast_to(logits, (20_000, 3))
    make = jax.jit(functools.partial(losses.straight_through_code, uniform=0.0))
    _, code = make(jax.random.key(1), many, noise=jnp.float32(1))
    np.testing.assert_allclose(np.mean(code, axis=0), [0.6, 0.3, 0.1], atol=0.015)
    for seed in range(3):
        _, code = make(jax.random.key(seed), many, noise=jnp.float32(0))
        np.testing.assert_array_equal(np.mean(code, axis=0), [1.0, 0.0, 0.0])


def test_scale_gradient():
    value, gradient = jax.value_and_grad(lambda x: losses.scale_gradient(x, 0.5) ** 2)(3.0)
    assert (float(value), float(gradient)) == (9.0, 3.0)


# --- all terms of a window against a NumPy twin ---------------------------------------------------


def np_cross_entropy(logits, probs):
    logits = np.asarray(logits, np.float64)
    return -np.sum(probs * (logits - np.log(np.exp(logits).sum())))


def np_two_hot(x, bins):
    y = np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 0.001 * x
    return np.maximum(0, 1 - np.abs(y - np.arange(-(bins // 2), bins // 2 + 1)))


def make_unrolled(steps, rng):
    def draw(time, *shape):
        return jnp.asarray(rng.normal(size=(time, B, *shape)), jnp.float32)

    return Unrolled(
        embeddings=draw(steps + 1, D),
        predictions=Prediction(draw(steps + 1, A), draw(steps + 1, VALUE_BINS)),
        judged=AfterstatePrediction(draw(steps, C), draw(steps, VALUE_BINS)),
        followed=Followed(
            afterstates=draw(steps, D),
            states=draw(steps, D),
            reward_logits=draw(steps, REWARD_BINS),
            code_probs=jax.nn.softmax(draw(steps, C)),
            codes=jax.nn.one_hot(rng.integers(0, C, (steps, B)), C),
        ),
        after_embeddings=draw(steps, D),
        batch_stats={},
    )


def twin_terms(u, targets, steps):
    """Every term of each sample, one sum at a time, in float64."""
    t = jax.tree.map(lambda x: np.asarray(x, np.float64), targets)
    out = {}
    for b in range(B):
        names = "policy", "value", "reward", "afterstate_value", "chance", "commitment"
        sums = dict.fromkeys((*names, "representation"), 0.0)
        for k in range(steps + 1):
            weight = 1.0 if k == 0 else 1.0 / steps
            policy = np_cross_entropy(u.predictions.policy_logits[k, b], t.policy[b, k])
            value = np_cross_entropy(
                u.predictions.value_logits[k, b], np_two_hot(t.value[b, k], VALUE_BINS)
            )
            sums["policy"] += weight * t.policy_mask[b, k] * policy
            sums["value"] += weight * t.value_mask[b, k] * value
        for k in range(steps):
            reward_probs = np_two_hot(t.reward[b, k], REWARD_BINS)
            reward = np_cross_entropy(u.followed.reward_logits[k, b], reward_probs)
            sums["reward"] += t.value_mask[b, k + 1] * reward / steps
            # The afterstate of action k is a Q of state k: the target of row k, not of k + 1.
            of_state = np_two_hot(t.value[b, k], VALUE_BINS)
            q_value = np_cross_entropy(u.judged.value_logits[k, b], of_state)
            known = t.value_mask[b, k] * t.value_mask[b, k + 1]
            sums["afterstate_value"] += known * q_value / steps
            real = t.transition_mask[b, k] / steps
            code = np.asarray(u.followed.codes[k, b], np.float64)
            sums["chance"] += real * np_cross_entropy(u.judged.chance_logits[k, b], code)
            distance = np.sum((code - np.asarray(u.followed.code_probs[k, b], np.float64)) ** 2)
            sums["commitment"] += real * distance
            probs = np.asarray(u.followed.code_probs[k, b], np.float64)
            sums["representation"] += real * np_cross_entropy(u.judged.chance_logits[k, b], probs)
        for name, value in sums.items():
            out.setdefault(name, []).append(value)
    return out


def test_every_term_of_a_window_equals_the_numpy_twin():
    """Row 0 goes on; 1 terminates at step 1; 2 is truncated at step 2; 3 starts at an end."""
    steps = 3
    rng = np.random.default_rng(3)
    targets = make_targets(steps, rng)._replace(
        value_mask=jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]], "f4"),
        policy_mask=jnp.asarray([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], "f4"),
        transition_mask=jnp.asarray([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], "f4"),
    )
    config = make_config(steps, consistency=0.0, contrast=0.0, reconstruction=0.0)
    u = make_unrolled(steps, rng)
    batch = make_batch(steps)._replace(targets=targets)
    networks: losses.Networks = SimpleNamespace(continuation=None, parts=())  # type: ignore[assignment]
    got = losses.loss_terms(networks, {}, u, batch, config)
    expected = twin_terms(u, targets, steps)
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
        assert values[3] == 0.0 and values[0] > 0.0
    # Past a termination a value and a reward of 0 are facts, and count.
    assert expected["value"][1] > np_cross_entropy(
        u.predictions.value_logits[0, 1], np_two_hot(float(targets.value[1, 0]), VALUE_BINS)
    )


# --- the unroll -----------------------------------------------------------------------------------


def test_the_encoder_is_fed_the_observation_after_the_step():
    config = make_config(2, network={"encoder_sees_afterstate": False}, consistency=0.0)
    networks = make_networks(config.network, SPEC)
    params = random_params(networks)

    @jax.jit
    def run(batch):
        u = losses.unroll_model(networks, params, jax.random.key(0), batch, config, jnp.float32(0))
        return u.followed.code_probs, u.followed.afterstates, u.embeddings

    batch = make_batch(2)
    before = run(batch)
    for changed in range(3):
        x = batch.observations.at[:, changed, -1].add(1.0)
        probs, afterstates, embeddings = run(batch._replace(observations=x))
        for k in range(2):
            same = bool((probs[k] == before[0][k]).all())
            assert same == (changed != k + 1), f"frame {changed}, code of step {k}"
        assert bool((afterstates[0] == before[1][0]).all()) == (changed != 0)
        assert bool((embeddings[0] == before[2][0]).all()) == (changed != 0)


def test_half_gradient_at_each_unrolled_step_and_actions_in_order():
    """A model of one number: s' = 2 (s + a) + code . (1, 2, 3); its gradients are known."""

    def scalar_prediction(params, x):
        return x, x

    networks = SimpleNamespace(
        continuation=None,
        encoder_input="frames",
        representation=lambda p, o: o[:, -1],
        representation_train=lambda p, o: (o[:, -1] * p, "stats"),
        prediction=scalar_prediction,
        afterstate_prediction=scalar_prediction,
        afterstate_dynamics=lambda p, s, a: s + a[:, None],
        encoder=lambda p, o, s: jax.nn.one_hot(jnp.argmax(o[:, -1], -1), 3) * 9.0,
        dynamics=lambda p, s, c: (2 * s + c @ jnp.asarray([[1.0], [2.0], [3.0]]), s),
    )
    config = make_config(2, network={"encoder_uniform": 0.0}, consistency=0.0)
    frames = jnp.zeros((1, 3, F, 1)).at[0, 0, -1, 0].set(5.0)
    actions = jnp.asarray([[1, 2]])

    def embeddings(p):
        batch = Batch(frames, actions, make_targets(2, np.random.default_rng(0)), jnp.ones(1))
        u = losses.unroll_model(networks, p, jax.random.key(0), batch, config, jnp.float32(0))
        return u.embeddings[:, 0, 0], u

    values, u = embeddings(1.0)
    # 5; 2 (5 + 1) + 1 = 13; 2 (13 + 2) + 1 = 31
    np.testing.assert_allclose(values, [5.0, 13.0, 31.0], rtol=1e-6)
    np.testing.assert_allclose(u.followed.afterstates[:, 0, 0], [6.0, 15.0], rtol=1e-6)
    assert u.batch_stats == "stats"
    # Whole into the first step, halved before the second: 5 (2), 5 (2) (1/2) (2).
    slopes = jax.jacobian(lambda p: embeddings(p)[0])(1.0)
    np.testing.assert_allclose(slopes, [5.0, 10.0, 10.0], rtol=1e-6)


# --- gradients ------------------------------------------------------------------------------------

# Which groups of parameters each term trains when it is alone, with one unrolled step. With more,
# an earlier code also reaches what hangs on the later afterstates.
PATH = ROOT | ENCODER | {"afterstate_transition", "dynamics_transition"}
GRADIENT_TABLE = {
    "policy": PATH | {"prediction_head"},
    "value": PATH | {"prediction_head"},
    "reward": PATH | {"reward_head"},
    "afterstate_value": ROOT | {"afterstate_transition", "afterstate_head"},
    "chance": ROOT | {"afterstate_transition", "afterstate_head"},
    "commitment": ENCODER,
    "representation": ENCODER,
    "code_entropy": ENCODER,
    "consistency": PATH | {"projector"},
    "contrast": PATH | {"projector"},
    "reconstruction": PATH | {"state_decoder", "afterstate_decoder"},
}


@pytest.fixture(scope="module")
def one_step():
    """Terms, their Jacobians in the parameters and in a copy that only targets use."""
    config = make_config(1)
    networks = make_networks(config.network, SPEC)
    params = random_params(networks)

    def terms(trainable, target_only, batch):
        def shadow(p):
            return {**p, "params": target_only}

        apart = networks._replace(
            representation=lambda p, x: networks.representation(shadow(p), x),
            project=lambda p, x, predict: networks.project(p if predict else shadow(p), x, predict),
        )
        p = {"params": trainable, "batch_stats": params["batch_stats"]}
        u = losses.unroll_model(apart, p, jax.random.key(0), batch, config, jnp.float32(0))
        per_sample = losses.loss_terms(apart, p, u, batch, config)
        entropy = single.code_entropy(u.followed.code_probs, batch.targets.transition_mask.T)
        means = {name: x.mean() for name, x in per_sample.items()} | {"code_entropy": entropy}
        return means, per_sample

    batch = make_batch(1)
    jacobians = jax.jit(jax.jacrev(terms, (0, 1), has_aux=True))
    pairs, per_sample = jacobians(params["params"], params["params"], batch)
    trained = {term: pair[0] for term, pair in pairs.items()}
    target_only = {term: pair[1] for term, pair in pairs.items()}
    return config, networks, params, batch, trained, target_only, per_sample


def norms(gradient):
    return {
        group: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(leaves))
        for group, leaves in gradient.items()
    }


@pytest.mark.parametrize("term", GRADIENT_TABLE)
def test_each_term_trains_exactly_these_groups(one_step, term):
    """The one-hot code, not its index, enters g: so reward, value and policy train the encoder."""
    sizes = norms(one_step[4][term])
    assert {group for group, size in sizes.items() if size > 0} == GRADIENT_TABLE[term]
    assert min(size for size in sizes.values() if size > 0) > 1e-7


def test_the_table_names_every_term_and_every_group(one_step):
    params = one_step[2]
    assert set(one_step[4]) == set(GRADIENT_TABLE)
    assert set.union(*GRADIENT_TABLE.values()) == set(params["params"])


def test_targets_train_nothing(one_step):
    """Real embeddings are constants, and so is their projection, but to the contrast."""
    for term, gradient in one_step[5].items():
        learned = {group for group, size in norms(gradient).items() if size > 0}
        assert learned == ({"projector"} if term == "contrast" else set()), term


def test_total_is_the_weighted_sum_and_importance_weights_scale_each_sample(one_step):
    config, networks, params, batch, trained, targets, per_sample = one_step
    scale = 0.3
    loss = jax.jit(
        lambda trainable, batch: losses.unrolled_loss(
            trainable,
            params["batch_stats"],
            networks,
            jax.random.key(0),
            batch,
            config,
            noise=jnp.float32(0),
            scales={"commitment": jnp.float32(scale)},
        ),
    )
    gradient = jax.jit(jax.grad(lambda *x: loss(*x)[0]))(params["params"], batch)
    factors = {name: getattr(config.loss, name) for name in GRADIENT_TABLE}
    factors["commitment"] *= scale
    factors["code_entropy"] *= -1
    expected = jax.tree.map(
        lambda *x: sum(f * y for f, y in zip(factors.values(), x, strict=True)),
        *[jax.tree.map(jnp.add, trained[name], targets[name]) for name in factors],
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, expected
    )
    weights = jnp.asarray([1.0, 0.5, 0.0, 0.25])
    total, (metrics, _, unrolled) = loss(params["params"], batch._replace(weights=weights))
    samples = sum(factors[name] * np.asarray(x) for name, x in per_sample.items())
    entropy = float(metrics["loss/code_entropy"])
    mean_code = np.mean(np.asarray(unrolled.followed.code_probs, np.float64), axis=(0, 1))
    np.testing.assert_allclose(entropy, -np.sum(mean_code * np.log(mean_code)), rtol=1e-4)
    wanted = np.mean(samples * np.asarray(weights)) - config.loss.code_entropy * entropy
    np.testing.assert_allclose(total, wanted, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss/total"], total)
    for name, values in per_sample.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], np.mean(values), rtol=1e-4)
