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

from smz_jax.run.progress import Progress
from smz_jax.storage.run_dir import git_commit, versions

QUICK_SECONDS = 1.0  # A measurement with fewer seconds a part only shows that every part runs
ROUNDS = 5  # each part is measured so often, in turn with the others; the median is reported

Work = Callable[[], Any]
Case = Callable[[], float]  # does a part's work once; gives its seconds


def timed(work: Work) -> float:
    """Seconds that `work` takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def make_case(work: Work, units: int = 1, before: Work = tuple, after: Work = tuple) -> Case:
    """A case of work that does its part `units` times; `before` and `after` are not timed.

    All is done once, so that it is compiled.
    """

    def case() -> float:
        jax.block_until_ready(before())
        seconds = timed(work)
        jax.block_until_ready(after())
        return seconds / units

    case()
    return case


def interleave(
    cases: Mapping[str, Case],
    seconds: float,
    rounds: int = ROUNDS,
    show: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Measures all cases in turn, several times over, so that a slow spell meets them all.

    Each is called at least once in a round, and for `seconds` over all rounds. `show` gets the name
    and the round of what begins.

    Returns:
        For each name, the median over the rounds of a round's mean seconds.
    """
    means: dict[str, list[float]] = {name: [] for name in cases}
    for number, (name, case) in itertools.product(range(rounds), cases.items()):
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
def own_compile_cache(wanted: bool) -> Iterator[None]:
    """An empty cache: times are of a first start, and no program is compiled twice."""
    with tempfile.TemporaryDirectory() as folder:
        if wanted:
            jax.config.update("jax_compilation_cache_dir", folder)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield


@contextmanager
def show_steps(total: int, name: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that shows what begins now, out of `total` steps.

    On stderr, so that a table can go to a file; no thread draws, for it would be measured too.
    """
    done = itertools.count()
    with Progress(total, name, Console(stderr=True), redraws=False) as progress:
        yield lambda text: progress.step(text, next(done))


def surroundings() -> dict[str, Any]:
    """What a measurement depends on beside its settings: `hardware`, `versions`, `commit`."""
    device = jax.devices()[0]
    hardware = {
        "device": device.device_kind,
        "backend": device.platform,
        "cpu_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "platform": platform.platform(),
        "load_before": os.getloadavg()[0],
    }
    return {"hardware": hardware, "versions": versions(), "commit": git_commit()}


def figure(
    case: str, what: str, value: float, target: float | None, *, at_least: bool
) -> dict[str, Any]:
    """A number beside its target, plain JSON.

    `reached` says whether it is at the target or better; None where there is no target, and the
    number is for information.
    """
    reached = None
    if target is not None:
        reached = value >= target if at_least else value <= target
    about = {"case": case, "what": what, "value": value, "target": target}
    return {**about, "at_least": at_least, "reached": reached}
