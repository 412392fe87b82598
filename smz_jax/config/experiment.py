"""An experiment is a value: its name, the family of its presets, and what it sets itself.

`presets/general.yaml` holds the presets of all; `presets/FAMILY.yaml` comes over it. A block may
begin `like: [BLOCK, FAMILY/BLOCK]`: those come first, in this order, and its own settings win.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.config.sources import SETTINGS, coerce, flat_dict, flatten, from_dict

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
