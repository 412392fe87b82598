"""Walks the imports: a module imports only from its own layer or a lower one, without cycles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layer of each module or package of smz_jax; DESIGN: 0 contracts and settings, 5 experiments.
LAYERS = {
    "types": 0,
    "config": 0,
    "presets": 0,
    "settings": 0,
    "cli": 0,
    "run_dir": 0,
    "targets": 1,
    "networks": 1,
    "envs": 2,
    "search": 2,
    "macro_file": 0,
    "macro_schema": 0,
    "macro_listing": 0,
    "macros": 2,
    "replay": 2,
    "losses": 2,
    "learner": 3,
    "rollout": 3,
    "evaluate": 3,
    "export": 3,
    "model_check": 3,
    "checkpoint": 3,
    "metrics": 3,
    "mining": 3,
    "trials": 3,
    "preconditions": 3,
    "progress": 3,
    "report": 3,
    "signals": 3,
    "run": 4,
    "train": 4,
    "benchmark": 4,
    "encoders": 4,
    "proof": 4,
    "trained": 4,
    "verify": 4,
    "play": 4,
    "look": 4,
    "launch": 4,
}
LIGHT = ("config", "presets", "settings", "cli", "run_dir")
ENVIRONMENT_LIBRARIES = {"envpool", "ale_py", "gymnasium", "pgx"}


def module_name(path: Path) -> str:
    """`smz_jax/envs/__init__.py` -> `smz_jax.envs`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for folder in ("smz_jax", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def layer_of(module: str) -> int:
    if module.split(".")[0] == "experiments":
        return 5
    if module == "smz_jax":
        return 0
    part = module.split(".")[1]
    assert part in LAYERS, f"{module}: give it a layer in tests/test_layers.py"
    return LAYERS[part]


def imports_of(tree: ast.AST, module: str, modules: dict) -> set[str]:
    """Full names of what a module imports, e.g. {"smz_jax.config", "jax", "numpy"}."""
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


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Imports between the project's own modules."""
    return {
        name: {x for x in imports_of(ast.parse(text), name, sources) if x in sources}
        for name, text in sources.items()
    }


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} (layer {layer_of(name)}) imports {other} (layer {layer_of(other)})"
        for name, others in graph.items()
        for other in others
        if layer_of(other) > layer_of(name) or other.startswith("experiments.")
    ]


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import cycle as a path, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if cycle := visit(other, [*path, name]):
                return cycle
        done.add(name)
        return []

    for name in graph:
        if cycle := visit(name, []):
            return cycle
    return []


def sources() -> dict[str, str]:
    return {name: path.read_text() for name, path in MODULES.items()}


def test_no_upward_imports():
    assert upward_imports(import_graph(sources())) == []


def test_no_import_cycles():
    assert find_cycle(import_graph(sources())) == []


def test_the_walk_sees_what_it_should():
    """The checks themselves, on made-up modules: upward, lazy, cyclic and experiment imports."""
    fake = {
        "smz_jax.config": "def f():\n    from smz_jax.train import x",
        "smz_jax.train": "from smz_jax import config\nimport smz_jax.targets",
        "smz_jax.targets": "import numpy",
        "experiments.a": "from smz_jax.train import run",
        "experiments.b": "import experiments.a",
    }
    graph = import_graph(fake)
    assert graph["smz_jax.train"] == {"smz_jax.config", "smz_jax.targets"}
    assert upward_imports(graph) == [
        "smz_jax.config (layer 0) imports smz_jax.train (layer 4)",
        "experiments.b (layer 5) imports experiments.a (layer 5)",
    ]
    assert find_cycle(graph) == ["smz_jax.config", "smz_jax.train", "smz_jax.config"]
    del fake["smz_jax.config"]
    assert find_cycle(import_graph(fake)) == []


def test_types_imports_no_sibling():
    assert import_graph(sources())["smz_jax.types"] == set()


@pytest.mark.parametrize("name", LIGHT)
def test_settings_import_only_light_things(name):
    """Nothing heavy, not even lazily: a wrong flag is answered before JAX loads."""
    tree = ast.parse(MODULES[f"smz_jax.{name}"].read_text())
    own = {f"smz_jax.{light}" for light in LIGHT}
    foreign = {
        x
        for x in imports_of(tree, name, MODULES)
        if x not in own and x.split(".")[0] not in sys.stdlib_module_names
    }
    assert foreign <= {"tyro", "yaml"}


def test_package_roots_import_nothing():
    """Importing smz_jax.config runs smz_jax/__init__.py too."""
    for name in ("smz_jax", "experiments"):
        assert imports_of(ast.parse(MODULES[name].read_text()), name, MODULES) == set()


def test_only_envs_import_environment_libraries():
    offenders = [
        f"{name} imports {library}"
        for name, text in sources().items()
        for library in {x.split(".")[0] for x in imports_of(ast.parse(text), name, MODULES)}
        if library in ENVIRONMENT_LIBRARIES and not name.startswith("smz_jax.envs")
    ]
    assert offenders == []


def test_settings_load_no_heavy_module():
    """The same at run time, third parties included."""
    code = (
        "import sys, smz_jax.run_dir\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'numpy', 'envpool', 'gymnasium', 'orbax'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
