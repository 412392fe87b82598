"""Trials of macros: what the model foresees over replayed windows, against what really happened.

The model is unrolled open loop over the actions that were played, each transition through the code
that it holds likeliest, as a macro would be played. `macros.evidence` judges what comes of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.macros.judge.evidence import Trials
from smz_jax.model.observe import stack_observations
from smz_jax.model.steps import normalised_entropy
from smz_jax.types import Array, EnvSpec, Networks, Params, Trajectory


def relative_distance(foreseen: Array, real: Array, valid: Array) -> Array:
    """How near each foreseen end is to the real one, as a share of its distance from the others.

        d(i, j) = 1 - cos(foreseen_i - m, real_j - m),   d(i, i) / mean_j d(i, j)

    with m the mean real end: scaled embeddings point nearly one way. 0 is a hit, 1 no better than
    the end of any other window.

    Args:
        foreseen: `[N, D]`.
        real: `[N, D]`.
        valid: `[N]` bool, rows that count as others, and in the mean.

    Returns:
        `[N]` float32.
    """
    weight = valid.astype(jnp.float32)
    total = jnp.maximum(weight.sum(), 1.0)
    centre = (weight @ real) / total

    def direction(x: Array) -> Array:
        x = x - centre
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)

    cosine = direction(foreseen) @ direction(real).T
    away = 1.0 - cosine
    mean = (away @ weight) / total
    return jnp.diagonal(away) / jnp.maximum(mean, 1e-9)


class Replayed(NamedTuple):
    """Replayed windows as the model sees them."""

    trials: Trials  # [B, K] each
    embeddings: Array  # [K+1, B, ...] of what was really seen


def make_replayed(
    networks: Networks, config: Config, spec: EnvSpec
) -> Callable[[Params, Trajectory], Replayed]:
    """What a model makes of replayed windows, and their embeddings.

    Args:
        networks: the model.
        config: the run's settings.
        spec: the environment.

    Returns:
        `(params, rows [B, W, ...]) -> Replayed`, pure; K is `macro.max_length`, or what the
        windows hold where that is less.
    """
    history = spec.context - 1
    steps = min(config.macro.max_length, config.window_rows - history - 1)

    def observe(frame: Array, first: Array) -> Array:
        positions = range(history, history + steps + 1)
        return stack_observations(frame, first, positions, spec.context)

    def replayed(params: Params, rows: Trajectory) -> Replayed:
        observations = jnp.swapaxes(jax.vmap(observe)(rows.frame, rows.is_first), 0, 1)
        part = slice(history, history + steps)
        actions, rewards = rows.action[:, part].T, rows.reward[:, part].T
        # The action of a row is ignored where the next row begins a game, and a macro ends where
        # a life does.
        real = ~rows.is_first[:, history + 1 : history + steps + 1]
        alive = jnp.pad(rows.discount[:, part][:, :-1] > 0, ((0, 0), (1, 0)), constant_values=True)
        valid = jnp.cumprod(real & alive, axis=1).astype(jnp.bool_).T
        embedded = jax.lax.map(lambda x: networks.representation(params, x), observations)
        after = observations[1:] if config.network.encoder_input == "frames" else embedded[1:]

        def step(embedding: Array, inputs: tuple[Array, Array]):
            action, seen = inputs
            afterstate = networks.afterstate_dynamics(params, embedding, action)
            logits, _ = networks.afterstate_prediction(params, afterstate)
            likely = jnp.argmax(logits, axis=-1)
            told = jnp.argmax(networks.encoder(params, seen, afterstate), axis=-1)
            code = jax.nn.one_hot(likely, logits.shape[-1], dtype=jnp.float32)
            embedding, reward_logits = networks.dynamics(params, afterstate, code)
            reward = networks.reward_of(reward_logits)
            return embedding, (embedding, normalised_entropy(logits), reward, likely == told)

        _, (foreseen, entropy, reward, agrees) = jax.lax.scan(step, embedded[0], (actions, after))
        ends = [x.reshape(-1, *x.shape[2:]) for x in (foreseen, embedded[1:])]
        if config.loss.consistency > 0:  # the space in which the two were trained to agree
            ends = [
                networks.project(params, x, predict)
                for x, predict in zip(ends, (True, False), strict=True)
            ]
        foreseen, ended = (x.reshape(*actions.shape, -1).astype(jnp.float32) for x in ends)
        distance = jax.vmap(relative_distance)(foreseen, ended, valid)
        found = Trials(actions, entropy, distance, jnp.abs(reward - rewards), agrees, valid)
        return Replayed(jax.tree.map(jnp.transpose, found), embedded)

    return replayed
