"""Golden trees: a refactor cannot change a search unseen.

`python -m tests.support.golden_trees` writes them anew; do so only where a search is meant to
change, and say why in the commit.
"""

import json
from pathlib import Path

import numpy as np

from tests.support.search_runs import random_invalid, run_search
from tests.support.tabular import deterministic, random_tables

PATH = Path(__file__).parents[1] / "golden" / "search_trees.json"
CASES = {
    "mctx": {"engine": "mctx"},
    "batched": {"engine": "batched"},
    "batched, limited": {"engine": "batched", "depth": 3},
    "batched, tree": {"engine": "batched", "qtransform": "tree"},
    "batched, collapsing": {"engine": "batched", "collapse_threshold": 0.7},
    "batched, gumbel": {"engine": "batched", "root": "gumbel"},
    "batched, gumbel inside": {"engine": "batched", "root": "gumbel", "interior": "gumbel"},
}
FIELDS = ("parents", "action_from_parent", "node_visits", "node_values")


def grow(case):
    """One case's trees as lists."""
    random = random_tables(11, actions=3, outcomes=4)
    certain = deterministic(random, 11)
    tables = random._replace(
        chance=np.where(np.arange(5)[:, None, None] % 2 == 0, certain.chance, random.chance)
    )
    options = {"simulations": 20, "invalid": random_invalid(11, 3, 3), "seed": 11}
    output = run_search(tables, [0, 1, 2], **options, **CASES[case])
    document = {name: np.asarray(getattr(output.tree, name)).tolist() for name in FIELDS}
    return document | {"weights": output.action_weights.tolist(), "action": output.action.tolist()}


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    text = json.dumps({case: grow(case) for case in CASES}, indent=None, separators=(",", ":"))
    PATH.write_text(text.replace('},"', '},\n"') + "\n")
    print(f"wrote {PATH}")
