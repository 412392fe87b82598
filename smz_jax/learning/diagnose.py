"""The model against what really happened in replayed windows of any run."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from smz_jax.config.settings import Config
from smz_jax.learning.learner import make_batch_builder
from smz_jax.learning.losses import Batch, loss_terms, unroll_model
from smz_jax.learning.replay import Replay
from smz_jax.learning.single_losses import code_entropy
from smz_jax.learning.update_metrics import model_metrics
from smz_jax.model.lanes import brought_home
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import embed, imagine, make_place, normalised_entropy
from smz_jax.types import Array, EnvSpec, Networks, Params, TrainState, Trajectory, is_end

HISTOGRAM_BINS, CALIBRATION_PARTS, SPREAD_PARTS = 20, 8, 4
FORESEEN_STEPS = 6
"""Steps ahead for which rewards and ends are checked, where the windows hold so many."""
FORESEEN_BATCHES = 16
"""Batches for that: rewards and lost lives are rare."""
EFFECT_RIVALS = 20
"""Random sequences from which a window's own actions are to be distinguished."""
EFFECT_EVERY = 4
"""One window in so many: the rivals cost far more than all else that is foreseen."""
ENCODER_TERMS = ("commitment", "representation", "code_entropy")
"""Terms that have a gradient for the encoder without the model's use of the codes."""


def _cosine(x: Array, y: Array) -> Array:
    """Cosine of `[..., D]`; 0 where one of them is 0."""
    norm = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return jnp.sum(x * y, axis=-1) / jnp.maximum(norm, 1e-9)


def batch_check(
    networks: Networks, config: Config, params: Params, rng_key: Array, batch: Batch
) -> dict[str, Array]:
    """Diagnostics of a batch of replayed windows; pure, to be jitted by the caller.

    Returns:
        `code_perplexity`, `agreement` (of code and most likely code), `chance_entropy_nats`,
        `embedding_variance`, `transition_entropy` (mean normalised H(sigma)): scalars over real
        transitions. `entropy_histogram [HISTOGRAM_BINS]`: their shares over [0, 1].
        `reward_error [K]`, `value_error [K+1]`: mean absolute errors from the targets, per unroll
        step. `consistency [K]`: mean cosine of the unrolled embedding with that of the real next
        observation, both less the batch's mean, since scaled embeddings point nearly one way.
    """
    frozen = networks._replace(
        representation_train=lambda p, x: (networks.representation(p, x), p["batch_stats"])
    )
    unrolled = unroll_model(frozen, params, rng_key, batch, config, jnp.float32(0))
    targets = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch.targets)
    mask = targets.transition_mask

    def over_batch(values: Array, weights: Array) -> Array:
        return jnp.sum(values * weights, axis=-1) / jnp.maximum(weights.sum(axis=-1), 1.0)

    entropy = normalised_entropy(unrolled.judged.chance_logits)
    bins = jnp.clip((entropy * HISTOGRAM_BINS).astype(jnp.int32), 0, HISTOGRAM_BINS - 1)
    total = jnp.maximum(mask.sum(), 1.0)
    reward_error = jnp.abs(networks.reward_of(unrolled.followed.reward_logits) - targets.reward)
    value_error = jnp.abs(networks.value_of(unrolled.predictions.value_logits) - targets.value)
    real = unrolled.after_embeddings.reshape(*mask.shape, -1).astype(jnp.float32)
    predicted = unrolled.embeddings[1:].reshape(real.shape).astype(jnp.float32)
    centre = jnp.sum(real * mask[..., None], axis=(0, 1)) / total
    return {
        **{name.removeprefix("model/"): x for name, x in model_metrics(unrolled, mask).items()},
        "transition_entropy": jnp.sum(entropy * mask) / total,
        "entropy_histogram": jnp.zeros(HISTOGRAM_BINS, jnp.float32).at[bins].add(mask) / total,
        "reward_error": over_batch(reward_error, targets.value_mask[1:]),
        "value_error": over_batch(value_error, targets.value_mask),
        "consistency": over_batch(_cosine(predicted - centre, real - centre), mask),
    }


def gradient_check(
    networks: Networks, config: Config, params: Params, rng_key: Array, batch: Batch
) -> dict[str, Array]:
    """Which losses the gradient consists of, and whether any passes through the codes.

    Pure, to be jitted by the caller; one backward pass for each term. As in training, a batch
    normalisation uses the batch; but noise on the codes is off, and the commitment has its full
    weight.

    Returns:
        Scalars. `gradient_share/<term>`, named as in `config.loss`: the norm of the weighted term's
        own gradient, over the sum of these norms; a term that is turned off is left out, or 0, and
        the jump's (`loss.jump`), which is of the sample and not of its batch, is left out.
        `encoder_gradient`: the norm of what reaches the encoder from all terms but its own
        (commitment, representation and code entropy), straight through the codes.
    """
    loss = dataclasses.replace(config.loss, auxiliary_every=1)
    every_row = dataclasses.replace(config, loss=loss)

    def terms(trainable: Params) -> dict[str, Array]:
        full = {"params": trainable, "batch_stats": params["batch_stats"]}
        unrolled = unroll_model(networks, full, rng_key, batch, every_row, jnp.float32(0))
        found = loss_terms(networks, full, unrolled, batch, every_row)
        weighted = {
            name: getattr(config.loss, name) * jnp.mean(term * batch.weights)
            for name, term in found.items()
        }
        mask = jnp.moveaxis(batch.targets.transition_mask, 1, 0)
        bonus = config.loss.code_entropy * code_entropy(unrolled.followed.code_probs, mask)
        return weighted | {"code_entropy": bonus}

    values, pull = jax.vjp(terms, params["params"])
    names = sorted(values)

    def norms(scale: Array) -> tuple[Array, Array]:
        (gradient,) = pull({name: scale[i] for i, name in enumerate(names)})
        of_encoder = {name: part for name, part in gradient.items() if name.startswith("encoder")}
        return optax.tree.norm(gradient), optax.tree.norm(of_encoder)

    through_codes = [float(name not in ENCODER_TERMS) for name in names]
    scales = np.concatenate([np.eye(len(names)), [through_codes]])
    each, of_encoder = jax.lax.map(norms, jnp.asarray(scales, jnp.float32))
    shares = each[:-1] / jnp.maximum(each[:-1].sum(), 1e-30)
    return {
        **{f"gradient_share/{name}": shares[i] for i, name in enumerate(names)},
        "encoder_gradient": of_encoder[-1],
    }


def foresight_sums(
    networks: Networks,
    config: Config,
    spec: EnvSpec,
    params: Params,
    rng_key: Array,
    rows: Trajectory,
) -> dict[str, Array]:
    """What the model foresees open loop along the actions of windows; sums over a batch, pure.

    Codes are the likeliest ones, as a macro would be played. `rows [B, W, ...]` are of a sample. A
    reward is foreseen if it comes within `macro.reward_threshold`. `rng_key` is consumed.

    Returns:
        `[T]` by the steps ahead, up to `FORESEEN_STEPS`: `rewards` that came, those `foreseen`;
        steps `without` one, where one was `invented`. Steps past an end are in none of them. Over
        all steps past an end: their number `past`, what the model says that they are worth,
        `worth_past`, and that times the discounts on the way, as search sees it, `counted_past`.
        Of one window in `EFFECT_EVERY`, `[T]` too: `windows` whose game went on so long, and
        `known` of them, where the model knows what the actions do, as `_effects_known` says.
    """
    history = spec.context - 1
    steps = min(FORESEEN_STEPS, config.window_rows - history - 1)
    part = slice(history, history + steps)
    real = jnp.cumprod(~rows.is_first[:, history + 1 : history + steps + 1], axis=1).T > 0
    ended = is_end(rows.discount[:, part]).T
    roots = stack_windows(rows, spec, range(history, history + 1))[:, 0]
    roots, actions = networks.representation(params, roots), rows.action[:, part].T
    _, after = imagine(networks, params, roots, actions)
    reward = rows.reward[:, part].T
    over = jnp.cumsum(ended & real, axis=0) > 0  # the state after the step lies past an end
    expected = real & ~(jnp.cumsum(ended, axis=0) - ended > 0)
    paid, right = reward != 0, jnp.abs(after.reward - reward) <= config.macro.reward_threshold
    counted = jnp.cumprod(after.discount, axis=0) * after.value

    few = max(1, len(reward.T) // EFFECT_EVERY)
    rows = jax.tree.map(lambda x: x[:few], rows)
    seen = stack_windows(rows, spec, range(history + 1, part.stop + 1))
    seen = embed(networks, params, jnp.swapaxes(seen, 0, 1))
    found = roots[:few], actions[:, :few], after.state[:, :few], seen
    known = _effects_known(networks, config, spec, params, rng_key, *found)
    alive = (real & ~over)[:, :few]

    def total(x: Array, axis: int | None = 1) -> Array:
        return jnp.sum(x, axis=axis, dtype=jnp.float32)

    return {
        "rewards": total(expected & paid),
        "foreseen": total(expected & paid & right),
        "without": total(expected & ~paid),
        "invented": total(expected & ~paid & ~right),
        "past": total(over, None),
        "worth_past": total(jnp.where(over, after.value, 0.0), None),
        "counted_past": total(jnp.where(over, counted, 0.0), None),
        "windows": total(alive),
        "known": total(alive & known),
    }


def _effects_known(
    networks: Networks,
    config: Config,
    spec: EnvSpec,
    params: Params,
    rng_key: Array,
    roots: Array,
    actions: Array,
    ends: Array,
    seen: Array,
) -> Array:
    """Whether real ends are nearer to those foreseen of their own actions than to any other's.

    The others are `EFFECT_RIVALS` sequences from the same `roots [B, D]`, drawn uniformly; equal
    ones are no rivals. By the cosine in the space of `make_place`, of the `ends [T, B, D]` that
    were foreseen of `actions [T, B]` and of what was `seen [T, B, D]`: `[T, B]` bool.
    """
    shape = (len(actions), EFFECT_RIVALS, len(roots))
    drawn = jax.random.randint(rng_key, shape, 0, spec.num_actions, actions.dtype)
    same = jnp.cumprod(drawn == actions[:, None], axis=0) > 0
    tiled = jnp.tile(roots, (EFFECT_RIVALS, *[1] * (roots.ndim - 1)))
    rivals = imagine(networks, params, tiled, drawn.reshape(len(actions), -1))[1].state
    place = make_place(networks, config)

    def nearest(ends: Array, end: Array, same: Array) -> Array:
        ends = place(params, ends, True).reshape(EFFECT_RIVALS + 1, len(end), -1)
        cosine = _cosine(ends, place(params, end, False))
        return cosine[0] > jnp.max(jnp.where(same, -jnp.inf, cosine[1:]), axis=0)

    foreseen = jnp.concatenate([ends, rivals], axis=1)
    return jax.lax.map(lambda x: nearest(*x), (foreseen, seen, same))


def make_foresight(
    networks: Networks, replay: Replay, config: Config, spec: EnvSpec
) -> Callable[[Params, Any, Array], dict[str, Array]]:
    """Those sums over `FORESEEN_BATCHES` batches, drawn as the learner draws its own.

    Returns:
        `(params, replay_state, rng_key) -> findings`, jitted: `rewards_foreseen [T]`, a share of
        those that came, and `rewards_invented [T]`, a share of the steps without one;
        `value_past_end`, mean, and `value_past_end_counted`; `effects_known [T]`, a share of the
        windows. NaN where nothing of the kind came.
    """

    def foresight(params: Params, replay_state: Any, rng_key: Array) -> dict[str, Array]:
        def one(key: Array) -> dict[str, Array]:
            rows, own = replay.sample(replay_state, key).rows, jax.random.fold_in(key, 1)
            return foresight_sums(networks, config, spec, params, own, rows)

        each = jax.lax.map(one, jax.random.split(rng_key, FORESEEN_BATCHES))
        sums = jax.tree.map(lambda x: x.sum(axis=0), each)
        return {
            "rewards_foreseen": sums["foreseen"] / sums["rewards"],
            "rewards_invented": sums["invented"] / sums["without"],
            "value_past_end": sums["worth_past"] / sums["past"],
            "value_past_end_counted": sums["counted_past"] / sums["past"],
            "effects_known": sums["known"] / sums["windows"],
        }

    return jax.jit(foresight)


def make_check(
    networks: Networks, replay: Replay, config: Config, spec: EnvSpec
) -> Callable[[TrainState, Any, Array], dict[str, Array]]:
    """Both checks of one replayed batch as one compiled call, sampling included.

    The batch is drawn as the learner draws its own, by priority where that is on. Nothing is
    donated and no priority is set: a run continues as if it had not been checked.

    Returns:
        `(TrainState, replay_state, rng_key) -> findings`, jitted: those of `batch_check` and of
        `gradient_check`.
    """
    as_shown = dataclasses.replace(config.learner, frame_shift=0)  # frames as the games show them
    plain = dataclasses.replace(config, learner=as_shown)
    build_batch = make_batch_builder(networks, plain, spec)

    def check(state: TrainState, replay_state: Any, rng_key: Array) -> dict[str, Array]:
        keys = jax.random.split(rng_key, 4)
        sample = replay.sample(replay_state, keys[0])
        batch = build_batch(state.target_params, keys[1], sample)
        found = batch_check(networks, config, state.params, keys[2], batch)
        return found | gradient_check(networks, config, state.params, keys[3], batch)

    return jax.jit(check)


def real_returns(
    reward: np.ndarray,
    discount: np.ndarray,
    is_first: np.ndarray,
    gamma: float,
    player: np.ndarray | None = None,
    rewards: np.ndarray | None = None,
) -> np.ndarray:
    """The discounted return that really followed each row up to its episode's true end.

    All are `[B, T]` of rows in order; so is the result, float64, from each row's mover's side. It
    is NaN where the end is not among the rows, where the episode was cut off, and in final
    observations. Of more than two players `player` and `rewards [B, T, P]` are those of the rows,
    and the discounts count without their sign: each seat's rewards are added up for itself.
    """
    gains, rates = reward[..., None], discount
    if rewards is not None:
        gains, rates = rewards, np.abs(discount)
    final = np.pad(is_first[:, 1:].astype(np.bool_), ((0, 0), (0, 1)))
    found = np.full(gains.shape, np.nan, np.float64)
    after = np.full((len(gains), gains.shape[-1]), np.nan, np.float64)
    for t in reversed(range(gains.shape[1])):
        more = np.where(is_end(discount[:, t, None]), 0.0, gamma * rates[:, t, None] * after)
        after = found[:, t] = np.where(final[:, t, None], np.nan, gains[:, t] + more)
    seat = np.zeros(reward.shape, np.int64) if player is None else player
    return np.take_along_axis(found, seat[..., None], axis=-1)[..., 0]


def calibration(replay_state: Any, gamma: float) -> dict[str, np.ndarray]:
    """Stored search values beside the returns that really followed.

    Returns:
        `stored` and `real`: means over the rows whose return is known; NaN where there is none.
        `[CALIBRATION_PARTS]`, the rows cut by time, the oldest first. Likewise, with the suffix
        `_by_spread`, `[SPREAD_PARTS]` equal parts of those rows by how far apart the search found
        the actions (`Trajectory.search_spread`), the nearest first; NaN where nothing was searched.
    """
    rows = replay_state.experience
    ring, at = rows.reward.shape[1], int(replay_state.current_index)
    order = (at + np.arange(ring)) % ring if replay_state.is_full else np.arange(at)
    names = ["search_value", "search_spread", "reward", "discount", "is_first"]
    names += ["player", "rewards"] * (rows.rewards is not None)
    fields = jax.device_get(brought_home([getattr(rows, name) for name in names]))
    value, spread, reward, discount, is_first, *seats = (np.asarray(x)[:, order] for x in fields)
    real = real_returns(reward, discount, is_first, gamma, *seats)
    known, pairs = np.isfinite(real), np.stack([value, real], axis=-1)
    cuts = np.array_split(np.arange(len(order)), CALIBRATION_PARTS)
    apart = spread[known]
    ranks = np.argsort(apart, kind="stable") if apart.any() else np.zeros(0, np.int64)
    by_spread = pairs[known][ranks]
    found = {}
    for suffix, parts in (
        ("", [pairs[:, cut][known[:, cut]] for cut in cuts]),
        ("_by_spread", np.array_split(by_spread, SPREAD_PARTS)),
    ):
        means = np.array([x.mean(axis=0) if len(x) else [np.nan] * 2 for x in parts])
        found |= {f"stored{suffix}": means[:, 0], f"real{suffix}": means[:, 1]}
    return found


def check_row(result: Mapping[str, Any], prefix: str = "check") -> dict[str, float]:
    """A check as a metrics row: vectors become `name_0`, `name_1`, ..., by unroll step or bin."""
    row = {}
    for name, value in result.items():
        for i, number in enumerate(np.ravel(np.asarray(value, np.float64))):
            row[f"{prefix}/{name}" + (f"_{i}" if np.ndim(value) else "")] = float(number)
    return row
