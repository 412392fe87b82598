"""Seconds: of a call, of several in turn, of a compilation; and what they were measured on."""

import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import psutil
from rich.console import Console

from smz_jax.run.devices import prepare_jax
from smz_jax.run.progress import Progress
from smz_jax.storage.run_dir import git_commit, versions

QUICK_SECONDS = 1.0
"""A measurement with fewer seconds a part only shows that every part runs."""
ROUNDS = 5
"""Each part is measured so often, in turn with the others; the median is reported."""

Case = Callable[[], float]
"""Does a part's work once; gives its seconds."""


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def interleave(
    cases: Mapping[str, Case],
    seconds: float,
    rounds: int = ROUNDS,
    show: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Measures all cases in turn, several times over, so that a slow spell meets them all.

    Args:
        cases: by name; each is called at least once in a round.
        seconds: for each case, over all rounds.
        rounds: how often.
        show: gets the name and the round of what begins.

    Returns:
        For each name, the median over the rounds of a round's mean seconds.
    """
    means: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            show(f"{name}, round {number + 1}")
            end = time.perf_counter() + seconds / rounds
            taken = [case()]
            while time.perf_counter() < end:
                taken.append(case())
            means[name].append(statistics.fmean(taken))
    return {name: statistics.median(values) for name, values in means.items()}


def compiled(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The compiled program of a jitted function, and the seconds that it took."""
    start = time.perf_counter()
    program = function.lower(*arguments).compile()
    return program, time.perf_counter() - start


@contextmanager
def compile_cache(*, own: bool) -> Iterator[None]:
    """Sets the compile cache of a measurement.

    Args:
        own: an empty cache, so that times are of a first start and no program is compiled twice;
            else the shared one.
    """
    if not own:
        prepare_jax()
        yield
        return
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)


@contextmanager
def show_steps(total: int, name: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that shows what begins now, out of `total` steps.

    On stderr, so that a table can go to a file; no thread draws, for it would be measured too.
    """
    done = itertools.count()
    with Progress(total, name, Console(stderr=True), redraws=False) as progress:
        yield lambda text: progress.step(text, next(done))


def surroundings() -> dict[str, Any]:
    """What a measurement depends on beside its settings; `load_before` is read at the call.

    Returns:
        `hardware`, `versions` and `commit`, plain JSON.
    """
    device = jax.devices()[0]
    return {
        "hardware": {
            "device": device.device_kind,
            "backend": device.platform,
            "cpu_cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)),
            "memory_gb": psutil.virtual_memory().total / 1e9,
            "platform": platform.platform(),
            "load_before": os.getloadavg()[0],
        },
        "versions": versions(),
        "commit": git_commit(),
    }
