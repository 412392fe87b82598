"""Walks the imports: a module imports only from floors below its own, and nothing in a circle."""

import ast
import subprocess
import sys

import pytest

from tests.support.house import (
    ROOT,
    arrows_of,
    find_cycle,
    floors_of,
    functions_of,
    imports_of,
    read_house,
    room_of,
)

FLOORS = {
    "types": 1,  # every pytree that crosses a room's border
    "config": 1,  # what can be set
    "storage": 2,  # what lies on disk
    "envs": 2,  # games behind one protocol
    "model": 2,  # the six functions and their verbs
    "search": 3,  # the tree
    "macros": 3,  # from a tree to a library
    "acting": 4,  # playing
    "learning": 4,  # the training step
    "report": 4,  # figures, tables and pages
    "run": 5,  # a run from its first to its last step
    "analysis": 5,  # what a trained model knows and does
    "experiments": 6,  # what is typed
}
SIDEWAYS: dict[tuple[str, str], str] = {}
"""Imports between rooms of one floor that are allowed: (room, other) -> the reason."""
LIGHT = ("config", "storage.files", "storage.pretrained", "storage.run_dir")
ENVIRONMENT_LIBRARIES = {"envpool", "ale_py", "gymnasium", "pgx"}
MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 13, 6, 60
LONGEST_FILE, LONGEST_FUNCTION = 400, 80

HOUSE = read_house()


def misplaced(imports: dict[str, set[str]]) -> list[str]:
    """Imports that do not lead down."""
    return [
        f"{name} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[target]})"
        for name, others in imports.items()
        for other in sorted(others)
        for room, target in [(room_of(name), room_of(other))]
        if room != target and room in FLOORS and (room, target) not in SIDEWAYS
        if FLOORS.get(target, 0) >= FLOORS[room]
    ]


def test_every_room_has_its_floor():
    rooms = {room_of(name) for name in HOUSE.paths} - {"smz_jax"}
    assert rooms == set(FLOORS)


def test_imports_lead_down():
    assert misplaced(HOUSE.imports) == []


def test_what_leads_sideways_is_needed():
    arrows = arrows_of(HOUSE.imports)
    assert all(other in arrows[room] for room, other in SIDEWAYS)


def test_no_import_cycles():
    assert find_cycle(HOUSE.imports) == []
    assert find_cycle(arrows_of(HOUSE.imports)) == []


def test_the_house_stays_small():
    arrows = arrows_of(HOUSE.imports)
    assert len(arrows) <= MOST_ROOMS
    assert max(floors_of(arrows).values()) <= MOST_FLOORS
    assert sum(map(len, arrows.values())) <= MOST_ARROWS
    sizes = {name: len(path.read_text().splitlines()) for name, path in HOUSE.paths.items()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}
    assert [found for found in functions_of(HOUSE) if found[0] > LONGEST_FUNCTION] == []


def test_the_walk_sees_what_it_should():
    """The checks themselves, on made-up modules: upward, lazy, cyclic and experiment imports."""
    fake = {
        "smz_jax.config.settings": "def f():\n    from smz_jax.run.loop import x",
        "smz_jax.run.loop": "from smz_jax.config import settings\nimport smz_jax.learning.targets",
        "smz_jax.learning.targets": "import numpy\nfrom smz_jax.acting.agent import Agent",
        "smz_jax.acting.agent": "",
        "experiments.a": "from smz_jax.run.loop import run",
        "experiments.b": "import experiments.a",
    }
    graph = {
        name: {x for x in imports_of(ast.parse(text), name, fake) if x in fake}
        for name, text in fake.items()
    }
    assert graph["smz_jax.run.loop"] == {"smz_jax.config.settings", "smz_jax.learning.targets"}
    assert misplaced(graph) == [
        "smz_jax.config.settings (floor 1) imports smz_jax.run.loop (floor 5)",
        "smz_jax.learning.targets (floor 4) imports smz_jax.acting.agent (floor 4)",
    ]
    cycle = ["smz_jax.config.settings", "smz_jax.run.loop", "smz_jax.config.settings"]
    assert find_cycle(graph) == cycle
    del graph["smz_jax.config.settings"]
    assert find_cycle(graph) == []
    assert floors_of(arrows_of(graph)) == {
        "acting": 1,
        "learning": 2,
        "config": 1,
        "run": 3,
        "experiments": 4,
    }


def test_types_imports_no_sibling():
    assert HOUSE.imports["smz_jax.types"] == set()


@pytest.mark.parametrize("room", LIGHT)
def test_settings_import_only_light_things(room):
    """Nothing heavy, not even lazily: a wrong flag is answered before JAX loads."""
    foreign = {
        x.split(".")[0]
        for name, path in HOUSE.paths.items()
        if name.startswith(f"smz_jax.{room}")
        for x in imports_of(ast.parse(path.read_text()), name, HOUSE.paths)
        if not x.startswith(tuple(f"smz_jax.{light}" for light in LIGHT))
    }
    assert foreign - set(sys.stdlib_module_names) <= {"tyro", "yaml"}


def test_package_roots_import_nothing():
    """Importing smz_jax.config.settings runs smz_jax/__init__.py too."""
    for name in ("smz_jax.storage", "smz_jax.config", "experiments"):
        assert imports_of(ast.parse(HOUSE.paths[name].read_text()), name, HOUSE.paths) == set()
    at_once = ast.parse(HOUSE.paths["smz_jax"].read_text())
    at_once.body = [x for x in at_once.body if isinstance(x, (ast.Import, ast.ImportFrom))]
    assert imports_of(at_once, "smz_jax", HOUSE.paths) == {"importlib", "typing"}


def test_the_surface_is_above_every_room():
    """`smz_jax/__init__.py` hands on what lies on the upper floors, so that no room may use it."""
    users = {name for name, others in HOUSE.imports.items() if "smz_jax" in others}
    assert {room_of(name) for name in users} <= {"experiments"}
    assert max(FLOORS[room_of(x)] for x in HOUSE.imports["smz_jax"]) < FLOORS["experiments"]


def test_only_envs_import_environment_libraries():
    offenders = [
        f"{name} imports {library}"
        for name, path in HOUSE.paths.items()
        for library in {
            x.split(".")[0] for x in imports_of(ast.parse(path.read_text()), name, HOUSE.paths)
        }
        if library in ENVIRONMENT_LIBRARIES and not name.startswith("smz_jax.envs")
    ]
    assert offenders == []


def test_settings_load_no_heavy_module():
    """The same at run time, third parties included."""
    code = (
        "import sys, smz_jax.storage.run_dir\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'numpy', 'envpool', 'gymnasium', 'orbax'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
