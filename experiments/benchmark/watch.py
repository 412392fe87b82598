"""What the user sees while a benchmark goes: one line of what is measured just now."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_SECONDS = 5.0
"""Least time between two plain lines where there is no terminal."""


class Watch:
    """`with Watch(total, "search") as watch: watch.step("conv, B 32: compiling ...")`.

    Drawn only at a step, never by a thread of its own: that would be measured too.

    Args:
        total: steps until the end.
        name: shown before each text.
        console: where to; unset: stderr, so that a table can go to a file.
    """

    def __init__(self, total: int, name: str, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._name, self._total, self._done = name, total, 0
        self._last_line = -float("inf")
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> "Watch":
        """Starts the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        self._bar.stop()

    def step(self, text: str) -> None:
        """Shows what begins now; the step before it is done."""
        line = f"{self._name}: {text}"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._done, description=line)
            self._bar.refresh()
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"{line} ({self._done} of {self._total})", file=self._console.file, flush=True)
        self._done += 1
