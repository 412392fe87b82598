"""Torsos over sequences: flax's own layers and loops as twins, what is masked, what is reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from smz_jax.config.check import ConfigError
from smz_jax.config.network import SEQUENCES
from smz_jax.model.networks import make_networks
from smz_jax.model.sequences import Lstm, Transformer
from smz_jax.model.torsos import FAMILIES
from tests.model.test_networks import make_config, make_spec, random_params

F, X = 5, 6
COUNTS = np.array([1, 2, 4, F])  # frames of the game in each of the batch's observations
REAL = np.arange(F) >= F - COUNTS[:, None]
INPUTS = np.random.default_rng(0).normal(size=(len(COUNTS), F, X)).astype(np.float32)
FRAMES = {"lstm": (3,), "transformer": (2, 2, 3)}  # of the others: images


def drawn(module, *inputs):
    """Random parameters, biases too, without compiling the initialiser."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)


def test_the_lstm_is_flaxs_own_over_the_frames_of_the_game():
    """With one layer; its forget gates have ln F more."""
    module = Lstm(1, jnp.dtype(jnp.float32))
    params = drawn(module, INPUTS, REAL)
    got = jax.jit(module.apply)({"params": params}, INPUTS, REAL)
    kernels = np.split(params["inputs_0"]["kernel"], 4, axis=-1)
    recurrent = np.split(params["recurrent_0"], 4, axis=-1)
    biases = np.split(params["inputs_0"]["bias"], 4)
    biases[1] = biases[1] + np.log(F)
    cell = {}
    for gate, kernel, back, bias in zip("ifgo", kernels, recurrent, biases, strict=True):
        cell |= {f"i{gate}": {"kernel": kernel}, f"h{gate}": {"kernel": back, "bias": bias}}
    for row, count in enumerate(COUNTS):
        rnn = nn.RNN(nn.OptimizedLSTMCell(X))
        wanted = rnn.apply({"params": {"cell": cell}}, INPUTS[row, F - count :])
        np.testing.assert_allclose(got[row, F - count :], np.asarray(wanted), atol=1e-5)


def test_the_transformer_attends_to_the_frames_of_the_game_up_to_each():
    """Query by query in NumPy; what comes later, or before the game, changes nothing at all."""
    module = Transformer(2, jnp.dtype(jnp.float32), heads=2)
    params = drawn(module, INPUTS, REAL)
    run = jax.jit(module.apply)
    got = np.asarray(run({"params": params}, INPUTS, REAL))

    def norm(name, x):
        p, x = params[name], x - x.mean(-1, keepdims=True)
        return x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def dense(p, x, axes):
        return np.tensordot(x, p["kernel"], axes) + p["bias"]

    def attended(p, x):
        query, key, value = (dense(p[name], x, 1) for name in ("query", "key", "value"))
        seen = np.zeros_like(query)  # [n, heads, X / heads]
        for at in range(len(x)):
            for head in range(query.shape[1]):
                scores = key[: at + 1, head] @ query[at, head] / np.sqrt(query.shape[2])
                weights = np.exp(scores - scores.max())
                seen[at, head] = weights / weights.sum() @ value[: at + 1, head]
        return dense(p["out"], seen, 2)

    for row, count in enumerate(COUNTS):
        x = INPUTS[row, F - count :] + params["places"][F - count :]
        for layer in range(2):
            attention = params[f"MultiHeadDotProductAttention_{layer}"]
            x = x + attended(attention, norm(f"LayerNorm_{2 * layer}", x))
            h = dense(params[f"Dense_{2 * layer}"], norm(f"LayerNorm_{2 * layer + 1}", x), 1)
            x = x + dense(params[f"Dense_{2 * layer + 1}"], np.asarray(nn.gelu(h)), 1)
        np.testing.assert_allclose(got[row, F - count :], norm("LayerNorm_4", x), atol=2e-4)
    later = INPUTS.copy()
    later[:, -1] *= -2  # not a shift, which the norms would take away
    changed = np.asarray(run({"params": params}, later, REAL))
    np.testing.assert_array_equal(changed[:, :-1][REAL[:, :-1]], got[:, :-1][REAL[:, :-1]])
    assert (changed[:, -1] != got[:, -1]).any(axis=-1).all()


@pytest.fixture(scope="module", params=SEQUENCES)
def built(request):
    """Networks of each family, and one program of all that is asked of it here."""
    frame_shape = FRAMES.get(request.param, (16, 12))
    layers = 2 if request.param in FRAMES else 1
    config = make_config(request.param, hidden_size=8, heads=2, layers=layers)
    numbers = {"is_marked": True, "frame_dtype": np.dtype(np.float32)}
    spec = make_spec(frame_shape, F)._replace(**numbers)
    networks = make_networks(config, spec)
    params = random_params(networks)

    @jax.jit
    def run(observation):
        def total(x):
            embedding = networks.representation(params, x)
            code = networks.encoder(params, x, jnp.zeros_like(embedding))
            return jnp.sum(jnp.sin(7 * embedding)) + jnp.sum(jnp.sin(code)), (embedding, code)

        gradient, found = jax.grad(total, has_aux=True)(observation)
        return gradient, found, networks.representation_train(params, observation)[1]

    frames = np.random.default_rng(3).uniform(size=(len(COUNTS), F, *frame_shape))
    mark = np.broadcast_to(COUNTS.reshape(-1, *[1] * (frames.ndim - 1)), frames[:, :1].shape)
    return run, np.concatenate([mark, frames], axis=1).astype(np.float32)


def test_only_frames_of_the_game_count_and_all_of_them(built):
    """What lies before, even NaN, changes no bit; the gradient reaches every other frame."""
    run, observation = built
    gradient, found, stats = run(observation)
    before = observation.copy()
    before[:, 1:][~REAL] = np.nan
    _, same, same_stats = run(before)
    jax.tree.map(np.testing.assert_array_equal, found, same)
    jax.tree.map(np.testing.assert_array_equal, stats, same_stats)
    assert all(np.isfinite(x).all() and np.std(x, axis=0).max() > 1e-4 for x in found)
    reached = np.abs(gradient[:, 1:]).reshape(*REAL.shape, -1).max(axis=-1)
    np.testing.assert_array_equal(reached > 0, REAL)
    # The number of frames counts, not only what they show.
    fewer = observation.copy()
    fewer[-1, 0] = F - 1
    assert (run(fewer)[1][0][-1] != found[0][-1]).any()


def test_statistics_are_updated_once_by_the_newest_frames(built):
    run, observation = built
    pixels = run(observation)[2]["pixel_norm"]
    assert pixels["count"] == 1
    np.testing.assert_allclose(pixels["mean"], observation[:, -1].mean(axis=0), atol=1e-6)


def test_wrong_observations_are_refused():
    assert set(SEQUENCES) < set(FAMILIES)
    marked = make_spec((5,), F)._replace(is_marked=True)
    with pytest.raises(ConfigError, match=r"light_lstm.* the observations of toy are vectors"):
        make_networks(make_config("light_lstm"), marked)
    for family, spec in (("mlp", marked), ("lstm", make_spec((5,), F))):
        with pytest.raises(ConfigError, match=r"env\.mark_start"):
            make_networks(make_config(family), spec)
