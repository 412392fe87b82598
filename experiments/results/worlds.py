"""The worlds of the proof: what is run, and what is asked of it. Imports nothing heavy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from smz_jax.config.settings import ConfigError, require
from smz_jax.config.sources import suggest

ENCODER_VARIANT = "difference-embedding"
"""The recipe of `experiments.encoders` that the proof rests on (docs/encoders.md)."""
ENCODER_SIZES = ("--transitions", "300000", "--updates", "20000", "--eval_every", "500")
"""More play than the comparison has: on 40,000 steps the variants overfit."""
STICKY = (0.25, 0.0)
ONE_CODE = ("--network.codebook_size", "1", "--search.collapse_threshold", "0.01")
"""A single chance outcome, and no simulations spent on it: plain MuZero in the same code."""


@dataclass(frozen=True)
class World:
    """One row of the table: an experiment, its settings and its seeds."""

    name: str
    title: str
    module: str
    """Name below `experiments`."""
    asked: str
    """What must be shown, in words."""
    minutes: float
    """A run at the preset `laptop` takes about so long on its cores; for plans alone."""
    arguments: tuple[str, ...] = ()
    at_laptop: tuple[str, ...] = ()
    """More arguments, at the preset `laptop` alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    cores: int = 1
    twin_of: str | None = None
    """The same world with chance codes, for one that has a single code."""
    known: str = ""
    """The best possible score or a published one, with its source; empty: from the run itself."""
    highest: float | None = None
    """The best possible score, where every figure should show it."""
    is_run: bool = True
    """A run of `smz_jax.run.launch`; else of `experiments.encoders`, which goes on by itself."""
    extra: tuple[str, tuple[str, ...]] | None = None
    """A file that is needed as well, and the arguments of the module that write it."""

    @property
    def result_file(self) -> str:
        """Says what came of a run; written at its end."""
        return "summary.json" if self.is_run else "results.json"

    @property
    def command(self) -> tuple[str, ...]:
        """What a user types for one run at `laptop`, without seed and folder."""
        return ("python", "-m", f"experiments.{self.module}", *self.arguments, *self.at_laptop)


def _grid(name: str, title: str, asked: str, *arguments: str, twin_of: str | None = None) -> World:
    return World(
        name=name,
        title=title,
        module="gridworld",
        asked=asked,
        minutes=4,
        arguments=arguments,
        twin_of=twin_of,
        extra=("grid.json", ("report", "RUN_DIR")),
    )


_HUMAN = "human {} (DQN Zoo, atari_data.py)"
_TILES = "625,377 (Guei et al. 2021, arXiv:2111.11090: tuple networks, expectimax search)"

_ALL = (
    _grid(
        "grid-slippery",
        "Grid, slippery",
        "evaluation return within 5 % of the optimum; ROC area at least 0.99; mean entropy error "
        "at most 0.1 nats over visited pairs",
    ),
    _grid(
        "grid-deterministic",
        "Grid, deterministic",
        "mean normalised transition entropy below 0.02, prior and encoder agree on at least 99 % "
        "of transitions, a non-zero encoder gradient early on; return within 2 % of the optimum",
        "--env.kwargs",
        json.dumps({"map": "deterministic"}),
    ),
    _grid(
        "grid-twin",
        "Grid, slippery, deterministic twin",
        "value and reward error at unroll steps 3 and beyond, along fixed action sequences, worse "
        "than the stochastic model's, intervals apart; returns of both whatever they are",
        *ONE_CODE,
        twin_of="grid-slippery",
    ),
    World(
        "cartpole",
        "CartPole-v1",
        "cartpole",
        "mean return at least 475 over 100 episodes in at most 10 minutes",
        minutes=5,
        known="500 (the environment's step limit)",
        highest=500.0,
    ),
    World(
        "cartpole-twin",
        "CartPole-v1, deterministic twin",
        "cartpole",
        "beside the model with chance codes",
        minutes=5,
        arguments=ONE_CODE,
        twin_of="cartpole",
        known="500 (the environment's step limit)",
        highest=500.0,
    ),
    World(
        "2048",
        "2048",
        "twenty48",
        "at least 3 times the random player's score in about 10 minutes a run",
        minutes=12,
        known=_TILES,
    ),
    World(
        "2048-twin",
        "2048, deterministic twin",
        "twenty48",
        "beside the model with chance codes",
        minutes=12,
        arguments=ONE_CODE,
        twin_of="2048",
        known=_TILES,
    ),
    World(
        "breakout",
        "Breakout",
        "breakout",
        "curve against random and the best constant action; mean at least 3 times random",
        minutes=15,
        cores=2,
        known=_HUMAN.format("30.5"),
    ),
    World(
        "pong",
        "Pong",
        "pong",
        "curve against random and the best constant action",
        minutes=15,
        seeds=(0,),
        cores=2,
        known=_HUMAN.format("14.6"),
    ),
    World(
        "space-invaders",
        "Space Invaders",
        "space_invaders",
        "curve against random and the best constant action",
        minutes=15,
        seeds=(0,),
        cores=2,
        known=_HUMAN.format("1,668.7"),
    ),
    World(
        "encoders",
        "Breakout's chance encoder, stored frames",
        "encoders",
        "sticky 0.25: ROC area of H(sigma) at least 0.9 within an hour, code perplexity above 1.5; "
        "sticky 0: mean normalised entropy at most a third of that, intervals apart, with a live "
        "encoder",
        minutes=40,
        arguments=("--variants", ENCODER_VARIANT, "--sticky", *(f"{x:g}" for x in STICKY)),
        at_laptop=ENCODER_SIZES,
        is_run=False,
    ),
)
WORLDS: dict[str, World] = {world.name: world for world in _ALL}
TINY_WORLDS, TINY_SEEDS = ("grid-slippery",), (0,)
"""What `--preset tiny` runs where nothing is named: it only shows that the parts work."""


@dataclass(frozen=True)
class Choice:
    """What was asked for on the command line."""

    worlds: tuple[World, ...]
    seeds: tuple[int, ...] | None = field(default=None)
    """None: each world's own."""

    def seeds_of(self, world: World) -> tuple[int, ...]:
        """Seeds to run of a world."""
        return world.seeds if self.seeds is None else self.seeds


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
