"""Images resized by area, with the very numbers of OpenCV, which the vector libraries use."""

import functools
import math

import numpy as np


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
    """Nonzero entries of the matrix that resizes an axis by area (OpenCV, `computeResizeAreaTab`).

    Returns:
        `[K, size]` the pixels that each new one takes from, and `[K, size]` float32 their weights,
        filled up with 0.
    """
    scale = length / size
    pixels, start = np.arange(length), np.arange(size)[:, None] * scale
    overlap = np.clip(np.minimum(pixels + 1, start + scale) - np.maximum(pixels, start), 0, 1)
    overlap[overlap < 1e-3 * min(1.0, scale)] = 0
    first = (overlap > 0).argmax(axis=1)
    index = np.minimum(first + np.arange(math.ceil(scale) + 1)[:, None], length - 1)
    weight = overlap[np.arange(size), index] / scale
    weight[first + np.arange(len(weight))[:, None] >= length] = 0
    return index, weight.astype(np.float32)
