"""What a sweep runs: a file, or the command line, as named variants. Imports nothing heavy."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from smz_jax.config.check import ConfigError, require
from smz_jax.config.experiment import PRESET_NAMES
from smz_jax.config.sources import flatten, read_tree, require_known
from smz_jax.storage import files
from smz_jax.storage.documents import forms
from smz_jax.storage.documents.forms import (
    ALLOWED,
    COUNT,
    TEXT,
    check_keys,
    every,
    is_number,
    one_of,
    value,
)

MODES = ("grid", "paired", "one_at_a_time")
BASE = "base"
"""Name of the variant that changes nothing."""
FOLDER_NAME = re.compile(r"[\w=+-][\w.,=+-]{0,199}")


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but the seed."""

    name: str
    """Also of its folder."""
    module: str
    """Of `experiments`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted, over those of the preset."""
    arguments: Sequence[str] = ()
    """Further words of its command line."""
    at_laptop: Sequence[str] = ()
    """Likewise, at that preset alone."""
    seeds: Sequence[int] = (0, 1, 2)
    cores: int = 1
    minutes: float | None = None
    """That a run takes at `laptop`; None: not known."""
    is_run: bool = True
    """Of `smz_jax.run.launch`; else of a tool that resumes by itself and leaves results.json."""
    extra: tuple[str, Sequence[str]] | None = None
    """A file that is needed as well, and the arguments of the module that write it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Notes of whoever reads the file; a sweep itself uses none."""
    label: str = ""
    """What is compared with others: the name without the experiment, where there are several."""

    def words(self, preset: str) -> list[str]:
        """Its flags, without preset, seed and folder."""
        words = [word for name, x in self.settings.items() for word in (f"--{name}", *_typed(x))]
        return [*words, *self.arguments, *(self.at_laptop if preset == "laptop" else ())]

    @property
    def command(self) -> tuple[str, ...]:
        """What a user types for one run at `laptop`, without seed and folder."""
        return ("python", "-m", f"experiments.{self.module}", *self.words("laptop"))

    def result(self, folder: Path) -> dict[str, Any]:
        """What a run says of its end; empty before."""
        return read_json(folder / f"{'summary' if self.is_run else 'results'}.json")

    def is_finished(self, folder: Path) -> bool:
        """Whether a run has ended as it should, by its own result."""
        return bool(self.result(folder).get("finished"))


V = TypeVar("V", bound=Variant)


class Sweep(NamedTuple):
    """Variants to be compared with one of them."""

    name: str
    variants: Sequence[Variant]
    base: str  # label
    preset: str | None = None
    normalise: Mapping[str, Sequence[float]] = {}
    """Of each experiment the scores that count as 0 and 1; empty: raw scores of a single one."""


def _is_range(found: Any) -> bool:
    pair = isinstance(found, list) and len(found) == 2 and all(map(is_number, found))
    return pair and found[0] < found[1]


OWN_FLAGS = ("--run_dir", "--seed", "--preset", "--resume", "--track")
"""Of each run, which a sweep gives itself."""
TAKEN = ("report.html", "sweep.json", "sweep.csv", "sweep.sbatch", "figures")
"""Names in a sweep's folder that are no variant's."""
SEEDS = every(
    value(lambda x: type(x) is int and 0 <= x <= COUNT, f"{ALLOWED}a whole number from 0 on")
)
MAPPING = value(lambda x: type(x) is dict, f"{ALLOWED}settings, each with what it is or may be")
_WORDS = every(
    value(
        lambda x: TEXT(x, "") is None and x.partition("=")[0] not in OWN_FLAGS,
        f"{ALLOWED}a word, and none of {', '.join(OWN_FLAGS)}",
    )
)
_NAMES = value(lambda x: bool(x) and isinstance(x, (str, list)), f"{ALLOWED}a name, or several")
_VARIANT: dict[str, forms.Form] = {
    "like": TEXT,
    "experiment": _NAMES,
    "seeds": SEEDS,
    "arguments": _WORDS,
    "at_laptop": _WORDS,
    "cores": forms.number(1, 1024, whole=True),
    "minutes": forms.number(0),
    "is_run": forms.TRUTH,
    "extra": value(lambda x: isinstance(x, list) and len(x) == 2),
    "about": forms.kind(dict),
}
_SWEEP: dict[str, forms.Form] = {
    "name": value(
        lambda x: isinstance(x, str) and bool(FOLDER_NAME.fullmatch(x)),
        f"{ALLOWED}a name of letters, digits and . , = + -; unset it is the file's",
    ),
    "experiment": _NAMES,
    "preset": one_of(*PRESET_NAMES),
    "seeds": SEEDS,
    "settings": MAPPING,
    "vary": value(
        lambda x: isinstance(x, dict) and all(isinstance(y, list) for y in x.values()),
        f"{ALLOWED}settings, each with a list of values",
    ),
    "mode": one_of(*MODES),
    "variants": every(forms.kind(dict), dict),
    "base": TEXT,
    "normalise": every(value(_is_range, f"{ALLOWED}[low, high], low below high"), dict),
}
"""Keys of a sweep and of a variant, each optional. Other keys of a variant are settings."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty where there is none, or a damaged one."""
    try:
        return files.read_json(path)
    except ConfigError:
        return {}


def read_sweep(path: Path, given: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep of a YAML or JSON file; what is given besides wins over its keys.

    Raises:
        ConfigError: in one line that names the file and the key, or the variant.
    """
    tree = read_tree(path, "sweep")
    check_keys(tree, _SWEEP, str(path))
    axes = {**(tree.get("vary") or {}), **((given or {}).get("vary") or {})}
    tree = {"name": path.stem, **tree, **(given or {})}
    return make_sweep({**tree, "vary": axes} if axes else tree, str(path))


def make_sweep(tree: Mapping[str, Any], source: str) -> Sweep:
    """A sweep by its keys; raises ConfigError in one line, `source` naming where they are from."""
    check_keys(tree, _SWEEP, source)
    shared = _settings(tree.get("settings") or {}, source)
    named: dict[str, dict[str, Any]] = {}
    for name, own in (tree.get("variants") or {}).items():
        named[str(name)] = _variant(str(name), own, named, source)
    mode, axes = tree.get("mode", "grid"), _settings(tree.get("vary") or {}, source)
    changes = [(_name(x), {"settings": x}) for x in _combinations(mode, axes)]
    if named and not axes and mode == "grid":
        changes = []
    variants: list[Variant] = []
    for label, keys in [*changes, *named.items()]:
        fits, allowed = label not in {x.label for x in variants}, "the name of one variant"
        require(fits, "variant", label, f"{allowed}; name them in the file under `variants`")
        keys = {"seeds": tree.get("seeds", [0, 1, 2]), "experiment": tree.get("experiment"), **keys}
        fits = bool(FOLDER_NAME.fullmatch(label)) and label not in TAKEN
        allowed = "a name of letters, digits and . , = + -; name it in the file under `variants`"
        require(fits, "variant", label, f"none of {', '.join(TAKEN)}, and {allowed}")
        modules, keys["settings"] = keys.pop("experiment"), {**shared, **keys["settings"]}
        several = isinstance(modules, list) and len(modules) > 1
        for module in modules if isinstance(modules, list) else [modules]:
            require(isinstance(module, str), f"{source}: experiment", module, "named")
            name = f"{label}/{module}" if several else label
            variants.append(Variant(name, module, label=label, **keys))
    require_known("base", base := tree.get("base", variants[0].label), [x.label for x in variants])
    ranges, modules = tree.get("normalise") or {}, sorted({x.module for x in variants})
    missing = [x for x in modules if x not in ranges]
    if missing and (ranges or len({x.label for x in variants}) < len(variants)):
        message = f"normalise lacks {missing[0]}: the scores that count as 0 and 1"
        raise ConfigError(f"{source}: {message}, as [1.5, 30.5]")
    return Sweep(tree.get("name", "sweep"), variants, base, tree.get("preset"), ranges)


def choose(
    variants: Sequence[V], names: Sequence[str] | None, seeds: Sequence[int] | None, kind: str
) -> list[tuple[V, Sequence[int]]]:
    """The variants named, each with its seeds; None: all variants, each variant's own seeds.

    Raises:
        ConfigError: in one line, for an unknown or repeated name, a repeated seed, or none.
    """
    known = list(dict.fromkeys(x.label for x in variants))
    names = known if names is None else names
    for name in names:
        require_known(kind, name, known)
    chosen = [(x, x.seeds if seeds is None else seeds) for x in variants if x.label in names]
    for what, given in ((f"{kind}s", names), *(("seeds", own) for _, own in chosen)):
        require(bool(given), what, given, "at least one")
        for number, one in enumerate(given):
            require(one not in given[:number], what, one, "named once")
    return chosen


def _settings(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings by their dotted names."""
    found = flatten(tree, source)
    for name in ("seed", "experiment"):
        require(name not in found, name, found.get(name), f"given as a key of the sweep ({source})")
    return found


def _variant(
    name: str, own: Mapping[str, Any], before: Mapping[str, dict[str, Any]], source: str
) -> dict[str, Any]:
    """A named variant's keys, over those of the one before that it is like; its settings apart."""
    where = f"{source}, variant {name}"
    keys = {key: x for key, x in own.items() if key in _VARIANT}
    settings = _settings({key: x for key, x in own.items() if key not in keys}, where)
    check_keys(keys, _VARIANT, where)
    parent = {}
    if (other := keys.pop("like", None)) is not None:
        require(bool(before), f"{where}: like", other, "an earlier variant: this is the first")
        require_known(f"variant in {where}: like", other, before)
        parent = before[other]
    found = {**parent, **keys, "settings": {**parent.get("settings", {}), **settings}}
    if "about" in found:
        found["about"] = {**parent.get("about", {}), **keys.get("about", {})}
    return found


def _combinations(mode: str, axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The settings of each variant of `vary`."""
    for name, values in axes.items():
        require(bool(values), name, values, "a list of values")
        for number, one in enumerate(values):
            require(one not in values[:number], f"vary: {name}", one, "listed once")
    if mode == "one_at_a_time":
        return [{}, *({name: one} for name, values in axes.items() for one in values)]
    if mode == "paired":
        lengths = {name: len(values) for name, values in axes.items()}
        allowed = "lists of the same length with mode paired"
        require(len(set(lengths.values())) <= 1, "vary", lengths, allowed)
        return [dict(zip(axes, x, strict=True)) for x in zip(*axes.values(), strict=True)] or [{}]
    return [dict(zip(axes, x, strict=True)) for x in itertools.product(*axes.values())]


def _name(change: Mapping[str, Any]) -> str:
    """`num_simulations=8,gamma=0.9`, with the section where two settings end alike."""
    leaves = [name.rpartition(".")[2] for name in change]
    parts = []
    for (name, one), leaf in zip(change.items(), leaves, strict=True):
        text = re.sub(r"[^\w.+-]+", "-", "+".join(_typed(one)).strip("{}[]\"' "))
        parts.append(f"{leaf if leaves.count(leaf) == 1 else name}={text}")
    return ",".join(parts) or BASE


def _typed(one: Any) -> list[str]:
    """A value as words of a command line."""
    if isinstance(one, list):
        return [word for item in one for word in _typed(item)]
    if isinstance(one, (dict, bool)):
        return [json.dumps(one)]
    return ["none" if one is None else str(one)]
