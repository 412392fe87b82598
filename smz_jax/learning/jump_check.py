"""The jump beside stepping through the model, on windows that it was never trained on."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.learning.jump import JumpWindows, jump_windows, longest_jump
from smz_jax.learning.replay import Replay
from smz_jax.macros.judge.trials import relative_distance
from smz_jax.macros.precondition.updates import HELD_OUT, held_out
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import embed, imagine, jump, make_place, predict
from smz_jax.types import Array, EnvSpec, Networks, Params

CHECK_BATCHES = 64


class _Held(NamedTuple):
    """Held-out windows of one batch."""

    windows: JumpWindows
    embeddings: Array  # [L+1, B, D]
    held: Array  # [B] bool


def make_jump_check(
    networks: Networks, replay: Replay, config: Config, spec: EnvSpec
) -> Callable[[Params, Any, Array], dict[str, Array]]:
    """The jump beside stepping through the model, on windows that it was never trained on.

    Returns:
        `(params, replay_state, rng_key) -> findings`, jitted, each `[L]` by length, and with the
        suffix `_stepped` of the model's own steps, open loop with the likeliest codes: `near`, the
        share of ends within `macro.distance_threshold` of the real one; `paid`, of the windows with
        rewards those whose sum is foreseen within `macro.reward_threshold`; `invented`, of those
        without the share that is not; `reward_error` of windows with rewards and `value_error`
        (from f of the real end), mean absolute. NaN where there are none.
    """
    history, longest = spec.context - 1, longest_jump(config)
    place, gamma = make_place(networks, config), config.learner.gamma
    distance, reward = config.macro.distance_threshold, config.macro.reward_threshold

    def draw(params: Params, replay_state: Any, key: Array) -> _Held:
        sample = replay.sample(replay_state, key)
        held = held_out(sample, history)
        few = jnp.argsort(~held)[: max(1, 2 * len(held) // HELD_OUT)]
        rows = jax.tree.map(lambda x: x[few], sample.rows)
        seen = stack_windows(rows, spec, range(history, history + longest + 1))
        embeddings = embed(networks, params, jnp.swapaxes(seen, 0, 1))
        return _Held(jump_windows(rows, history, config), embeddings, held[few])

    def judge(real: Array, alive: Array, foreseen: dict[str, Array], came: dict[str, Array]):
        """Of one length, rows `[N, ...]`."""

        def mean(x: Array, of: Array) -> Array:
            return jnp.sum(x * of) / jnp.sum(of)

        error = jnp.abs(foreseen["rewards"] - came["rewards"])
        some = real & (came["rewards"] != 0)
        away = relative_distance(foreseen["place"], came["place"], alive)
        value = jnp.abs(foreseen["value"] - came["value"])
        return {
            "near": mean(away <= distance, alive),
            "paid": mean(error <= reward, some),
            "invented": mean(error > reward, real & ~some),
            "reward_error": mean(error, some),
            "value_error": mean(value, alive),
        }

    def check(params: Params, replay_state: Any, rng_key: Array) -> dict[str, Array]:
        keys = jax.random.split(rng_key, CHECK_BATCHES)
        each = jax.lax.map(lambda key: draw(params, replay_state, key), keys)

        def together(x: Array) -> Array:
            """Batches `[CHECK_BATCHES, L, B, ...]` as one, `[L, N, ...]`."""
            return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

        windows, embeddings = jax.tree.map(together, (each.windows, each.embeddings))
        held, root = each.held.reshape(-1), embeddings[0]
        steps = imagine(networks, params, root, windows.actions[-1, :, :longest].T).steps
        carried = jnp.cumprod(gamma * steps.discount, axis=0)
        before = jnp.concatenate([jnp.ones_like(carried[:1]), carried[:-1]])
        stepped = jnp.cumsum(before * steps.reward, axis=0)

        def one(x: tuple[JumpWindows, Array, Array, Array]) -> dict[str, Array]:
            of_length, seen, end, summed = x
            leap = jump(networks, params, root, of_length.actions)

            def as_seen(end: Array, rewards: Array, foreseen: bool) -> dict[str, Array]:
                found = {"place": place(params, end, foreseen), "rewards": rewards}
                return found | {"value": predict(networks, params, end).value}

            came = as_seen(seen, of_length.rewards, False)
            of = partial(judge, of_length.real & held, of_length.alive & held, came=came)
            by_steps = of(foreseen=as_seen(end, summed, True))
            by_jump = of(foreseen=as_seen(leap.state, leap.reward, True))
            return by_jump | {f"{name}_stepped": y for name, y in by_steps.items()}

        return jax.lax.map(one, (windows, embeddings[1:], steps.state, stepped))

    return jax.jit(check)
