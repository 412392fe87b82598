"""The house in numbers: `python -m tests.support.house [FOLDER]`.

Prints rooms, floors, arrows, circles, lines and the longest files and functions of a checkout, so
that a change of structure can be compared with what was there before. A room is a folder or a
module directly under `smz_jax/`, and `experiments/`; an arrow is a pair of rooms of which one
imports the other; its floor is one above all rooms that it imports.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ONE_SITTING = ("types", "model", "search", "acting", "learning", "macros.mine")
"""What a researcher reads in one sitting."""


class House(NamedTuple):
    """Modules of a checkout and what they import of one another."""

    paths: dict[str, Path]
    imports: dict[str, set[str]]


def imports_of(tree: ast.AST, module: str, modules: dict) -> set[str]:
    """Full names of what a module imports, e.g. {"smz_jax.config.settings", "jax", "numpy"}."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else str(node.module))
    return found


def module_name(path: Path) -> str:
    """`smz_jax/envs/__init__.py` -> `smz_jax.envs`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_house(root: Path = ROOT) -> House:
    """The modules under `smz_jax/` and `experiments/`, with their imports of one another."""
    paths = {
        module_name(path.relative_to(root)): path
        for folder in ("smz_jax", "experiments")
        for path in sorted((root / folder).rglob("*.py"))
    }
    imports = {
        name: {x for x in imports_of(ast.parse(path.read_text()), name, paths) if x in paths}
        for name, path in paths.items()
    }
    return House(paths, imports)


def room_of(module: str) -> str:
    """`smz_jax.envs.grid.map` -> `envs`; `experiments.gym` -> `experiments`."""
    top, *rest = module.split(".")
    is_command = top == "experiments" or rest == ["__main__"]  # another door to the same
    return "experiments" if is_command else rest[0] if rest else "smz_jax"


def arrows_of(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each room imports of the others."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, others in imports.items():
        found[room_of(name)] |= {room_of(x) for x in others} - {room_of(name), "smz_jax"}
    found.pop("smz_jax", None)
    return dict(found)


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph as a path, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if cycle := visit(other, [*path, name]):
                return cycle
        done.add(name)
        return []

    for name in graph:
        if cycle := visit(name, []):
            return cycle
    return []


def floors_of(arrows: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, 1 at the ground; of a graph without cycles."""
    floors: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in floors:
            floors[name] = 1 + max((floor(x) for x in arrows.get(name, ())), default=0)
        return floors[name]

    for name in arrows:
        floor(name)
    return floors


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text().splitlines())


def functions_of(house: House) -> list[tuple[int, str]]:
    """Lines and name of each function and method, the longest first."""
    found = [
        (node.end_lineno - node.lineno + 1, f"{name}.{node.name}")
        for name, path in house.paths.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno
    ]
    return sorted(found, reverse=True)


def describe(root: Path) -> str:
    """The numbers as text."""
    house = read_house(root)
    arrows = arrows_of(house.imports)
    cycle = find_cycle(arrows) or find_cycle(house.imports)
    floors = {} if cycle else floors_of(arrows)
    sizes = {name: lines_of(path) for name, path in house.paths.items()}
    parts = ("smz_jax." + x for x in ONE_SITTING)
    sitting = [n for p in parts for n in sizes if n == p or n.startswith(p + ".")]
    files = sorted(((size, name) for name, size in sizes.items()), reverse=True)
    rows = [
        ("rooms", len(arrows)),
        ("floors", max(floors.values(), default="a circle")),
        ("arrows", sum(map(len, arrows.values()))),
        ("circle", " -> ".join(cycle) or "none"),
        ("lines of source", sum(sizes.values())),
        ("lines to read in one sitting", sum(sizes[x] for x in sitting)),
        ("longest files", ", ".join(f"{name} {size}" for size, name in files[:5])),
        ("longest functions", ", ".join(f"{n} {size}" for size, n in functions_of(house)[:5])),
    ]
    text = [f"{name:30} {value}" for name, value in rows]
    for name in sorted(arrows, key=lambda x: (-floors.get(x, 0), x)):
        size = sum(sizes[x] for x in sizes if room_of(x) == name)
        targets = ", ".join(sorted(arrows[name], key=lambda x: floors.get(x, 0)))
        text.append(f"  {floors.get(name, '?')} {name:12} {size:6} lines -> {targets}")
    return "\n".join(text)


if __name__ == "__main__":
    print(describe(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
