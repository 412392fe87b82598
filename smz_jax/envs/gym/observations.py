"""Observations of Gymnasium's spaces as frames: grey images, or vectors.

An image is a uint8 Box of rank 2, or of rank 3 with one or three channels (first or last), at least
16 pixels high and wide: it becomes grey (ITU-R 601 weights) and is resized to `env.frame_size` by
area, and may be stacked. Of four channels the last may be an alpha, which is left out; of a stack
of images, which moves by one at a step, the newest is taken. Everything else becomes a vector in
the order of `gymnasium.spaces.flatten`: numbers as they are, Discrete and MultiDiscrete as
one-hots, Dict and Tuple joined. One of a Dict's `MASKS`, one bit for each action, is none of it: it
says which actions are valid.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from smz_jax.config.check import require
from smz_jax.envs.frames import resize_area

MAX_ONE_HOT, MIN_IMAGE, MAX_CHANNELS = 65_536, 16, 16
MASKS = (
    *("action_mask", "action_masks", "legal_action_mask", "mask", "legal_actions"),
    *("valid_actions", "avail_actions", "available_actions"),
)
"""Names of masks of the actions, where several are right the first of them."""
GREY = np.array([0.299, 0.587, 0.114], np.float32)

Tried = Callable[[], list[Any]]
"""Gives what an environment shows at a reset and at the step after it; empty: it failed at that."""


class Coder(NamedTuple):
    """How the observations of a space become frames."""

    frame_shape: tuple[int, ...]
    frame_dtype: np.dtype  # uint8: image, bool: only one-hots and bits, else float32
    encode: Callable[[Any], np.ndarray]  # batched observations -> [B, *frame_shape]
    mask: Callable[[Any], np.ndarray] | None = None  # -> [B, A] bool; None: there is none in them
    note: str = ""  # what the user should know of it


def make_coder(
    space: spaces.Space, frame_size: int, num_actions: int = 0, tried: Tried = list
) -> Coder:
    """The coder of an observation space.

    Args:
        space: of one lane.
        frame_size: height and width of an image's frame.
        num_actions: A, to know a mask by.
        tried: called where the space alone does not say what an image is.

    Returns:
        The `Coder`; its `encode` takes what the libraries give for B lanes: arrays with a batch
        axis, in dicts or tuples where the space is one.

    Raises:
        ConfigError: if the space, or one inside it, is none of Box, Discrete, MultiDiscrete,
            MultiBinary, Dict and Tuple, or is empty.
    """
    leaves, mask, notes = list(_leaves(space)), None, []
    named = [x for x in leaves if x[0] and x[0][-1] in MASKS]
    for at, leaf in sorted(named, key=lambda x: MASKS.index(x[0][-1])):
        if not mask and _is_mask(leaf, num_actions):
            leaves.remove((at, leaf))
            mask = functools.partial(_mask_at, at)
        else:
            notes.append(f"{at[-1]!r} of the observation counts as an input, not as the mask")
    if len(leaves) == 1 and (found := _find_image(*leaves[0], tried)):
        newest, note = found
        at, shape = leaves[0][0], (frame_size, frame_size)

        def encode_image(batch: Any) -> np.ndarray:
            return _grey_frame(newest(np.asarray(_inside(batch, at))), frame_size)

        return Coder(
            shape, np.dtype(np.uint8), encode_image, mask, "; ".join(filter(None, [*notes, note]))
        )
    size = sum(_size(leaf) for _, leaf in leaves)
    require(size > 0, "env.id", str(space), "an environment whose observation is not empty")
    numbers = any(isinstance(leaf, spaces.Box) for _, leaf in leaves)
    dtype = np.dtype(np.float32 if numbers else np.bool_)

    def encode(batch: Any) -> np.ndarray:
        parts = [_flat(leaf, _inside(batch, at)) for at, leaf in leaves]
        return np.concatenate(parts, axis=1).astype(dtype, copy=False)

    like = [leaf for _, leaf in leaves if _is_like_image(leaf)]
    for leaf in like[:1]:
        notes.append(f"what may be images of shape {leaf.shape} counts as numbers of a vector")
    return Coder((size,), dtype, encode, mask, "; ".join(notes))


def check_shapes(space: spaces.Space, seen: list[Any], env_id: str) -> None:
    """Raises ConfigError where an observation is not of its space's shape."""
    for at, leaf in _leaves(space):
        for observation in seen:
            shape = np.shape(_inside(observation, at))
            allowed = (
                f"an environment whose observations fit their space: {shape}, not {leaf.shape}"
            )
            require(leaf.shape in (None, shape), "env.id", env_id, allowed)


def _inside(batch: Any, at: tuple[Any, ...]) -> Any:
    return functools.reduce(operator.getitem, at, batch)


def _is_mask(leaf: spaces.Space, num_actions: int) -> bool:
    """Whether a space is one bit for each action."""
    if leaf.shape != (num_actions,):
        return False
    if isinstance(leaf, spaces.MultiDiscrete):
        return bool((leaf.nvec == 2).all() and not leaf.start.any())
    is_bits = isinstance(leaf, spaces.Box) and not leaf.low.any() and bool((leaf.high == 1).all())
    return is_bits or isinstance(leaf, spaces.MultiBinary)


def _mask_at(at: tuple[Any, ...], batch: Any) -> np.ndarray:
    return np.asarray(_inside(batch, at)).astype(np.bool_)


def _find_image(
    at: tuple[Any, ...], space: spaces.Space, tried: Tried
) -> tuple[Callable[[np.ndarray], np.ndarray], str] | None:
    """What takes images of one or three channels out of a batch, and a note; None: there are none.

    Args:
        at: the space's place in an observation.
        space: any.
        tried: see `make_coder`.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return None
    shape, stacks = space.shape, _stacks(space.shape)
    if _is_image(shape):
        return (lambda batch: batch), ""
    seen = [np.asarray(_inside(batch, at)) for batch in tried()] if stacks else []
    if len(seen) != 2:
        return None
    alpha, colours = (np.stack(seen)[..., part] for part in (slice(-1, None), slice(-1)))
    if shape[-1] == 4 and (alpha == alpha.flat[0]).all() and (colours != alpha).any():
        return (
            lambda batch: batch[..., :3]
        ), f"images of shape {shape} are RGBA: the colours count"
    for axis, count in stacks:
        before, after = (np.moveaxis(x, axis, 0) for x in seen)
        if np.array_equal(after[:-count], before[count:]):
            newest = -1 if count == 1 else np.arange(-count, 0)
            note = f"images of shape {shape} are stacks: the newest counts (env.frame_stack stacks)"
            return functools.partial(np.take, indices=newest, axis=axis), note
    return None


def _stacks(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Axes, negative, along which images may be stacked, and the channels of each image."""
    found = []
    for axis in (-1, -len(shape)) if len(shape) in (3, 4) else ():
        others, size = [*shape], shape[axis]
        del others[axis]
        frames = {1: others, 3: [*others, 3] if axis == -1 else [3, *others]}
        for count, frame in frames.items():
            if 1 < size <= MAX_CHANNELS and size % count == 0 and _is_image(tuple(frame)):
                found.append((axis, count))
    return found


def _is_image(shape: tuple[int, ...]) -> bool:
    if len(shape) == 3 and {shape[0], shape[-1]} & {1, 3}:
        shape = shape[:2] if shape[-1] in (1, 3) else shape[1:]
    return len(shape) == 2 and min(shape) >= MIN_IMAGE


def _is_like_image(leaf: spaces.Space) -> bool:
    """Whether a space that is not read as an image might be taken for one."""
    if not isinstance(leaf, spaces.Box) or sum(n >= MIN_IMAGE for n in leaf.shape) < 2:
        return False
    in_range = not leaf.low.any() and bool(np.isin(leaf.high, (1, 255)).all())
    return leaf.dtype == np.uint8 or len(leaf.shape) > 2 or in_range


def _leaves(space: spaces.Space, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, spaces.Space]]:
    """The spaces inside of Dict and Tuple, each with its path of keys; another is its only one."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        is_dict = isinstance(space, spaces.Dict)
        for key, inner in space.spaces.items() if is_dict else enumerate(space.spaces):
            yield from _leaves(inner, (*at, key))
    else:
        yield at, space


def _size(leaf: spaces.Space) -> int:
    """Length of its part of the vector; raises ConfigError for a space that has none."""
    allowed = "made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"
    one_hot = isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete))
    known = one_hot or isinstance(leaf, (spaces.Box, spaces.MultiBinary))
    require(known, "the observation space of env.id", str(leaf), allowed)
    size = int(spaces.flatdim(leaf))
    allowed = f"a one-hot of at most {MAX_ONE_HOT:,} numbers"
    fits = not one_hot or size <= MAX_ONE_HOT
    require(fits, "the observation space of env.id", str(leaf), allowed)
    return size


def _flat(leaf: spaces.Space, batch: Any) -> np.ndarray:
    """`gymnasium.spaces.flatten` for B observations at once: `[B, n]`."""
    array = np.asarray(batch)
    rows = array.reshape(len(array), -1)
    if isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete)):
        sizes = np.ravel(leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec)
        columns = zip((rows - np.ravel(leaf.start)).T, sizes, strict=True)
        return np.concatenate([x[:, None] == np.arange(n) for x, n in columns], axis=1)
    return rows.astype(np.float32 if isinstance(leaf, spaces.Box) else np.bool_)


def _grey_frame(batch: np.ndarray, size: int) -> np.ndarray:
    """`[B, H, W]`, `[B, H, W, c]` or `[B, c, H, W]` uint8 to `[B, size, size]` uint8."""
    image = batch.astype(np.float32)
    if batch.ndim == 4:
        if batch.shape[-1] not in (1, 3):
            image = np.moveaxis(image, 1, -1)
        image = image @ GREY if image.shape[-1] == 3 else image[..., 0]
    return resize_area(image, size)
