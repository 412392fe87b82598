"""Requests of the tools of a trained model: one light dataclass for each command line.

A field is a flag of the same name, its docstring the help text; a field without a default is a
positional argument. Values out of their range raise `ConfigError` when a request is made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smz_jax.config.settings import require

Checkpoint = Literal["best", "last"]


def _in_range(request: object, **ranges: tuple[int, int]) -> None:
    """Raises ConfigError unless each named field lies in its range, ends included, or is unset."""
    for name, (low, high) in ranges.items():
        value = getattr(request, name)
        require(value is None or low <= value <= high, name, value, f"in {low}..{high}")


def _check_seed(seed: int | None) -> None:
    require(seed is None or 0 <= seed < 2**63, "seed", seed, "at least 0")


@dataclass(frozen=True)
class PlayRequest:
    """Games of a trained model, and how they are shown."""

    folder: Path
    """folder of an export or of a run"""
    checkpoint: Checkpoint | None = None
    """of a run: its best model (default) or its last one; an export holds one"""
    games: int = 1
    """to play"""
    seed: int | None = None
    """of the games (default: that of the run's final evaluation)"""
    sticky_prob: float | None = None
    """Atari: chance that the last action is repeated (default: as in training)"""
    max_steps: int | None = None
    """cut each game after so many steps (default: as in the run's evaluations)"""
    terminal: bool = False
    """draw the game in the terminal"""
    out: Path | None = None
    """write a .gif or .mp4"""
    fps: float | None = None
    """steps shown in a second (default: as the game is natural)"""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of its range."""
        _in_range(self, games=(1, 100_000))
        _check_seed(self.seed)
        sticky, fps = self.sticky_prob, self.fps
        require(sticky is None or 0 <= sticky < 1, "sticky_prob", sticky, "in [0, 1)")
        _in_range(self, max_steps=(1, 27_000))
        require(fps is None or 0.1 <= fps <= 1000, "fps", fps, "in [0.1, 1000]")


@dataclass(frozen=True)
class MacrosRequest:
    """Which macros of a run or an export are listed, and what is played for the figures."""

    folder: Path
    """folder of a run or of an export"""
    sort: Literal["count", "entropy", "generality", "saving", "held", "trials"] = "count"
    """the best first"""
    status: Literal["candidate", "sound", "refuted"] | None = None
    """only those"""
    min_length: int | None = None
    """actions at least"""
    max_length: int | None = None
    """actions at most"""
    contains: tuple[str, ...] = ()
    """only macros with this action, by its name; may be given several times"""
    no_repeats: bool = False
    """leave out macros of one repeated action"""
    top: int | None = None
    """lines at most (default: 20; of --json: all)"""
    table: bool = False
    """only the table, of what macros.json holds; quick"""
    json: str | None = None
    """write the macros as JSON instead, to PATH or (-, default) the standard output; quick"""
    play: Literal["auto", "replay", "games"] = "auto"
    """actions that are measured: the replay of the run's last checkpoint, or games of the model
    (default: the replay where there is one)"""
    games: int = 3
    """to play"""
    max_steps: int = 500
    """cut each game after so many steps"""
    seed: int | None = None
    """of the games (default: that of the run's final evaluation)"""
    checkpoint: Checkpoint | None = None
    """of a run: its last model (default, where it has one), which macros.json is of, or its best
    one"""
    out: Path | None = None
    """for figures/ and macros.json (default: RUN_DIR)"""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of its range."""
        _in_range(self, games=(1, 1000), max_steps=(1, 27_000))
        _check_seed(self.seed)


@dataclass(frozen=True)
class VerifyRequest:
    """Sizes of a verification."""

    folder: Path
    """folder of a run or of an export"""
    checkpoint: Checkpoint | None = None
    """of a run: its last model (default), which macros.json is of, or its best one; an export holds
    one"""
    macros: int = 32
    """of each library, at most"""
    states: int = 16
    """to try each macro in"""
    repeats: int = 2
    """runs from each state"""
    games: int = 16
    """that the agent plays; every other one is held out; in a grid world times 4"""
    max_steps: int = 1_000
    """cut games after N steps"""
    seed: int = 0
    """of games, states and controls"""
    any_status: bool = False
    """also macros that are not sound"""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of its range."""
        _in_range(self, macros=(1, 1024), states=(1, 1024), repeats=(1, 64), games=(2, 1024))
        _in_range(self, max_steps=(8, 27_000), seed=(0, 2**31 - 1))


@dataclass(frozen=True)
class ExportRequest:
    """A checkpoint that becomes an export."""

    run_dir: Path
    """folder of a run that has a checkpoint"""
    out: Path | None = None
    """new or empty folder (default: RUN_DIR/export)"""
    checkpoint: Checkpoint = "best"
    """best: of the evaluations during training. last: what the run ended with, and what its final
    score was measured of"""
