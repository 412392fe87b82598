"""The model's shapes, ranges, inputs, normalisation statistics and patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.network import NetworkConfig
from smz_jax.model.heads import Heads
from smz_jax.model.layers import SCALES, PixelNorm, ResidualLines, highest, min_max_scale
from smz_jax.model.networks import make_networks
from smz_jax.model.torsos import FAMILIES, patches
from smz_jax.types import EnvSpec, Space

B, F, A, C = 4, 2, 3, 6  # no two sizes of this file agree, so that no axis passes for another
VALUE_BINS, REWARD_BINS = 9, 5
FRAMES = {"light": (12, 12), "mlp": (13,), "board": (5, 7, 2), "resnet": (48, 48)}
EMBEDDING = {"light": (10,), "mlp": (10,), "board": (5, 7, 10), "resnet": (3, 3, 10)}


def make_config(family, **overrides):
    sizes = {
        "embedding_size": 10,
        "hidden_size": 14,
        "torso_channels": 4,
        "codebook_size": C,
        "value_support": VALUE_BINS // 2,
        "reward_support": REWARD_BINS // 2,
    }
    return NetworkConfig(family=family, **(sizes | overrides))


def make_spec(frame_shape, stack=F, dtype=np.uint8):
    return EnvSpec("toy", frame_shape, stack, np.dtype(dtype), Space(A, ("a", "b", "c")), 1)


def random_params(networks, seed=0):
    """Random parameters, far from the start (heads begin at almost 0, which would hide what they
    depend on) and without compiling the initialiser; statistics as at the start."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        if path[0].key == "batch_stats":
            return jnp.full(x.shape, float(name in ("var", "square")), x.dtype)
        fan_in = np.prod(x.shape[:-1]) if name == "kernel" else 9.0
        return jnp.asarray(rng.normal(float(name == "scale"), fan_in**-0.5, x.shape), x.dtype)

    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def call_all(networks, params, observation, action):
    """Every public function once."""
    embedding = networks.representation(params, observation)
    trained, stats = networks.representation_train(params, observation)
    policy, value = networks.prediction(params, embedding)
    afterstate = networks.afterstate_dynamics(params, embedding, action)
    chance, afterstate_value = networks.afterstate_prediction(params, afterstate)
    code = networks.encoder(params, observation, afterstate)
    following, reward = networks.dynamics(params, afterstate, jax.nn.softmax(code))
    return {
        "embedding": embedding,
        "trained": trained,
        "policy": policy,
        "value": value,
        "afterstate": afterstate,
        "chance": chance,
        "afterstate_value": afterstate_value,
        "code": code,
        "following": following,
        "reward": reward,
        "projection": networks.project(params, embedding, True),
        "scalar_value": networks.value_of(value),
        "scalar_reward": networks.reward_of(reward),
    }, stats


@pytest.fixture(scope="module", params=["light", "mlp", "resnet"])
def built(request):
    family = request.param
    networks = make_networks(make_config(family), make_spec(FRAMES[family]))
    params = random_params(networks)
    rng = np.random.default_rng(1)
    observation = jnp.asarray(rng.integers(0, 256, (B, F, *FRAMES[family])), jnp.uint8)
    run = jax.jit(lambda p, o, a: call_all(networks, p, o, a))
    return family, networks, params, observation, run


def test_shapes_and_ranges(built):
    family, _, params, observation, run = built
    outputs, _ = run(params, observation, jnp.arange(B) % A)
    flat = EMBEDDING[family]
    expected = {
        "policy": (A,),
        "value": (VALUE_BINS,),
        "afterstate_value": (VALUE_BINS,),
        "chance": (C,),
        "code": (C,),
        "reward": (REWARD_BINS,),
        "projection": (14,),
        "scalar_value": (),
        "scalar_reward": (),
    } | dict.fromkeys(("embedding", "trained", "afterstate", "following"), flat)
    assert {k: v.shape for k, v in outputs.items()} == {k: (B, *v) for k, v in expected.items()}
    for name in ("embedding", "trained", "afterstate", "following"):
        per_sample = np.asarray(outputs[name]).reshape(B, -1)
        np.testing.assert_array_equal(per_sample.min(axis=1), 0.0)
        np.testing.assert_allclose(per_sample.max(axis=1), 1.0, atol=1e-6)
        assert per_sample.std(axis=0).max() > 1e-3, f"{name} does not depend on its input"


def test_the_action_enters_as_a_one_hot(built):
    """Renaming the actions and permuting the weights they meet must cancel exactly."""
    family, _, params, observation, run = built
    actions = [jnp.full(B, a, jnp.int32) for a in range(A)]
    afterstates = [np.asarray(run(params, observation, a)[0]["afterstate"]) for a in actions]
    for a in range(A):
        assert np.abs(afterstates[a] - afterstates[a - 1]).max() > 1e-3
    module, layer = ("Conv_0",), "kernel"
    if family != "resnet":
        module = ("ResidualMlp_0", "Dense_0")
    permutation = np.array([2, 0, 1])
    renamed = jax.tree.map(lambda x: x, params)
    weights = renamed["params"]["afterstate_transition"]
    for name in module:
        weights = weights[name]
    kernel = weights[layer]  # inputs are its last axis but one, the action's last among them
    weights[layer] = jnp.concatenate(
        [kernel[..., :-A, :], kernel[..., -A:, :][..., permutation, :]], axis=-2
    )
    for a in range(A):
        got = run(renamed, observation, actions[a])[0]["afterstate"]
        np.testing.assert_allclose(got, afterstates[permutation[a]], atol=1e-5)


def test_only_training_uses_and_updates_the_statistics(built):
    """In search an embedding must not depend on the other lanes; in training it does."""
    _, _, params, observation, run = built
    other = observation.at[1:].set(255 - observation[1:])
    actions = jnp.zeros(B, jnp.int32)
    one, stats = run(params, observation, actions)
    two, _ = run(params, other, actions)
    np.testing.assert_allclose(one["embedding"][0], two["embedding"][0], atol=1e-6)
    assert np.abs(np.asarray(one["trained"][0] - two["trained"][0])).max() > 1e-3
    assert jax.tree.structure(stats) == jax.tree.structure(params["batch_stats"])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), stats, params["batch_stats"])
    assert min(jax.tree.leaves(moved)) > 1e-4, moved


def test_atari_shapes_without_computing():
    for family, expected in {"light": (256,), "resnet": (6, 6, 64)}.items():
        size = 64 if family == "resnet" else 256
        networks = make_networks(
            NetworkConfig(family=family, embedding_size=size), make_spec((84, 84), stack=4)
        )
        params = jax.eval_shape(networks.init, jax.random.key(0))
        observation = jax.ShapeDtypeStruct((B, 4, 84, 84), jnp.uint8)
        action = jax.ShapeDtypeStruct((B,), jnp.int32)
        outputs, _ = jax.eval_shape(
            lambda p, o, a, n=networks: call_all(n, p, o, a), params, observation, action
        )
        for name in ("embedding", "afterstate", "following"):
            assert outputs[name].shape == (B, *expected)
        assert outputs["value"].shape == (B, 601)
        assert outputs["chance"].shape == outputs["code"].shape == (B, 32)


@pytest.mark.parametrize("family", ["light", "mlp", "resnet"])
def test_bfloat16_computes_in_it_but_keeps_float32_params_and_heads(family):
    networks = make_networks(make_config(family, bfloat16=True), make_spec(FRAMES[family]))
    params = jax.eval_shape(networks.init, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    observation = jax.ShapeDtypeStruct((B, F, *FRAMES[family]), jnp.uint8)
    action = jax.ShapeDtypeStruct((B,), jnp.int32)
    outputs, stats = jax.eval_shape(
        lambda p, o, a: call_all(networks, p, o, a), params, observation, action
    )
    states = {"embedding", "trained", "afterstate", "following"}
    assert {outputs[name].dtype for name in states} == {jnp.dtype(jnp.bfloat16)}
    heads = {k: v.dtype for k, v in outputs.items() if k not in states}
    assert set(heads.values()) == {np.dtype(np.float32)}, heads
    assert {x.dtype for x in jax.tree.leaves(stats)} == {np.dtype(np.float32)}


def test_heads_start_near_uniform():
    head = Heads(14, (A, VALUE_BINS), jnp.float32)
    params = jax.jit(head.init)(jax.random.key(0), jnp.ones((1, 10)))
    policy, value = head.apply(params, jnp.asarray(np.random.default_rng(0).normal(size=(B, 10))))
    np.testing.assert_allclose(jax.nn.softmax(policy), 1 / A, atol=0.02)
    np.testing.assert_allclose(jax.nn.softmax(value), 1 / VALUE_BINS, atol=0.02)


def test_scalars_follow_the_logits():
    networks = make_networks(make_config("mlp"), make_spec((13,)))
    logits = jnp.full((2, VALUE_BINS), -60.0).at[0, 6].set(60.0).at[1, 4].set(60.0)
    # Bin 6 of -4..4 stands for h(x) = 2: sqrt(x + 1) - 1 + 0.001 x = 2 gives x = 7.95235.
    np.testing.assert_allclose(networks.value_of(logits), [7.95235, 0.0], rtol=1e-4, atol=1e-6)


def test_values_may_be_classes():
    """A half of a win and a half of a draw is a half; hyperbolic it would be h^-1(1/2) = 1.2486."""
    networks = make_networks(make_config("mlp", value_transform="none"), make_spec((13,)))
    logits = jnp.full((VALUE_BINS,), -60.0).at[jnp.array([4, 5])].set(60.0)
    np.testing.assert_allclose(networks.value_of(logits), 0.5, rtol=1e-6)


def test_values_may_have_narrow_bins():
    """Of 17 bins 0.5 wide bin 12 stands for h(x) = 2, as bin 6 of 9 does above."""
    networks = make_networks(make_config("mlp", value_width=0.5), make_spec((13,)))
    judged = networks.prediction(random_params(networks), jnp.ones((1, 10)))
    assert judged.value_logits.shape == (1, 17)
    logits = jnp.full((17,), -60.0).at[12].set(60.0)
    np.testing.assert_allclose(networks.value_of(logits), 7.95235, rtol=1e-4)


def test_frame_targets_are_standardised_and_averaged():
    config = make_config("light", decoder_size=3)
    networks = make_networks(config, make_spec((12, 12)))
    params = random_params(networks)
    stats = {"mean": jnp.full((12, 12), 0.5), "square": jnp.full((12, 12), 0.26), "count": 9.0}
    params = {**params, "batch_stats": {**params["batch_stats"], "pixel_norm": stats}}
    frame = np.full((1, 12, 12), 51, np.uint8)  # 0.2; the deviation is sqrt(0.01 + 1e-4)
    got = networks.frame_target(params, jnp.asarray(frame), jnp.zeros_like(frame))
    np.testing.assert_allclose(got, np.full((1, 9), -0.3 / np.sqrt(0.0101)), rtol=1e-4)


def test_frame_differences_are_measured_by_one_deviation():
    config = make_config("mlp", decoder_size=4, decoder_target="difference")
    networks = make_networks(config, make_spec((4, 4)))
    params = random_params(networks)
    # Variances 0.01 and 0.03 in the halves, 1e-4 added: 0.0201 on average.
    square = jnp.full((4, 4), 0.26).at[2:].set(0.28)
    stats = {"mean": jnp.full((4, 4), 0.5), "square": square, "count": 9.0}
    params = {**params, "batch_stats": {**params["batch_stats"], "pixel_norm": stats}}
    frame, before = np.full((1, 4, 4), 51, np.uint8), np.full((1, 4, 4), 51, np.uint8)
    before[0, 3, 1], frame[0, 0, 2] = 255, 0
    expected = np.zeros(16)
    expected[13], expected[2] = -0.8 / np.sqrt(0.0201), -0.2 / np.sqrt(0.0201)
    got = networks.frame_target(params, jnp.asarray(frame), jnp.asarray(before))
    np.testing.assert_allclose(got, expected[None], rtol=1e-4, atol=1e-6)


def test_large_and_small_changes_have_half_of_the_weight_each():
    config = make_config("mlp", decoder_size=2, decoder_target="balanced_difference")
    networks = make_networks(config, make_spec((4, 4)))
    params = random_params(networks)
    rng = np.random.default_rng(0)
    stacks = rng.integers(0, 256, (3, B, F, 4, 4)).astype(np.uint8)
    train = jax.jit(networks.representation_train)
    for stack in stacks:
        params = {**params, "batch_stats": train(params, jnp.asarray(stack))[1]}
    newest, before = stacks[:, :, -1] / 255.0, stacks[:, :, -2] / 255.0

    def half(x):  # antialiased: each of the four pixels at a corner, and its neighbours
        rows = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7.0
        return np.einsum("ai,bj,...ij->...ab", rows, rows, x).reshape(*x.shape[:-2], 4)

    square = (half(newest - before).reshape(-1, 4) ** 2).mean(axis=0)
    own = 1 / (square + 0.03 * square.mean())
    large, small = np.full(4, 1 / square.mean()), own / (square * own).mean()
    np.testing.assert_allclose([(square * x).mean() for x in (large, small)], 1.0)
    expected = half(newest[1] - before[1]) * np.sqrt((large + small) / 2)
    got = networks.frame_target(params, jnp.asarray(stacks[1, :, -1]), stacks[1, :, -2])
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_vectors_are_predicted_whole():
    config = make_config("mlp", decoder_size=1)
    networks = make_networks(config, make_spec((13,)))
    params = random_params(networks)
    stats = {"mean": jnp.arange(13.0), "square": jnp.arange(13.0) ** 2 + 4, "count": 9.0}
    params = {**params, "batch_stats": {**params["batch_stats"], "pixel_norm": stats}}
    frame = np.arange(13.0, dtype=np.float32)[None] + 1
    got = networks.frame_target(params, jnp.asarray(frame), jnp.zeros_like(frame))
    np.testing.assert_allclose(got, np.full((1, 13), 0.5), rtol=1e-4)
    state = networks.representation(params, jnp.zeros((2, F, 13), jnp.float32))
    assert [x.shape for x in networks.decode(params, state, state)] == [(2, 13), (2, 13)]


def test_pixel_norm_running_statistics_are_those_of_the_newest_frames():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, B, F, 4, 3)).astype(np.uint8)
    norm = PixelNorm((4, 3))
    variables = norm.init(jax.random.key(0), jnp.asarray(frames[0]), False)
    train = jax.jit(lambda v, x: norm.apply(v, x, True, mutable=["batch_stats"]))
    for batch in frames:
        output, variables = train(variables, jnp.asarray(batch))
    newest = frames[:, :, -1].reshape(-1, 4, 3) / 255.0
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], newest.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(stats["square"]) - np.asarray(stats["mean"]) ** 2, newest.var(axis=0), atol=1e-5
    )
    expected = (frames[-1] / 255.0 - newest.mean(axis=0)) / np.sqrt(newest.var(axis=0) + 1e-4)
    np.testing.assert_allclose(output, np.clip(expected, -5, 5), atol=1e-3)
    # Inference: the same numbers, and nothing to update even where it would be allowed.
    frozen, after = norm.apply(variables, jnp.asarray(frames[-1]), False, mutable=["batch_stats"])
    np.testing.assert_allclose(frozen, output, atol=1e-6)
    for name in stats:
        np.testing.assert_array_equal(after["batch_stats"][name], stats[name])
    # Later the average forgets, a hundredth per update.
    late = {"batch_stats": {**stats, "count": jnp.float32(500)}}
    _, later = train(late, jnp.full((B, F, 4, 3), 255, jnp.uint8))
    np.testing.assert_allclose(
        later["batch_stats"]["mean"], 0.99 * np.asarray(stats["mean"]) + 0.01, atol=1e-5
    )


def test_pixel_norm_clips_and_can_be_off():
    x = jnp.asarray([[[9.0, -9.0]]])
    enabled = PixelNorm((2,))
    variables = enabled.init(jax.random.key(0), x, False)
    np.testing.assert_array_equal(enabled.apply(variables, x, False), [[[5.0, -5.0]]])
    np.testing.assert_array_equal(PixelNorm((2,), enabled=False).apply({}, x, True), x)


def test_batch_norm_momentum():
    config = make_config("mlp", input_norm=False)
    networks = make_networks(config, make_spec((13,), dtype=np.float32))
    params = random_params(networks)
    observation = jnp.asarray(np.random.default_rng(0).normal(size=(B, F, 13)), jnp.float32)
    _, stats = jax.jit(networks.representation_train)(params, observation)
    torso = FAMILIES[config.family].torso(config, 10, jnp.dtype(jnp.float32), False)
    raw = torso.apply({"params": params["params"]["representation_torso"]}, observation)
    (norm,) = stats["representation_norm"].values()
    np.testing.assert_allclose(norm["mean"], 0.05 * np.mean(raw, axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm["var"], 0.95 + 0.05 * np.var(raw, axis=0), rtol=1e-3)


def test_the_gradient_of_the_highest_is_shared_by_ties():
    x = jnp.asarray([[2.0, 4.0, 4.0], [7.0, 1.0, 3.0], [5.0, 5.0, 5.0]])
    weights = jnp.asarray([[1.0], [2.0], [3.0]])
    gradient = jax.grad(lambda x: (highest(x) * weights).sum())(x)
    np.testing.assert_allclose(gradient, [[0.0, 0.5, 0.5], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    plain = jax.grad(lambda x: (x.max(axis=1, keepdims=True) * weights).sum())(x)
    np.testing.assert_array_equal(gradient, plain)
    same = jnp.asarray([[0.3, 0.3, 0.3]])  # a constant embedding: no 0 / 0
    assert np.isfinite(jax.grad(lambda x: min_max_scale(x)[0, 0])(same)).all()
    planes = jnp.arange(12.0).reshape(1, 2, 3, 2)
    assert np.argmax(jax.grad(lambda x: highest(x).sum())(planes)) == 11


def test_min_max_scale_by_hand():
    x = jnp.asarray([[2.0, 4.0, 3.0], [7.0, 7.0, 7.0], [-1.0, 0.0, 3.0]])
    expected = [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.25, 1.0]]
    np.testing.assert_allclose(min_max_scale(x), expected, atol=1e-6)
    planes = jnp.asarray([[[[1.0, 3.0]], [[5.0, 2.0]]]])  # scaled over all its features at once
    np.testing.assert_allclose(min_max_scale(planes), [[[[0.0, 0.5]], [[1.0, 0.25]]]], atol=1e-6)


def test_a_simplex_by_hand():
    weights = np.array([[1, 2, 3, 4, 0, 0, 0, 0, 8, 1, 1, 1, 1, 1, 1, 2]], np.float32)
    expected = weights / np.repeat([[10.0, 16.0]], 8, axis=1)
    scale = SCALES["simplex"]
    got = scale.bound(jnp.log(jnp.asarray(weights)) + jnp.repeat(jnp.array([3.0, -7.0]), 8))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(scale.bound(scale.free(got)), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["light", "board", "resnet"])
def test_embeddings_of_simplices_stay_some(family):
    config = make_config(family, embedding_size=16, embedding_scale="simplex")
    networks = make_networks(config, make_spec(FRAMES[family]))
    params = random_params(networks)
    rng = np.random.default_rng(0)
    observation = rng.integers(0, 256, (B, F, *FRAMES[family])).astype(np.uint8)
    state = networks.representation(params, observation)
    afterstate = networks.afterstate_dynamics(params, state, jnp.zeros(B, jnp.int32))
    after = networks.dynamics(params, afterstate, jax.nn.one_hot(jnp.arange(B), C)).embedding
    for x in (state, afterstate, after):
        groups = x.reshape(*x.shape[:-1], 2, 8)
        assert groups.min() >= 0
        np.testing.assert_allclose(groups.sum(axis=-1), 1.0, atol=1e-5)
    assert np.abs(after - afterstate).max() > 0.01


@pytest.mark.parametrize("shape", [(8, 12), (10, 13)])
def test_patches_and_a_dense_layer_are_a_strided_convolution(shape):
    rng = np.random.default_rng(0)
    size, out = 4, 5
    x = jnp.asarray(rng.normal(size=(B, F, *shape)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(F * size * size, out)), jnp.float32)
    got = patches(x) @ kernel
    # Bytes move as words: to the same places.
    as_bytes = jnp.asarray(rng.integers(0, 256, x.shape), jnp.uint8)
    np.testing.assert_array_equal(patches(as_bytes), patches(as_bytes.astype(jnp.float32)))
    pads = [(0, -length % size) for length in shape]
    expected = jax.lax.conv_general_dilated(
        x,
        kernel.T.reshape(out, F, size, size),
        window_strides=(size, size),
        padding=pads,
        dimension_numbers=("NCHW", "OIHW", "NHWC"),
    )
    assert got.shape == (B, -(-shape[0] // size), -(-shape[1] // size), out)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_encoder_input_is_what_the_config_says():
    """With frames it has a torso; told so, it does not see the afterstate."""
    spec = make_spec((13,))
    for source in ("frames", "embedding"):
        blind = make_config("mlp", encoder_input=source, encoder_sees_afterstate=False)
        for config in (blind, dataclasses.replace(blind, encoder_sees_afterstate=True)):
            networks = make_networks(config, spec)
            params = random_params(networks)
            assert ("encoder_torso" in params["params"]) == (source == "frames")
            rng = np.random.default_rng(2)
            shape = (B, F, 13) if source == "frames" else (B, 10)
            after = jnp.asarray(rng.uniform(size=shape), jnp.float32)
            encode = jax.jit(networks.encoder)
            one, two = (encode(params, after, jnp.full((B, 10), x)) for x in (0.1, 0.9))
            assert bool((one == two).all()) == (not config.encoder_sees_afterstate)
            assert float(jnp.std(one, axis=0).max()) > 1e-3


def test_a_slim_resnet_has_half_of_the_channels():
    """Those of the encoder: 5 and 2 of 10 and 5, its head on 3 x 3 x 5; parameters by hand."""
    networks = make_networks(make_config("resnet", num_blocks=2), make_spec(FRAMES["resnet"]))
    params = jax.eval_shape(networks.init, jax.random.key(0))["params"]

    def conv(channels, out):
        return 9 * channels * out + out

    def blocks(channels):  # two of them: two norms and two convolutions each
        return 2 * (2 * 2 * channels + 2 * conv(channels, channels))

    for name, half, full in (("representation_torso", 5, 10), ("encoder_torso", 2, 5)):
        wanted = conv(F, half) + blocks(half) + conv(half, full) + 2 * blocks(full)
        assert sum(x.size for x in jax.tree.leaves(params[name])) == wanted
    assert params["encoder_head"]["LayerNorm_0"]["scale"].shape == (3 * 3 * 5,)


@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize("family", ["mlp", "board"])
def test_the_reward_may_see_the_afterstate_past_the_next_state(family, sees):
    """Two afterstates with one next state: an identity that scales to [0, 1] makes them equal."""
    spec = make_spec((13,) if family == "mlp" else (4, 4, 3))
    config = make_config(family, reward_sees_afterstate=sees)
    networks = make_networks(config, spec)
    params = random_params(networks)
    blocks = params["params"]["dynamics_transition"]
    params["params"]["dynamics_transition"] = jax.tree.map(jnp.zeros_like, blocks)
    shape = (B, 10) if family == "mlp" else (B, 4, 4, 10)
    one = jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)
    code = jax.nn.one_hot(jnp.zeros(B, jnp.int32), config.codebook_size)
    (state, reward), (other_state, other) = (
        networks.dynamics(params, x, code) for x in (one, 0.5 * one + 0.1)
    )
    np.testing.assert_allclose(state, other_state, atol=1e-5)
    assert (np.abs(reward - other).max() > 1e-2) == sees


def test_residual_lines_are_the_same_for_each_row_and_each_column():
    """Line by line in NumPy, the one-hot's map beside the cells."""
    height, width, features = 3, 4, 5
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, features)).astype(np.float32)
    one_hot = np.eye(6, dtype=np.float32)[[4, 1]]
    block = ResidualLines(7, jnp.dtype(jnp.float32), map_channels=2)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, one_hot)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    got = block.apply(params, x, one_hot)
    p = params["params"]
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    normed = normed * p["LayerNorm_0"]["scale"] + p["LayerNorm_0"]["bias"]
    for row in range(2):
        code = one_hot[row].argmax()
        places = p["DenseGeneral_0"]["kernel"][code] + p["DenseGeneral_0"]["bias"]
        cells = np.concatenate([normed[row], places], axis=-1)

        def moved(line, first, second):
            hidden = np.maximum(line @ p[first]["kernel"] + p[first]["bias"], 0)
            return (hidden @ p[second]["kernel"] + p[second]["bias"]).reshape(-1, features)

        expected = x[row].copy()
        for y in range(height):
            expected[y] += moved(cells[y].reshape(-1), "Dense_0", "Dense_1")
        for column in range(width):
            expected[:, column] += moved(cells[:, column].reshape(-1), "Dense_2", "Dense_3")
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-4)


def test_projections_are_standardised_among_others():
    """Against the layers in NumPy; without others a batch is its own measure."""
    networks = make_networks(make_config("mlp"), make_spec(FRAMES["mlp"]))
    params = random_params(networks)
    weights = params["params"]["projector"]
    rng = np.random.default_rng(4)
    rows, among = rng.random((5, 10)), rng.normal(2.0, 3.0, (9, 10))

    def dense(name, x):
        return x @ np.asarray(weights[name]["kernel"], np.float64) + np.asarray(
            weights[name]["bias"]
        )

    def standard(x, measure):
        return (x - measure.mean(axis=0)) / np.sqrt(measure.var(axis=0) + 1e-5)

    def plain(x, measure, predict):
        for name, last in (("Dense_0", np.maximum), ("Dense_1", None)):
            x, measure = dense(name, x), dense(name, measure)
            x, measure = standard(x, measure), standard(measure, measure)
            if last is not None:
                x, measure = last(x, 0), last(measure, 0)
        if not predict:
            return x
        x, measure = dense("predict_hidden", x), dense("predict_hidden", measure)
        return dense("predict_output", np.maximum(standard(x, measure), 0))

    for predict in (False, True):
        found = networks.project(params, jnp.float32(rows), predict, jnp.float32(among))
        np.testing.assert_allclose(found, plain(rows, among, predict), rtol=2e-4, atol=2e-4)
        own = networks.project(params, jnp.float32(rows), predict)
        np.testing.assert_allclose(own, plain(rows, rows, predict), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("shape", [(8, 12), (10, 13)])
@pytest.mark.parametrize("enabled", [True, False])
def test_pixels_that_are_arranged_first_are_the_same_numbers(shape, enabled):
    """Where patches reach past the frame they hold 0."""
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.integers(0, 256, (B, F, *shape)), jnp.uint8)
    norm = PixelNorm(shape, enabled)
    mean = jnp.asarray(rng.random(shape), jnp.float32)
    stats = {"mean": mean, "square": mean**2 + 0.01, "count": jnp.float32(9)}
    variables = {"batch_stats": stats} if enabled else {}
    plain = patches(norm.apply(variables, frames, False))
    arranged = jax.jit(lambda x: norm.apply(variables, x, False, patches))(frames)
    np.testing.assert_allclose(arranged, plain, rtol=2e-6, atol=1e-6)
    assert arranged.shape == (B, -(-shape[0] // 4), -(-shape[1] // 4), F * 16)
