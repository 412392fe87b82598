# pyright: reportCallIssue=false
# (mctx's chex dataclasses look to pyright as if they took no arguments.)
"""The programs that are timed: stock mctx, this project's engines, and the networks alone.

Every search starts from embeddings: the representation is left out, the root's prediction is in.
The networks have random weights. Beside those of the model their parameters hold a certainty, which
is added to the first chance outcome's logit, so that one compiled program serves a random model (0)
and a deterministic one (`CERTAIN`). Each program takes `(params, rng_key, embedding [B, ...],
count)`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.model.layers import min_max_scale
from smz_jax.model.networks import make_networks
from smz_jax.model.steps import chance, decide, one_hot_code, predict
from smz_jax.search.root_search import make_search
from smz_jax.types import Array, EnvSpec, Networks, Params, Space

GAMMA = Config().learner.gamma
NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")
SPEC = EnvSpec("Breakout", (84, 84), 4, np.dtype("uint8"), Space(len(NAMES), NAMES), 4)
Program = Callable[..., Any]
NUM_ACTIONS = SPEC.num_actions
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
        logit = jnp.float32(CERTAIN if certain else 0.0)
        return {**self.model_params, "certainty": {"logit": logit}}

    def embedding(self, batch: int) -> Array:
        """Random roots `[batch, *embedding_shape]` in [0, 1]."""
        return jax.random.uniform(jax.random.key(0), (batch, *self.embedding_shape), jnp.float32)


def with_certainty(networks: Networks) -> Networks:
    """The same model, the certainty of its parameters added to chance logit 0."""

    def afterstate_prediction(params: Params, afterstate: Array) -> tuple[Array, Array]:
        logits, value = networks.afterstate_prediction(params, afterstate)
        return logits.at[:, 0].add(params["certainty"]["logit"]), value

    return networks._replace(afterstate_prediction=afterstate_prediction)


def _weights(rng_key: Array, *shape: int) -> Array:
    """He-normal weights; all axes but the last are inputs."""
    scale = np.sqrt(2.0 / np.prod(shape[:-1]), dtype=np.float32)
    return scale * jax.random.normal(rng_key, shape, jnp.float32)


def _layer(x: Array, kernel: Array) -> Array:
    """A matrix for flat embeddings, a convolution for planes."""
    if kernel.ndim == 2:
        return x @ kernel
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)


def _hand_made(about: str, embedding_shape: tuple[int, ...], *shapes: tuple[int, ...]) -> Subject:
    """A model whose decision and chance halves are of one kind: a transition, and heads on it.

    The first two `shapes` are of the transition's kernels, the others of those below the heads.
    """
    kernels, trunk = shapes[:2], shapes[2:]

    def init(rng_key: Array, inputs: int, outputs: int) -> Params:
        keys = iter(jax.random.split(rng_key, 7))
        return {
            "transition": [_weights(next(keys), *shape) for shape in kernels],
            "one_hot": _weights(next(keys), inputs, kernels[0][-1]),
            "reward": _weights(next(keys), kernels[1][-1], 1),
            "trunk": [_weights(next(keys), *shape) for shape in trunk],
            "head": _weights(next(keys), trunk[-1][-1], outputs + 1),
        }

    def flat(x: Array) -> Array:  # means over a plane, of planes
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    def transition(params: Params, x: Array, one_hot: Array) -> tuple[Array, Array]:
        bias = (one_hot @ params["one_hot"]).reshape(len(x), *(1,) * (x.ndim - 2), -1)
        hidden = jax.nn.relu(_layer(x, params["transition"][0]) + bias)
        x = min_max_scale(x + _layer(hidden, params["transition"][1]))
        return x, flat(x) @ params["reward"]

    def afterstate_dynamics(params: Params, x: Array, action: Array) -> Array:
        return transition(params["decision"], x, one_hot_code(action, NUM_ACTIONS))[0]

    def head(params: Params, x: Array) -> tuple[Array, Array]:
        for kernel in params["trunk"]:
            x = jax.nn.relu(_layer(x, kernel))
        outputs = flat(x) @ params["head"]
        return outputs[:, :-1], outputs[:, -1:]

    first, second = jax.random.split(jax.random.key(0))
    params = {"decision": init(first, NUM_ACTIONS, CODEBOOK_SIZE)}
    params["chance"] = init(second, CODEBOOK_SIZE, NUM_ACTIONS)
    # What no search calls is None: a benchmark has no observations and does not learn.
    unused: dict[str, Any] = dict.fromkeys(Networks._fields)
    networks = Networks(**unused)._replace(
        prediction=lambda p, x: head(p["chance"], x),
        afterstate_dynamics=afterstate_dynamics,
        afterstate_prediction=lambda p, x: head(p["decision"], x),
        dynamics=lambda p, x, code: transition(p["chance"], x, code),
        value_of=lambda logits: logits[..., 0],
        reward_of=lambda logits: logits[..., 0],
    )
    return Subject(about, with_certainty(networks), params, embedding_shape)


def _narrow(size: int, hidden: int) -> Subject:
    about = f"flat {size}, two layers through {hidden} in transitions and heads"
    return _hand_made(about, (size,), (size, hidden), (hidden, size), (size, hidden))


def _notebook() -> Subject:
    config = NetworkConfig("mlp", embedding_size=256, hidden_size=256, codebook_size=CODEBOOK_SIZE)
    networks = make_networks(config, SPEC)
    params = jax.jit(networks.init)(jax.random.key(0))
    about = "the notebook's MLP: embedding and layers of 256, values in 601 bins"
    return Subject(about, with_certainty(networks), params, (256,))


_PLANES = "6x6x64 planes, 4 convolutions of 3x3 for a decision, 4 for chance"
SUBJECTS: dict[str, Callable[[], Subject]] = {
    "conv": partial(_hand_made, _PLANES, (6, 6, 64), *[(3, 3, 64, 64)] * 4),
    "mlp": _notebook,
    "flat2304": partial(_narrow, 2304, 64),
    "flat256": partial(_narrow, 256, 64),
    "tiny": partial(_narrow, 12, 6),
}
"""Builders by name. Of 2 CPU cores a batch of 32 through both halves takes about 6 ms (conv)."""


class Task(NamedTuple):
    """One thing to time: a search of a batch, or the networks' own work in it."""

    network: str
    batch: int
    engine: Literal["stock", "mctx", "batched", "networks"]
    simulations: int
    certain: bool = False  # a deterministic model
    threshold: float = 0.0  # search.collapse_threshold
    row_multiple: int | None = None

    @property
    def program(self) -> "Task":
        """What must be compiled for it: weights, and the floor's length, are arguments."""
        shared = self._replace(certain=False)
        return shared._replace(simulations=0) if self.engine == "networks" else shared

    @property
    def label(self) -> str:
        """For people, beside network and batch."""
        parts = [self.engine, f"S {self.simulations}", "certain" if self.certain else ""]
        parts.append("collapsing" if self.threshold else "")
        parts.append(f"rows {self.row_multiple}" if self.row_multiple else "")
        return " ".join(part for part in parts if part)


def stock_search(networks: Networks, simulations: int) -> Program:
    """`mctx.stochastic_muzero_policy` over the same model, as a user of mctx would write it."""

    def decision_fn(params: Params, rng_key: Array, action: Any, embedding: Any):
        at = decide(networks, params, embedding, action)
        output = mctx.DecisionRecurrentFnOutput(chance_logits=at.logits, afterstate_value=at.value)
        return output, at.state

    def chance_fn(params: Params, rng_key: Array, outcome: Any, afterstate: Any):
        step = chance(networks, params, afterstate, one_hot_code(outcome, CODEBOOK_SIZE))
        output = mctx.ChanceRecurrentFnOutput(
            action_logits=step.policy_logits,
            value=step.value,
            reward=step.reward,
            discount=GAMMA * step.discount,
        )
        return output, step.state

    def search(params: Params, rng_key: Array, embedding: Array, count: Array) -> Any:
        at = predict(networks, params, embedding)
        root = mctx.RootFnOutput(prior_logits=at.policy_logits, value=at.value, embedding=embedding)
        policy = mctx.stochastic_muzero_policy
        return policy(params, rng_key, root, decision_fn, chance_fn, simulations)

    return search


def networks_alone(networks: Networks) -> Program:
    """The networks' work in a search without its tree: the floor of any search that runs both.

    One game is played for each row instead: each step's action, code and embedding come from the
    outputs of the step before, and every scalar is summed up, so that a compiler can neither hoist
    a call out of the loop nor drop an output.

    Returns:
        A program that gives `(embedding, sum [B])`, with one decision and one chance evaluation of
        the whole batch for each of `count`.
    """

    def play(params: Params, rng_key: Array, embedding: Array, count: Array) -> Any:
        def advance(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            embedding, policy_logits, total = carry
            action = jnp.argmax(policy_logits, axis=-1).astype(jnp.int32)
            afterstate = decide(networks, params, embedding, action)
            code = one_hot_code(afterstate.likely, CODEBOOK_SIZE)
            step = chance(networks, params, afterstate.state, code)
            total += afterstate.value + step.value
            return step.state, step.policy_logits, total + step.reward

        root = predict(networks, params, embedding)
        carry = (embedding, root.policy_logits, root.value)
        embedding, _, total = jax.lax.fori_loop(0, count, advance, carry)
        return embedding, total

    return play


def build(task: Task, subject: Subject) -> Program:
    """The jitted program of a task, and of all that share it; `arguments` says how it is called."""
    if task.engine == "networks":
        return jax.jit(networks_alone(subject.networks))
    if task.engine == "stock":
        return jax.jit(stock_search(subject.networks, task.simulations))
    settings = SearchConfig(
        engine=task.engine,
        num_simulations=task.simulations,
        collapse_threshold=task.threshold,
        row_multiple=task.row_multiple,
    )
    run = make_search(subject.networks, Config(search=settings), SPEC)

    def search(params: Params, rng_key: Array, embedding: Array, count: Array) -> Any:
        every_action = jnp.zeros((embedding.shape[0], NUM_ACTIONS), jnp.float32)
        one = jnp.float32(1)  # training noise and temperature 1, as stock mctx has them
        return run(params, rng_key, embedding, every_action, one, one)

    return jax.jit(search)


def arguments(task: Task, subject: Subject) -> tuple[Any, ...]:
    """What a task's program is called with: parameters, key, roots `[batch, ...]`, simulations."""
    params = subject.params(certain=task.certain)
    return params, jax.random.key(0), subject.embedding(task.batch), jnp.int32(task.simulations)


def tree_bytes(program: Program, *inputs: Any) -> int | None:
    """Bytes of the `mctx.Tree` that a search returns; None if it returns none. Runs nothing."""
    output = jax.eval_shape(program, *inputs)
    tree = getattr(output, "tree", getattr(output, "search_tree", None))
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) if leaves else None
