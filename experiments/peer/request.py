"""What the command line takes; light, so that a mistake is answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from smz_jax.config.check import Between, Checked, require

USUAL_MARKS = (5.0, 15.0, 25.0, 34.0)
NEEDED = {"stable_baselines3": "stable-baselines3", "torch": "torch"}
"""Modules and what pip calls them."""


@dataclass(frozen=True)
class PeerRequest(Checked):
    """How long the peer trains, and what it is compared with."""

    cpu_minutes: Annotated[float, Between(0.0, 10_000.0, "(]")] = 34.0
    """user and system time of the training, evaluations not counted; it ends earlier where
    total_steps are played"""
    total_steps: Annotated[int, Between(1024, 10**9)] = 400_000
    """over which learning rate and clip range fall to 0: what the CPU minutes are expected to do"""
    marks: Annotated[tuple[float, ...] | None, Between(0.0, 10_000.0, "(]")] = None
    """CPU minutes after which it is evaluated, beside the end (default: 5 15 25 34, up to
    cpu_minutes)"""
    games: Annotated[int, Between(1, 1024)] = 64
    """of an evaluation"""
    game: str = "Breakout"
    """as ALE spells it"""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    """of games and networks"""
    against: tuple[Path, ...] = ()
    """folders of this project's runs to compare with"""
    measured: Path | None = None
    """folder of an earlier measurement: compares that one and trains nothing"""

    def __post_init__(self) -> None:
        """Checks the marks against the time, too."""
        super().__post_init__()
        most, limit = max(self.marks or (0.0,)), self.cpu_minutes
        require(most <= limit, "marks", most, f"at most cpu_minutes = {limit:g}")

    @property
    def minutes(self) -> list[float]:
        """The marks in order, with the end."""
        marks = USUAL_MARKS if self.marks is None else self.marks
        return sorted({x for x in marks if x < self.cpu_minutes} | {self.cpu_minutes})
