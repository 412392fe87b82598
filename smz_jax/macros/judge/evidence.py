"""The two gates of a macro, over replayed windows with its actions.

Certainty: in how many of them the model is certain of every transition, under
`macro.play_threshold`. A sequence that is so only where its actions have no effect (at a wall, say)
is no rule of the game.

Repeatability: certainty is the model's own word, and a model whose codebook has collapsed is
certain of everything. So each window that it is certain of is a trial: its open-loop prediction is
set against what really followed. A trial holds if

- near: the embedding that the model foresees at the end is as near to the real one as
  `macro.distance_threshold` allows, a share of its distance from the ends of other windows;
- paid: the absolute errors of its rewards, summed over the window, stay within
  `macro.reward_threshold`;
- agreed: the encoder, told what happened at each step, gives the code that was foreseen.

A pass is all that an iteration's batches show, every `macro.head_every`-th of them. Evidence is
forgotten slowly (`macro.evidence_decay` for each pass): the model still learns. A window that
is drawn again counts again, and neighbours overlap, so that the bounds are somewhat too narrow. A
macro is `refuted` once the upper bound of its share of held trials falls below `macro.sound_share`,
`sound` once the lower bound reaches it and the lower bound of its share of certain windows reaches
`macro.certain_share`, `candidate` in between and before `macro.min_trials`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import pack
from smz_jax.macros.mine.table import EVIDENCE
from smz_jax.storage.estimate import wilson
from smz_jax.types import Array, MacroTable

CANDIDATE, SOUND, REFUTED = 0, 1, 2
Z = 1.6448536
"""Quantile of the one-sided 95 % bounds."""


class Trials(NamedTuple):
    """What the model foresaw over K steps of replayed windows, and how that compares; [B, K] each.

    Step k is the transition after k earlier ones; `valid` is false from a game's end on.
    """

    action: Array  # int32
    entropy: Array  # float32, normalised, of the step's sigma
    distance: Array  # float32, of the embedding foreseen after the step, as `relative_distance`
    reward_error: Array  # float32, absolute
    agrees: Array  # bool, the encoder's code is the likeliest one
    valid: Array  # bool, a real transition that follows real ones


class Outcomes(NamedTuple):
    """Windows of each length; [lengths, B] each. Where there is none the key is (0, 0)."""

    key_high: Array  # uint32
    key_low: Array  # uint32
    certain: Array  # bool, held certain throughout: a trial
    near: Array  # bool
    paid: Array  # bool
    agreed: Array  # bool


def outcomes(trials: Trials, config: MacroConfig) -> Outcomes:
    """Judges every window that starts at the root: one for each length, none beyond the trials' K.

    Returns:
        Windows whose transitions really happened, and what came of them.
    """
    lasts = range(config.min_length - 1, min(config.max_length, trials.action.shape[1]))

    def ends(x: Array) -> Array:
        return x.T[lasts.start : lasts.stop]

    def through(x: Array) -> Array:
        return ends(jnp.cumprod(x, axis=1).astype(jnp.bool_))

    counts = through(trials.valid)
    if not config.include_repeats:
        counts &= ~through(trials.action == trials.action[:, :1])
    keys = [pack(trials.action[:, : last + 1]) for last in lasts]
    high, low = (jnp.where(counts, jnp.stack(words), 0) for words in zip(*keys, strict=True))
    error = jnp.where(jnp.isfinite(trials.reward_error), trials.reward_error, jnp.inf)
    return Outcomes(
        key_high=high,
        key_low=low,
        certain=through(jnp.isfinite(trials.entropy) & (trials.entropy < config.play_threshold)),
        near=ends(trials.distance <= config.distance_threshold),
        paid=ends(jnp.cumsum(error, axis=1) <= config.reward_threshold),
        agreed=through(trials.agrees),
    )


def count_trials(actions: Array, found: Outcomes) -> Array:
    """What came of windows, counted for the macros whose actions `[M, L]` they have.

    Returns:
        [6, M] float32: `windows`, `trials`, `held`, `near`, `paid` and `agreed`.
    """
    flat = jax.tree.map(jnp.ravel, found)
    high, low = pack(actions)
    is_window = (flat.key_high != 0)[:, None]
    matches = is_window & (flat.key_high[:, None] == high) & (flat.key_low[:, None] == low)
    held = flat.near & flat.paid & flat.agreed
    came_true = jnp.stack([held, flat.near, flat.paid, flat.agreed])
    every = jnp.ones_like(flat.certain)
    counted = jnp.stack([every, flat.certain, *(came_true & flat.certain)])
    # Sums of ones: exact in any order.
    return counted.astype(jnp.float32) @ matches.astype(jnp.float32)


def weigh(table: MacroTable, counts: Array, config: MacroConfig) -> MacroTable:
    """Adds a pass's counts to the evidence; what was known before fades, if there were any windows.

    `counts [6, M]` are those of `count_trials`, summed over the windows of the pass.
    """
    former = jnp.stack([getattr(table, name) for name in EVIDENCE])
    any_windows = counts[0].sum() > 0  # an iteration may have had no pass
    total = former * jnp.where(any_windows, jnp.float32(config.evidence_decay), 1.0) + counts
    return table._replace(**dict(zip(EVIDENCE, total, strict=True)))


def share_bounds(successes: Array, trials: Array) -> tuple[Array, Array]:
    """One-sided 95 % bounds of a share, float32, by Wilson's interval; 0 and 1 without a trial.

    `successes` are at least 0, of any shape, and `trials` at least as many.
    """
    count = jnp.maximum(trials, 1e-6)
    low, high = wilson(successes / count, count, Z, jnp)
    return jnp.where(trials > 0, low, 0.0), jnp.where(trials > 0, high, 1.0)


def status(table: MacroTable, config: MacroConfig) -> Array:
    """`CANDIDATE`, `SOUND` or `REFUTED` for each slot, [M] int32; empty slots are candidates."""
    low, high = share_bounds(table.held, table.trials)
    judged = (table.length > 0) & (table.trials >= config.min_trials)
    certain, _ = share_bounds(table.trials, table.windows)
    sound = judged & (low >= config.sound_share) & (certain >= config.certain_share)
    sound &= table.count >= config.min_occurrences
    refuted = judged & (high < config.sound_share)
    return jnp.where(sound, SOUND, jnp.where(refuted, REFUTED, CANDIDATE)).astype(jnp.int32)
