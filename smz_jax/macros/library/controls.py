"""What a library is compared with: shuffled play and random macros (NumPy only)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from smz_jax.config.check import require
from smz_jax.macros.mine.keys import check_num_actions

_TRIES = 1000


def shuffled(streams: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same actions in a random order, each piece of play (1-D arrays) by itself."""
    return [rng.permutation(np.asarray(stream)) for stream in streams]


def mixed_macros(
    macros: Sequence[tuple[int, ...]], lengths: Sequence[int], rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """The actions of macros in a random order, cut anew into sequences of given lengths.

    So each action is as frequent as in the macros (where the lengths sum to more or less, nearly).
    What is one of them or comes twice is mixed again, at most `_TRIES` times, then left out.
    """
    actions, total = [x for macro in macros for x in macro], sum(lengths)
    if not actions or not total:
        return []
    pool, ends = np.resize(rng.permutation(actions), total), np.cumsum(lengths)
    owner, taken = np.repeat(np.arange(len(lengths)), lengths), set(macros)
    for _ in range(_TRIES):
        found = [tuple(x.tolist()) for x in np.split(pool, ends[:-1])]
        times = Counter(found)
        wrong = np.array([x in taken or times[x] > 1 for x in found])
        if not wrong.any():
            break
        others = rng.permutation(np.flatnonzero(~wrong))[: 1 + int(wrong.sum())]
        wrong[others] = True
        loose = wrong[owner]
        pool[loose] = rng.permutation(pool[loose])
    return [x for x in dict.fromkeys(found) if x not in taken]


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
