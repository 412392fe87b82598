"""Speed of the search: the batched engine, stock mctx and the networks alone, interleaved."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmark import plan as plans
from experiments.benchmark.nets import SUBJECTS, Subject
from experiments.benchmark.plan import Plan
from experiments.benchmark.programs import Task, build, tree_bytes
from experiments.benchmark.timing import (
    Case,
    compile_cache,
    compiled,
    interleave,
    surroundings,
    timed,
)
from experiments.benchmark.watch import Watch

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
    subject: Subject,
    batch: int,
    tasks: list[Task],
    seconds: float,
    rounds: int,
    step: Callable[[str], None],
) -> list[Record]:
    """Compiles and times the tasks of one network and batch size.

    Args:
        network: the subject's name, for the records.
        subject: the model.
        batch: B.
        tasks: what to time; those that share a program are compiled once.
        seconds: for each task, over all rounds.
        rounds: how often each is timed.
        step: told what begins.

    Returns:
        For each task: its fields, `network`, `batch`, `seconds` of one search of the batch,
        `searches_per_second`, `compile_seconds` and `tree_bytes` (None for the networks alone).
    """
    programs: dict[Task, tuple[Callable, Callable, float, int | None]] = {}
    cases: list[Case] = []
    for task in tasks:
        if task.program not in programs:
            step(f"{network}, B {batch}: compiling {task.label}")
            function, arguments_of = build(task, subject)
            arguments = arguments_of(task, batch)
            program, compile_seconds = compiled(function, *arguments)
            size = tree_bytes(function, *arguments)
            programs[task.program] = (program, arguments_of, compile_seconds, size)
        program, arguments_of, _, _ = programs[task.program]
        arguments = jax.block_until_ready(arguments_of(task, batch))
        cases.append(
            lambda task=task, program=program, arguments=arguments: {
                task.label: timed(lambda: program(*arguments))
            }
        )

    def watch(round_number: int, case_number: int) -> None:
        step(f"{network}, B {batch}: timing {tasks[case_number].label}, round {round_number + 1}")

    medians = interleave(cases, seconds, rounds, watch)
    return [
        {
            "network": network,
            "batch": batch,
            **task._asdict(),
            "seconds": medians[task.label],
            "searches_per_second": batch / medians[task.label],
            "compile_seconds": programs[task.program][2],
            "tree_bytes": programs[task.program][3],
        }
        for task in tasks
    ]


def by_task(records: list[Record]) -> dict[tuple[str, int, Task], Record]:
    """Records by network, batch and task."""
    return {(r["network"], r["batch"], Task(*(r[x] for x in Task._fields))): r for r in records}


def cell_rows(plan: Plan, records: list[Record]) -> list[dict[str, Any]]:
    """The table of speeds: a row for each cell.

    Args:
        plan: what was measured.
        records: as `measure_group` gives them.

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
    about: dict[str, str] = {}
    left_out: list[str] = []
    with compile_cache(own=own_cache), Watch(steps, "search") as watch:
        for (network, batch), tasks in groups.items():
            if plans.is_optional(plan, network, batch) and time.monotonic() - start > limit:
                left_out.append(f"{network}, B {batch}")
                continue
            subject = SUBJECTS[network]()
            about[network] = subject.about
            records += measure_group(network, subject, batch, tasks, seconds, rounds, watch.step)
    found = by_task(records)
    figures = [
        ratio.figure(lambda *key: found[key]["seconds"]).plain() for ratio in plans.ratios(plan)
    ]
    return {
        "cells": cell_rows(plan, records),
        "figures": figures,
        "records": records,
        "networks": about,
        "left_out": left_out,
        "collapse_threshold": plans.THRESHOLD,
        "seconds_per_task": seconds,
        "rounds": rounds,
        "seconds_in_all": time.monotonic() - start,
        **around,
    }
