"""What the user sees of a run while it goes: a live bar, or plain lines without a terminal.

In a notebook the bar is text below the cell that is written anew in its place: it needs no widget,
and a stored notebook keeps how it ended.
"""

import importlib
import io
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from smz_jax.report.text import short_count, short_duration

LINE_SECONDS = 5.0
"""Least time between two plain lines."""
RATE_WINDOW = 60
"""Updates that the ETA looks back on: speed changes when learning begins."""


def _number(row: Mapping[str, Any], key: str, form: str = "{:.3g}") -> str | None:
    value = row.get(key)
    return form.format(value) if isinstance(value, (int, float)) else None


def describe(row: Mapping[str, Any], steps_per_second: float | None, unit: str = "steps") -> str:
    """One line with what a row of metrics says; what is not known yet is left out.

    Environment steps per second are used where the row holds none.
    """
    speed = row.get("speed/env_steps_per_second", steps_per_second)
    score = _number(row, "score/mean", "{:.4g}")
    games = _number(row, "score/count", "{:.0f}")
    parts = {
        "iteration": _number(row, "iteration", "{:.0f}"),
        f"{unit}/s": f"{speed:,.0f}" if isinstance(speed, (int, float)) else None,
        "score": f"{score} ({games} games)" if score and games else score,
        "loss": _number(row, "loss/total"),
        "entropy": _number(row, "search/transition_entropy", "{:.2f}"),
        "macros": _number(row, "macros/total", "{:.0f}"),
    }
    return " · ".join(f"{name} {text}" for name, text in parts.items() if text is not None)


def in_notebook() -> bool:
    """Whether what is printed goes below a notebook's cell."""
    return type(sys.stdout).__module__.partition(".")[0] == "ipykernel"


class Cell:
    """Shows a renderable below a notebook's cell, as plain text in one place.

    Args:
        shown: what rich renders.
        clock: gives seconds.
    """

    COLUMNS, SECONDS = 100, 0.5
    """Width of the text; least time between two drawings."""

    def __init__(self, shown: Any, clock: Callable[[], float]) -> None:
        self._shown, self._clock, self._due, self._handle = shown, clock, -float("inf"), None

    def start(self) -> None:
        """Shows it the first time."""
        display = importlib.import_module("IPython.display").display
        self._handle = display(self._text(), raw=True, display_id=True)

    def refresh(self, now: bool = True) -> None:
        """Shows it as it is; where that need not be `now`, seldom."""
        if self._handle and (now or self._clock() >= self._due):
            self._due = self._clock() + self.SECONDS
            self._handle.update(self._text(), raw=True)

    def stop(self) -> None:
        """Shows it the last time."""
        self.refresh()

    def _text(self) -> dict[str, str]:
        plain: Any = {"force_terminal": False, "force_jupyter": False, "color_system": None}
        console = Console(file=io.StringIO(), width=self.COLUMNS, **plain)
        with console.capture() as captured:
            console.print(self._shown)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        return {"text/plain": "\n".join(lines).rstrip()}


class Progress:
    """Shows how far a run is: `with Progress(100_000, "breakout") as progress: ...`.

    With a terminal: a live bar, percentage, elapsed time and ETA, and a line of metrics; in a
    notebook the same as text. Without one (a pipe, a log): plain lines, the first at once and then
    at most one each `line_seconds`.

    Args:
        total_env_steps: environment steps of the whole run; or steps of whatever `step` counts.
        experiment: name shown.
        console: where to; unset: the terminal behind stdout or stderr, else plain stdout.
        clock: gives seconds; a parameter for tests.
        line_seconds: least time between two plain lines.
        unit: what the steps are, in words.
        redraws: whether a thread draws the bar; else only `step` does, e.g. where time is measured.
    """

    def __init__(
        self,
        total_env_steps: int,
        experiment: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        line_seconds: float = LINE_SECONDS,
        redraws: bool = True,
        unit: str = "steps",
    ):
        if console is None:
            is_stderr = sys.stderr.isatty() and not sys.stdout.isatty()
            console = Console(stderr=is_stderr, force_jupyter=False)
        self._console = console
        self._total = max(int(total_env_steps), 1)
        self._name, self._unit = experiment, unit.split()[-1]
        self._clock = clock
        self._line_seconds = line_seconds
        self._start = clock()
        self._topics: set[str] = set()
        self._recent: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._pending: str | None = None
        self._last_line = -float("inf")
        self._text = Text("")
        self._live: Live | Cell | None = None
        if console.is_terminal or in_notebook():
            self._bar = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f}% {task.fields[note]}", markup=False),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task(experiment, total=self._total, note="")
            shown = Group(self._bar, self._text)
            # Prints are redirected to the bar only where they would go to its terminal anyway.
            self._live = (
                Cell(shown, clock)
                if in_notebook()
                else Live(
                    shown,
                    console=console,
                    refresh_per_second=4,
                    auto_refresh=redraws,
                    redirect_stdout=sys.stdout.isatty(),
                    redirect_stderr=sys.stderr.isatty(),
                )
            )

    def __enter__(self) -> "Progress":
        """Starts the live display."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stops the live display, or prints the last line that was held back."""
        if self._live:
            self._live.stop()
        elif self._pending:
            self._print(self._pending)

    def status(self, text: str) -> None:
        """Shows at once what happens now, e.g. before the first iteration."""
        self._text.plain = text
        if not self._live:
            if self._pending:
                self._print(self._pending)
            self._print(f"{self._name}: {text}")

    def step(self, text: str, done: int, live_text: str = "") -> None:
        """Shows what begins after the steps done; in plain lines seldom, line breaks as bars.

        A terminal shows `live_text` instead, if there is one.
        """
        now = self._clock()
        if self._live:
            note = f"{done}/{self._total} {short_duration(now - self._start)}"
            self._bar.update(self._task, completed=done, note=note)
            self._text.plain = live_text or text
            self._live.refresh()
        elif now - self._last_line >= self._line_seconds:
            self._last_line = now
            line = text.replace("\n", " | ")
            self._print(f"{self._name}: {line} ({done} of {self._total})")

    def message(self, text: str, topic: str = "") -> None:
        """Prints a line that stays, above the bar if there is one; of a topic, the first alone."""
        if topic in self._topics:
            return
        self._topics |= {topic} - {""}
        if isinstance(self._live, Live):
            self._console.print(Text(text))
        else:
            self._print(text)

    def stopping(self) -> None:
        """Says what a stop waits for; may be called from another thread."""
        wait = "; the first iteration compiles, which may take minutes"
        if len(self._recent) > 1:
            (before, _), (last, _) = self._recent[-2], self._recent[-1]
            seconds = max(last - before - (self._clock() - last), 0.0)
            wait = f", in about {short_duration(seconds)}"
        self.message(
            f"stopping: a checkpoint is saved when this iteration ends{wait}. A second signal "
            "stops at once and loses what is not saved"
        )

    def update(self, env_steps: int, row: Mapping[str, Any]) -> None:
        """Shows the environment steps done over all lanes, and what the newest metrics say."""
        now = self._clock()
        self._recent.append((now, int(env_steps)))
        speed = self._speed()
        remaining = max(self._total - env_steps, 0)
        eta = remaining / speed if speed else (0.0 if remaining == 0 else None)
        steps = f"{short_count(env_steps)}/{short_count(self._total)} {self._unit}"
        note = f"{short_duration(now - self._start)} ETA {short_duration(eta)}"
        text = describe(row, speed, self._unit)
        if self._live:
            self._bar.update(self._task, completed=env_steps, note=f"{steps} {note}")
            self._text.plain = text
            if isinstance(self._live, Cell):
                self._live.refresh(now=False)
            return
        share = f"{min(env_steps / self._total, 1.0):.0%}"
        self._pending = f"{self._name} {share} · {steps} · {text} · {note}"
        if now - self._last_line >= self._line_seconds:
            self._last_line = now
            self._print(self._pending)

    def _speed(self) -> float | None:
        """Environment steps per second over the recent updates; None until two are known."""
        (t0, steps0), (t1, steps1) = self._recent[0], self._recent[-1]
        return (steps1 - steps0) / (t1 - t0) if t1 > t0 and steps1 > steps0 else None

    def _print(self, line: str) -> None:
        self._pending = None
        # Past rich, which would wrap a long line at 80 columns where there is no terminal.
        print(line, file=self._console.file, flush=True)
