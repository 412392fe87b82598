"""Trials of macros: what the model foresees over replayed windows, against what really happened.

The model is unrolled open loop over the actions that were played, each transition through the code
that it holds likeliest, as a macro would be played. `macros.judge.evidence` judges the outcome.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.macros.judge.evidence import Trials
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import Seen, embed, encode, imagine, make_place
from smz_jax.types import Array, EnvSpec, Networks, Params, Trajectory, is_end


def relative_distance(foreseen: Array, real: Array, valid: Array) -> Array:
    """How near each foreseen end `[N, E]` is to the real one, as a share of that from the others.

        d(i, j) = 1 - cos(foreseen_i - m, real_j - m),   d(i, i) / mean_j d(i, j)

    with m the mean real end: scaled embeddings point nearly one way. 0 is a hit, 1 no better than
    the end of any other window. Rows that are `valid [N]` count as others, and in the mean.
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


def make_replayed(
    networks: Networks, config: Config, spec: EnvSpec
) -> Callable[[Params, Trajectory], tuple[Trials, Array]]:
    """What a model makes of replayed windows, and the embeddings of what was really seen.

    Returns:
        `(params, rows [B, W, ...]) -> (Trials, embeddings [K+1, B, ...])`, pure; K is
        `macro.max_length`, or what the windows hold where that is less.
    """
    history = spec.context - 1
    steps = min(config.macro.max_length, config.window_rows - history - 1)
    place = make_place(networks, config)

    def replayed(params: Params, rows: Trajectory) -> tuple[Trials, Array]:
        observations = stack_windows(rows, spec.context, range(history, history + steps + 1))
        observations = jnp.swapaxes(observations, 0, 1)
        part = slice(history, history + steps)
        actions, rewards = rows.action[:, part].T, rows.reward[:, part].T
        # The action of a row is ignored where the next row begins a game, and a macro ends where
        # a life does.
        real = ~rows.is_first[:, history + 1 : history + steps + 1]
        ended = jnp.pad(is_end(rows.discount[:, part][:, :-1]), ((0, 0), (1, 0)))
        valid = jnp.cumprod(real & ~ended, axis=1).astype(jnp.bool_).T
        embeddings = embed(networks, params, observations)
        seen = Seen(observations[1:], embeddings[1:])
        afterstates, after = imagine(networks, params, embeddings[0], actions)
        codes = jax.lax.map(lambda x: encode(networks, params, *x), (seen, afterstates.state))

        def placed(x: Array, is_foreseen: bool) -> Array:
            flat = place(params, x.reshape(-1, *x.shape[2:]), is_foreseen)
            return flat.reshape(*actions.shape, -1)

        ends = placed(after.state, True), placed(seen.embedding, False)
        found = Trials(
            action=actions,
            entropy=afterstates.entropy,
            distance=jax.vmap(relative_distance)(ends[0], ends[1], valid),
            reward_error=jnp.abs(after.reward - rewards),
            agrees=afterstates.likely == jnp.argmax(codes, axis=-1),
            valid=valid,
        )
        return jax.tree.map(jnp.transpose, found), embeddings

    return replayed
