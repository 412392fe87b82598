# pyright: reportCallIssue=false
# (mctx's chex dataclasses look to pyright as if they took no arguments.)
"""The programs that are timed: stock mctx, this project's engines, and the networks alone.

Every search starts from embeddings: the representation is left out, the root's prediction is in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from experiments.benchmark.nets import NUM_ACTIONS, Subject
from experiments.benchmark.plan import Task
from smz_jax.config.settings import Config, SearchConfig
from smz_jax.model.steps import chance, decide, one_hot_code, predict
from smz_jax.search.policy import make_search
from smz_jax.types import Array, EnvSpec, Networks, Params, Space

GAMMA = Config().learner.gamma


def stock_search(networks: Networks, simulations: int) -> Callable[..., Any]:
    """`mctx.stochastic_muzero_policy` over the same model, as a user of mctx would write it.

    Returns:
        `(params, rng_key, embedding [B, ...]) -> mctx.PolicyOutput`.
    """

    def decision_fn(params: Params, rng_key: Array, action: Any, embedding: Any):
        del rng_key
        afterstate = decide(networks, params, embedding, action)
        output = mctx.DecisionRecurrentFnOutput(
            chance_logits=afterstate.logits, afterstate_value=afterstate.value
        )
        return output, afterstate.state

    def chance_fn(params: Params, rng_key: Array, outcome: Any, afterstate: Any):
        del rng_key
        codes = jax.eval_shape(networks.afterstate_prediction, params, afterstate)[0].shape[-1]
        step = chance(networks, params, afterstate, one_hot_code(outcome, codes))
        output = mctx.ChanceRecurrentFnOutput(
            action_logits=step.policy_logits,
            value=step.value,
            reward=step.reward,
            discount=GAMMA * step.discount,
        )
        return output, step.state

    def search(params: Params, rng_key: Array, embedding: Array) -> Any:
        logits, value = networks.prediction(params, embedding)
        root = mctx.RootFnOutput(
            prior_logits=logits, value=networks.value_of(value), embedding=embedding
        )
        return mctx.stochastic_muzero_policy(
            params,
            rng_key,
            root=root,
            decision_recurrent_fn=decision_fn,
            chance_recurrent_fn=chance_fn,
            num_simulations=simulations,
        )

    return search


def engine_search(networks: Networks, settings: SearchConfig) -> Callable[..., Any]:
    """This project's search, with training noise and temperature 1 as stock mctx has them.

    Returns:
        `(params, rng_key, embedding [B, ...]) -> SearchOutput`.
    """
    names = ("?",) * NUM_ACTIONS
    spec = EnvSpec("benchmark", (1,), 1, np.dtype("float32"), Space(NUM_ACTIONS, names), 1)
    run = make_search(networks, Config(search=settings), spec)

    def search(params: Params, rng_key: Array, embedding: Array) -> Any:
        every_action = jnp.zeros((embedding.shape[0], NUM_ACTIONS), jnp.float32)
        return run(params, rng_key, embedding, every_action, jnp.float32(1), jnp.float32(1))

    return search


def networks_alone(networks: Networks) -> Callable[..., Any]:
    """The networks' work in a search without its tree: the floor of any search that runs both.

    One game is played for each row instead: each step's action, code and embedding come from the
    outputs of the step before, and every scalar is summed up, so that a compiler can neither hoist
    a call out of the loop nor drop an output.

    Returns:
        `(params, embedding [B, ...], iterations []) -> (embedding, sum [B])`, with one decision
        and one chance evaluation of the whole batch per iteration.
    """

    def play(params: Params, embedding: Array, iterations: Array) -> tuple[Array, Array]:
        def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            embedding, action, total = carry
            afterstate = decide(networks, params, embedding, action)
            code = one_hot_code(afterstate.likely, afterstate.logits.shape[-1])
            step = chance(networks, params, afterstate.state, code)
            total += afterstate.value + step.value
            total += step.reward
            return step.state, jnp.argmax(step.policy_logits, axis=-1).astype(jnp.int32), total

        root = predict(networks, params, embedding)
        action = jnp.argmax(root.policy_logits, axis=-1).astype(jnp.int32)
        carry = (embedding, action, root.value)
        embedding, _, total = jax.lax.fori_loop(0, iterations, step, carry)
        return embedding, total

    return play


def build(task: Task, subject: Subject) -> Callable[..., Any]:
    """The jitted program of a task, and of all that share it; `arguments` says how it is called."""
    networks = subject.networks
    if task.engine == "networks":
        play = networks_alone(networks)
        return jax.jit(lambda params, rng_key, embedding, count: play(params, embedding, count))
    if task.engine == "stock":
        search = stock_search(networks, task.simulations)
    else:
        settings = SearchConfig(
            engine=task.engine,
            num_simulations=task.simulations,
            collapse_threshold=task.threshold,
            row_multiple=task.row_multiple,
        )
        search = engine_search(networks, settings)
    return jax.jit(lambda params, rng_key, embedding, count: search(params, rng_key, embedding))


def arguments(task: Task, subject: Subject, batch: int) -> tuple[Any, ...]:
    """What a task's program is called with: parameters, key, roots `[batch, ...]`, simulations."""
    params = subject.params(certain=task.certain)
    return params, jax.random.key(0), subject.embedding(batch), jnp.int32(task.simulations)


def tree_bytes(program: Callable[..., Any], *inputs: Any) -> int | None:
    """Bytes of the `mctx.Tree` that a search returns; None if it returns none. Runs nothing."""
    output = jax.eval_shape(program, *inputs)
    tree = getattr(output, "tree", getattr(output, "search_tree", None))
    if tree is None:
        return None
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
