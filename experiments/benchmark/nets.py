"""Networks whose speed the searches are compared on: random weights, pure functions.

All act on a ready embedding; none sees an observation, so that a search is timed without its
representation. Their parameters are `{"model": ..., "certainty": []}`: the certainty is added to
the first chance outcome's logit, so that one compiled program serves a random model (0) and a
deterministic one (`CERTAIN`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.settings import NetworkConfig
from smz_jax.model.layers import min_max_scale
from smz_jax.model.networks import make_networks
from smz_jax.types import Array, EnvSpec, Networks, Params, Space

NUM_ACTIONS = 4
CODEBOOK_SIZE = 32
CERTAIN = 100.0
"""Added to one logit it leaves the other outcomes e^-100: the normalised entropy is exactly 0."""


class Subject(NamedTuple):
    """A model to search with."""

    about: str
    networks: Networks  # of the parameters below; no representation
    model_params: Params
    embedding_shape: tuple[int, ...]

    def params(self, *, certain: bool) -> Params:
        """The parameters of the random or of the deterministic model."""
        return {
            "model": self.model_params,
            "certainty": jnp.float32(CERTAIN if certain else 0.0),
        }

    def embedding(self, batch: int, seed: int = 0) -> Array:
        """Random roots `[batch, *embedding_shape]` in [0, 1]."""
        key = jax.random.key(seed)
        return jax.random.uniform(key, (batch, *self.embedding_shape), jnp.float32)


def with_certainty(networks: Networks) -> Networks:
    """The same model on `{"model", "certainty"}`, the certainty added to chance logit 0."""

    def inner(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, *inputs: function(params["model"], *inputs)

    def afterstate_prediction(params: Params, afterstate: Array) -> tuple[Array, Array]:
        logits, value = networks.afterstate_prediction(params["model"], afterstate)
        return logits.at[:, 0].add(params["certainty"]), value

    return networks._replace(
        prediction=inner(networks.prediction),
        afterstate_dynamics=inner(networks.afterstate_dynamics),
        afterstate_prediction=afterstate_prediction,
        dynamics=inner(networks.dynamics),
        discount=None if networks.discount is None else inner(networks.discount),
    )


def _weights(rng_key: Array, *shape: int) -> Array:
    """He-normal weights; all axes but the last are inputs."""
    scale = np.sqrt(2.0 / np.prod(shape[:-1]), dtype=np.float32)
    return scale * jax.random.normal(rng_key, shape, jnp.float32)


def _conv(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class _Half(NamedTuple):
    """Decision or chance half of a model: a transition to the next embedding, and heads on it."""

    kernels: tuple[tuple[int, ...], ...]  # shapes of the transition's two layers
    trunk: tuple[tuple[int, ...], ...]  # shapes of the layers below the heads
    layer: Callable[[Array, Array], Array]  # of an embedding and a kernel

    def init(self, rng_key: Array, *, outputs: int, codes: int) -> Params:
        """He-normal weights."""
        keys = iter(jax.random.split(rng_key, 7))
        return {
            "transition": [_weights(next(keys), *shape) for shape in self.kernels],
            "one_hot": _weights(next(keys), codes, self.kernels[0][-1]),
            "reward": _weights(next(keys), self.kernels[1][-1], 1),
            "trunk": [_weights(next(keys), *shape) for shape in self.trunk],
            "head": _weights(next(keys), self.trunk[-1][-1], outputs + 1),
        }

    def transition(self, params: Params, x: Array, one_hot: Array) -> tuple[Array, Array]:
        """The next embedding and its reward."""
        bias = one_hot @ params["one_hot"]
        bias = bias.reshape(len(x), *(1,) * (x.ndim - 2), -1)
        hidden = jax.nn.relu(self.layer(x, params["transition"][0]) + bias)
        x = min_max_scale(x + self.layer(hidden, params["transition"][1]))
        return x, self._flat(x) @ params["reward"]

    def head(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Logits and value."""
        for kernel in params["trunk"]:
            x = jax.nn.relu(self.layer(x, kernel))
        outputs = self._flat(x) @ params["head"]
        return outputs[:, :-1], outputs[:, -1:]

    def _flat(self, x: Array) -> Array:
        """Means over a plane, of planes."""
        return x.mean(axis=tuple(range(1, x.ndim - 1)))


def _hand_made(half: _Half) -> tuple[Networks, Params]:
    """Networks with a decision half and a chance half of one kind."""

    def missing(*inputs: Any) -> Any:
        raise NotImplementedError("a benchmark network has no observations and does not learn")

    def one_hot(action: Array) -> Array:
        return jax.nn.one_hot(action, NUM_ACTIONS, dtype=jnp.float32)

    keys = jax.random.split(jax.random.key(0))
    params = {
        "decision": half.init(keys[0], outputs=CODEBOOK_SIZE, codes=NUM_ACTIONS),
        "chance": half.init(keys[1], outputs=NUM_ACTIONS, codes=CODEBOOK_SIZE),
    }
    scalars = ("value_of", "reward_of", *Networks._field_defaults)
    unused: dict[str, Any] = {name: missing for name in Networks._fields if name not in scalars}
    networks = Networks(
        **unused,
        value_of=lambda logits: logits[..., 0],
        reward_of=lambda logits: logits[..., 0],
    )._replace(
        prediction=lambda p, x: half.head(p["chance"], x),
        afterstate_dynamics=lambda p, x, a: half.transition(p["decision"], x, one_hot(a))[0],
        afterstate_prediction=lambda p, x: half.head(p["decision"], x),
        dynamics=lambda p, x, code: half.transition(p["chance"], x, code),
    )
    return networks, params


def _conv_subject(size: int, channels: int) -> Subject:
    kernels = ((3, 3, channels, channels),) * 2
    networks, params = _hand_made(_Half(kernels, kernels, _conv))
    about = f"{size}x{size}x{channels} planes, 4 convolutions of 3x3 for a decision, 4 for chance"
    return Subject(about, with_certainty(networks), params, (size, size, channels))


def _narrow_subject(size: int, hidden: int) -> Subject:
    half = _Half(((size, hidden), (hidden, size)), ((size, hidden),), jnp.matmul)
    networks, params = _hand_made(half)
    about = f"flat {size}, two layers through {hidden} in transitions and heads"
    return Subject(about, with_certainty(networks), params, (size,))


def _notebook_subject() -> Subject:
    names = ("NOOP", "FIRE", "RIGHT", "LEFT")
    spec = EnvSpec("Breakout", (84, 84), 4, np.dtype("uint8"), Space(NUM_ACTIONS, names), 4)
    config = NetworkConfig(
        family="mlp", embedding_size=256, hidden_size=256, codebook_size=CODEBOOK_SIZE
    )
    networks = make_networks(config, spec)
    params = jax.jit(networks.init)(jax.random.key(0))
    about = "the notebook's MLP: embedding and layers of 256, values in 601 bins"
    return Subject(about, with_certainty(networks), params, (256,))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "conv": functools.partial(_conv_subject, 6, 64),
    "mlp": _notebook_subject,
    "flat2304": functools.partial(_narrow_subject, 2304, 64),
    "flat256": functools.partial(_narrow_subject, 256, 64),
    "tiny": functools.partial(_narrow_subject, 12, 6),
}
"""Builders by name. Of 2 CPU cores a batch of 32 through both halves takes about 6 ms (conv)."""
