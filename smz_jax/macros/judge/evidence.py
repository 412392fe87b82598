"""The two gates of a macro, over replayed windows with its actions.

Certainty: in how many of them the model is certain of every transition, under
`macro.play_threshold`. A sequence that is so only where its actions have no effect (at a wall, say)
is no rule of the game.

Repeatability: certainty is the model's own word, and a model whose codebook has collapsed is
certain of everything. So each window that it is certain of is a trial: its open-loop prediction is
set against what really followed. A trial holds if

- near: the embedding that the model foresees at the end is as near to the real one as
  `macro.distance_threshold` allows, a share of its distance from the ends of other windows, and
  nearer to it than to what was seen 1, 2 and 4 steps before and after it in the same window;
- paid: the sum of its rewards is that foreseen, within `macro.reward_threshold`;
- agreed: the encoder, told what happened at each step, gives the code that was foreseen;
- ends: the game ended (a lost life, where it is an end) just where the model foresaw it, if
  anywhere.

A window whose game ends before its last action is a trial of every macro that begins with the
actions up to there, shared among those of a length as often as each was played. Up to the end it
is judged like any other; it fails unless the model foresaw the end. A window that is cut off
otherwise says nothing.

A pass is all that an iteration's batches show, every `macro.head_every`-th of them. Replay draws
some windows more often than others: each counts by its importance weight, so that shares are of
play, and bounds are of as many windows as would say as much at equal weights (Kish 1965). Evidence
is forgotten slowly (`macro.evidence_decay` for each pass): the model still learns. A window that
is drawn again counts again, and neighbours overlap, so that the bounds are somewhat too narrow. A
macro is `refuted` once the upper bound of its share of held trials falls below `macro.sound_share`;
`sound` once the lower bound reaches it, the lower bound of its share of certain windows reaches
`macro.certain_share`, and it passes the correction for many candidates; `candidate` in between and
before `macro.min_trials`.

The correction: of 1,000 candidates 50 pass a 95 % bound by chance. So a sound macro is also among
those that Benjamini and Hochberg (1995) choose by the binomial test of `macro.sound_share`, so
that no more than a share `macro.false_share` of them is expected to be false. It stands beside
the bound, which readers see, and which is stricter where nearly all candidates are good.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from smz_jax.config.training import MacroConfig
from smz_jax.macros.mine.keys import pack
from smz_jax.macros.mine.table import EVIDENCE
from smz_jax.storage.documents.macro_form import GATES
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
    nearest: Array  # bool, that embedding is nearest to the real one, as `nearest_in_time`
    reward_error: Array  # float32, foreseen less real
    agrees: Array  # bool, the encoder's code is the likeliest one
    valid: Array  # bool, a real transition that follows real ones
    ended: Array  # bool, a valid one that led to a true end
    foreseen_end: Array | None  # bool, the model holds it to be one; None: it knows of no ends


class Outcomes(NamedTuple):
    """Windows of each length; [lengths, B] each."""

    key_high: Array  # uint32, of the actions before the game's end
    key_low: Array  # uint32
    known: Array  # int32, the number of those; 0: there is no window
    length: Array  # int32, of the window
    certain: Array  # bool, held certain up to there: a trial
    near: Array  # bool; true where an end is seen in place of a state
    paid: Array  # bool
    agreed: Array  # bool
    ends: Array  # bool

    @property
    def held(self) -> Array:
        """Whether all gates were passed."""
        return self.near & self.paid & self.agreed & self.ends


def outcomes(trials: Trials, config: MacroConfig) -> Outcomes:
    """Judges every window that starts at the root: one for each length, none beyond the trials' K.

    Returns:
        Windows whose transitions really happened up to their end or the game's, and what came of
        them.
    """
    steps = trials.action.shape[1]
    last = jnp.arange(config.min_length - 1, min(config.max_length, steps))[:, None]

    def first(x: Array) -> Array:
        """The first step of which it is true, or one past the last, `[lengths, B]`."""
        found = jnp.where(jnp.any(x, axis=1), jnp.argmax(x, axis=1), steps)
        return jnp.minimum(found, last + 1)

    end = first(trials.ended)
    stop = jnp.minimum(end, last)

    def at_stop(x: Array) -> Array:
        return jnp.take_along_axis(x, stop.T, axis=1).T

    def through(x: Array) -> Array:
        return at_stop(jnp.cumprod(x, axis=1).astype(jnp.bool_))

    is_cut = end < last
    counts = is_cut | jnp.take_along_axis(trials.valid, jnp.broadcast_to(last, end.shape).T, 1).T
    if not config.include_repeats:
        counts &= is_cut | ~through(trials.action == trials.action[:, :1])
    actions = jnp.where(jnp.arange(steps) <= stop[..., None], trials.action, -1)
    high, low = pack(actions)
    error = jnp.where(jnp.isfinite(trials.reward_error), trials.reward_error, jnp.inf)
    near = at_stop((trials.distance <= config.distance_threshold) & trials.nearest)
    ends = ~is_cut
    if trials.foreseen_end is not None:
        near |= end <= last
        ends = first(trials.foreseen_end) == end
    return Outcomes(
        key_high=high,
        key_low=low,
        known=jnp.where(counts, stop + 1, 0),
        length=jnp.broadcast_to(last + 1, end.shape),
        certain=through(jnp.isfinite(trials.entropy) & (trials.entropy < config.play_threshold)),
        near=near | is_cut,
        paid=at_stop(jnp.abs(jnp.cumsum(error, axis=1)) <= config.reward_threshold),
        agreed=through(trials.agrees),
        ends=ends,
    )


def matching(found: Outcomes, actions: Array) -> Array:
    """Of which macros `[M, L]` windows are trials, `[lengths, B, M]` bool.

    Those of the window's length with its actions, as far as they are known.
    """
    full = np.uint64(2**64 - 1)
    masks = np.array([0, *(full << np.uint64(64 - 8 * known) for known in range(1, 9))], np.uint64)
    words = (masks >> np.uint64(32), masks & np.uint64(2**32 - 1))
    match = (found.known > 0)[..., None] & (
        found.length[..., None] == jnp.sum(actions >= 0, axis=1)
    )
    for key, word, mask in zip((found.key_high, found.key_low), pack(actions), words, strict=True):
        of_known = jnp.asarray(mask.astype(np.uint32))[found.known][..., None]
        match &= key[..., None] == (word & of_known)
    return match


def count_trials(actions: Array, played: Array, found: Outcomes, weights: Array) -> Array:
    """What came of windows of the weights `[B]`, for the macros with the actions `[M, L]`.

    A window that is cut is shared among its macros in proportion to how often each was `played`
    `[M]`, and once more.

    Returns:
        [8, M] float32: the fields `EVIDENCE`.
    """
    share = matching(found, actions) * (played.astype(jnp.float32) + 1.0)
    share /= jnp.maximum(share.sum(axis=-1, keepdims=True), 1.0)
    share = (share * weights[:, None]).reshape(-1, actions.shape[0])
    passed = jnp.stack([found.held, *(getattr(found, name) for name in GATES)])
    counted = jnp.concatenate([found.certain[None], passed & found.certain]).astype(jnp.float32)
    counts = counted.reshape(counted.shape[0], -1) @ share
    return jnp.concatenate([share.sum(axis=0)[None], (share**2).sum(axis=0)[None], counts])


def weigh(table: MacroTable, counts: Array, config: MacroConfig) -> MacroTable:
    """Adds a pass's counts to the evidence; what was known before fades, if there were any windows.

    `counts [8, M]` are those of `count_trials`, summed over the windows of the pass.
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


def effective_share(table: MacroTable) -> Array:
    """What the windows of each macro say, as a share of as many windows of equal weights, `[M]`.

    (sum w)^2 / (sum w^2), Kish's effective sample size, over sum w; 1 at most, so that parts of
    cut windows do not count as whole ones.
    """
    known = table.squares > 0
    return jnp.where(known, jnp.minimum(table.windows / jnp.maximum(table.squares, 1e-9), 1.0), 1.0)


def chance_of_more(successes: Array, trials: Array, share: float) -> Array:
    """P(X >= successes) where X is binomial of `trials` at `share`; also of real numbers.

    By the normal approximation of Peizer and Pratt (1968), which is off by less than 3 %, and
    exactly where all succeeded: the incomplete beta function takes seconds to compile.
    """

    def g(x: Array) -> Array:
        """(1 - x^2 + 2 x ln x) / (1 - x)^2; near 1 by its series."""
        h = 1.0 - x
        near = jnp.abs(h) < 0.2
        series = h * (1 / 3 + h * (1 / 6 + h * (1 / 10 + h / 15)))
        return jnp.where(near, series, (1 - x**2 + 2 * x * jnp.log(x)) / jnp.where(near, 1.0, h**2))

    rest = 1.0 - share
    below = jnp.maximum(successes - 1.0, 0.0)  # 1 - P(X <= below)
    above = jnp.maximum(trials - below, 0.5)
    offset = below + 2 / 3 - (trials + 1 / 3) * share
    offset += 0.02 * (rest / (below + 1) - share / above + (rest - 0.5) / (trials + 1))
    spread = 1 + rest * g((below + 0.5) / jnp.maximum(trials * share, 1e-6))
    spread += share * g(jnp.maximum(above - 0.5, 1e-6) / jnp.maximum(trials * rest, 1e-6))
    z = offset * jnp.sqrt(spread / ((trials + 1 / 6) * share * rest))
    tail = jnp.where(successes >= trials, share**trials, ndtr(-z))
    return jnp.where((successes > 0) & (trials > 0), tail, 1.0)


def discoveries(p_values: Array, tested: Array, false_share: float) -> Array:
    """Which of the `tested [M]` Benjamini and Hochberg (1995) choose, by their `p_values [M]`.

    The k least, for the largest k whose greatest p-value is at most k / m `false_share`; m are all
    that are tested.
    """
    p_values = jnp.where(tested, p_values, jnp.inf)
    ordered = jnp.sort(p_values)
    allowed = false_share * jnp.arange(1, len(ordered) + 1) / jnp.maximum(tested.sum(), 1)
    greatest = jnp.max(jnp.where(ordered <= allowed, ordered, -1.0))
    return tested & (p_values <= greatest)


class Judged(NamedTuple):
    """What the evidence says of each entry of a table; `[M]` each."""

    status: Array  # int32: CANDIDATE, SOUND or REFUTED; empty slots are candidates
    effective: Array  # float32, trials, as many as would say as much at equal weights
    held_low: Array  # float32, one-sided 95 % bounds
    held_high: Array  # float32
    certain_low: Array  # float32
    p_value: Array  # float32, of its held trials, if its share were `macro.sound_share`
    tested: Array  # bool, it had trials enough
    discovered: Array  # bool, it passes the correction for many candidates


def judge(table: MacroTable, config: MacroConfig) -> Judged:
    """Judges every entry of a table by its evidence."""
    share = effective_share(table)
    trials, held = table.trials * share, table.held * share
    low, high = share_bounds(held, trials)
    certain, _ = share_bounds(trials, table.windows * share)
    tested = (table.length > 0) & (trials >= config.min_trials)
    p_value = chance_of_more(held, trials, config.sound_share)
    discovered = discoveries(p_value, tested, config.false_share)
    sound = discovered & (low >= config.sound_share) & (certain >= config.certain_share)
    sound &= table.count >= config.min_occurrences
    refuted = tested & (high < config.sound_share)
    found = jnp.where(sound, SOUND, jnp.where(refuted, REFUTED, CANDIDATE)).astype(jnp.int32)
    return Judged(found, trials, low, high, certain, p_value, tested, discovered)


def expected_false(judged: Judged, config: MacroConfig) -> Array:
    """How many sound macros are expected to be false, at most: `[]` float32.

    The share that the correction allows of those that pass it, and a twentieth of all tested, who
    pass the bound by chance.
    """
    chosen, tested = judged.discovered.sum(), judged.tested.sum()
    return jnp.minimum(config.false_share * chosen, 0.05 * tested).astype(jnp.float32)


def status(table: MacroTable, config: MacroConfig) -> Array:
    """`CANDIDATE`, `SOUND` or `REFUTED` for each slot, [M] int32; empty slots are candidates."""
    return judge(table, config).status
