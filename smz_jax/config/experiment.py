"""An experiment is a value: its name, the family of its presets, and what it sets itself.

`presets/general.yaml` holds the presets of all; `presets/FAMILY.yaml` comes over it. A block may
begin `like: [BLOCK, FAMILY/BLOCK]`: those come first, in this order, and its own settings win.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from smz_jax.config.check import ConfigError, require
from smz_jax.config.process import command_names
from smz_jax.config.settings import Config
from smz_jax.config.sources import (
    SETTINGS,
    coerce,
    flat_dict,
    flatten,
    from_dict,
    require_known,
)

LENGTHS = ("total_env_steps", "checkpoint_every_env_steps", "eval.every_env_steps")
"""What presets give in environment steps."""
PRESET_NAMES = ("tiny", "smoke", "laptop", "gpu")
PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class Experiment:
    """What a module of `experiments` runs: `EXPERIMENT` there."""

    name: str
    """Name of the module; runs are kept under runs/<name>/."""
    family: str = ""
    """File in `presets/`; empty: the general presets alone."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Dotted settings of its own, over the family's block `base`; presets win over both."""
    description: str = ""
    """One or two sentences, for `--help`."""
    expects: str = ""
    """Score and time of a run at the preset laptop, as measured; empty: not measured."""
    over: Mapping[str, Any] = field(default_factory=dict)
    """Dotted settings over the presets; file and flags win."""
    check: Callable[[Config], None] | None = None
    """Raises ConfigError where settings do not fit it; called before JAX loads."""
    on_check: Callable[[Any, Any], dict[str, float]] | None = None
    """`(Parts, RunState) -> metrics`, called at each check of the model; they go into the same row
    of metrics.jsonl."""
    on_finish: Callable[[Any, Any, Path], dict[str, Any]] | None = None
    """`(Parts, RunState, folder) -> entries`, called after the final evaluation; they go into
    summary.json."""


def experiments_root() -> Path | None:
    """The folder that holds `experiments`: a checkout, or where pip put it."""
    beside = Path(__file__).parents[2]
    folders = [beside, beside / "share/smz_jax"]  # as with `pip install --target`
    try:
        files = [x.locate() for x in metadata.files("smz_jax") or [] if x.name == "breakout.py"]
    except metadata.PackageNotFoundError:
        files = []
    folders += [Path(str(file)).resolve().parents[1] for file in files]
    return next((x for x in folders if (x / "experiments/breakout.py").is_file()), None)


def experiment_names() -> list[str]:
    """Modules of `experiments` that hold an EXPERIMENT."""
    folder = (experiments_root() or Path()) / "experiments"
    modules = [(x, folder / f"{x}.py") for x in command_names(folder)]
    return [x for x, path in modules if path.is_file() and "EXPERIMENT = " in path.read_text()]


def find_experiment(name: str) -> Experiment:
    """The experiment of a module of `experiments`, which need not be on the path of imports.

    Raises:
        ConfigError: in one line, if there is none of that name.
    """
    require_known("experiment", name, experiment_names())
    root, is_there = str(experiments_root()), "experiments" in sys.modules
    sys.path.insert(0, root)
    try:
        return importlib.import_module(f"experiments.{name}").EXPERIMENT
    except ModuleNotFoundError as error:  # somebody's own `experiments` was imported before
        raise ConfigError(f"experiment = {name!r} cannot be loaded: {error}") from None
    finally:
        sys.path.remove(root)
        # A user's own folder of that name stays importable.
        for module in [] if is_there else [x for x in sys.modules if _is_ours(x)]:
            del sys.modules[module]


def _is_ours(module: str) -> bool:
    return module == "experiments" or module.startswith("experiments.")


@functools.cache
def _file(family: str) -> dict[str, Any]:
    """The blocks of a file of presets."""
    path = PRESETS / f"{family}.yaml"
    known = ", ".join(sorted(x.stem for x in PRESETS.glob("*.yaml")))
    require(path.is_file(), "family", family, f"one of {known}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast
    return yaml.load(path.read_text(encoding="utf-8"), loader)


def block(family: str, name: str) -> dict[str, Any]:
    """Dotted settings of a block of a family's file, those it is like included; {} without it.

    Raises:
        ConfigError: if there is no such family, or the file names an unknown setting.
    """
    own = dict(_file(family).get(name) or {})
    found: dict[str, Any] = {}
    for other in own.pop("like", ()):
        found |= block(*other.split("/")) if "/" in other else block(family, other)
    return found | flatten(own, f"presets/{family}.yaml")


def preset_overrides(preset: str, family: str = "", *, unclipped: bool = False) -> dict[str, Any]:
    """Dotted settings of a preset: the general ones, then those of the family.

    With `unclipped` the supports hold rewards of any usual size, unless the family sets them.
    """
    names = [preset, "unclipped"] if unclipped else [preset]
    found: dict[str, Any] = {}
    for file in ("general", family) if family else ("general",):
        for name in names:
            found |= block(file, name)
    return found


def resolve(
    experiment: Experiment,
    preset: str,
    file_overrides: Mapping[str, Any],
    flag_overrides: Mapping[str, Any],
) -> Config:
    """Config under defaults < experiment < preset < file < flags (dotted overrides).

    Raises:
        ConfigError: in one line, for an unknown preset or setting, or a value not allowed.
    """
    require(preset in PRESET_NAMES, "preset", preset, "one of " + ", ".join(PRESET_NAMES))
    family = block(experiment.family, "base") if experiment.family else {}
    base = {"experiment": experiment.name, **family, **experiment.base}
    given = {**experiment.over, **file_overrides, **flag_overrides}

    def laid(**options: bool) -> Config:
        settings = base | preset_overrides(preset, experiment.family, **options)
        return from_dict(
            (in_updates(settings, given) if given.get("dataset") else settings) | given
        )

    config = laid()
    is_clipped = config.env.suite != "atari" or config.env.clip_rewards
    return config if is_clipped else laid(unclipped=True)


def in_updates(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's settings, its lengths in the updates that it would have made while playing."""
    every = {**flat_dict(Config()), **settings, **given}
    name = "learner.updates_per_env_step"
    rate = coerce(SETTINGS[name], every[name])
    if not (isinstance(rate, (int, float)) and 0 <= rate <= 64):  # its own check says so
        return dict(settings)
    scaled = {name: round(every[name] * rate) for name in LENGTHS if name not in given}
    return {**settings, **{name: max(x, min(every[name], 1)) for name, x in scaled.items()}}
