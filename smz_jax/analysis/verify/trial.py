"""One trial of a macro, and what many say together."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify import bounds
from smz_jax.analysis.verify.bounds import Estimate
from smz_jax.config.settings import Config


class Trial(NamedTuple):
    """A macro, played from one state, against what the model foresaw."""

    macro: int  # index in its library
    state: int  # index of the start state
    applies: bool  # all transitions are certain by the model, and its head, if it has one, agrees
    drawn: bool  # the state was drawn whether or not the macro applies there
    cut: bool  # a life or the game ended before its last action: no trial of what it claims
    rivals: int  # sequences of other ends whose foreseen ends were compared; 0: nothing was
    nearest: bool  # of all foreseen ends its own is the nearest to its real end
    told_apart: bool  # of all real ends its own is the nearest to its foreseen end
    paid: bool  # the sum of its rewards is as foreseen
    rewarded: bool  # there was a reward
    lives: int  # lives lost
    gain: float  # discounted rewards and value at the end, less those of the greedy policy
    repeats: bool | None = None  # the RAM at the end was the same in each run; None: one run

    @property
    def counts(self) -> bool:
        """Whether it says something of what the macro claims."""
        return not self.cut and self.rivals > 0

    @property
    def holds(self) -> bool:
        """The end is where the model says and pays what it says."""
        return self.nearest and self.paid


class Tally(NamedTuple):
    """What a set of trials says: of one macro, or of a whole library."""

    applied: Estimate  # share of (macro, state) pairs in which the macro applies
    held: Estimate  # share of trials where it applies that hold
    nearest: Estimate
    told_apart: Estimate
    paid_rewarded: Estimate  # of windows with a reward, those that are paid as foreseen
    paid_unrewarded: Estimate
    held_anywhere: Estimate  # as `held`, in drawn states, whether or not it applies
    gain: Estimate  # where it applies
    lives: Estimate  # lives lost in a trial where it applies
    chance: float | None  # share that would be nearest if one were picked blindly
    cut: int  # trials where it applies that a lost life or the game's end cut short
    unrivalled: int  # trials without a rival: every sequence of that length ends there
    repeats: Estimate  # share of trials whose RAM was the same in each run


def tally(trials: Sequence[Trial], applied: np.ndarray) -> Tally:
    """Sums up trials; clusters of the intervals are the states.

    Args:
        trials: of one macro or of several.
        applied: `[macros, states]` bool, where each of these macros applies.
    """
    here = [trial for trial in trials if trial.applies]
    tried = [trial for trial in here if trial.counts]
    anywhere = [trial for trial in trials if trial.drawn and trial.counts]

    def share(chosen: Sequence[Trial], read: Callable[[Trial], bool]) -> Estimate:
        return bounds.share([read(x) for x in chosen], [x.state for x in chosen])

    def mean(chosen: Sequence[Trial], read: Callable[[Trial], float]) -> Estimate:
        return bounds.mean([read(x) for x in chosen], [x.state for x in chosen])

    states = np.broadcast_to(np.arange(applied.shape[1]), applied.shape)
    repeated = [trial for trial in here if trial.repeats is not None]
    return Tally(
        applied=bounds.share(applied.ravel().tolist(), states.ravel().tolist()),
        held=share(tried, lambda x: x.holds),
        nearest=share(tried, lambda x: x.nearest),
        told_apart=share(tried, lambda x: x.told_apart),
        paid_rewarded=share([x for x in tried if x.rewarded], lambda x: x.paid),
        paid_unrewarded=share([x for x in tried if not x.rewarded], lambda x: x.paid),
        held_anywhere=share(anywhere, lambda x: x.holds),
        gain=mean(here, lambda x: x.gain),
        lives=mean(here, lambda x: float(x.lives)),
        chance=float(np.mean([1 / (1 + x.rivals) for x in tried])) if tried else None,
        cut=sum(x.cut for x in here),
        unrivalled=sum(not x.cut and x.rivals == 0 for x in here),
        repeats=share(repeated, lambda x: bool(x.repeats)),
    )


class Tried(NamedTuple):
    """A library after its trials."""

    trials: tuple[Trial, ...]
    applied: np.ndarray  # [macros, states] bool


def is_paid(foreseen: Any, real: Any, config: Config) -> Any:
    """Whether the sum of a macro's rewards is as foreseen, by `macro.reward_threshold`."""
    return np.abs(np.asarray(foreseen) - np.asarray(real)) <= config.macro.reward_threshold
