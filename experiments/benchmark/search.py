"""Speed of the search: the batched engine, stock mctx and the networks alone, interleaved."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax

from experiments.benchmark import timing
from experiments.benchmark.programs import SUBJECTS, Program, Task, arguments, build, tree_bytes

LIMIT_SECONDS = 200.0
"""Groups that no figure needs begin before this time, so that a slow machine ends in 4 minutes."""
THRESHOLD = 0.1
"""`search.collapse_threshold` where collapsing is on; the random models' entropies lie above."""
COLLAPSE_LIMIT = 1.1
GROWTH_LIMIT = 1.2
STRETCH_LIMIT = 0.65

Cell = tuple[str, int, int]  # Network, batch and simulations: a row of the table of speeds
Targets = tuple[float, float, float]
"""Of a cell: stock mctx's time over ours, at least; the same with half of the simulations,
collapsing, at least; our time over the networks' alone, at most."""
Records = Mapping[Task, Mapping[str, Any]]  # measured tasks, plain JSON; see `measure_group`


class Plan(NamedTuple):
    """Everything that one run of the benchmark measures."""

    cases: Mapping[Cell, Targets]  # at the first one collapsing and row_multiple are measured too
    growth: tuple[int, int]  # simulations, at the first case's network and batch
    row_multiple: Sequence[int] = ()  # beside None
    grid: Sequence[Cell] = ()  # further rows of the table of speeds
    reference: Sequence[Cell] = ()  # where engine mctx is timed beside stock mctx

    @property
    def cells(self) -> list[Cell]:
        """All rows of the table of speeds, each once."""
        return [*dict.fromkeys([*self.cases, *self.grid])]


def tasks_of(cell: Cell) -> tuple[Task, Task, Task]:
    """The times of a cell: stock mctx, the batched engine and the networks alone."""
    network, batch, simulations = cell
    stock = Task(network, batch, "stock", simulations)
    return stock, stock._replace(engine="batched"), stock._replace(engine="networks")


def figures(plan: Plan, seconds: Mapping[Task, float]) -> list[dict[str, Any]]:
    """Every figure of the plan, by the median seconds of one search of the whole batch."""
    found = []

    def add(what: str, over: Task, under: Task, target: float | None, least: bool = False) -> None:
        value = seconds[over] / seconds[under]
        found.append(timing.figure(case, what, value, target, at_least=least))

    for network, batch, at in plan.cases:
        case, half = f"{network}, B {batch}, S {at}", at // 2
        equal, nodes, alone = plan.cases[network, batch, at]
        stock, batched, networks = tasks_of((network, batch, at))
        collapsed = batched._replace(simulations=half, certain=True, threshold=THRESHOLD)
        certain, own = stock._replace(certain=True), networks._replace(simulations=half)
        add("equal simulations, x stock", stock, batched, equal, least=True)
        add("equal decision nodes, x stock", certain, collapsed, nodes, least=True)
        add("over the networks alone", batched, networks, alone)
        add(f"collapsing, S {half}, over the networks alone", collapsed, own, None)
    _, batched, networks = tasks_of(next(iter(plan.cases)))
    case = f"{batched.network}, B {batched.batch}, S {batched.simulations}"
    for name, off in (("random", batched), ("certain", batched._replace(certain=True))):
        on = off._replace(threshold=THRESHOLD)
        add(f"collapsing on / off, {name} model", on, off, COLLAPSE_LIMIT)
    for rows in (None, *plan.row_multiple):
        what = f"stretch: row_multiple {rows}, over both networks"
        add(what, batched._replace(row_multiple=rows), networks, STRETCH_LIMIT)
    few, many = (batched._replace(simulations=count) for count in plan.growth)
    low, high = plan.growth
    value = seconds[many] / seconds[few] * (low / high)
    case, what = f"{few.network}, B {few.batch}", f"time per simulation, S {high} over S {low}"
    return [*found, timing.figure(case, what, value, GROWTH_LIMIT, at_least=False)]


def figure_tasks(plan: Plan) -> list[Task]:
    """The tasks that the figures need: those that they read."""
    read = defaultdict[Task, float](lambda: 1.0)
    figures(plan, read)
    return [*read]


def task_groups(plan: Plan) -> dict[tuple[str, int], list[Task]]:
    """The tasks of each (network, batch), each once; a group is measured interleaved."""
    wanted = figure_tasks(plan) + [task for cell in plan.cells for task in tasks_of(cell)]
    wanted += [tasks_of(cell)[0]._replace(engine="mctx") for cell in plan.reference]
    found: dict[tuple[str, int], list[Task]] = {}
    for task in dict.fromkeys(wanted):
        found.setdefault(task[:2], []).append(task)
    return found


def measure_group(
    tasks: list[Task], seconds: float, rounds: int, step: Callable[[str], None]
) -> dict[Task, Any]:
    """Compiles and times the tasks of one network and batch size; `step` shows what begins.

    Those that share a program are compiled once. Each is timed for `seconds` over all rounds.

    Returns:
        For each task: its fields, `seconds` of one search of the batch, `searches_per_second`,
        `compile_seconds` and `tree_bytes` (None for the networks alone).
    """
    network, batch, *_ = tasks[0]
    where, subject = f"{network}, B {batch}", SUBJECTS[network]()
    programs: dict[Task, Program] = {}
    costs: dict[Task, dict[str, Any]] = {}
    cases: dict[str, timing.Case] = {}
    for task in tasks:
        inputs, shared = jax.block_until_ready(arguments(task, subject)), task.program
        if shared not in programs:
            step(f"{where}: compiling {task.label}")
            function = build(task, subject)
            programs[shared], taken = timing.compiled(function, *inputs)
            costs[shared] = {"compile_seconds": taken, "tree_bytes": tree_bytes(function, *inputs)}
        cases[task.label] = partial(timing.timed, partial(programs[shared], *inputs))
    times = timing.interleave(cases, seconds, rounds, lambda text: step(f"{where}: timing {text}"))
    return {
        task: {
            **task._asdict(),
            "seconds": times[task.label],
            "searches_per_second": batch / times[task.label],
            **costs[task.program],
        }
        for task in tasks
    }


def cell_row(cell: Cell, records: Records) -> dict[str, Any]:
    """A row of the table of speeds.

    Returns:
        Its sizes, searches per second of both engines (`stock`, `batched`; also `mctx` where it
        was timed) and of the networks alone (a search without its tree), ratios of the times, bytes
        of the batched engine's tree and seconds to compile either.
    """
    stock, batched, networks = (records[task] for task in tasks_of(cell))
    mctx = records.get(tasks_of(cell)[0]._replace(engine="mctx"), {})
    timed = {"stock": stock, "mctx": mctx, "batched": batched, "networks": networks}
    return {
        **dict(zip(("network", "batch", "simulations"), cell, strict=True)),
        **{f"{x}_searches_per_second": of.get("searches_per_second") for x, of in timed.items()},
        "batched_over_stock": stock["seconds"] / batched["seconds"],
        "time_over_networks": batched["seconds"] / networks["seconds"],
        "tree_bytes": batched["tree_bytes"],
        "stock_compile_seconds": stock["compile_seconds"],
        "batched_compile_seconds": batched["compile_seconds"],
    }


def measure(
    plan: Plan, seconds: float, rounds: int = timing.ROUNDS, limit: float = math.inf
) -> dict[str, Any]:
    """Measures all of a plan.

    Each task is timed for `seconds` over all rounds, without compilation; after `limit` seconds in
    all no group begins that no figure needs.

    Returns:
        `cells`, `figures`, `records`, `networks`, `left_out` (groups beyond the limit), and how it
        was measured; plain JSON. A cell that was not measured has no row.
    """
    start, groups = time.monotonic(), task_groups(plan)
    steps = sum(len({t.program for t in tasks}) + rounds * len(tasks) for tasks in groups.values())
    needed = {task[:2] for task in figure_tasks(plan)}
    records: dict[Task, Any] = {}
    left_out = []
    with timing.show_steps(steps, "search") as step:
        for (network, batch), tasks in groups.items():
            if (network, batch) not in needed and time.monotonic() - start > limit:
                left_out.append(f"{network}, B {batch}")
            else:
                records |= measure_group(tasks, seconds, rounds, step)
    medians = {task: record["seconds"] for task, record in records.items()}
    measured = [cell for cell in plan.cells if tasks_of(cell)[0] in records]
    return {
        "cells": [cell_row(cell, records) for cell in measured],
        "figures": figures(plan, medians),
        "records": [*records.values()],
        "networks": {name: SUBJECTS[name]().about for name in sorted({t.network for t in records})},
        "left_out": left_out,
        "collapse_threshold": THRESHOLD,
        "seconds_per_task": seconds,
        "rounds": rounds,
        "seconds_in_all": time.monotonic() - start,
    }


CASES: dict[Cell, Targets] = {
    ("conv", 32, 50): (1.2, 2.3, 1.1),
    ("conv", 32, 100): (2.0, 3.3, 1.1),
    ("flat2304", 32, 50): (5.0, 8.0, 2.0),
    ("flat2304", 32, 100): (8.0, 14.0, 2.0),
    ("flat256", 8, 50): (2.5, 4.0, 2.5),
}
_GRID = [("conv", 8, 50), ("conv", 1, 25), ("conv", 128, 25), ("mlp", 1, 25)]
_GRID += [("mlp", batch, 50) for batch in (8, 32, 128)]
_REFERENCE = [("conv", 32, 50), ("conv", 32, 100), ("flat2304", 32, 100)]
_ALL = [*product(("conv", "mlp"), (1, 8, 32, 128), (25, 50, 100, 200))]
DEFAULT = Plan(CASES, (25, 200), (4, 8), _GRID, _REFERENCE)
FULL = Plan(CASES, (25, 200), (4, 8, 16), _ALL, _ALL)
TINY = Plan({("tiny", 2, 4): (1.0, 1.0, 10.0)}, growth=(2, 4))
"""Only shows that every part runs: as few programs as can be."""
