"""The worlds of the table: what worlds.yaml holds, and which are run. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from smz_jax.config.check import ConfigError, require
from smz_jax.config.sources import suggest

STICKY = (0.25, 0.0)
"""Sticky actions of the encoders' world: with them Breakout is random, without them it is not."""


@dataclass(frozen=True)
class World:
    """One row of the table: an experiment, its settings and its seeds; see worlds.yaml."""

    name: str
    title: str
    module: str
    required: str
    minutes: float
    arguments: Sequence[str] = ()
    at_laptop: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    cores: int = 1
    twin_of: str | None = None
    known: str = ""
    highest: float | None = None
    is_run: bool = True
    extra: tuple[str, Sequence[str]] | None = None
    measures: Sequence[Sequence[str]] = ()

    @property
    def result_file(self) -> str:
        """Says what came of a run; written at its end."""
        return "summary.json" if self.is_run else "results.json"

    @property
    def command(self) -> tuple[str, ...]:
        """What a user types for one run at `laptop`, without seed and folder."""
        return ("python", "-m", f"experiments.{self.module}", *self.arguments, *self.at_laptop)


_DATA = yaml.safe_load(Path(__file__).with_name("worlds.yaml").read_text(encoding="utf-8"))
ONE_CODE: list[str] = _DATA["one_code"]
ENCODER_VARIANT: str = _DATA["encoder_variant"]
WORLDS = {name: World(name, **found) for name, found in _DATA["worlds"].items()}
TINY_WORLDS, TINY_SEEDS = ("grid-slippery",), (0,)
"""What `--preset tiny` runs where nothing is named: it only shows that the parts work."""


class Choice(NamedTuple):
    """What was chosen on the command line."""

    worlds: tuple[World, ...]
    seeds: tuple[int, ...] | None = None  # None: each world's own

    def seeds_of(self, world: World) -> tuple[int, ...]:
        """Seeds to run of a world."""
        return tuple(world.seeds) if self.seeds is None else self.seeds


def choose(names: Sequence[str] | None, seeds: Sequence[int] | None, preset: str) -> Choice:
    """The worlds and seeds to run.

    Args:
        names: of worlds, in any order; None: all, at preset tiny `TINY_WORLDS`.
        seeds: of each world; None: the world's own, at preset tiny `TINY_SEEDS`.
        preset: name of the preset.

    Raises:
        ConfigError: in one line, for an unknown or repeated world or a seed that cannot be.
    """
    is_tiny = preset == "tiny"
    if names is None:
        names = TINY_WORLDS if is_tiny else tuple(WORLDS)
    for number, name in enumerate(names):
        if name not in WORLDS:
            hint = suggest(name, tuple(WORLDS)) or "; there are " + ", ".join(WORLDS)
            raise ConfigError(f"unknown world {name!r}{hint}")
        require(name not in names[:number], "worlds", name, "named once")
    if seeds is None and is_tiny:
        seeds = TINY_SEEDS
    for number, seed in enumerate(seeds or ()):
        require(0 <= seed < 2**31, "seeds", seed, "in 0..2147483647")
        require(seed not in (seeds or ())[:number], "seeds", seed, "named once")
    ordered = tuple(world for world in WORLDS.values() if world.name in names)
    return Choice(ordered, None if seeds is None else tuple(seeds))
