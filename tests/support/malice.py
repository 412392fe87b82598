"""Nonsense at any place of a JSON document, and links out of a folder."""

import copy
import shutil

NONSENSE = (
    *(None, True, -1, 0, 10**18, 1.5, float("inf"), float("nan"), "", "../../x", "\x1b[31m"),
    *([], [[]], [None], {}, {"a": {"b": []}}, "/etc/hostname", [1, "0" * 64]),
)


def nodes(tree, path=()):
    """Path of every node below `tree`."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from nodes(value, (*path, key))


def replaced(tree, path, value):
    """A copy of `tree` with another value at `path`."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def link_out(path, outside):
    """Moves a file or folder out, and leaves a link to it."""
    outside.mkdir(exist_ok=True)
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)
