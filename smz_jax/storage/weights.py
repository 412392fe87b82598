"""Parameters as arrays by name, as an export holds them, and back."""

from typing import Any

import jax
import numpy as np

from smz_jax.config.check import require


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, e.g. `params/trunk/Dense_0/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def named_weights(params: Any) -> dict[str, np.ndarray]:
    """Parameters as NumPy arrays by their path."""
    return {name: np.asarray(leaf) for name, leaf in named(jax.device_get(params)).items()}


def fit(abstract: Any, weights: dict[str, np.ndarray]) -> Any:
    """Named arrays in the structure of a tree of shapes and dtypes, on the device, bit for bit.

    Raises:
        ConfigError: in one line naming the first entry that is missing, unknown or of another
            shape or type.
    """
    wanted, found = (
        {name: (leaf.shape, str(leaf.dtype)) for name, leaf in leaves.items()}
        for leaves in (named(abstract), weights)
    )
    for name in {**wanted, **found}:
        need, have = wanted.get(name, "absent"), found.get(name, "absent")
        allowed = f"{need} in this version; export.json names the commit that reads it"
        require(need == have, f"weights {name}", have, allowed)
    arrays = [jax.device_put(weights[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays)
