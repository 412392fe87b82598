"""Trials of macros: each played from a state, against what a model foresaw there."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.verify.tried_libraries import Library
from smz_jax.config.settings import Config
from smz_jax.storage.documents.verify_json import ESTIMATE
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


class LibraryTrials(NamedTuple):
    """A library after its trials."""

    library: Library
    trials: Sequence[Trial]  # by macro and state
    applied: np.ndarray  # [macros, states] bool

    def tally(self, macros: Collection[int] | None = None) -> dict[str, Any]:
        """As `tally`, of the macros of some indices; None: of all."""
        rows = range(len(self.library.macros)) if macros is None else macros
        return tally([x for x in self.trials if x.macro in rows], self.applied[list(rows)])


def tally(trials: Sequence[Trial], applied: np.ndarray) -> dict[str, Any]:
    """What trials of some macros say together, as verify.json keeps it.

    Args:
        trials: of one macro, or of more.
        applied: `[macros, states]` bool, where they apply.

    Returns:
        Estimates, as `plain_estimate`; clusters of their intervals are the states.
    """
    here = [trial for trial in trials if trial.applies]
    counted = [trial for trial in here if trial.counts]
    states = np.broadcast_to(np.arange(applied.shape[1]), applied.shape)

    def share(chosen: Sequence[Trial], name: str) -> dict[str, Any]:
        held = [getattr(trial, name) for trial in chosen]
        return plain_estimate(share_estimate(held, [trial.state for trial in chosen]))

    def mean(name: str) -> dict[str, Any]:
        values = [getattr(trial, name) for trial in here]
        return plain_estimate(mean_estimate(values, [trial.state for trial in here]))

    return {
        # of (macro, state) pairs, those in which the macro applies
        "applied": plain_estimate(
            share_estimate(applied.ravel().tolist(), states.ravel().tolist())
        ),
        "held": share(counted, "holds"),
        "nearest": share(counted, "nearest"),
        "told_apart": share(counted, "told_apart"),
        "paid_rewarded": share([x for x in counted if x.rewarded], "paid"),
        "paid_unrewarded": share([x for x in counted if not x.rewarded], "paid"),
        # in drawn states, whether or not it applies
        "held_anywhere": share([x for x in trials if x.drawn and x.counts], "holds"),
        "gain": mean("gain"),
        "lives": mean("lives"),
        # share that would be nearest if one were picked blindly
        "chance": float(np.mean([1 / (1 + x.rivals) for x in counted])) if counted else None,
        "cut": sum(x.cut for x in here),
        "unrivalled": sum(not x.cut and x.rivals == 0 for x in here),
        "repeats": share([x for x in here if x.repeats is not None], "repeats"),
    }


def plain_estimate(found: Estimate | None) -> dict[str, Any]:
    """An estimate with its number of trials, as verify.json keeps it."""
    return dict(zip(ESTIMATE, found or (None, None, None, 0), strict=True))


def is_paid(foreseen: Any, real: Any, config: Config) -> Any:
    """Whether the sum of a macro's rewards is as foreseen, by `macro.reward_threshold`."""
    return np.abs(np.asarray(foreseen) - np.asarray(real)) <= config.macro.reward_threshold
