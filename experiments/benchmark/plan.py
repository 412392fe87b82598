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
    detail: Cell  # where collapsing and row_multiple are measured; also one of the cases
    growth: tuple[int, int]  # simulations, at the network and batch of `detail`
    row_multiple: tuple[int, ...]
    grid: tuple[Cell, ...]
    reference: tuple[Cell, ...]  # where engine mctx is timed beside stock mctx


class Ratio(NamedTuple):
    """A figure before it is measured: the time of one task over that of another."""

    cell: Case | Cell
    what: str
    over: Task
    under: Task
    target: float | None
    at_least: bool = False
    per_simulation: bool = False

    def figure(self, seconds: "Seconds") -> Figure:
        """The figure by measured times."""
        network, batch, simulations = self.cell[:3]
        value = seconds(network, batch, self.over) / seconds(network, batch, self.under)
        case = f"{network}, B {batch}"
        if self.per_simulation:
            value *= self.under.simulations / self.over.simulations
        else:
            case += f", S {simulations}"
        return Figure(case, self.what, value, self.target, self.at_least)


Seconds = Callable[[str, int, Task], float]
"""(network, batch, task) -> the median time of one search of the whole batch."""


def tasks_of(cell: Case | Cell) -> list[Task]:
    """The three times of a grid row."""
    simulations = cell.simulations
    return [Task(engine, simulations) for engine in ("stock", "batched", "networks")]


def case_ratios(case: Case) -> list[Ratio]:
    """The three ratios of a figures' row, and the collapsing search over its own networks."""
    half = case.simulations // 2
    stock, batched, networks = tasks_of(case)
    certain = stock._replace(certain=True)
    collapsed = Task("batched", half, certain=True, threshold=THRESHOLD)
    at_half = f"collapsing, S {half}, over the networks alone"
    equal, nodes, alone = case[3:]
    return [
        Ratio(case, "equal simulations, x stock", stock, batched, equal, at_least=True),
        Ratio(case, "equal decision nodes, x stock", certain, collapsed, nodes, at_least=True),
        Ratio(case, "over the networks alone", batched, networks, alone),
        Ratio(case, at_half, collapsed, Task("networks", half), None),
    ]


def detail_ratios(plan: Plan) -> list[Ratio]:
    """Collapsing's cost per simulation, growth with simulations, and blocks of rows."""
    cell = plan.detail
    _, batched, networks = tasks_of(cell)
    found = []
    for name, off in (("random", batched), ("certain", batched._replace(certain=True))):
        what, on = f"collapsing on / off, {name} model", off._replace(threshold=THRESHOLD)
        found.append(Ratio(cell, what, on, off, COLLAPSE_LIMIT))
    for rows in (None, *plan.row_multiple):
        what = f"stretch: row_multiple {rows}, over both networks"
        over = batched._replace(row_multiple=rows)
        found.append(Ratio(cell, what, over, networks, STRETCH_LIMIT))
    low, high = (Task("batched", simulations) for simulations in plan.growth)
    what = f"time per simulation, S {high.simulations} over S {low.simulations}"
    return [*found, Ratio(cell, what, high, low, GROWTH_LIMIT, per_simulation=True)]


def ratios(plan: Plan) -> list[Ratio]:
    """Every ratio of the plan, those of the figures' table first."""
    return [ratio for case in plan.cases for ratio in case_ratios(case)] + detail_ratios(plan)


def groups(plan: Plan) -> dict[tuple[str, int], list[Task]]:
    """The tasks of each (network, batch), each once; a group is measured interleaved."""
    wanted: list[tuple[Case | Cell, list[Task]]] = [
        *((cell, tasks_of(cell)) for cell in (*plan.cases, plan.detail)),
        *((ratio.cell, [ratio.over, ratio.under]) for ratio in ratios(plan)),
        *((cell, tasks_of(cell)) for cell in plan.grid),
        *((cell, [Task("mctx", cell.simulations)]) for cell in plan.reference),
    ]
    found: dict[tuple[str, int], list[Task]] = {}
    for cell, tasks in wanted:
        group = found.setdefault((cell.network, cell.batch), [])
        group += [task for task in tasks if task not in group]
    return found


def is_optional(plan: Plan, network: str, batch: int) -> bool:
    """Whether a group only adds rows to the table of speeds, and no figure needs it."""
    return all(ratio.cell[:2] != (network, batch) for ratio in ratios(plan))


def cells(plan: Plan) -> list[Cell]:
    """All rows of the table of speeds: those of the figures, then the grid's."""
    own = [Cell(*case[:3]) for case in plan.cases]
    return list(dict.fromkeys([*own, plan.detail, *plan.grid]))


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
    growth=(25, 200),
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
    growth=(2, 4),
    row_multiple=(),
    grid=(),
    reference=(),
)
"""Only shows that every part runs: as few programs as can be."""
