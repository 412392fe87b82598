"""What may be tried: a file of settings with their ranges. Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweep.jobs import Job, check_all, settings_of
from experiments.sweep.variants import MAPPING, SEEDS, Variant
from smz_jax.config.check import field_type, require
from smz_jax.config.experiment import PRESET_NAMES
from smz_jax.config.sources import (
    SETTINGS,
    coerce,
    flat_dict,
    flatten,
    read_tree,
)
from smz_jax.storage.documents import forms
from smz_jax.storage.documents.forms import (
    ALLOWED,
    TRUTH,
    check_keys,
    is_number,
    one_of,
    value,
)

DEFAULT, BEST = "default", "best"
"""Names of the two variants that are compared at the end."""
_FILE: dict[str, forms.Form] = {
    "space": MAPPING,
    "settings": MAPPING,
    "preset": one_of(*PRESET_NAMES),
    "seeds": SEEDS,
}
_NUMBER = value(is_number, f"{ALLOWED}a number")
_RANGE: dict[str, forms.Form] = {"low": _NUMBER, "high": _NUMBER, "step": _NUMBER, "log": TRUTH}


@dataclass(frozen=True)
class Axis:
    """What one setting may be."""

    name: str
    """Dotted name of the setting."""
    choices: tuple[Any, ...] = ()
    """Values without an order; empty: a range."""
    low: float = 0.0
    """Smallest number of a range."""
    high: float = 0.0
    """Largest number of a range."""
    step: float | None = None
    """Between two numbers of a range; None: 1 of whole numbers, else any."""
    log: bool = False
    """Whether equal ratios are equally likely, instead of equal differences."""

    @property
    def is_whole(self) -> bool:
        """Whether the setting is a whole number."""
        return field_type(SETTINGS[self.name]).kind is int

    def ends(self) -> tuple[Any, ...]:
        """Every choice, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def holds(self, found: Any) -> bool:
        """Whether a value may be tried."""
        if self.choices:
            return any(type(x) is type(found) and x == found for x in self.choices)
        return is_number(found) and self.low <= found <= self.high

    def text(self) -> str:
        """For people."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{step}{', logarithmic' * self.log}"


class Space(NamedTuple):
    """What a study tries, and on what."""

    module: str  # of `experiments`
    preset: str
    seeds: tuple[int, ...]  # of every trial, in this order
    settings: Mapping[str, Any]  # dotted, of every trial
    axes: tuple[Axis, ...]

    def variant(self, name: str, chosen: Mapping[str, Any] | None = None) -> Variant:
        """Runs with the settings chosen, over those of every trial."""
        settings = {**self.settings, **(chosen or {})}
        return Variant(name, self.module, settings, seeds=self.seeds, label=name)

    def default(self) -> dict[str, Any]:
        """What the tuned settings are where nothing is chosen."""
        known = flat_dict(settings_of(self.job(self.variant(DEFAULT), self.seeds[0], Path())))
        return {axis.name: known[axis.name] for axis in self.axes}

    def job(self, variant: Variant, seed: int, folder: Path) -> Job:
        """One run, in `folder/<variant>/seed<seed>`."""
        run_dir = folder / variant.name / f"seed{seed}"
        return Job(variant, seed, self.preset, run_dir, "new", variant.cores)

    def document(self) -> dict[str, Any]:
        """What a study keeps of it, to be told from another one."""
        axes = {axis.name: axis.text() for axis in self.axes}
        document = {"experiment": self.module, "preset": self.preset, "seeds": [*self.seeds]}
        return {**document, "settings": dict(self.settings), "space": axes}


def read_space(path: Path, module: str, preset: str | None, seeds: tuple[int, ...] | None) -> Space:
    """The space of a YAML or JSON file; preset and seeds that are given win over its keys.

    Raises:
        ConfigError: in one line that names the file and the key.
    """
    tree = read_tree(path, "space")
    check_keys(tree, _FILE, str(path))
    source = f"{path}: space"
    axes = flatten(tree.get("space") or {}, source)
    require(bool(axes), source, None, "settings with what they may be")
    settings = flatten(tree.get("settings") or {}, str(path))
    for name in ("seed", "experiment"):
        require(name not in {**axes, **settings}, f"{path}: {name}", "given", "no setting of it")
    space = Space(
        module,
        preset or tree.get("preset") or "laptop",
        seeds or tuple(tree.get("seeds") or (0, 1, 2)),
        settings,
        tuple(_axis(name, found, source) for name, found in axes.items()),
    )
    require(len(set(space.seeds)) == len(space.seeds), "seeds", space.seeds, "named once each")
    return space


def _axis(name: str, found: Any, source: str) -> Axis:
    """What a setting may be; raises ConfigError in one line."""
    where = f"{source}: {name}"
    if isinstance(found, list):
        choices = tuple(coerce(SETTINGS[name], one) for one in found)
        for place, one in enumerate(choices):
            plain = one is None or isinstance(one, (bool, int, float, str))
            require(plain, where, one, "a list of plain values")
            require(one not in choices[:place], where, one, "listed once")
        require(len(choices) > 1, where, found, "two values or more, or a range")
        return Axis(name, choices)
    allowed = "a list of values, or a range as {low: 1, high: 8}"
    require(isinstance(found, Mapping), where, found, allowed)
    found = {key: coerce(float, x) if key != "log" else x for key, x in found.items()}
    check_keys(found, _RANGE, where)
    require({"low", "high"} <= set(found), where, found, "given low and high")
    kind = field_type(SETTINGS[name]).kind
    require(kind in (int, float), where, found, "a list: this setting is no number")
    axis = Axis(name, **{"log": False, **found})
    require(axis.low < axis.high, where, found, "a range whose low is below its high")
    require(axis.low > 0 or not axis.log, where, axis.low, "above 0, as log is true")
    require(not (axis.log and axis.step), where, axis.step, "left out, as log is true")
    require(axis.step is None or axis.step > 0, where, axis.step, "a step above 0")
    if not axis.is_whole:
        return axis
    numbers = [axis.low, axis.high, axis.step or 1.0]
    require(all(x == int(x) for x in numbers), where, found, "whole numbers")
    step = None if axis.step is None else int(axis.step)
    return replace(axis, low=int(axis.low), high=int(axis.high), step=step)


def check_space(space: Space, fresh: Sequence[int] = ()) -> None:
    """Raises ConfigError in one line if a run at one of the ends could not be.

    Settings that are allowed one by one may still not go together: such a trial fails when it is
    proposed, before it runs. `fresh` are seeds that are run besides.
    """
    check_all([space.job(space.variant(DEFAULT), x, Path()) for x in (*space.seeds, *fresh)])
    ends = [(axis.name, end) for axis in space.axes for end in axis.ends()]
    for name, end in ends:
        variant = space.variant(f"{name}={end}", {name: end})
        check_all([space.job(variant, space.seeds[0], Path())])
