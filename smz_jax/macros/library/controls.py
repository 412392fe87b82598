"""What a library is compared with: shuffled play and random macros (NumPy only)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from smz_jax.config.check import require
from smz_jax.macros.mine.keys import check_num_actions


def shuffled(streams: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same actions in a random order, each piece of play (1-D arrays) by itself."""
    return [rng.permutation(np.asarray(stream)) for stream in streams]


def random_macros(
    lengths: Sequence[int], num_actions: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Distinct random action sequences of given lengths, at least 1 each; A is in 1..255.

    Returns:
        Macros in the order of `lengths`. Of length l there are only A^l: where more are wanted,
        all of these are given and the rest is left out, so that the result is shorter.

    Raises:
        ConfigError: where a length or A is out of range.
    """
    check_num_actions(num_actions)
    found: dict[tuple[int, ...], None] = {}
    taken: Counter[int] = Counter()
    for length in lengths:
        require(length >= 1, "length", length, "at least 1")
        if taken[length] < num_actions**length:
            taken[length] += 1
            while (macro := tuple(rng.integers(num_actions, size=length).tolist())) in found:
                pass
            found[macro] = None
    return list(found)
