"""A public name without a docstring fails; so does an array field without its shape.

Ruff's D rules see modules, classes, functions and methods, but neither what `noqa` hides nor the
fields of NamedTuples and dataclasses.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import read_house

HOUSE = read_house()
PLAIN = ast.FunctionDef | ast.AsyncFunctionDef
FIELD_BASES = {"NamedTuple", "Protocol"}


def is_public(name: str) -> bool:
    """Whether a name is meant for other modules."""
    return not name.startswith("_")


def has_fields(node: ast.ClassDef) -> bool:
    """Whether a class is a NamedTuple or a dataclass."""
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    decorators = {ast.unparse(x).partition("(")[0] for x in node.decorator_list}
    return bool(bases & FIELD_BASES) or any("dataclass" in x for x in decorators)


def explained(body: list[ast.stmt], index: int, lines: list[str]) -> bool:
    """Whether the statement has a comment on its lines or above, or a docstring below."""
    node = body[index]
    end = node.end_lineno or node.lineno
    after = body[index + 1] if index + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return True
    if any("#" in line for line in lines[node.lineno - 1 : end]):
        return True
    return lines[node.lineno - 2].lstrip().startswith("#") if node.lineno > 1 else False


def is_array(node: ast.stmt) -> bool:
    """Whether a field holds an array, whose shape cannot be guessed."""
    if not isinstance(node, ast.AnnAssign) or ast.unparse(node.target) == "rng_key":
        return False
    return re.search(r"\b(Array|ndarray)\b", ast.unparse(node.annotation)) is not None


def undocumented(text: str, path: str) -> Iterator[str]:
    """Public modules, classes, functions and methods of a source text without a docstring."""
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None and text.strip():
        yield path

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, PLAIN | ast.ClassDef) or not is_public(node.name):
                continue
            overload = any("overload" in ast.unparse(x) for x in node.decorator_list)
            setter = any(ast.unparse(x).endswith(".setter") for x in node.decorator_list)
            if ast.get_docstring(node) is None and not overload and not setter:
                yield f"{path}:{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(tree.body, "")


def unexplained(text: str, path: str) -> Iterator[str]:
    """Array fields of public classes that nothing explains.

    A comment, a docstring below, an explained neighbour right above, or a class docstring that
    names the field, a shape or scalars does.
    """
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef) or not is_public(node.name) or not has_fields(node):
            continue
        about, near, former = ast.get_docstring(node) or "", False, -1
        for index, field in enumerate(node.body):
            if not isinstance(field, ast.AnnAssign):
                continue
            name = ast.unparse(field.target)
            near = explained(node.body, index, lines) or (near and field.lineno == former + 1)
            former = field.end_lineno or field.lineno
            said = re.search(rf"\b{name}\b|\[\w|scalar", about)
            if is_array(field) and is_public(name) and not near and not said:
                yield f"{path}:{field.lineno} {node.name}.{name}"


@pytest.mark.parametrize("room", sorted({name.split(".")[0] for name in HOUSE.paths}))
def test_every_public_name_has_a_docstring(room):
    found = [
        line
        for name, path in HOUSE.paths.items()
        if name.split(".")[0] == room
        for line in undocumented(path.read_text("utf-8"), name)
    ]
    assert found == []


def test_every_array_field_says_its_shape():
    found = [
        line
        for name, path in HOUSE.paths.items()
        for line in unexplained(path.read_text("utf-8"), name)
    ]
    assert found == []


def test_the_finders_find():
    text = '''"""Module."""


class Bare:
    pass


class Row(NamedTuple):
    """A row with `named`."""

    named: Array
    lost: Array
    number: int

    told: Array  # [B]


def function():
    pass
'''
    assert list(undocumented(text, "m")) == ["m:4 Bare", "m:18 function"]
    assert list(unexplained(text, "m")) == ["m:12 Row.lost"]
    assert list(undocumented("x = 1", "m")) == ["m"]


def test_a_folder_has_a_docstring_too():
    folders = {path.parent for path in HOUSE.paths.values()}
    assert all((folder / "__init__.py").exists() for folder in folders if folder != Path())
