"""A model beside the known rules of its world (the grid world's), as a table."""

from collections.abc import Sequence

from smz_jax.report.data import RunData
from smz_jax.report.tables import Table
from smz_jax.storage.documents.forms import is_number

NUMBERS = (
    ("ROC area of random against certain pairs", "roc_area"),
    ("mean |H(model) - H(true)|, nats", "entropy_error"),
    ("mean H of random pairs, nats", "entropy_random"),
    ("mean H of certain pairs, nats", "entropy_certain"),
    ("mean H of played pairs / ln C", "transition_entropy"),
    ("agreement of encoder and prior", "agreement"),
    ("code perplexity", "code_perplexity"),
    ("share of pairs that were played", "pairs_visited"),
    ("optimal mean return", "optimum"),
    ("mean return of random play", "random"),
)
"""What a table of `grid.json` shows, and under which name it is there."""


def rules_table(runs: Sequence[RunData]) -> Table:
    """The numbers of `grid.json`, with a column for each run that has one."""
    compared = [run for run in runs if run.grid]
    known = [{**run.grid, **(run.grid.get("returns") or {})} for run in compared]
    rows = [
        (title, *(f"{x[key]:.4g}" if is_number(x.get(key)) else "-" for x in known))
        for title, key in NUMBERS
    ]
    note = "Pairs: of a state and an action. H: entropy of what follows, 0 where it is certain."
    return Table(("at the end", *(run.label for run in compared)), rows, note=note)
