"""What a search over drawn actions of six numbers costs, beside one over as many plain actions."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmark import timing
from experiments.benchmark.timing import ROUNDS, figure
from experiments.benchmark.turns import search_case
from smz_jax.config.settings import Config
from smz_jax.types import EnvSpec, Part, Space

EDGES, NUMBERS, BINS, FEATURES = 20, 6, 11, 17
"""Edges of a decision node; numbers of an action, as of HalfCheetah, and the values of each;
numbers of an observation, likewise."""
TARGET = 1.5
"""Most of the time of the plain search that the other may take."""


def spaces() -> dict[str, Space]:
    """The two spaces of actions by what is searched of them, the plain one first."""
    places = np.linspace(-1.0, 1.0, BINS).tolist()
    number = Part(tuple(f"{x:g}" for x in places), tuple(places))
    numbers = Space(BINS**NUMBERS, (), (number,) * NUMBERS)
    return {
        f"all {EDGES}": Space(EDGES, tuple(map(str, range(EDGES)))),
        f"{EDGES} of {math.prod(numbers.sizes):,}": numbers,
    }


def measure(
    config: Config, seconds: float, roots: Sequence[str] = ("puct", "gumbel")
) -> dict[str, Any]:
    """Measures both searches of each root rule, in turn.

    Args:
        config: gives sizes of networks and searches, and the lanes.
        seconds: for each number.
        roots: values of `search.root`.

    Returns:
        `searches` (for each root the seconds of a search of all lanes, by its actions), `figures`
        (their ratios) and `config`; plain JSON.
    """
    frames = (FEATURES,), config.env.frame_stack, np.dtype(np.float32)
    cases, names = {}, list(spaces())
    with timing.show_steps(2 * len(roots) * (1 + ROUNDS), "drawn") as step:
        for root in roots:
            own = dataclasses.replace(
                config.search, root=root, interior=root, sampled_actions=EDGES, engine="batched"
            )
            for name, space in spaces().items():
                step(f"{root}, {name}: compiling")
                spec = EnvSpec("numbers", *frames, space, 1)
                cases[root, name] = search_case(dataclasses.replace(config, search=own), spec)
        every = {f"{root}, {name}": case for (root, name), case in cases.items()}
        medians = timing.interleave(every, seconds, show=step)
    searches = {root: {name: medians[f"{root}, {name}"] for name in names} for root in roots}
    ratios = {root: taken[names[1]] / taken[names[0]] for root, taken in searches.items()}
    what = f"{names[1]}, x {names[0]}"
    figures = [figure(root, what, x, TARGET, at_least=False) for root, x in ratios.items()]
    how = {"seconds_per_part": seconds, "rounds": ROUNDS}
    return {"searches": searches, "figures": figures, "config": dataclasses.asdict(config), **how}
