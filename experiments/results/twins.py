"""A model with chance codes beside the same model with a single one, the deterministic twin.

Both predict along the same action sequences from the same states of a world with known rules,
fixed by the rules and a seed of their own.

- `unroll`: as in training, the model is unrolled over the actions while its own encoder sees what
  came of each, and is compared with what really happened. That is what chance codes are for: a
  model with one code has no way to know and can at best predict the mean. The verdict rests on the
  reward, and on the value against what the same model says of the state really reached (own value);
  against V* both models are off by what their policies lack as well.
- `open_loop`: each model is given the start and the actions, nothing else. The one with codes draws
  them from its own sigma, and the mean of what it then predicts is compared with the exact
  expectation; so is the twin's one prediction. Either could be right here: to predict means is what
  a single code is trained for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.results.finished import Finished, Seeds, all_reached, is_above, over_seeds

KINDS = {
    "unroll": "outcomes encoded",
    "open_loop": "expectation, outcomes drawn by the model",
}
FIRST_STEP = 3  # the models are compared from this unroll step on
REQUIRED = ("unroll_reward", "unroll_own_value")


@dataclass(frozen=True)
class Comparison:
    """One error at one unroll step."""

    key: str  # as in grid.json, e.g. `open_loop_reward`
    step: int
    stochastic: Seeds | None
    twin: Seeds | None
    worse: bool | None  # whether the twin is worse, intervals apart; None where one has no interval

    @property
    def about(self) -> str:
        """For people: `reward error, outcomes encoded`."""
        kind = next(kind for kind in KINDS if self.key.startswith(kind))
        return f"{self.key.removeprefix(kind)[1:].replace('_', ' ')} error, {KINDS[kind]}"


def compare(stochastic: Sequence[Finished], twin: Sequence[Finished]) -> list[Comparison]:
    """Every error along action sequences that grid.json holds, from `FIRST_STEP` on.

    Nothing where one of the two has no run.
    """
    both = [*stochastic, *twin] if stochastic and twin else []
    keys = dict.fromkeys(key for one in both for key in one.part("grid"))
    found = []
    for key in (key for kind in KINDS for key in keys if key.startswith(f"{kind}_")):
        errors = [[one.part("grid").get(key) or () for one in runs] for runs in (stochastic, twin)]
        for step in range(FIRST_STEP, max(len(x) for runs in errors for x in runs) + 1):
            ours, theirs = (
                over_seeds([x[step - 1] for x in runs if len(x) >= step]) for runs in errors
            )
            found.append(Comparison(key, step, ours, theirs, is_above(theirs, ours)))
    return found


def verdict(comparisons: Sequence[Comparison]) -> bool | None:
    """Whether the twin is worse in reward and in value at every step from `FIRST_STEP` on."""
    if not set(REQUIRED) <= {x.key for x in comparisons}:
        return None
    return all_reached([x.worse for x in comparisons if x.key in REQUIRED])
