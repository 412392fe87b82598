"""The worlds of the table: what worlds.yaml holds, and which are run. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.sweep.variants import Variant, read_sweep
from experiments.sweep.variants import choose as pick

STICKY = (0.25, 0.0)
"""Sticky actions of the encoders' world: with them Breakout is random, without them it is not."""


@dataclass(frozen=True)
class World(Variant):
    """One row of the table: an experiment, its settings and its seeds; see worlds.yaml."""

    title: str = ""
    required: str = ""
    twin_of: str | None = None
    known: str = ""
    highest: float | None = None
    measures: Sequence[Sequence[str]] = ()

    def is_finished(self, folder: Path) -> bool:
        """Also of the encoders, which are once both of their parts are."""
        if self.is_run:
            return super().is_finished(folder)
        parts: list[dict[str, Any]] = self.result(folder).get("results", [])
        found = {(x.get("variant"), x.get("sticky")) for x in parts}
        return found >= {(ENCODER_VARIANT, sticky) for sticky in STICKY}


SWEEP = read_sweep(Path(__file__).with_name("worlds.yaml"))
WORLDS = {x.name: World(**vars(x), **x.about) for x in SWEEP.variants}
ENCODER_VARIANT = WORLDS["encoders"].arguments[1]
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
    return pick([*WORLDS.values()], names, seeds, "world")
