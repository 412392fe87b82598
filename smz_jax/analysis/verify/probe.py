"""What embeddings tell of ball and agent: a linear probe, with the console's memory as truth.

It is fitted by ridge regression on real observations of some games, in the space where ends are
compared, and reads the ends of trials in the other games: foreseen ones, and real ones, whose error
is the floor.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RIDGE = 0.1
"""Weight of the penalty, of a row of standardised columns."""


class Memory(NamedTuple):
    """Where a game's memory keeps what is seen; pixels of the console's screen."""

    agent: int  # address of where the agent stands
    read: Mapping[str, int]  # addresses by name
    there: int  # address that is 0 while there is no ball


MEMORY = {"Breakout": Memory(72, {"ball x": 99, "ball y": 101, "paddle x": 72}, 101)}
"""Addresses of Anand et al. 2019 (AtariARI)."""


class Look(NamedTuple):
    """What was seen in play, and the memory then."""

    observation: np.ndarray  # [F, H, W]
    ram: np.ndarray  # [128] uint8
    game: int


class Probe(NamedTuple):
    """A linear map from embeddings."""

    mean: np.ndarray  # [E]
    scale: np.ndarray  # [E]
    weights: np.ndarray  # [E, Q]
    offset: np.ndarray  # [Q]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """`[N, E]` to what is read of them, `[N, Q]`."""
        return (rows - self.mean) / self.scale @ self.weights + self.offset


def truth(memory: Memory, ram: np.ndarray) -> np.ndarray:
    """What the memory `[..., 128]` says, `[..., Q]`; NaN while there is no ball."""
    found = ram[..., list(memory.read.values())].astype(np.float64)
    return np.where(ram[..., memory.there, None] > 0, found, np.nan)


def fit_probe(rows: np.ndarray, told: np.ndarray) -> Probe:
    """Ridge regression: min_W |X W - Y|^2 + RIDGE N |W|^2, columns of X standardised, Y centred.

    Args:
        rows: `[N, E]` embeddings.
        told: `[N, Q]` what they are of; rows with NaN are left out.
    """
    known = np.isfinite(told).all(axis=1)
    rows, told = rows[known].astype(np.float64), told[known]
    if not len(rows):
        nothing = np.zeros(rows.shape[1])
        return Probe(nothing, nothing + 1, np.zeros((len(nothing), told.shape[1])), told.sum(0))
    mean, scale, offset = rows.mean(0), np.maximum(rows.std(0), 1e-9), told.mean(0)
    x = (rows - mean) / scale
    square = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
    return Probe(mean, scale, np.linalg.solve(square, x.T @ (told - offset)), offset)


def fit_probes(rows: np.ndarray, looks: Sequence[Look], memory: Memory) -> tuple[Probe, Probe]:
    """A probe for even games, fitted on odd ones, and one for odd games; `rows [N, E]` of looks."""
    odd = np.array([look.game % 2 for look in looks]) == 1
    told = truth(memory, np.stack([look.ram for look in looks]))
    return fit_probe(rows[odd], told[odd]), fit_probe(rows[~odd], told[~odd])
