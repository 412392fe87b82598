"""The worlds of the table: what worlds.yaml holds, and which are run. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from smz_jax.config.check import require
from smz_jax.config.sources import require_known

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
    def command(self) -> tuple[str, ...]:
        """What a user types for one run at `laptop`, without seed and folder."""
        return ("python", "-m", f"experiments.{self.module}", *self.arguments, *self.at_laptop)


_DATA = yaml.safe_load(Path(__file__).with_name("worlds.yaml").read_text(encoding="utf-8"))
ONE_CODE: list[str] = _DATA["one_code"]
ENCODER_VARIANT: str = _DATA["encoder_variant"]
WORLDS = {name: World(name, **found) for name, found in _DATA["worlds"].items()}
TINY_WORLDS, TINY_SEEDS = ("grid-slippery",), (0,)
"""What `--preset tiny` runs where nothing is named: it only shows that the parts work."""


def choose(
    names: Sequence[str] | None, seeds: Sequence[int] | None, preset: str
) -> list[tuple[World, Sequence[int]]]:
    """The worlds to run, each with its seeds; None: all worlds, and each world's own seeds.

    At the preset `tiny` None stands for `TINY_WORLDS` and `TINY_SEEDS`.

    Raises:
        ConfigError: in one line, for an unknown or repeated world or a repeated seed.
    """
    if preset == "tiny":
        names = TINY_WORLDS if names is None else names
        seeds = TINY_SEEDS if seeds is None else seeds
    names = tuple(WORLDS) if names is None else names
    for name in names:
        require_known("world", name, WORLDS)
    for kind, given in (("worlds", names), ("seeds", seeds or ())):
        for number, one in enumerate(given):
            require(one not in given[:number], kind, one, "named once")
    chosen = [world for world in WORLDS.values() if world.name in names]
    return [(world, world.seeds if seeds is None else seeds) for world in chosen]
