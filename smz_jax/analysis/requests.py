"""Requests of the tools of a trained model: one light dataclass for each command line.

A field is a flag of the same name, its docstring the help text; a field without a default is a
positional argument. Values out of their range raise `ConfigError` when a request is made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from smz_jax.config.check import Alone, Between, Checked, require
from smz_jax.config.settings import Config
from smz_jax.config.sources import config_from_yaml
from smz_jax.config.training import Opponents
from smz_jax.storage.pretrained import find_model, is_export
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

Checkpoint = Literal["best", "last"]
Seed = Annotated[int | None, Between(0, 2**63 - 1, words="at least 0")]


def check_folder(folder: Path, checkpoint: Checkpoint | None) -> Config:
    """The settings of a run or of an export whose sums are right; loads no JAX.

    The folder may be the name of weights that come with the package.

    Raises:
        ConfigError: in one line, if the folder is neither, or a checkpoint of an export is named.
    """
    from smz_jax.storage.export import read_files  # imports NumPy

    folder = find_model(folder)
    if not is_export(folder):
        return read_config(folder)
    allowed = "left out for an export, which holds one"
    require(checkpoint is None, "checkpoint", checkpoint, allowed)
    text = read_files(folder)[CONFIG_NAME].decode("utf-8", "replace")
    return config_from_yaml(text, str(folder / CONFIG_NAME))


def check_can_be_verified(config: Config) -> None:
    """Raises ConfigError in one line unless macros can be tried in a run's game."""
    suite, stack = config.env.suite, config.env.frame_stack
    allowed = "atari (tried in ale-py's emulator) or grid (against its exact rules)"
    require(suite in ("atari", "grid"), "env.suite", suite, allowed)
    allowed = "1, so that what is seen tells the state"
    require(suite != "grid" or stack == 1, "env.frame_stack", stack, allowed)


@dataclass(frozen=True)
class PersonWay(Checked):
    """How a person plays."""

    terminal: bool = False
    """play in the terminal, turn by turn, instead of in a window"""
    keys: tuple[str, ...] = ()
    """ACTION=KEY, or ACTION=KEY+KEY for keys that are held together; the action by its name or
    number (default: w, a, s, d or the arrows, space for FIRE, else a letter of its name)"""
    wait: bool | None = None
    """wait for a key before every step (default: where no action is doing nothing)"""
    fps: Annotated[float | None, Between(0.1, 1000.0)] = None
    """steps in a second (default: as the game is natural; Atari: 60 / env.frame_skip)"""
    undo_seconds: Annotated[float, Between(0.1, 120.0)] = 3.0
    """seconds of the game that Backspace goes back; where the game waits, one step"""
    games: Annotated[int | None, Between(1, 100_000)] = None
    """end after so many (default: when the window is closed)"""


@dataclass(frozen=True)
class PlayRequest(Checked):
    """Games of a trained model, and how they are shown."""

    folder: Path
    """folder of an export or of a run, or the name of weights that come with the package"""
    checkpoint: Checkpoint | None = None
    """of a run: its best model (default) or its last one; an export holds one"""
    games: Annotated[int, Between(1, 100_000)] = 1
    """to play"""
    seed: Seed = None
    """of the games (default: that of the run's final evaluation)"""
    sticky_prob: Annotated[float | None, Between(0.0, 1.0, "[)")] = None
    """Atari: chance that the last action is repeated (default: as in training)"""
    max_steps: Annotated[int | None, Between(1, 27_000)] = None
    """cut each game after so many steps (default: as in the run's evaluations)"""
    terminal: bool = False
    """draw the game in the terminal"""
    against: Literal["me"] | None = None
    """of two players: you play the other side in the terminal, and begin in every second game"""
    out: Path | None = None
    """write a .gif or .mp4"""
    fps: Annotated[float | None, Between(0.1, 1000.0)] = None
    """steps shown in a second (default: as the game is natural)"""

    def __post_init__(self) -> None:
        """Checks what goes together, too."""
        super().__post_init__()
        for name in ("terminal", "out", "fps", "sticky_prob"):
            fits = self.against is None or getattr(self, name) in (None, False)
            require(fits, name, getattr(self, name), "left out with --against")


@dataclass(frozen=True)
class EvaluateRequest(Checked):
    """Games of a trained model that are counted."""

    folder: Path
    """folder of an export or of a run, or the name of weights that come with the package"""
    checkpoint: Checkpoint | None = None
    """of a run: its best model (default) or its last one; an export holds one"""
    games: Annotated[int, Between(1, 100_000)] = 100
    """to play, at least"""
    seed: Seed = None
    """of the games (default: that of the run's final evaluation)"""
    noise: Annotated[float | None, Between(0.0, 1.0)] = None
    """of the search's root; 0 is greedy (default: that of the run's evaluations)"""
    sticky_prob: Annotated[float | None, Between(0.0, 1.0, "[)")] = None
    """Atari: chance that the last action is repeated (default: as in training)"""
    opponent: Opponents | None = None
    """of two players: who plays the other side (default: as in the run's evaluations)"""
    ladder: bool = False
    """of two players: every two of the run's kept checkpoints play `games` against each other; it
    goes into RUN_DIR/ladder.json and the report"""
    positions: bool = False
    """connect four: no games; which of its moves are as good as any, in 500 positions solved
    exactly"""
    json: Path | None = None
    """write all numbers there, the single scores included"""

    def __post_init__(self) -> None:
        """Checks what goes together, too."""
        super().__post_init__()
        for name in ("checkpoint", "noise", "opponent"):
            fits = not self.ladder or getattr(self, name) is None
            require(fits, name, getattr(self, name), "left out with --ladder")
        for name in ("seed", "noise", "sticky_prob", "opponent", "ladder"):
            fits = not self.positions or getattr(self, name) in (None, False)
            require(fits, name, getattr(self, name), "left out with --positions")


@dataclass(frozen=True)
class MacrosRequest(Checked):
    """Which macros of a run or an export are listed, and what is played for the figures."""

    folder: Path
    """folder of a run or of an export, or the name of weights that come with the package"""
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
    json: Annotated[str | None, Alone("-")] = None
    """write the macros as JSON instead, to PATH or (-, default) the standard output; quick"""
    play: Literal["auto", "replay", "games"] = "auto"
    """actions that are measured: the replay of the run's last checkpoint, or games of the model
    (default: the replay where there is one)"""
    games: Annotated[int, Between(1, 1000)] = 3
    """to play"""
    max_steps: Annotated[int, Between(1, 27_000)] = 500
    """cut each game after so many steps"""
    seed: Seed = None
    """of the games (default: that of the run's final evaluation)"""
    checkpoint: Checkpoint | None = None
    """of a run: its last model (default, where it has one), which macros.json is of, or its best
    one"""
    out: Path | None = None
    """for figures/ and macros.json (default: RUN_DIR; must be given for weights of the package)"""


@dataclass(frozen=True)
class VerifyRequest(Checked):
    """Sizes of a verification."""

    folder: Path
    """folder of a run or of an export, or the name of weights that come with the package"""
    checkpoint: Checkpoint | None = None
    """of a run: its last model (default), which macros.json is of, or its best one; an export holds
    one"""
    macros: Annotated[int, Between(1, 1024)] = 32
    """of each library, at most"""
    states: Annotated[int, Between(1, 1024)] = 16
    """to try each macro in"""
    repeats: Annotated[int, Between(1, 64)] = 2
    """runs from each state"""
    games: Annotated[int, Between(2, 1024)] = 16
    """that the agent plays; every other one is held out; in a grid world times 4"""
    max_steps: Annotated[int, Between(8, 27_000)] = 1_000
    """cut games after N steps"""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    """of games, states and controls"""
    any_status: bool = False
    """also macros that are not sound"""
    out: Path | None = None
    """folder for verify.json and verify.md (default: FOLDER; must be given for weights of the
    package)"""


@dataclass(frozen=True)
class ExportRequest(Checked):
    """A checkpoint that becomes an export."""

    run_dir: Path
    """folder of a run that has a checkpoint"""
    out: Path | None = None
    """new or empty folder (default: RUN_DIR/export)"""
    checkpoint: Checkpoint | None = None
    """best: of the evaluations during training (default, if there is one). last: what the run ended
    with, and what its final score was measured of"""
