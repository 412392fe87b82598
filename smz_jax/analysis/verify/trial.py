"""One trial of a macro, and what many say together."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.libraries import Library
from smz_jax.config.settings import Config
from smz_jax.storage.estimate import Estimate, mean_estimate, share_estimate


class Trial(NamedTuple):
    """A macro, played from one state, against what the model foresaw."""

    state: int  # index of the start state
    cut: bool  # a life or the game ended before its last action: no trial of what it claims
    rivals: int  # sequences of other ends whose foreseen ends were compared; 0: nothing was
    nearest: bool  # of all foreseen ends its own is the nearest to its real end
    told_apart: bool  # of all real ends its own is the nearest to its foreseen end
    paid: bool  # the sum of its rewards is as foreseen
    rewarded: bool  # there was a reward
    lives: int  # lives lost
    gain: float  # discounted rewards and value at the end, less those of the greedy policy
    repeats: bool | None = None  # the RAM at the end was the same in each run; None: one run
    macro: int = 0  # index in its library
    applies: bool = False  # all transitions are certain by the model, and its head, if any, agrees
    drawn: bool = False  # the state was drawn whether or not the macro applies there

    @property
    def counts(self) -> bool:
        """Whether it says something of what the macro claims."""
        return not self.cut and self.rivals > 0

    @property
    def holds(self) -> bool:
        """The end is where the model says and pays what it says."""
        return self.nearest and self.paid


class Tally(NamedTuple):
    """What a set of trials says: of one macro, or of a whole library; None without a trial."""

    applied: Estimate | None  # share of (macro, state) pairs in which the macro applies
    held: Estimate | None  # share of trials where it applies that hold
    nearest: Estimate | None
    told_apart: Estimate | None
    paid_rewarded: Estimate | None  # of trials with a reward, those that are paid as foreseen
    paid_unrewarded: Estimate | None
    held_anywhere: Estimate | None  # as `held`, in drawn states, whether or not it applies
    gain: Estimate | None  # where it applies
    lives: Estimate | None  # lives lost in a trial where it applies
    chance: float | None  # share that would be nearest if one were picked blindly
    cut: int  # trials where it applies that a lost life or the game's end cut short
    unrivalled: int  # trials without a rival: every sequence of that length ends there
    repeats: Estimate | None  # share of trials whose RAM was the same in each run


def tally(trials: Sequence[Trial], applied: np.ndarray) -> Tally:
    """Sums up trials of some macros; they apply where `applied [macros, states]` says.

    Clusters of the intervals are the states.
    """
    here = [trial for trial in trials if trial.applies]
    counted = [trial for trial in here if trial.counts]
    anywhere = [trial for trial in trials if trial.drawn and trial.counts]

    def share(chosen: Sequence[Trial], field: str) -> Estimate | None:
        return share_estimate([getattr(x, field) for x in chosen], [x.state for x in chosen])

    def mean(field: str) -> Estimate | None:
        return mean_estimate([getattr(x, field) for x in here], [x.state for x in here])

    states = np.broadcast_to(np.arange(applied.shape[1]), applied.shape)
    return Tally(
        applied=share_estimate(applied.ravel().tolist(), states.ravel().tolist()),
        held=share(counted, "holds"),
        nearest=share(counted, "nearest"),
        told_apart=share(counted, "told_apart"),
        paid_rewarded=share([x for x in counted if x.rewarded], "paid"),
        paid_unrewarded=share([x for x in counted if not x.rewarded], "paid"),
        held_anywhere=share(anywhere, "holds"),
        gain=mean("gain"),
        lives=mean("lives"),
        chance=float(np.mean([1 / (1 + x.rivals) for x in counted])) if counted else None,
        cut=sum(x.cut for x in here),
        unrivalled=sum(not x.cut and x.rivals == 0 for x in here),
        repeats=share([x for x in here if x.repeats is not None], "repeats"),
    )


class LibraryTrials(NamedTuple):
    """A library after its trials."""

    library: Library
    trials: tuple[Trial, ...]
    applied: np.ndarray  # [macros, states] bool

    def tally(self, macros: Collection[int] | None = None) -> Tally:
        """Of the macros of some indices; None: of all."""
        rows = range(len(self.library.macros)) if macros is None else macros
        own = [trial for trial in self.trials if trial.macro in rows]
        return tally(own, self.applied[list(rows)])


def is_paid(foreseen: Any, real: Any, config: Config) -> Any:
    """Whether the sum of a macro's rewards is as foreseen, by `macro.reward_threshold`."""
    return np.abs(np.asarray(foreseen) - np.asarray(real)) <= config.macro.reward_threshold
