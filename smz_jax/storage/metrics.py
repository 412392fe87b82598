"""What a run writes while it goes: rows of metrics, seconds per phase, scores of recent games.

`metrics.jsonl` is the truth, one JSON object per line; TensorBoard gets the same scalars. Nothing
here imports JAX, so that a report of a run starts quickly.
"""

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError
from smz_jax.storage.files import atomic_write_bytes, plain

PHASES = (
    *("environment", "search", "macros", "replay", "reanalyse", "learning"),
    *("evaluation", "checkpoint", "compilation", "other"),
)
"""Parts of a run whose seconds are counted by themselves."""

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`, also while it is written or after a kill.

    A last line that was torn is left out; numbers that were not finite are None.

    Raises:
        ConfigError: in one line, if the file is missing or damaged before its last line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return [row for _, row in _rows(path, data)]


def _rows(path: Path, data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields each line with its row; leaves out a torn last line."""
    lines = data.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield line, row
        elif number < len(lines):
            raise ConfigError(f"{path} is damaged: line {number} is not a JSON object")


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and their scalars to `tensorboard/`.

    Args:
        run_dir: folder of the run; made if need be.
        resume_at_env_steps: where a resumed run continues; rows beyond it, which the resumed run
            will write again, are cut off first. Unset: every whole row is kept.
        end_comes_again: the run resumed is at its end, whose rows it will write again too.

    Raises:
        ConfigError: if an existing `metrics.jsonl` is damaged.
        OSError: if the folder cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        resume_at_env_steps: int | None = None,
        *,
        end_comes_again: bool = False,
    ):
        # Importing TensorBoard's writer takes long, and a report never needs it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
        from tensorboardX.summary import scalar

        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / METRICS_FILE
        if path.exists():
            _cut(path, resume_at_env_steps, end_comes_again)
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run
        # Not `SummaryWriter`: once its thread met a full disk its queue fills up, and all hangs.
        (run_dir / "tensorboard").mkdir(exist_ok=True)
        self._events = EventsWriter(str(run_dir / "tensorboard" / "events"), f".{time.time_ns()}")
        self._event = lambda step, **of: self._events.write_event(
            Event(wall_time=time.time(), step=step, **of)
        )
        self._scalar = scalar
        if resume_at_env_steps is not None:  # TensorBoard drops what it has from here on
            self._event(resume_at_env_steps + 1, session_log=SessionLog(status=SessionLog.START))
        self._env_steps = 0

    def write(self, row: Mapping[str, float | int | str | None]) -> None:
        """Appends one row, whole on the disk's side before this returns; null: was not finite.

        TensorBoard shows it at its `env_steps`, or at those of the row before.
        """
        values = plain(row)
        self._file.write(json.dumps(values, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._env_steps = values.get("env_steps") or self._env_steps
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "env_steps":
                self._event(self._env_steps, summary=self._scalar(name, value))

    def flush(self) -> None:
        """Forces everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes; harmless when done twice."""
        if not self._file.closed:
            self.flush()
            self._file.close()
            self._events.close()


class NoMetrics(MetricsWriter):
    """Writes nothing: of a process beside the one that writes."""

    def __init__(self) -> None:
        pass

    def write(self, row: Mapping[str, float | int | str | None]) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _cut(path: Path, env_steps: int | None, end_comes_again: bool) -> None:
    """Rewrites the file without a torn last line, rows beyond `env_steps`, and the end's own."""
    limit = math.inf if env_steps is None else env_steps

    def stays(row: Mapping[str, Any]) -> bool:
        is_final = "iteration" not in row and any(x.startswith(("eval/", "check/")) for x in row)
        return (row.get("env_steps") or 0) <= limit and not (end_comes_again and is_final)

    data = path.read_bytes()
    kept = b"".join(line + b"\n" for line, row in _rows(path, data) if stays(row))
    if kept != data:
        atomic_write_bytes(path, kept)


class PhaseTimers:
    """Seconds per phase of a run, `with timers("search"): ...`, and its CPU seconds.

    A phase inside another counts for itself alone: its time is taken from the outer one, so that
    the sum over phases never exceeds the time that passed. For one thread;
    `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._cpu_start = time.process_time()
        self.cpu_before: float | None = 0.0
        """Of the processes before, where a run is resumed; None: not known."""
        self._seconds: dict[str, float] = {phase: 0.0 for phase in PHASES}
        self._inner: list[float] = []

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Counts the time inside the `with` block for `phase`, one of `PHASES` (else KeyError)."""
        self._seconds[phase] += 0.0
        self._inner.append(0.0)
        start = self._clock()
        try:
            yield
        finally:
            elapsed = self._clock() - start
            self._seconds[phase] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def add(self, phase: str, seconds: float) -> None:
        """Counts `seconds` for `phase`; inside a running phase they are taken from that one.

        Outside of any phase this carries over the seconds of a run that is resumed.
        """
        self._seconds[phase] += seconds
        if self._inner:
            self._inner[-1] += seconds

    @property
    def cpu_seconds(self) -> float | None:
        """User and system time of all threads so far, whatever they did; None: not known."""
        now = time.process_time() - self._cpu_start
        return None if self.cpu_before is None else self.cpu_before + now

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far, without phases that still run."""
        return dict(self._seconds)

    @property
    def total(self) -> float:
        """Sum over all phases, in seconds."""
        return sum(self._seconds.values())


def newest_games(*games: Iterable[tuple[float, int]], window: int = 100) -> list[tuple[float, int]]:
    """The last finished games of training, oldest first: raw score and length in agent steps."""
    played = itertools.chain.from_iterable(games)
    return [(float(score), int(length)) for score, length in played][-window:]


def score_row(games: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Games as entries of a metrics row; without means before the first one."""
    row: dict[str, float] = {"score/count": len(games)}
    if games:
        scores, lengths = zip(*games, strict=True)
        row |= {"score/mean": sum(scores) / len(scores)}
        row |= {"episode/length_mean": sum(lengths) / len(lengths)}
    return row
