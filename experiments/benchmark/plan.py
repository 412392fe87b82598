"""What the search benchmark measures, and what its times say beside the figures to reach."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

THRESHOLD = 0.1
"""`search.collapse_threshold` where collapsing is on; the random models' entropies lie above."""
COLLAPSE_LIMIT = 1.1
GROWTH_LIMIT = 1.2
STRETCH_LIMIT = 0.65


class Task(NamedTuple):
    """One thing to time: a search of a batch, or the networks' own work in it."""

    engine: Literal["stock", "mctx", "batched", "networks"]
    simulations: int
    certain: bool = False  # a deterministic model
    threshold: float = 0.0  # search.collapse_threshold
    row_multiple: int | None = None

    @property
    def program(self) -> "Task":
        """What must be compiled for it: weights, and the floor's length, are arguments."""
        shared = self._replace(certain=False)
        return shared._replace(simulations=0) if self.engine == "networks" else shared

    @property
    def label(self) -> str:
        """For people."""
        parts = [self.engine, f"S {self.simulations}", "certain" if self.certain else ""]
        parts.append("collapsing" if self.threshold else "")
        parts.append(f"rows {self.row_multiple}" if self.row_multiple else "")
        return " ".join(part for part in parts if part)


class Figure(NamedTuple):
    """A ratio of two times of one run, and what it should be."""

    case: str
    what: str
    value: float
    target: float | None  # None: for information
    at_least: bool  # or at most

    @property
    def reached(self) -> bool | None:
        """Whether the value is at the target or better; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def plain(self) -> dict[str, Any]:
        """For JSON, the verdict included."""
        return {**self._asdict(), "reached": self.reached}


class Case(NamedTuple):
    """A row of the figures' table: sizes, and the three ratios to reach."""

    network: str
    batch: int
    simulations: int
    equal_simulations: float  # stock mctx's time over ours, at least
    equal_nodes: float  # the same with half of the simulations, collapsing, at least
    networks_alone: float  # our time over the networks', at most


class Cell(NamedTuple):
    """A row of the grid: stock mctx, the batched engine and the networks alone."""

    network: str
    batch: int
    simulations: int


class Plan(NamedTuple):
    """Everything that one run of the benchmark measures."""

    cases: tuple[Case, ...]
    detail: Cell  # where collapsing and row_multiple are looked at; also one of the cases
    growth: tuple[Cell, Cell]  # time per simulation of the second over that of the first
    row_multiple: tuple[int, ...]
    grid: tuple[Cell, ...]
    reference: tuple[Cell, ...]  # where engine mctx is timed beside stock mctx


Seconds = Callable[[str, int, Task], float]
"""(network, batch, task) -> the median time of one search of the whole batch."""


def tasks_of(cell: Case | Cell) -> list[Task]:
    """The three times of a grid row."""
    simulations = cell.simulations
    return [Task(engine, simulations) for engine in ("stock", "batched", "networks")]


def figure_tasks(case: Case) -> list[Task]:
    """What the ratios of a figures' row need beyond a grid row's."""
    half = case.simulations // 2
    return [
        Task("stock", case.simulations, certain=True),
        Task("batched", half, certain=True, threshold=THRESHOLD),
        Task("networks", half),
    ]


def detail_tasks(plan: Plan) -> list[Task]:
    """What collapsing costs where it is on, and the calls in blocks of rows."""
    simulations = plan.detail.simulations
    return [
        Task("batched", simulations, certain=True),
        Task("batched", simulations, threshold=THRESHOLD),
        Task("batched", simulations, certain=True, threshold=THRESHOLD),
        *(Task("batched", simulations, row_multiple=rows) for rows in plan.row_multiple),
    ]


def groups(plan: Plan) -> dict[tuple[str, int], list[Task]]:
    """The tasks of each (network, batch), each once; a group is measured interleaved."""
    wanted: list[tuple[Case | Cell, list[Task]]] = [
        (case, tasks_of(case) + figure_tasks(case)) for case in plan.cases
    ]
    wanted.append((plan.detail, tasks_of(plan.detail) + detail_tasks(plan)))
    wanted += [(cell, [Task("batched", cell.simulations)]) for cell in plan.growth]
    wanted += [(cell, tasks_of(cell)) for cell in plan.grid]
    wanted += [(cell, [Task("mctx", cell.simulations)]) for cell in plan.reference]
    found: dict[tuple[str, int], list[Task]] = {}
    for cell, tasks in wanted:
        group = found.setdefault((cell.network, cell.batch), [])
        group += [task for task in tasks if task not in group]
    return found


def is_optional(plan: Plan, network: str, batch: int) -> bool:
    """Whether a group only adds rows to the table of speeds, and no figure needs it."""
    needed = (*plan.cases, plan.detail, *plan.growth)
    return all((cell.network, cell.batch) != (network, batch) for cell in needed)


def cells(plan: Plan) -> list[Cell]:
    """All rows of the table of speeds: those of the figures, then the grid's."""
    own = [Cell(case.network, case.batch, case.simulations) for case in plan.cases]
    return list(dict.fromkeys([*own, plan.detail, *plan.grid]))


def case_figures(case: Case, seconds: Seconds) -> list[Figure]:
    """The three ratios of a figures' row, and the collapsing search over its own networks."""
    where = (case.network, case.batch)
    name = f"{case.network}, B {case.batch}, S {case.simulations}"
    stock, batched, networks = (seconds(*where, task) for task in tasks_of(case))
    certain, collapsed, half = (seconds(*where, task) for task in figure_tasks(case))
    at_half = f"collapsing, S {case.simulations // 2}, over the networks alone"
    return [
        Figure(name, "equal simulations, x stock", stock / batched, case.equal_simulations, True),
        Figure(name, "equal decision nodes, x stock", certain / collapsed, case.equal_nodes, True),
        Figure(name, "over the networks alone", batched / networks, case.networks_alone, False),
        Figure(name, at_half, collapsed / half, None, False),
    ]


def detail_figures(plan: Plan, seconds: Seconds) -> list[Figure]:
    """Collapsing's cost per simulation, growth with simulations, and blocks of rows."""
    cell = plan.detail
    where = (cell.network, cell.batch)
    name = f"{cell.network}, B {cell.batch}, S {cell.simulations}"
    _, plain, networks = (seconds(*where, task) for task in tasks_of(cell))
    plain_certain, on, on_certain, *blocks = (seconds(*where, t) for t in detail_tasks(plan))
    limit = COLLAPSE_LIMIT
    figures = [
        Figure(name, "collapsing on / off, random model", on / plain, limit, False),
        Figure(
            name, "collapsing on / off, certain model", on_certain / plain_certain, limit, False
        ),
    ]
    for rows, value in zip((None, *plan.row_multiple), (plain, *blocks), strict=True):
        what = f"stretch: row_multiple {rows}, over both networks"
        figures.append(Figure(name, what, value / networks, STRETCH_LIMIT, False))
    low, high = plan.growth
    each = [seconds(x.network, x.batch, Task("batched", x.simulations)) / x.simulations
            for x in (low, high)]  # fmt: skip
    figures.append(
        Figure(
            f"{low.network}, B {low.batch}",
            f"time per simulation, S {high.simulations} over S {low.simulations}",
            each[1] / each[0],
            GROWTH_LIMIT,
            False,
        )
    )
    return figures


def figures(plan: Plan, seconds: Seconds) -> list[Figure]:
    """Every ratio of the plan, those of the figures' table first."""
    found = [figure for case in plan.cases for figure in case_figures(case, seconds)]
    return found + detail_figures(plan, seconds)


def _grid(networks: Sequence[str], batches: Sequence[int], simulations: Sequence[int]):
    return tuple(Cell(n, b, s) for n in networks for b in batches for s in simulations)


_CASES = (
    Case("conv", 32, 50, 1.2, 2.3, 1.1),
    Case("conv", 32, 100, 2.0, 3.3, 1.1),
    Case("flat2304", 32, 50, 5.0, 8.0, 2.0),
    Case("flat2304", 32, 100, 8.0, 14.0, 2.0),
    Case("flat256", 8, 50, 2.5, 4.0, 2.5),
)
DEFAULT = Plan(
    cases=_CASES,
    detail=Cell("conv", 32, 50),
    growth=(Cell("conv", 32, 25), Cell("conv", 32, 200)),
    row_multiple=(4, 8),
    grid=(
        Cell("conv", 8, 50),
        Cell("conv", 1, 25),
        Cell("conv", 128, 25),
        Cell("mlp", 1, 25),
        Cell("mlp", 8, 50),
        Cell("mlp", 32, 50),
        Cell("mlp", 128, 50),
    ),
    reference=(Cell("conv", 32, 50), Cell("conv", 32, 100), Cell("flat2304", 32, 100)),
)
_ALL = _grid(("conv", "mlp"), (1, 8, 32, 128), (25, 50, 100, 200))
FULL = DEFAULT._replace(grid=_ALL, reference=_ALL, row_multiple=(4, 8, 16))
TINY = Plan(
    cases=(Case("tiny", 2, 4, 1.0, 1.0, 10.0),),
    detail=Cell("tiny", 2, 4),
    growth=(Cell("tiny", 2, 2), Cell("tiny", 2, 4)),
    row_multiple=(),
    grid=(),
    reference=(),
)
"""Only shows that every part runs: as few programs as can be."""
