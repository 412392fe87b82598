"""Settings as plain values: dotted overrides, dicts, YAML and JSON.

Imports only the standard library and yaml, so that a mistake is answered before JAX or an
environment loads.
"""

import contextlib
import dataclasses
import difflib
import json
import stat
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from smz_jax.config.check import ConfigError, field_type, require, shorten, unique
from smz_jax.config.settings import Config

MAX_FILE_BYTES = 50_000
"""Ten times what all settings take; YAML of this size is read in a second."""


def types_of(of: Any) -> dict[str, Any]:
    """The declared type of each field of a dataclass."""
    return {spec.name: spec.type for spec in dataclasses.fields(of)}


_TOP = types_of(Config)
SECTIONS = {x: types_of(kind) for x, kind in _TOP.items() if dataclasses.is_dataclass(kind)}
"""Types of the settings of each section."""
SETTINGS: dict[str, Any] = {x: kind for x, kind in _TOP.items() if x not in SECTIONS}
"""Dotted name of every setting, and its type."""
for _section, _kinds in SECTIONS.items():
    SETTINGS |= {f"{_section}.{name}": kind for name, kind in _kinds.items()}


def suggest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """`; did you mean X?` for the nearest known name, or an empty text."""
    last = name.rsplit(".", 1)[-1]
    by_last = {one.rsplit(".", 1)[-1]: one for one in reversed(known)}
    near = [by_last[last]] if last in by_last else []
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    near = near or [by_last[x] for x in difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)]
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def require_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raises ConfigError in one line, with the nearest name or all of them, for an unknown name."""
    if name not in known:
        hint = suggest(name, tuple(known)) or "; there are " + ", ".join(known)
        raise ConfigError(f"unknown {kind} {name!r}{hint}")


def coerce(declared: Any, value: Any) -> Any:
    """Text or a number as a field's own type; what does not fit is left for its check.

    Text comes from flags, and from YAML 1.1, which reads 1e-3 as text.
    """
    kind, is_optional, _ = field_type(declared)
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(coerce(typing.get_args(kind)[0], item) for item in value)
    is_number = kind in (int, float)
    if is_number and is_optional and str(value).strip().lower() in ("none", "null"):
        return None
    if kind is bool and isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not is_number or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        if kind is float:
            return float(value)
        if isinstance(value, str) and value.strip().lstrip("+-").replace("_", "").isdecimal():
            return int(value)
        number = float(value)  # 1e5 is a whole number too
        return int(number) if number.is_integer() and abs(number) < 2**53 else value
    except (ValueError, OverflowError):
        return value


def _coerce_setting(name: str, value: Any) -> Any:
    """As `coerce`, for what a file may spell in its own way."""
    if name == "env.kwargs" and isinstance(value, Mapping):  # a file may nest it
        with contextlib.suppress(TypeError, ValueError):  # dates and bytes are YAML, not JSON
            return json.dumps(value, sort_keys=True)
    if name == "env.id" and value == 2048:  # the game whose name YAML takes for a number
        return "2048"
    return coerce(SETTINGS[name], value)


def flatten(tree: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """Nested or dotted settings as dotted ones.

    Raises:
        ConfigError: for an unknown key, one given both ways, or a section that is not one.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        key = str(key)
        items = [(key, value)]
        if key in SECTIONS:
            allowed = "a section holding " + ", ".join(SECTIONS[key])
            require(isinstance(value, Mapping), key, value, f"{allowed} ({source})")
            items = [(f"{key}.{inner}", leaf) for inner, leaf in value.items()]
        for name, leaf in items:
            if name not in SETTINGS:
                hint = suggest(name, list(SETTINGS)) or "; --help lists all settings"
                raise ConfigError(f"unknown setting {shorten(name)} in {source}{hint}")
            if name in flat:
                raise ConfigError(f"{source}: {name!r} is given twice, dotted and in its section")
            flat[name] = leaf
    return flat


def from_dict(tree: Mapping[str, Any], source: str = "the settings") -> Config:
    """Config from nested or dotted settings over the defaults.

    Raises:
        ConfigError: in one line, for an unknown name or a value that is not allowed.
    """
    parts: dict[str, dict[str, Any]] = {"": {}}
    for name, value in flatten(tree, source).items():
        section, _, leaf = name.rpartition(".")
        parts.setdefault(section, {})[leaf] = _coerce_setting(name, value)
    top = parts.pop("")
    return Config(**top, **{name: _TOP[name](**leaves) for name, leaves in parts.items()})


def flat_dict(config: Config) -> dict[str, Any]:
    """Config as one dict with dotted names."""
    return flatten(dataclasses.asdict(config), "the settings")


def diff(a: Config, b: Config) -> list[str]:
    """Lines `name: value in a != value in b`, one for each setting that differs."""
    flat_a, flat_b = flat_dict(a), flat_dict(b)
    return [f"{k}: {v!r} != {flat_b[k]!r}" for k, v in flat_a.items() if v != flat_b[k]]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, refusing a key that is given twice, and aliases (a few can be huge)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class; raises MarkedYAMLError on an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            message = f"the alias {shorten(event.anchor)} is not allowed: values are written out"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class; raises ConstructorError on a duplicate key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                message = f"{shorten(key.value)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_text(text: str, source: str, is_json: bool) -> dict[str, Any]:
    """The mapping of a YAML or JSON document.

    Raises:
        ConfigError: in one line with the file and the line, where the document is damaged.
    """
    size = len(text)
    require(size <= MAX_FILE_BYTES, source, size, f"a file of at most {MAX_FILE_BYTES:,} bytes")
    try:
        tree = json.loads(text, object_pairs_hook=unique) if is_json else yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{at}: damaged YAML: {str(error.problem)[:200]}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source} line {error.lineno}: damaged JSON: {error.msg}") from None
    except Exception as error:  # PyYAML raises anything where a tag does not fit its text
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"{source}: damaged file: {reason}") from None
    tree = {} if tree is None else tree
    require(isinstance(tree, dict), source, tree, "a mapping of settings")
    return tree


def _in_file(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Dotted settings of a document's mapping, `preset` included."""
    own = {name: x for name, x in tree.items() if name != "preset"}
    return {**flatten(own, source), **({"preset": tree["preset"]} if "preset" in tree else {})}


def read_file(path: Path) -> dict[str, Any]:
    """Dotted settings of a YAML or `.json` file.

    Raises:
        ConfigError: in one line, if the file is missing, damaged, or names an unknown setting.
    """
    return _in_file(read_tree(path, "config"), str(path))


def read_tree(path: Path, field_name: str) -> dict[str, Any]:
    """The mapping that a YAML or `.json` file holds; `field_name` is what it was given as.

    Raises:
        ConfigError: in one line, if the file is missing or damaged.
    """
    try:
        found = path.stat()
        is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)  # a pipe never ends
        allowed = f"a plain file of at most {MAX_FILE_BYTES:,} bytes"
        require(is_plain and found.st_size <= MAX_FILE_BYTES, field_name, str(path), allowed)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        require(False, field_name, str(path), f"a readable YAML or JSON file ({reason})")
        raise
    return _parse_text(text, str(path), path.suffix.lower() == ".json")


def config_to_yaml(config: Config) -> str:
    """Config as YAML that `config_from_yaml` reads back exactly."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def config_from_yaml(text: str, source: str = "the YAML text") -> Config:
    """Config of a YAML document; raises ConfigError in one line."""
    return from_dict(_in_file(_parse_text(text, source, is_json=False), source), source)
