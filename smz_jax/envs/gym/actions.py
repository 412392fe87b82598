"""Action spaces of suite gym as numbered actions, and these as the library's own.

Every space becomes parts (`smz_jax.types.Part`): a Discrete one, each number of a MultiDiscrete one
and each bit of a MultiBinary one is a choice among its values; each number of a Box is a choice
among `env.action_bins` values from its lower bound to its upper one, both included. Tuples and
dicts have the parts of what is in them, in the space's own order.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from smz_jax.config.check import require
from smz_jax.types import Part, Space, options_of

MAX_OPTIONS = 10_000
"""Most options of all parts: the width of a policy head."""
MAX_NAMED = 255
"""Most actions that have names, where they are made of parts: as many as a macro's key holds."""
FARTHEST = 1e30
"""A bound beyond it says that there is none, as the largest float does."""
KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, Tuple or Dict"


class Actions(NamedTuple):
    """How an environment is told what to do."""

    space: Space
    rebuild: Callable[[np.ndarray], Any]
    """From actions `[B]` to what the library takes for B lanes: arrays with a batch axis, in dicts
    and tuples where the space is one."""


class _Leaf(NamedTuple):
    """The parts of one space that holds no others."""

    parts: tuple[Part, ...]
    options: tuple[np.ndarray, ...]  # of each part, [size] of the space's type
    shape: tuple[int, ...]  # of one value of the space


def make_actions(space: spaces.Space, bins: int, env_id: str) -> Actions:
    """The actions of a space.

    Args:
        space: of one lane.
        bins: values that a number of a Box is chosen from.
        env_id: for messages.

    Raises:
        ConfigError: in one line, if the space, or one inside it, is of another kind, is empty or
            unbounded, or has too many options or actions.
    """
    what = f"the action space of {env_id}"
    leaves = [_leaf(leaf, bins, what) for leaf in _leaves(space, what)]
    parts = tuple(part for leaf in leaves for part in leaf.parts)
    require(len(parts) > 0, what, str(space), "one that is not empty")
    sizes = tuple(len(part.names) for part in parts)
    options, size = sum(sizes), math.prod(sizes)
    fewer = ": fewer env.action_bins" if any(part.values for part in parts) else ""
    allowed = f"one of at most {MAX_OPTIONS} options, not {options}{fewer}"
    if isinstance(space, spaces.Discrete):
        allowed = f"Discrete, of at most {MAX_OPTIONS} actions"
    require(options <= MAX_OPTIONS, what, _short(space), allowed)
    allowed = f"one of at most 2^31-1 actions, not {size:.3g}{fewer}"
    require(size < 2**31, what, _short(space), allowed)
    described = describe_actions(parts, size)

    def rebuild(actions: np.ndarray) -> Any:
        return _build(space, iter(leaves), iter(options_of(actions, sizes).T))

    return Actions(described, rebuild)


def describe_actions(parts: tuple[Part, ...], size: int) -> Space:
    """The `Space` of actions that are made of `parts`; `size` is their number."""
    if len(parts) == 1 and not parts[0].values:
        return Space(size, parts[0].names)
    plain = Space(size, (), parts)
    if plain.is_continuous or size > MAX_NAMED:
        return plain
    return plain._replace(names=tuple(map(plain.name, range(size))))


def _leaves(space: spaces.Space, what: str) -> Iterator[spaces.Space]:
    """The spaces that hold no others, in the space's own order."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        inside = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        for part in inside:
            yield from _leaves(part, what)
        return
    known = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    require(isinstance(space, known), what, _short(space), f"{KINDS} of such spaces")
    yield space


def _leaf(space: spaces.Space, bins: int, what: str) -> _Leaf:
    if isinstance(space, spaces.Box):
        return _of_box(space, bins, what)
    options: list[np.ndarray]
    if isinstance(space, spaces.Discrete):
        shape, options = (), [space.start + np.arange(space.n)]
    elif isinstance(space, spaces.MultiDiscrete):
        shape, starts = space.shape, np.broadcast_to(space.start, space.shape).ravel()
        options = [
            first + np.arange(count)
            for first, count in zip(starts, space.nvec.ravel(), strict=True)
        ]
    else:
        assert isinstance(space, spaces.MultiBinary)
        shape = (space.n,) if isinstance(space.n, int) else tuple(space.n)
        options = [np.arange(2)] * math.prod(shape)
    parts = tuple(Part(tuple(map(str, x.tolist()))) for x in options)
    return _Leaf(parts, tuple(x.astype(space.dtype) for x in options), shape)


def _of_box(space: spaces.Box, bins: int, what: str) -> _Leaf:
    """Whole numbers of a Box are each a value where there are no more than `bins`."""
    low, high = (np.asarray(x, np.float64).ravel() for x in (space.low, space.high))
    bounded = (np.abs(low) < FARTHEST) & (np.abs(high) < FARTHEST) & (low <= high)
    place = int(np.argmin(bounded)) if bounded.size else 0
    allowed = "bounded: number "
    if not bounded.all():
        allowed += f"{place} of it lies between {low[place]:g} and {high[place]:g}"
    require(bool(bounded.all()), what, _short(space), allowed)
    parts, options = [], []
    for least, most in zip(low.tolist(), high.tolist(), strict=True):
        share = np.linspace(0.0, 1.0, bins)
        values = least * (1 - share) + most * share
        if space.dtype.kind in "iu":
            values = np.rint(values)
        values = np.unique(np.clip(values, least, most).astype(space.dtype))
        middle, half = most / 2 + least / 2, (most / 2 - least / 2) or 1.0
        numbers = values.astype(np.float64).tolist()
        places = tuple((x - middle) / half for x in numbers)
        parts.append(Part(tuple(f"{x:g}" for x in numbers), places))
        options.append(values)
    return _Leaf(tuple(parts), tuple(options), space.shape)


def _build(space: spaces.Space, leaves: Iterator[_Leaf], chosen: Iterator[np.ndarray]) -> Any:
    """Values of a space, by the options `[B]` that are chosen of each of its parts in turn."""
    if isinstance(space, spaces.Tuple):
        return tuple(_build(part, leaves, chosen) for part in space.spaces)
    if isinstance(space, spaces.Dict):
        return {key: _build(part, leaves, chosen) for key, part in space.spaces.items()}
    leaf = next(leaves)
    values = np.stack([options[next(chosen)] for options in leaf.options], axis=1)
    return values.reshape(len(values), *leaf.shape)


def _short(space: spaces.Space) -> str:
    """A space in one line."""
    return " ".join(str(space).split())[:200]
