"""A long run: whether memory, open files and speed stay as they were.

A real run, with its checkpoints and evaluations, is stopped after a while like by SIGTERM; a thread
samples the process meanwhile. The first third of the time is for warming up (the replay fills, the
last programs are compiled); the last is compared with the second.
"""

import dataclasses
import itertools
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from experiments.benchmark.timing import figure
from smz_jax.config.settings import Config
from smz_jax.run.devices import COMPILE_EVENT
from smz_jax.run.loop import train
from smz_jax.storage.metrics import METRICS_FILE, read_metrics

SAMPLES = 180  # of the process, in all
MEMORY_RATIO, SPEED_SHARE = 1.02, 0.9
"""Most that memory may grow from the second third to the last, least that speed may keep."""


class Sample(NamedTuple):
    """One sample of the process."""

    seconds: float  # since the start
    memory: int  # bytes, resident
    open_files: int
    compilations: int  # programs compiled or loaded from the cache so far


def measure(config: Config, seconds: float) -> dict[str, Any]:
    """Trains for a while in a folder that is thrown away, whatever the settings say of its end.

    Returns:
        `figures` as `judge` gives them, `thirds`, `samples` and settings; plain JSON.
    """
    samples: list[Sample] = []
    over, process, compilations = threading.Event(), psutil.Process(), []

    def sample_until_over() -> None:
        begin = time.monotonic()
        while not over.wait(seconds / SAMPLES):
            passed, memory = time.monotonic() - begin, process.memory_info().rss
            samples.append(Sample(passed, memory, process.num_fds(), len(compilations)))
            if passed >= seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        compilations.extend([duration_secs] * (event == COMPILE_EVENT))

    jax.monitoring.register_event_duration_secs_listener(listen)
    with tempfile.TemporaryDirectory(prefix="smz_soak_") as folder:
        threading.Thread(target=sample_until_over, name="soak", daemon=True).start()
        try:
            outcome = train(dataclasses.replace(config, total_env_steps=10**12), Path(folder))
        finally:
            over.set()
        thirds = summarise(samples, read_metrics(Path(folder) / METRICS_FILE), seconds)
    return {
        "seconds": seconds,
        "env_steps": outcome.env_steps,
        "learner_steps": outcome.learner_steps,
        "config": dataclasses.asdict(config),
        "thirds": thirds,
        "figures": judge(thirds),
        "samples": [sample._asdict() for sample in samples],
    }


def summarise(
    samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]], seconds: float
) -> list[dict[str, float]]:
    """Each third of the time: medians of memory and speed, most open files, compilations."""
    rows = [x for x in rows if "iteration" in x and x["wall_seconds"] <= seconds]
    thirds, before = [], 0
    for first, last in itertools.pairwise((0.0, seconds / 3, 2 * seconds / 3, math.inf)):
        inside = [x for x in samples if first < x.seconds <= last]
        own = [x for x in rows if first < x["wall_seconds"] <= last]
        compilations = inside[-1].compilations if inside else before
        speed = np.median([x["speed/env_steps_per_second"] for x in own] or [0])
        thirds.append(
            {
                "memory_mib": float(np.median([x.memory for x in inside] or [0])) / 2**20,
                "open_files": max((x.open_files for x in inside), default=0),
                "compilations": compilations - before,
                "steps_per_second": float(speed),
            }
        )
        before = compilations
    return thirds


def judge(thirds: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """The figures of the last third against the second one."""
    _, middle, last = thirds
    ratios = {name: last[name] / x if x else float("nan") for name, x in middle.items()}
    what = "last third / the one before"
    return [
        figure("memory", what, ratios["memory_mib"], MEMORY_RATIO, at_least=False),
        figure("open files", what, ratios["open_files"], 1.0, at_least=False),
        figure("compilations", "in the last third", last["compilations"], 0.0, at_least=False),
        figure("speed", what, ratios["steps_per_second"], SPEED_SHARE, at_least=True),
    ]
