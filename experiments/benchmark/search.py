"""Speed of the search: the batched engine, stock mctx and the networks alone, interleaved."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmark import plan as plans
from experiments.benchmark.nets import SUBJECTS
from experiments.benchmark.plan import Plan
from experiments.benchmark.programs import Task, arguments, build, tree_bytes
from experiments.benchmark.timing import (
    Case,
    compile_cache,
    compiled,
    interleave,
    show_steps,
    surroundings,
    timed,
)

ROUNDS = 5
"""Every task of a group is timed so often, in turn with the others; the median counts."""
TASK_SECONDS = 0.4
"""For each task over all rounds; a slower one runs once a round."""
LIMIT_SECONDS = 200.0
"""Groups that no figure needs begin before this time, so that a slow machine ends in 4 minutes."""

Record = dict[str, Any]
"""One measured task, plain JSON; see `measure_group`."""


def measure_group(
    network: str,
    batch: int,
    tasks: list[Task],
    seconds: float,
    rounds: int,
    step: Callable[[str], None],
) -> list[Record]:
    """Compiles and times the tasks of one network and batch size.

    Args:
        network: a key of `SUBJECTS`.
        batch: B.
        tasks: what to time; those that share a program are compiled once.
        seconds: for each task, over all rounds.
        rounds: how often each is timed.
        step: shows what begins.

    Returns:
        For each task: its fields, `network`, `batch`, `seconds` of one search of the batch,
        `searches_per_second`, `compile_seconds` and `tree_bytes` (None for the networks alone).
    """
    where, subject = f"{network}, B {batch}", SUBJECTS[network]()
    programs: dict[Task, tuple[Callable, float, int | None]] = {}
    cases: dict[str, Case] = {}
    for task in tasks:
        inputs = jax.block_until_ready(arguments(task, subject, batch))
        if task.program not in programs:
            step(f"{where}: compiling {task.label}")
            function = build(task, subject)
            programs[task.program] = (*compiled(function, *inputs), tree_bytes(function, *inputs))
        run = functools.partial(programs[task.program][0], *inputs)
        cases[task.label] = functools.partial(timed, run)
    medians = interleave(cases, seconds, rounds, lambda text: step(f"{where}: timing {text}"))
    return [
        {
            "network": network,
            "batch": batch,
            **task._asdict(),
            "seconds": medians[task.label],
            "searches_per_second": batch / medians[task.label],
            "compile_seconds": programs[task.program][1],
            "tree_bytes": programs[task.program][2],
        }
        for task in tasks
    ]


def by_task(records: list[Record]) -> dict[tuple[str, int, Task], Record]:
    """Records by network, batch and task."""
    return {(r["network"], r["batch"], Task(*(r[x] for x in Task._fields))): r for r in records}


def cell_rows(plan: Plan, records: list[Record]) -> list[dict[str, Any]]:
    """The table of speeds: a row for each cell.

    Returns:
        Per cell its sizes, searches per second of both engines (`stock`, `batched`; also `mctx`
        where it was timed), their ratio, the networks' own rate (a search without its tree), the
        batched engine's time over it, bytes of its tree and seconds to compile either. A cell
        that was not measured has no row.
    """
    rows, found = [], by_task(records)
    for cell in plans.cells(plan):
        where = cell[:2]
        if (*where, Task("stock", cell.simulations)) not in found:
            continue
        stock, batched, networks = (found[*where, task] for task in plans.tasks_of(cell))
        mctx = found.get((*where, Task("mctx", cell.simulations)), {})
        rows.append(
            {
                **cell._asdict(),
                "stock_searches_per_second": stock["searches_per_second"],
                "mctx_searches_per_second": mctx.get("searches_per_second"),
                "batched_searches_per_second": batched["searches_per_second"],
                "batched_over_stock": stock["seconds"] / batched["seconds"],
                "networks_searches_per_second": networks["searches_per_second"],
                "time_over_networks": batched["seconds"] / networks["seconds"],
                "tree_bytes": batched["tree_bytes"],
                "stock_compile_seconds": stock["compile_seconds"],
                "batched_compile_seconds": batched["compile_seconds"],
            }
        )
    return rows


def measure(
    plan: Plan,
    *,
    seconds: float = TASK_SECONDS,
    rounds: int = ROUNDS,
    limit: float = math.inf,
    own_cache: bool = True,
) -> dict[str, Any]:
    """Measures all of a plan.

    Args:
        plan: what to measure.
        seconds: for each task, over all rounds, without compilation.
        rounds: how often each task is timed.
        limit: seconds after which no group begins that no figure needs.
        own_cache: whether compile times are those of a first start; else programs come from the
            shared compile cache where they are in it.

    Returns:
        `cells`, `figures`, `records`, `networks` and `left_out` (groups beyond the limit), and
        what they depend on; plain JSON.
    """
    around, start = surroundings(), time.monotonic()
    groups = plans.groups(plan)
    steps = sum(len({t.program for t in tasks}) + rounds * len(tasks) for tasks in groups.values())
    records: list[Record] = []
    left_out: list[str] = []
    with compile_cache(own=own_cache), show_steps(steps, "search") as step:
        for (network, batch), tasks in groups.items():
            if plans.is_optional(plan, network, batch) and time.monotonic() - start > limit:
                left_out.append(f"{network}, B {batch}")
                continue
            records += measure_group(network, batch, tasks, seconds, rounds, step)
    found = by_task(records)
    figures = [ratio.figure(lambda *key: found[key]["seconds"]) for ratio in plans.ratios(plan)]
    return {
        "cells": cell_rows(plan, records),
        "figures": [figure.plain() for figure in figures],
        "records": records,
        "networks": {
            name: SUBJECTS[name]().about for name in sorted({r["network"] for r in records})
        },
        "left_out": left_out,
        "collapse_threshold": plans.THRESHOLD,
        "seconds_per_task": seconds,
        "rounds": rounds,
        "seconds_in_all": time.monotonic() - start,
        **around,
    }
