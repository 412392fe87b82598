"""The model against what really happened, and against known rules.

Two kinds of checks: of any run, on a batch of replayed windows (`make_check`: `batch_check` and
`gradient_check`); and of worlds whose rules are known, where the entropy of each transition is
compared with the true one (`pair_entropies`, `roc_area`, `rules_check`, `unroll_errors`). They look
at the model as the search does, with running statistics and no noise on the codes; the gradients
are those of training.
"""

from smz_jax.model_check.batch import batch_check, check_row, gradient_check, make_check
from smz_jax.model_check.known_rules import (
    entropy_nats,
    open_loop_errors,
    pair_entropies,
    roc_area,
    rules_check,
    transition_codes,
    unroll_errors,
)

__all__ = [
    "batch_check",
    "check_row",
    "entropy_nats",
    "gradient_check",
    "make_check",
    "open_loop_errors",
    "pair_entropies",
    "roc_area",
    "rules_check",
    "transition_codes",
    "unroll_errors",
]
