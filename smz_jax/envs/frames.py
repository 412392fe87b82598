"""Frames resized by area, with the very numbers of OpenCV, and stacked by one rule."""

import functools
import math

import numpy as np


def push_frame(
    stack: np.ndarray | None,
    frame: np.ndarray,
    is_first: np.ndarray,
    frame_stack: int,
    is_marked: bool = False,
) -> np.ndarray:
    """Adds the newest frame of every lane to its observation.

    At a game's start the first frame is repeated; otherwise, also after a lost life, the stack
    carries on. This is how envpool stacks (its `PushStack`); ale-py fills with zeros instead.

    Args:
        stack: what the last call gave; None: all lanes start.
        frame: `[B, *frame_shape]`, copied.
        is_first: `[B]` bool, lanes whose game starts with this frame.
        frame_stack: F, the number of frames in an observation.
        is_marked: whether a row comes first that counts the frames of the game in progress.

    Returns:
        `[B, F, *frame_shape]`, newest last; read-only, and never written to again: JAX on a
        CPU may keep a view of it.
    """
    new = np.empty((frame.shape[0], frame_stack + is_marked, *frame.shape[1:]), frame.dtype)
    if stack is None:
        new[:] = frame[:, None]
    else:
        new[:, :-1] = stack[:, 1:]
        new[:, -1] = frame
        if is_first.any():
            new[is_first] = frame[is_first, None]
    if is_marked:
        new[:, 0] = 1 if stack is None else np.minimum(stack[:, 0] + 1, frame_stack)
        new[is_first, 0] = 1
    new.flags.writeable = False
    return new


def push_frames(observation: np.ndarray, frames: np.ndarray, is_marked: bool) -> np.ndarray:
    """The observation `[F, ...]` that one becomes with `frames [n, ...]` of the same game more."""
    last, rows = observation, len(observation) - is_marked
    for frame in frames:
        last = push_frame(last[None], frame[None], np.zeros(1, np.bool_), rows, is_marked)[0]
    return last


def resize_area(screen: np.ndarray, size: int) -> np.ndarray:
    """Resizes grey images by area to `[..., size, size]`, bit for bit as the libraries do.

    That is OpenCV's `INTER_AREA`, the product R x C' with two fixed sparse matrices: columns
    first, in float32, each sum from left to right or from the top down, then rounded half to even.
    Halves do occur (at 84 both scales are multiples of 1/200), so that the order matters.

    Args:
        screen: `[..., H, W]` uint8, or float32 in 0..255.
        size: of the result, which is uint8.
    """
    x = screen
    for axis in (-1, -2):
        index, weight = _area_taps(x.shape[axis], size)
        weight = weight if axis == -1 else weight[:, :, None]
        taps = (np.take(x, i, axis) * w for i, w in zip(index, weight, strict=True))
        x = functools.reduce(np.add, taps)
    return np.rint(x).astype(np.uint8)


@functools.cache
def _area_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`[K, size]` pixels and float32 weights of each new one (OpenCV, `computeResizeAreaTab`)."""
    scale = length / size
    pixels, start = np.arange(length), np.arange(size)[:, None] * scale
    overlap = np.clip(np.minimum(pixels + 1, start + scale) - np.maximum(pixels, start), 0, 1)
    overlap[overlap < 1e-3 * min(1.0, scale)] = 0
    first = (overlap > 0).argmax(axis=1)
    index = np.minimum(first + np.arange(math.ceil(scale) + 1)[:, None], length - 1)
    weight = overlap[np.arange(size), index] / scale
    weight[first + np.arange(len(weight))[:, None] >= length] = 0
    return index, weight.astype(np.float32)
