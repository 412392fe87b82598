"""Stopping a run: the first Ctrl-C or SIGTERM becomes a flag, the second interrupts at once."""

import signal
from typing import Any


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a flag, so that a run can save and say how to go on.

    A second signal interrupts at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __bool__(self) -> bool:
        return self.number is not None
