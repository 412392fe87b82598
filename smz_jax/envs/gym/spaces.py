"""Gymnasium's spaces as frames: which observations become images, which become vectors, and how.

An image is a uint8 Box of rank 2, or of rank 3 with one or three channels (first or last), at least
16 pixels high and wide: it becomes grey (ITU-R 601 weights) and is resized to `env.frame_size` by
area, and may be stacked. Everything else becomes a vector in the order of `gymnasium.spaces.
flatten`: numbers as they are, Discrete and MultiDiscrete as one-hots, Dict and Tuple joined. The
same id may have other spaces by `env.backend` and is then learned from other inputs: Blackjack-v1
is three numbers in envpool and 45 bits of one-hots in Gymnasium.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from smz_jax.config.check import require
from smz_jax.envs.area import resize_area

MIN_IMAGE = 16
MAX_ONE_HOT = 65_536
GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Coder(NamedTuple):
    """How the observations of a space become frames."""

    frame_shape: tuple[int, ...]
    frame_dtype: np.dtype  # uint8: image, bool: only one-hots and bits, else float32
    encode: Callable[[Any], np.ndarray]  # batched observations -> [B, *frame_shape]


def make_coder(space: spaces.Space, frame_size: int) -> Coder:
    """The coder of an observation space.

    Args:
        space: of one lane.
        frame_size: height and width of an image's frame.

    Returns:
        The `Coder`; its `encode` takes what the libraries give for B lanes: arrays with a batch
        axis, in dicts or tuples where the space is one.

    Raises:
        ConfigError: if the space, or one inside it, is none of Box, Discrete, MultiDiscrete,
            MultiBinary, Dict and Tuple, or is empty.
    """
    if _is_image(space):
        shape = (frame_size, frame_size)
        return Coder(shape, np.dtype(np.uint8), lambda x: _grey_frame(np.asarray(x), frame_size))
    size = _size(space)
    require(size > 0, "env.id", str(space), "an environment whose observation is not empty")
    dtype = np.dtype(np.bool_ if _is_binary(space) else np.float32)
    return Coder((size,), dtype, lambda x: flatten_batch(space, x).astype(dtype))


def flatten_batch(space: spaces.Space, batch: Any) -> np.ndarray:
    """`gymnasium.spaces.flatten` for B observations at once.

    Args:
        space: of one lane.
        batch: as the libraries give it, see `make_coder`.

    Returns:
        `[B, n]`, a copy.
    """
    if isinstance(space, spaces.Dict):
        parts = [flatten_batch(inner, batch[name]) for name, inner in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, batch, strict=True)
        return np.concatenate([flatten_batch(inner, part) for inner, part in pairs], axis=1)
    array = np.asarray(batch)
    if isinstance(space, spaces.Discrete):
        return _one_hot(array.reshape(len(array)) - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        columns = (array - space.start).reshape(len(array), -1)
        sizes = space.nvec.reshape(-1)
        return np.concatenate(
            [_one_hot(columns[:, i], int(n)) for i, n in enumerate(sizes)], axis=1
        )
    flat = array.reshape(len(array), -1)
    return flat.astype(np.float32) if isinstance(space, spaces.Box) else flat.astype(np.bool_)


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    return index[:, None] == np.arange(size)[None, :]


def _size(space: spaces.Space) -> int:
    """Length of the vector; raises ConfigError for a space that has none."""
    if isinstance(space, spaces.Dict):
        return sum(_size(inner) for inner in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return sum(_size(inner) for inner in space.spaces)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        size = int(space.n if isinstance(space, spaces.Discrete) else space.nvec.sum())
        allowed = f"a one-hot of at most {MAX_ONE_HOT:,} numbers"
        require(size <= MAX_ONE_HOT, "the observation space of env.id", str(space), allowed)
        return size
    allowed = "made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"
    known = isinstance(space, (spaces.Box, spaces.MultiBinary))
    require(known, "the observation space of env.id", str(space), allowed)
    return math.prod(space.shape or ())


def _is_binary(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Dict):
        return all(_is_binary(inner) for inner in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return all(_is_binary(inner) for inner in space.spaces)
    return not isinstance(space, spaces.Box)


def _is_image(space: spaces.Space) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    if len(shape) == 3:
        if shape[-1] in (1, 3):
            shape = shape[:2]
        elif shape[0] in (1, 3):
            shape = shape[1:]
    return len(shape) == 2 and min(shape) >= MIN_IMAGE


def _grey_frame(batch: np.ndarray, size: int) -> np.ndarray:
    """`[B, H, W]`, `[B, H, W, c]` or `[B, c, H, W]` uint8 to `[B, size, size]` uint8."""
    image = batch.astype(np.float32)
    if batch.ndim == 4:
        if batch.shape[-1] not in (1, 3):
            image = np.moveaxis(image, 1, -1)
        image = image @ GREY if image.shape[-1] == 3 else image[..., 0]
    return resize_area(image, size)
