"""A model with chance codes beside the same model with a single one, the deterministic twin.

Both are asked about the same action sequences from the same states of a world with known rules,
fixed by the rules and a seed of their own (`model_check.grid.draw_sequences`).

- `unroll`: as in training, the model is unrolled over the actions while its own encoder sees what
  came of each, and is set against what really happened. That is what chance codes are for: a model
  with one code has no way to be told and can at best predict the mean. The verdict rests on the
  reward, and on the value against what the same model says of the state really reached (own value);
  against V* both models are off by what their policies lack as well.
- `open_loop`: each model is told the start and the actions, nothing else. The one with codes draws
  them from its own sigma, and the mean of what it then predicts is set against the exact
  expectation; the twin's one prediction is set against the same. Either could be right here: to
  predict means is what a single code is trained for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.results.results import Estimate, Finished, over_seeds
from smz_jax.storage.documents.checks import is_number

KINDS = {
    "unroll": "told what happened",
    "open_loop": "expectation, outcomes drawn by the model",
}
FIRST_STEP = 3
"""The comparison is asked from this unroll step on."""
ASKED = ("unroll_reward", "unroll_own_value")


@dataclass(frozen=True)
class Comparison:
    """One error at one unroll step."""

    key: str
    """As in grid.json, e.g. `open_loop_reward`."""
    step: int
    stochastic: Estimate | None
    twin: Estimate | None
    worse: bool | None
    """Whether the twin is worse, intervals apart; None where one has no interval."""


def is_worse(twin: Estimate | None, stochastic: Estimate | None) -> bool | None:
    """Whether the twin's interval lies above the other's, wholly."""
    if twin is None or stochastic is None or twin.low is None or stochastic.high is None:
        return None
    return twin.low > stochastic.high


def compare(stochastic: Sequence[Finished], twin: Sequence[Finished]) -> list[Comparison]:
    """Every error along action sequences that both worlds' grid.json hold, from `FIRST_STEP` on."""
    pattern = re.compile("(" + "|".join(KINDS) + ")_(.+)")
    both = [*stochastic, *twin]
    keys = dict.fromkeys(k for one in both for k in one.extra if pattern.fullmatch(k))
    found = []
    for key in sorted(keys, key=lambda k: list(KINDS).index(pattern.fullmatch(k)[1])):  # type: ignore[index]
        steps = max(len(one.extra.get(key) or ()) for one in both)
        for step in range(FIRST_STEP, steps + 1):
            ours = over_seeds([at_step(one, key, step) for one in stochastic])
            theirs = over_seeds([at_step(one, key, step) for one in twin])
            found.append(Comparison(key, step, ours, theirs, is_worse(theirs, ours)))
    return found


def at_step(one: Finished, key: str, step: int) -> float | None:
    """The error after `step` steps, counted from 1."""
    errors = one.extra.get(key) or ()
    return errors[step - 1] if len(errors) >= step and is_number(errors[step - 1]) else None


def verdict(comparisons: Sequence[Comparison]) -> bool | None:
    """Whether the twin is worse in reward and in value at every step that is asked for."""
    asked = [x.worse for x in comparisons if x.key in ASKED]
    present = {x.key for x in comparisons}
    if not set(ASKED) <= present or (None in asked and False not in asked):
        return None
    return all(asked)
