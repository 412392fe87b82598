"""The jump, learned beside the model from replayed windows as they were played.

Targets of J(s_t, a_t..a_(t+l-1)), s_t the embedding of what was seen:

    rewards   sum_i gamma^i r_(t+i), a categorical of the two neighbouring sums
    values    the model's own distribution at the real s_(t+l), and so its policy
    ends      the place of the real s_(t+l), where the model's consistency compares ends

All of the model is stopped: its parameters are the same, bit for bit, with and without. It learns
from what happened and not from the model's own steps, whose errors it would repeat. An eighth of
the windows is held out, as it is from the head of preconditions, for `jump_check`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config
from smz_jax.learning.losses import categorical_loss, scalar_loss
from smz_jax.learning.replay import Replay
from smz_jax.macros.judge.trials import relative_distance
from smz_jax.macros.precondition.head import HELD_OUT, held_out
from smz_jax.model.jump import Jump
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import embed, imagine, make_place, predict
from smz_jax.types import Array, EnvSpec, Networks, Params, ReplaySample, Trajectory, is_end

JUDGED, PLACED = 0.25, 2.0
"""Weights of value and policy at the end, and of its place, beside the rewards' 1."""
CHECK_BATCHES = 64


class JumpState(NamedTuple):
    """J and what it learns by; saved with the run."""

    params: Params
    opt_state: Any
    updates: Array  # [] int32


class JumpWindows(NamedTuple):
    """Windows by how many actions are taken of them: 1 to L, the first axis."""

    actions: Array  # [B, L] int32, as played
    rewards: Array  # [L, B] float32, discounted sums
    real: Array  # [L, B] bool, all transitions are of one game, and none but the last ends it
    alive: Array  # [L, B] bool, nor does the last


def jump_windows(rows: Trajectory, history: int, longest: int, gamma: float) -> JumpWindows:
    """What was played from the roots of windows `[B, W, ...]`, `history` rows after their first."""
    part = slice(history, history + longest)
    discount, reward = rows.discount[:, part], rows.reward[:, part]
    same_game = ~rows.is_first[:, history + 1 : history + longest + 1]
    ended = is_end(discount)
    before = jnp.pad(ended[:, :-1], ((0, 0), (1, 0)))
    real = jnp.cumprod(same_game & ~before, axis=1) > 0
    # By the sign of the discounts: whose reward it is, where the player to move changes.
    carried = jnp.cumprod(jnp.pad(gamma * discount[:, :-1], ((0, 0), (1, 0)), constant_values=1), 1)
    sums = jnp.cumsum(jnp.where(real, carried * reward, 0.0), axis=1)
    return JumpWindows(rows.action[:, part], sums.T, real.T, (real & ~ended).T)


def cut(actions: Array, length: Array) -> Array:
    """The first `length [B]` of `actions [B, L]`, and -1 after them."""
    return jnp.where(jnp.arange(actions.shape[1]) < length[:, None], actions, -1)


def longest_jump(config: Config) -> int:
    """L: actions of the longest sequence that J learns of, as far as replayed windows hold them."""
    return min(config.macro.max_length, config.window_rows - config.env.frame_stack)


def init_jump(jump: Jump, config: Config, rng_key: Array, embedding_shape: tuple[int, ...]):
    """A fresh state; `embedding_shape` has no batch axis."""
    params = jump.init(rng_key, jnp.zeros((1, *embedding_shape), jnp.float32))
    opt_state = optax.adam(config.macro.jump_learning_rate).init(params)
    return JumpState(params, opt_state, jnp.zeros((), jnp.int32))


def jump_loss(
    networks: Networks,
    jump: Jump,
    config: Config,
    params: Params,
    jump_params: Params,
    *,
    state: Array,
    actions: Array,
    rewards: Array,
    real_end: Array,
    alive: Array,
) -> dict[str, Array]:
    """Each term `[B]`, unweighted, of jumps from `state [B, D]` by `actions [B, L]`.

    The sums of `rewards [B]` came, and `real_end [B, D]` was seen; nothing is learned of it where
    the game was over (not `alive [B]`). A gradient passes into `jump_params` alone.
    """
    params, state, real_end = jax.lax.stop_gradient((params, state, real_end))
    end, reward_logits = jump.apply(jump_params, state, actions)
    foreseen, told = networks.prediction(params, end), networks.prediction(params, real_end)
    place = make_place(networks, config)
    own, real = place(params, end, True), place(params, real_end, False)
    terms = {
        "value": categorical_loss(foreseen.value_logits, jax.nn.softmax(told.value_logits)),
        "policy": categorical_loss(foreseen.policy_logits, jax.nn.softmax(told.policy_logits)),
        "end": -optax.cosine_similarity(own, real, epsilon=1e-6),
    }
    transform = config.network.reward_transform
    return {
        "rewards": scalar_loss(reward_logits, rewards, transform),
        **{name: jnp.where(alive, term, 0.0) for name, term in terms.items()},
    }


def make_jump_update(
    networks: Networks, jump: Jump, config: Config, spec: EnvSpec
) -> Callable[[JumpState, Params, ReplaySample, Array], tuple[JumpState, dict[str, Array]]]:
    """One update of J on a batch of windows; pure, to be compiled by the caller.

    Returns:
        `(JumpState, params, sample, rng_key) -> JumpState, metrics`: of each window one length is
        drawn; terms are means over those that are real.
    """
    history, longest = spec.context - 1, longest_jump(config)
    optimizer = optax.adam(config.macro.jump_learning_rate)
    weights = {"rewards": 1.0, "value": JUDGED, "policy": JUDGED, "end": PLACED}

    def update(state: JumpState, params: Params, sample: ReplaySample, rng_key: Array):
        rows, batch = sample.rows, len(sample.weights)
        windows = jump_windows(rows, history, longest, config.learner.gamma)
        length = jax.random.randint(rng_key, (batch,), 1, longest + 1)
        at, each = length - 1, jnp.arange(batch)
        seen = stack_windows(rows, spec, range(history, history + longest + 1))
        ends = seen[each, length]
        root, end = embed(networks, params, jnp.stack([seen[:, 0], ends]))
        weight = sample.weights * windows.real[at, each] * ~held_out(sample, history)

        def loss(jump_params: Params) -> tuple[Array, dict[str, Array]]:
            terms = jump_loss(
                *(networks, jump, config, params, jump_params),
                state=root,
                actions=cut(windows.actions, length),
                rewards=windows.rewards[at, each],
                real_end=end,
                alive=windows.alive[at, each],
            )
            of_batch = {k: jnp.sum(x * weight) / batch for k, x in terms.items()}
            return sum(weights[k] * x for k, x in of_batch.items()), of_batch  # type: ignore[return-value]

        (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        new = (optax.apply_updates(state.params, updates), opt_state)
        old = (state.params, state.opt_state)
        kept, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        metrics = {f"loss/jump_{name}": term for name, term in terms.items()}
        return JumpState(kept, opt_state, state.updates + 1), metrics

    return update


class _Held(NamedTuple):
    """Held-out windows of one batch."""

    windows: JumpWindows
    embeddings: Array  # [L+1, B, D]
    held: Array  # [B] bool


def make_jump_check(
    networks: Networks, jump: Jump, replay: Replay, config: Config, spec: EnvSpec
) -> Callable[[JumpState, Params, Any, Array], dict[str, Array]]:
    """J beside stepping through the model, on windows that J was never trained on.

    Returns:
        `(JumpState, params, replay_state, rng_key) -> findings`, jitted, each `[L]` by length, and
        with the suffix `_stepped` of the model's own steps, open loop with the likeliest codes:
        `near`, the share of ends within `macro.distance_threshold` of the real one; `paid`, of the
        windows with rewards those whose sum is foreseen within `macro.reward_threshold`;
        `invented`, of those without the share that is not; `reward_error` of windows with rewards
        and `value_error` (from f of the real end), mean absolute. NaN where there are none.
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
        return _Held(jump_windows(rows, history, longest, gamma), embeddings, held[few])

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

    def check(state: JumpState, params: Params, replay_state: Any, rng_key: Array):
        keys = jax.random.split(rng_key, CHECK_BATCHES)
        each = jax.lax.map(lambda key: draw(params, replay_state, key), keys)
        windows = JumpWindows(
            each.windows.actions.reshape(-1, longest),
            *(jnp.swapaxes(x, 0, 1).reshape(longest, -1) for x in each.windows[1:]),
        )
        embeddings = jnp.moveaxis(each.embeddings, 1, 0)
        embeddings = embeddings.reshape(longest + 1, -1, *embeddings.shape[3:])
        held = each.held.reshape(-1)
        steps = imagine(networks, params, embeddings[0], windows.actions.T).steps
        carried = jnp.cumprod(gamma * steps.discount, axis=0)
        before = jnp.concatenate([jnp.ones_like(carried[:1]), carried[:-1]])
        stepped = jnp.cumsum(before * steps.reward, axis=0)

        def one(x: Any) -> dict[str, Array]:
            length, real, alive, rewards, seen, end, summed = x
            actions = cut(windows.actions, jnp.full(len(held), length))
            jumped, logits = jump.apply(state.params, embeddings[0], actions)

            def seen_as(end: Array, rewards: Array, foreseen: bool) -> dict[str, Array]:
                found = {"place": place(params, end, foreseen), "rewards": rewards}
                return found | {"value": predict(networks, params, end).value}

            came = seen_as(seen, rewards, False)
            of = partial(judge, real & held, alive & held, came=came)
            by_steps = of(foreseen=seen_as(end, summed, True))
            by_jump = of(foreseen=seen_as(jumped, jump.reward_of(logits), True))
            return by_jump | {f"{name}_stepped": y for name, y in by_steps.items()}

        lengths = jnp.arange(1, longest + 1)
        return jax.lax.map(
            one,
            (
                *(lengths, windows.real, windows.alive, windows.rewards),
                *(embeddings[1:], steps.state, stepped),
            ),
        )

    return jax.jit(check)
