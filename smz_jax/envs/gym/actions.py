"""Action spaces of suite gym as numbered actions, and these as the library's own.

Every space becomes parts (`smz_jax.types.Part`): a Discrete one, each number of a MultiDiscrete one
and each bit of a MultiBinary one is a choice among its values; each number of a Box is a choice
among `env.action_bins` values from its lower bound to its upper one, both included. Tuples and
dicts have the parts of what is in them, in the space's own order.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import iterate

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


class Listed(spaces.Space):
    """Of a vector of Gymnasium's: it takes a list of actions, one for each lane.

    Its own space of several lanes sorts the keys of a dict, and gives numbers for arrays without
    an axis.
    """


@iterate.register(Listed)
def _each(space: Listed, items: list[Any]) -> Iterator[Any]:
    del space
    return iter(items)


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
    inside = list(_leaves(space, what))
    least = sum(_least_options(leaf) for leaf in inside)
    allowed = f"one of at most {MAX_OPTIONS} options, not {least} or more"
    if isinstance(space, spaces.Discrete):
        allowed = f"Discrete, of at most {MAX_OPTIONS} actions"
    require(least <= MAX_OPTIONS, what, _short(space), allowed)  # before any is written out
    leaves = [_leaf(leaf, bins, what) for leaf in inside]
    parts = tuple(part for leaf in leaves for part in leaf.parts)
    sizes = tuple(len(part.names) for part in parts)
    options, size = sum(sizes), math.prod(sizes)
    fewer = ": fewer env.action_bins" if any(part.values for part in parts) else ""
    allowed = f"one of at most {MAX_OPTIONS} options, not {options}{fewer}"
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


def each_lane(space: spaces.Space, batch: Any) -> list[Any]:
    """Actions of B lanes, as `Actions.rebuild` gives them, as the space itself has each."""
    if isinstance(space, spaces.Tuple):
        inside = [each_lane(part, x) for part, x in zip(space.spaces, batch, strict=True)]
        return list(zip(*inside, strict=True))
    if isinstance(space, spaces.Dict):
        inside = [each_lane(part, batch[key]) for key, part in space.spaces.items()]
        return [dict(zip(space.spaces, x, strict=True)) for x in zip(*inside, strict=True)]
    return list(batch) if isinstance(space, spaces.Discrete) else [np.asarray(x) for x in batch]


def _leaves(space: spaces.Space, what: str) -> Iterator[spaces.Space]:
    """The spaces that hold no others, in the space's own order; none is empty."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        inside = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        require(len(inside) > 0, what, _short(space), "one that is not empty")
        for part in inside:
            yield from _leaves(part, what)
        return
    known = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    require(isinstance(space, known), what, _short(space), f"{KINDS} of such spaces")
    require(0 not in (space.shape or ()), what, _short(space), "one that is not empty")
    yield space


def _least_options(space: spaces.Space) -> int:
    """Of a space that holds no others: its options; of numbers a least one each."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return sum(map(int, space.nvec.ravel()))
    return math.prod(space.shape or ()) * (2 if isinstance(space, spaces.MultiBinary) else 1)


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
    # Infinite bounds of whole numbers are the ends of their type.
    below, above = space.bounded_below.ravel(), space.bounded_above.ravel()
    bounded &= below & above
    place = int(np.argmin(bounded))
    low, high = np.where(below, low, -np.inf), np.where(above, high, np.inf)
    allowed = f"bounded: number {place} of it lies between {low[place]:g} and {high[place]:g}"
    require(bool(bounded.all()), what, _short(space), allowed)
    values_of = _whole_values if space.dtype.kind in "iu" else _real_values
    parts, options = [], []
    ends: list[list[Any]] = [space.low.ravel().tolist(), space.high.ravel().tolist()]
    for least, most in zip(*ends, strict=True):
        values, places = values_of(least, most, bins, space.dtype)
        names = [str(x) if space.dtype.kind in "iu" else f"{x:g}" for x in values.tolist()]
        parts.append(Part(tuple(names), places))
        options.append(values)
    return _Leaf(tuple(parts), tuple(options), space.shape)


def _real_values(
    least: float, most: float, bins: int, dtype: np.dtype
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Values of a number from bound to bound, in its type, and their places from -1 to 1."""
    least, most, share = float(least), float(most), np.linspace(0.0, 1.0, bins)
    values = np.clip(least * (1 - share) + most * share, least, most)
    values = np.unique(values.astype(dtype))
    middle, half = most / 2 + least / 2, (most / 2 - least / 2) or 1.0
    return values, tuple((x - middle) / half for x in values.astype(np.float64).tolist())


def _whole_values(
    least: int, most: int, bins: int, dtype: np.dtype
) -> tuple[np.ndarray, tuple[float, ...]]:
    """The same of a whole number; exact, since 64 bits do not fit into a float."""
    steps = bins - 1
    found = {round(Fraction(least * (steps - i) + most * i, steps)) for i in range(bins)}
    values, span = sorted(found), (most - least) or 1
    return np.array(values, dtype), tuple((2 * x - least - most) / span for x in values)


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
