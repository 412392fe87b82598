"""How good preconditions are, on windows that the head is never trained on.

Counts in fixed shape, forgotten as slowly as the evidence of macros. Two baselines are counted
beside the head: *always* (the macro applies everywhere; its precision is the share of
positive windows) and *bucket* (it applies where at least half of the windows trained on, of the
same macro and start-state bucket, were positive; in a bucket never seen, of the same macro).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.training import MacroConfig
from smz_jax.macros.precondition.slots import MacroSlots
from smz_jax.types import Array

LOGIT_LIMIT, LOGIT_BINS, PROBABILITY_BINS = 8.0, 64, 10
TEMPERATURES = 2.0 ** np.linspace(-3, 3, 97)


class Tally(NamedTuple):
    """Counts of windows, float32; those of a slot begin anew with its owner."""

    asked: Array  # [slots] held-out windows that spoke of the owner
    positive: Array  # [slots] of these: it applied
    predicted: Array  # [2, slots] of these: it was said to; by the head, by the bucket
    hit: Array  # [2, slots] and it did
    buckets: Array  # [2, slots, num_buckets] windows trained on: how many, how many positive
    bins: Array  # [3, LOGIT_BINS] of held-out logits: negatives, positives, sum of the logits


def init_tally(config: MacroConfig) -> Tally:
    """Nothing counted."""
    size, kinds = config.slots, config.num_buckets
    shapes = (size,), (size,), (2, size), (2, size), (2, size, kinds), (3, LOGIT_BINS)
    return Tally(*(jnp.zeros(shape, jnp.float32) for shape in shapes))


def forget(tally: Tally, changed: Array, decay: float) -> Tally:
    """All counts times `decay`; those of slots that changed their owner, [slots] bool, become 0."""
    kept = jnp.where(changed, 0.0, decay)
    of_slots = [x * kept for x in tally[:4]]
    return Tally(*of_slots, buckets=tally.buckets * kept[:, None], bins=tally.bins * decay)


def count(
    tally: Tally, *, logits: Array, target: Array, trained: Array, held_out: Array, bucket: Array
) -> Tally:
    """Takes a batch of windows into the counts; predictions come before the batch is learned.

    Of [B, slots], `logits` that are not finite do not count, `target` is bool, and `trained` and
    `held_out`, bool, say whose owners windows trained on and held out speak of. `bucket [B]` int32
    is the start-state bucket of each window, -1 where none is known.
    """
    held_out = held_out & jnp.isfinite(logits)
    shares = tally.buckets.at[:, :, jnp.maximum(bucket, 0)].get() * (bucket >= 0)
    shares = jnp.where(shares[0] > 0, shares, tally.buckets.sum(axis=-1)[..., None])
    by_bucket = ((shares[1] > 0) & (2 * shares[1] >= shares[0])).T
    said = jnp.stack([logits >= 0, by_bucket])

    def total(x: Array) -> Array:
        return jnp.sum(x, axis=-2, dtype=jnp.float32)

    width = 2 * LOGIT_LIMIT / LOGIT_BINS
    place = jnp.clip((logits + LOGIT_LIMIT) / width, 0, LOGIT_BINS - 1).astype(jnp.int32)
    clipped = jnp.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    parts = jnp.stack([~target, target, jnp.where(held_out, clipped, 0)]) * held_out
    bins = jnp.zeros((LOGIT_BINS, 3), jnp.float32).at[place].add(jnp.moveaxis(parts, 0, -1)).T
    in_bucket = jax.nn.one_hot(bucket, tally.buckets.shape[-1], dtype=jnp.float32)
    learned = jnp.stack([trained, trained & target]).astype(jnp.float32)
    return Tally(
        asked=tally.asked + total(held_out),
        positive=tally.positive + total(held_out & target),
        predicted=tally.predicted + total(held_out & said),
        hit=tally.hit + total(held_out & said & target),
        buckets=tally.buckets + jnp.einsum("kbs,bq->ksq", learned, in_bucket),
        bins=tally.bins + bins,
    )


def _mean_logits(bins: Array) -> tuple[Array, Array]:
    """The mean logit of each bin and its number of entries."""
    number = bins[0] + bins[1]
    return bins[2] / jnp.maximum(number, 1e-9), number


def fit_temperature(bins: Array) -> Array:
    """The T under which sigmoid(logit / T) has the least cross-entropy (Guo et al. 2017).

    Only of those T whose calibration error is at most that of T = 1: where the head errs to one
    side at all probabilities alike, no T mends it, and the T of the least cross-entropy alone made
    the error larger. An offset (Platt 1999) would mend that, but would also move what
    applies at probability 0.5, and with it what precision and recall are counted of.

    Returns:
        [] float32, one of `TEMPERATURES`; 1 where there is nothing to fit.
    """
    logit, number = _mean_logits(bins)
    temperatures = jnp.asarray(TEMPERATURES, jnp.float32)
    scaled = logit / temperatures[:, None]
    loss = bins[0] * jax.nn.softplus(scaled) + bins[1] * jax.nn.softplus(-scaled)
    errors = jax.vmap(calibration_error, (None, 0))(bins, temperatures)
    allowed = errors <= errors[TEMPERATURES.tolist().index(1.0)]
    best = temperatures[jnp.argmin(jnp.where(allowed, loss.sum(axis=1), jnp.inf))]
    return jnp.where(number.sum() > 0, best, 1.0)


def calibration_error(bins: Array, temperature: Array | float) -> Array:
    """Expected calibration error of sigmoid(logit / T) over ten equal bins (Guo et al. 2017).

    Each of the `Tally`'s bins counts with its mean logit. [] float32, in 0..1.
    """
    logit, number = _mean_logits(bins)
    probability = jax.nn.sigmoid(logit / temperature)
    place = jnp.clip(probability * PROBABILITY_BINS, 0, PROBABILITY_BINS - 1).astype(jnp.int32)
    gap = probability * number - bins[1]
    gaps = jnp.zeros((PROBABILITY_BINS,), jnp.float32).at[place].add(gap)
    return jnp.sum(jnp.abs(gaps)) / jnp.maximum(number.sum(), 1e-9)


@jax.jit
def quality(slots: MacroSlots, tally: Tally) -> dict[str, Array]:
    """The preconditions of all slots together, on held-out windows; NaN where nothing is known.

    Returns:
        Scalars: `precision`, `recall` of the head at probability 0.5; `bucket_precision`,
        `bucket_recall` and `always_precision` (whose recall is 1) of the baselines; `ece` and
        `ece_raw`, the expected calibration error with and without `temperature`, of the very
        windows that `temperature` is fitted to (one number, to thousands of them; the head itself
        is never trained on one), each as the head was when it came: `ece` is never above
        `ece_raw`; `windows`, what all this is of (forgotten slowly); `owners`, slots that are
        taken.
    """
    positive, asked = tally.positive.sum(), tally.asked.sum()
    predicted, hit = tally.predicted.sum(axis=1), tally.hit.sum(axis=1)
    temperature = fit_temperature(tally.bins)
    known = jnp.where(asked > 0, 1.0, jnp.nan)
    return {
        "precision": hit[0] / predicted[0],
        "recall": hit[0] / positive,
        "bucket_precision": hit[1] / predicted[1],
        "bucket_recall": hit[1] / positive,
        "always_precision": positive / asked,
        "ece": calibration_error(tally.bins, temperature) * known,
        "ece_raw": calibration_error(tally.bins, 1.0) * known,
        "temperature": temperature,
        "windows": asked,
        "owners": jnp.sum(slots.length > 0, dtype=jnp.float32),
    }


def slot_entries(slots: MacroSlots, tally: Tally) -> dict[tuple[int, ...], dict[str, float | None]]:
    """Slot and precondition quality of each owner, on the host.

    Returns:
        By action sequence: `slot`; `windows` held out that spoke of it; `precision`, `recall` and
        `always_precision`, None where nothing is known.
    """
    slots, tally = jax.device_get((slots, tally))

    def share(part: Any, whole: Any) -> float | None:
        return float(part) / float(whole) if whole > 0 else None

    return {
        tuple(slots.actions[slot][: slots.length[slot]].tolist()): {
            "slot": int(slot),
            "windows": float(tally.asked[slot]),
            "precision": share(tally.hit[0, slot], tally.predicted[0, slot]),
            "recall": share(tally.hit[0, slot], tally.positive[slot]),
            "always_precision": share(tally.positive[slot], tally.asked[slot]),
        }
        for slot in np.flatnonzero(slots.length)
    }
