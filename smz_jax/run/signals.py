"""Stopping a run: the first signal becomes a flag and an answer, a second one interrupts."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from smz_jax.config.process import ENDING_SIGNALS

SAME_PRESS_SECONDS = 2.0
"""A second signal within this time is the same one: an impatient finger, or a process group that
is told twice."""
POLL_SECONDS = 0.25


class StopSignal:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a flag, so that a run can save.

    A second signal, more than `SAME_PRESS_SECONDS` later, raises KeyboardInterrupt. Python calls
    its handlers only between two of its own instructions, and a compilation is one of them: a
    thread that the C handler wakes answers at once, and takes the time of each signal.

    Outside of the main thread, which alone gets signals, nothing is changed.

    Args:
        answer: called by that thread at the first signal.
    """

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.number: int | None = None
        self.is_handling = False
        """Whether signals become flags: false outside of the main thread."""
        self._answer = answer
        self._first: float | None = None
        self._again = False
        self._booked = self._handled = 0
        self._previous: dict[int, Any] = {}
        self._is_over = False
        self._lock = threading.RLock()  # a handler may come in the middle of another

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is not threading.main_thread():
            return self
        self.is_handling = True
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._former = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()
        for number in (signal.SIGINT, *ENDING_SIGNALS):
            is_ignored = signal.getsignal(number) is signal.SIG_IGN
            if not (number == signal.SIGHUP and is_ignored):  # nohup
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.is_handling:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former)
        self._is_over = True
        os.close(self._write)  # wakes the thread
        self._watch.join()
        os.close(self._read)

    def _take(self) -> None:
        """Books the signals that came."""
        with self._lock, contextlib.suppress(BlockingIOError):
            for number in os.read(self._read, 64):
                if number in self._previous:
                    self._book(number)

    def _book(self, number: int) -> None:
        now = time.monotonic()
        self._booked += 1
        if self._first is None:
            self._first, self.number = now, number
        self._again |= now - self._first > SAME_PRESS_SECONDS

    def _wait(self) -> None:
        """The thread: takes signals as they come, and answers the first."""
        is_answered = False
        while not self._is_over:
            # With a timeout, for a handler may have taken what would have woken it.
            select.select([self._read], [], [], POLL_SECONDS)
            self._take()
            if self.number is not None and not is_answered:
                is_answered = True
                self._answer()

    def _receive(self, number: int, frame: Any) -> None:
        with self._lock:
            self._take()
            self._handled += 1
            if self._handled > self._booked:  # a library took the descriptor that C writes to
                self._book(number)
        if self._again:
            raise KeyboardInterrupt(number)

    def __bool__(self) -> bool:
        return self.number is not None
