"""The jump, learned beside the model from replayed windows as they were played.

Targets of J(s_t, a_t..a_(t+l-1)), s_t the embedding of what was seen:

    rewards   sum_i gamma^i r_(t+i), a categorical of the two neighbouring sums
    values    the model's own distribution at the real s_(t+l), and so its policy; past an end 0
    ends      the place of the real s_(t+l), where the model's consistency compares ends
    lasting   whether the game goes on, where the model has a head for it
    certain   whether H(sigma(s_t, a)) is below `search.collapse_threshold`, for a random action a

All of the model is stopped: its parameters are the same, bit for bit, with and without. It learns
from what happened and not from the model's own steps, whose errors it would repeat. An eighth of
the windows is held out, the same as from the head of preconditions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.seeds import JUMP_KEY
from smz_jax.config.settings import Config
from smz_jax.learning.replay import Replay
from smz_jax.learning.single_losses import categorical_loss, scalar_loss
from smz_jax.macros.judge.trials import relative_distance
from smz_jax.macros.precondition.updates import HELD_OUT, held_out
from smz_jax.model.jump import without_jump
from smz_jax.model.observe import stack_windows, unbroken
from smz_jax.model.steps import (
    certainty,
    decide,
    embed,
    imagine,
    jump,
    make_place,
    over_time,
    predict,
)
from smz_jax.types import Array, EnvSpec, Networks, Params, ReplaySample, Trajectory

WEIGHTS = {
    "rewards": 1.0,
    "value": 0.25,
    "policy": 0.25,
    "end": 2.0,
    "lasting": 1.0,
    "certain": 1.0,
}
"""Of the terms of the jump's loss."""
MOMENTUM = 0.99
"""Of the running counts of what was foretold to be certain."""
CHECK_BATCHES = 64


class JumpState(NamedTuple):
    """What the jump learns by, beside its weights in the parameters; saved with the run."""

    opt_state: Any
    updates: Array  # [] int32


class JumpWindows(NamedTuple):
    """Windows by how many actions are taken of them, 1 to L; the time axis comes first."""

    actions: Array  # [L, B, `network.jump_length`] int32, as played, and -1 after so many
    rewards: Array  # [L, B] float32, discounted sums
    real: Array  # [L, B] bool, all transitions are of one game, and none but the last ends it
    alive: Array  # [L, B] bool, nor does the last


def jump_windows(rows: Trajectory, history: int, config: Config) -> JumpWindows:
    """What was played from the roots of windows `[B, W, ...]`, `history` rows after their first."""
    longest, gamma = longest_jump(config), config.learner.gamma
    part = slice(history, history + longest)
    discount, reward = rows.discount[:, part], rows.reward[:, part]
    real, ended = unbroken(rows, history, longest)
    # By the sign of the discounts: whose reward it is, where the player to move changes.
    carried = jnp.cumprod(jnp.pad(gamma * discount[:, :-1], ((0, 0), (1, 0)), constant_values=1), 1)
    sums = jnp.cumsum(jnp.where(real, carried * reward, 0.0), axis=1)
    taken = jnp.tril(jnp.ones((longest, longest), jnp.bool_))[:, None]
    actions = jnp.where(taken, rows.action[:, part], -1)
    rest = config.network.jump_length - longest  # the network takes so many more
    actions = jnp.pad(actions, ((0, 0), (0, 0), (0, rest)), constant_values=-1)
    return JumpWindows(actions, sums.T, real.T, (real & ~ended).T)


def longest_jump(config: Config) -> int:
    """L: actions of the longest sequence that is learned, as far as replayed windows hold them."""
    return min(config.network.jump_length, config.window_rows - config.env.frame_stack)


def init_jump(config: Config, params: Params) -> JumpState:
    """A fresh state for the jump of `params`, as a model's parameters hold it."""
    opt_state = optax.adam(config.learner.jump_learning_rate).init(params["weights"])
    return JumpState(opt_state, jnp.zeros((), jnp.int32))


def jump_terms(
    networks: Networks,
    config: Config,
    params: Params,
    windows: JumpWindows,
    embeddings: Array,
    action: Array,
) -> tuple[dict[str, Array], Array]:
    """Each term of the loss, unweighted, 0 where nothing is known; pure.

    The model is that of `params`, its jump too; no gradient passes into anything but the jump.
    `embeddings [L+1, B, D]` are of the root and of what was seen after each step; `action [B]` is
    any whose certainty is learned.

    Returns:
        `[L, B]` for every length, but `certain [B]`; whether the model is certain of the action,
        `[B]` bool.
    """
    frozen, embeddings = jax.lax.stop_gradient((without_jump(params), embeddings))
    params = {**frozen, "jump": params["jump"]}
    root, place = embeddings[0], make_place(networks, config)
    assert networks.jump is not None
    leap = partial(networks.jump, params, root)
    end, reward_logits = jax.vmap(leap)(windows.actions)
    foreseen = over_time(networks.prediction, frozen, end)
    real = over_time(networks.prediction, frozen, embeddings[1:])

    def placed(x: Array, is_foreseen: bool) -> Array:
        # What is no target must not reach the statistics of the batch either.
        alive = windows.alive.reshape(*windows.alive.shape, *[1] * (x.ndim - 2))
        x = jnp.where(alive, x, root)
        rows = place(frozen, x.reshape(-1, *x.shape[2:]), is_foreseen)
        return rows.reshape(*x.shape[:2], -1)

    own, seen = placed(end, True), placed(embeddings[1:], False)
    terms = {
        "policy": categorical_loss(foreseen.policy_logits, jax.nn.softmax(real.policy_logits)),
        "end": -optax.cosine_similarity(own, seen, epsilon=1e-6),
    }
    terms = {name: jnp.where(windows.alive, term, 0.0) for name, term in terms.items()}
    rewards = scalar_loss(reward_logits, windows.rewards, config.network.reward_transform)
    known = categorical_loss(foreseen.value_logits, jax.nn.softmax(real.value_logits))
    over = scalar_loss(foreseen.value_logits, jnp.zeros_like(windows.rewards))
    terms["rewards"] = jnp.where(windows.real, rewards, 0.0)
    terms["value"] = jnp.where(windows.real, jnp.where(windows.alive, known, over), 0.0)
    if networks.continuation is not None:
        logits = over_time(networks.continuation, frozen, end)
        lasting = optax.sigmoid_binary_cross_entropy(logits, windows.alive.astype(jnp.float32))
        terms["lasting"] = jnp.where(windows.real, lasting, 0.0)
    is_certain = decide(networks, frozen, root, action).entropy < config.search.collapse_threshold
    told = certainty(networks, params, root, action)
    certain = optax.sigmoid_binary_cross_entropy(told, is_certain.astype(jnp.float32))
    terms["certain"] = jnp.where(windows.real[0], certain, 0.0)
    return terms, is_certain


def make_jump_update(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., Any]:
    """One update of the jump on a batch of windows; pure, to be compiled by the caller.

    Returns:
        `(JumpState, jump, params, sample) -> JumpState, jump, metrics`: `jump` is that of the
        parameters that learn, `params` are those that play, whose jump the counts are of. Terms
        are means over the batch.
    """
    history, longest = spec.context - 1, longest_jump(config)
    optimizer = optax.adam(config.learner.jump_learning_rate)

    def update(state: JumpState, jump: Params, params: Params, sample: ReplaySample):
        rows, batch = sample.rows, len(sample.weights)
        windows = jump_windows(rows, history, config)
        seen = stack_windows(rows, spec, range(history, history + longest + 1))
        embeddings = embed(networks, params, jnp.swapaxes(seen, 0, 1))
        apart = held_out(sample, history)
        key = jax.random.fold_in(jax.random.key(config.seed), JUMP_KEY)
        key = jax.random.fold_in(key, state.updates)
        action = jax.random.randint(key, (batch,), 0, spec.num_actions)

        def loss(weights: Params) -> tuple[Array, Any]:
            full = {**params, "jump": {**jump, "weights": weights}}
            terms, is_certain = jump_terms(networks, config, full, windows, embeddings, action)
            means = {name: jnp.mean(x * sample.weights * ~apart) for name, x in terms.items()}
            total = sum((WEIGHTS[name] * x for name, x in means.items()), jnp.float32(0))
            return total, (means, is_certain)

        gradient_fn = jax.value_and_grad(loss, has_aux=True)
        (total, (means, is_certain)), gradient = gradient_fn(jump["weights"])
        updates, opt_state = optimizer.update(gradient, state.opt_state, jump["weights"])
        finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        new = (optax.apply_updates(jump["weights"], updates), opt_state)
        old = (jump["weights"], state.opt_state)
        weights, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        told = certainty(networks, params, embeddings[0], action)
        yes = (told > 0) & apart & windows.real[0]
        counts = {"yes": yes, "false_yes": yes & ~is_certain}
        counts = {
            name: MOMENTUM * jump[name] + (1 - MOMENTUM) * jnp.sum(x, dtype=jnp.float32)
            for name, x in counts.items()
        }
        metrics = {f"loss/jump_{name}": x for name, x in means.items()}
        metrics["jump/false_yes"] = counts["false_yes"] / counts["yes"]
        return JumpState(opt_state, state.updates + 1), {"weights": weights, **counts}, metrics

    return update


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
