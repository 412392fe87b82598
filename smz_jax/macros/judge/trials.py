"""Trials of macros: what the model foresees over replayed windows, against what really happened.

The model is unrolled open loop over the actions that were played, each transition through the code
that it holds likeliest, as a macro would be played. `macros.judge.evidence` judges the outcome.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.macros.judge.evidence import Trials
from smz_jax.model.observe import stack_windows, unbroken
from smz_jax.model.steps import Seen, embed, encode, imagine, make_place
from smz_jax.types import Array, EnvSpec, Networks, Params, Trajectory

OFFSETS = (1, 2, 4)
"""Steps before and after an end whose observations it is distinguished from."""
LATER = 2
"""Steps beyond the longest macro that are embedded for that."""


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


def nearest_in_time(
    foreseen: Array, real: Array, exists: Array, shown_again: Callable[[int], Array]
) -> Array:
    """Whether foreseen ends are nearer to the real ones than to what was seen around them.

        cos(foreseen_k - m, real_(k+1) - m) > cos(foreseen_k - m, real_(k+1+o) - m)

    for every o of -4, -2, -1, 1, 2, 4 that there is, m the mean of all that was seen.

    Args:
        foreseen: `[K, B, E]` after each step.
        real: `[N, B, E]`, of the root and after each step, more than K.
        exists: `[N, B]` bool, whether it was seen in the root's game.
        shown_again: for an o above 0, whether what was seen at n + o shows the same as that at n,
            `[N - o, B]` bool; it is no rival.

    Returns:
        `[K, B]` bool.
    """
    weight = exists.astype(jnp.float32)[..., None]
    centre = jnp.sum(weight * real, axis=(0, 1)) / jnp.maximum(weight.sum(), 1.0)

    def direction(x: Array) -> Array:
        x = x - centre
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)

    cosine = jnp.einsum("kbe,nbe->knb", direction(foreseen), direction(real))
    steps, seen = len(foreseen), len(real)
    nearest = [jnp.ones(exists.shape[1], jnp.bool_)] * steps
    for offset in (x for x in OFFSETS if x < seen):
        same = shown_again(offset)
        for first in range(seen - offset):
            for end, rival in ((first, first + offset), (first + offset, first)):
                if 1 <= end <= steps:
                    own, other = cosine[end - 1, end], cosine[end - 1, rival]
                    nearest[end - 1] &= (own > other) | same[first] | ~exists[rival]
    return jnp.stack(nearest)


def make_replayed(
    networks: Networks, config: Config, spec: EnvSpec
) -> Callable[[Params, Trajectory], tuple[Trials, Array]]:
    """What a model makes of replayed windows, and the embeddings of what was really seen.

    Returns:
        `(params, rows [B, W, ...]) -> (Trials, embeddings [K+1, B, ...])`, pure; K is
        `macro.max_length`, or what the windows hold where that is less.
    """
    history = spec.context - 1
    place = make_place(networks, config)

    def replayed(params: Params, rows: Trajectory) -> tuple[Trials, Array]:
        most = rows.reward.shape[1] - history - 1
        steps = min(config.macro.max_length, most)
        seen_steps = min(steps + LATER, most)
        observations = stack_windows(rows, spec, range(history, history + seen_steps + 1))
        observations = jnp.swapaxes(observations, 0, 1)
        part = slice(history, history + steps)
        actions, rewards = rows.action[:, part].T, rows.reward[:, part].T
        lasts, ended = unbroken(rows, history, seen_steps)  # a macro ends where a life does
        turned = jnp.cumsum(rows.discount[:, part] < 0, axis=1)  # or where a turn does
        own = jnp.pad(turned[:, :-1], ((0, 0), (1, 0))) == 0
        lasts, valid = lasts.T, (lasts[:, :steps] & own).T
        embeddings = embed(networks, params, observations)
        seen = Seen(observations[1 : steps + 1], embeddings[1 : steps + 1])
        afterstates, after = imagine(networks, params, embeddings[0], actions)
        codes = jax.lax.map(lambda x: encode(networks, params, *x), (seen, afterstates.state))

        def placed(x: Array, is_foreseen: bool) -> Array:
            flat = place(params, x.reshape(-1, *x.shape[2:]), is_foreseen)
            return flat.reshape(*x.shape[:2], -1)

        def shown_again(offset: int) -> Array:
            """By all frames of an observation."""
            frames = rows.frame[:, : history + seen_steps + 1]
            same = frames[:, offset:] == frames[:, :-offset]
            same = jnp.all(same.reshape(*same.shape[:2], -1), axis=-1)
            size = same.shape[1] - history
            return jnp.all(jnp.stack([same[:, f : f + size] for f in range(history + 1)]), axis=0).T

        foreseen, ends = placed(after.state, True), placed(embeddings, False)
        exists = jnp.concatenate([jnp.ones_like(lasts[:1]), lasts])
        distance = jax.vmap(relative_distance)(foreseen, ends[1 : steps + 1], valid)
        known_ends = networks.discount is not None
        found = Trials(
            action=actions,
            entropy=afterstates.entropy,
            distance=distance,
            nearest=nearest_in_time(foreseen, ends, exists, shown_again),
            reward_error=after.reward - rewards,
            agrees=afterstates.likely == jnp.argmax(codes, axis=-1),
            valid=valid,
            ended=valid & ended[:, :steps].T,
            foreseen_end=jnp.abs(after.discount) < 0.5 if known_ends else None,
        )
        return jax.tree.map(jnp.transpose, found), embeddings[: steps + 1]

    return replayed
