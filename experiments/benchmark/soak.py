"""A long run: whether memory, open files and speed stay as they were.

A real run, with its checkpoints and evaluations, is stopped after a while like by SIGTERM; a thread
samples the process meanwhile. The first third of the time is for warming up (the replay fills, the
last programs are compiled); the last is compared with the second.
"""

import dataclasses
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import psutil

from experiments.benchmark.plan import Figure
from experiments.benchmark.timing import surroundings
from smz_jax.config.settings import Config
from smz_jax.config.sources import to_dict
from smz_jax.run.devices import COMPILE_EVENT, prepare_jax
from smz_jax.run.loop import train
from smz_jax.storage.metrics import METRICS_FILE, read_metrics

SAMPLES = 180
"""Of the process, in all."""
MEMORY_RATIO, SPEED_SHARE = 1.02, 0.9
"""Most that memory may grow from the second third to the last, least that speed may keep."""


class Sample(NamedTuple):
    """One sample of the process."""

    seconds: float  # since the start
    memory: int  # bytes, resident
    open_files: int
    compilations: int  # programs compiled or loaded from the cache so far


class _Sampler(threading.Thread):
    """Samples this process until the time is over, then stops it as SIGTERM does."""

    def __init__(self, seconds: float) -> None:
        super().__init__(name="soak", daemon=True)
        self.samples: list[Sample] = []
        self._seconds, self._process, self._compilations = seconds, psutil.Process(), 0
        self._over = threading.Event()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        self._compilations += event == COMPILE_EVENT

    def run(self) -> None:
        """See `threading.Thread`."""
        begin = time.monotonic()
        while not self._over.wait(self._seconds / SAMPLES):
            passed = time.monotonic() - begin
            memory, files = self._process.memory_info().rss, self._process.num_fds()
            self.samples.append(Sample(passed, memory, files, self._compilations))
            if passed >= self._seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def stop(self) -> None:
        """Where the run ended by itself."""
        self._over.set()


def measure(config: Config, seconds: float, preset: str) -> dict[str, Any]:
    """Trains for a while in a folder that is thrown away.

    Args:
        config: the run's settings; it trains until the time is over, whatever they say.
        seconds: of training, compilation included.
        preset: name of the preset, for the record.

    Returns:
        `figures` as `judge` gives them, `thirds`, `samples`, settings and surroundings; plain JSON.
    """
    prepare_jax()
    endless = dataclasses.replace(config, total_env_steps=10**12)
    around = surroundings()
    with tempfile.TemporaryDirectory(prefix="smz_soak_") as folder:
        sampler = _Sampler(seconds)
        sampler.start()
        try:
            outcome = train(endless, Path(folder))
        finally:
            sampler.stop()
        rows = read_metrics(Path(folder) / METRICS_FILE)
    thirds = summarise(sampler.samples, rows, seconds)
    return {
        "preset": preset,
        "seconds": seconds,
        "env_steps": outcome.env_steps,
        "learner_steps": outcome.learner_steps,
        "config": to_dict(config),
        **around,
        "thirds": thirds,
        "figures": [figure.plain() for figure in judge(thirds)],
        "samples": [sample._asdict() for sample in sampler.samples],
    }


def summarise(
    samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]], seconds: float
) -> list[dict[str, float]]:
    """Each third of the time: medians of memory and speed, most open files, compilations."""
    thirds, before = [], 0
    for number in range(3):
        first, last = number * seconds / 3, (number + 1) * seconds / 3
        end = float("inf") if number == 2 else last
        inside = [x for x in samples if first < x.seconds <= end]
        speeds = [
            row["speed/env_steps_per_second"]
            for row in rows
            if "iteration" in row and first < row["wall_seconds"] <= last
        ]
        compilations = inside[-1].compilations if inside else before
        thirds.append(
            {
                "memory_mib": statistics.median(x.memory for x in inside) / 2**20 if inside else 0,
                "open_files": max((x.open_files for x in inside), default=0),
                "compilations": compilations - before,
                "steps_per_second": statistics.median(speeds) if speeds else 0.0,
            }
        )
        before = compilations
    return thirds


def judge(thirds: Sequence[Mapping[str, float]]) -> list[Figure]:
    """The last third against the second one."""
    _, middle, last = thirds

    def ratio(name: str) -> float:
        return last[name] / middle[name] if middle[name] else float("nan")

    return [
        Figure("memory", "last third / the one before", ratio("memory_mib"), MEMORY_RATIO, False),
        Figure("open files", "last third / the one before", ratio("open_files"), 1.0, False),
        Figure("compilations", "in the last third", last["compilations"], 0.0, False),
        Figure(
            "speed", "last third / the one before", ratio("steps_per_second"), SPEED_SHARE, True
        ),
    ]
