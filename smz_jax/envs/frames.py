"""Stacks of the newest frames: one rule for every backend."""

import numpy as np


class FrameStacker:
    """Builds observations from newest frames.

    At a game's start the first frame is repeated; otherwise, also after a lost life, the stack
    carries on. This is how envpool stacks (its `PushStack`); ale-py fills with zeros instead.
    """

    def __init__(self, frame_stack: int) -> None:
        """Takes F, the number of frames in an observation."""
        self._frame_stack = frame_stack
        self._stack: np.ndarray | None = None

    def push(self, frame: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Adds the newest frame of every lane.

        Args:
            frame: `[B, *frame_shape]`, copied.
            is_first: `[B]` bool, lanes whose game starts with this frame. At the first call all
                lanes start.

        Returns:
            `[B, F, *frame_shape]`, newest last; read-only, and never written to again: JAX on a
            CPU may keep a view of it.
        """
        shape = (frame.shape[0], self._frame_stack, *frame.shape[1:])
        stack = np.empty(shape, frame.dtype)
        if self._stack is None:
            stack[:] = frame[:, None]
        else:
            stack[:, :-1] = self._stack[:, 1:]
            stack[:, -1] = frame
            if is_first.any():
                stack[is_first] = frame[is_first, None]
        stack.flags.writeable = False
        self._stack = stack
        return stack
