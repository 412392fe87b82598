"""Boards of two players as text: the pieces that stand now, read from what pgx shows who moves.

A piece has the letter of its owner all the time, whoever is to move: A and B where there is one
kind of piece, else capital letters for player 0, who began, and small ones for player 1, as in FEN
and SFEN. Chess and shogi turn the board, so that who moves has its own side below.
"""

from typing import NamedTuple

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.types import Timestep


class Layout(NamedTuple):
    """Which planes of a frame `[H, W, planes]` hold the position; others tell of the past."""

    pieces: tuple[str, ...] = ("A",)  # of player 0; the mover's planes are the first ones
    others: int = 1  # first plane of the other player's pieces
    hand: str = ""  # a letter for each plane that is set if one piece more of it is in hand
    hands: tuple[int, int] = (0, 0)  # first plane of the mover's hand, and of the other one's
    is_hex: bool = False

    def names(self, player: int) -> list[str]:
        """Of the player's pieces, in the order of their planes."""
        if len(self.pieces) == 1:
            return ["AB"[player]]
        return [x.lower() if player else x for x in self.pieces]


_CHESS = Layout(tuple("PNBRQK"), 6)
_SHOGI = (*"PLNSBRGK", "+P", "+L", "+N", "+S", "+B", "+R")
_SHOGI_HAND = "P" * 8 + "LLLLNNNNSSSSGGGGBBRR"  # pgx shows 8 pawns at most
LAYOUTS = {
    **dict.fromkeys(("connect_four", "go_9x9", "go_19x19", "othello", "tic_tac_toe"), Layout()),
    "hex": Layout(is_hex=True),
    "chess": _CHESS,
    "gardner_chess": _CHESS,
    "animal_shogi": Layout(tuple("CEGLH"), 5, "CCEEGG", (10, 16)),
    "shogi": Layout(_SHOGI, 31, _SHOGI_HAND, (62, 90)),
}
"""By pgx's id. Animal shogi has chick, elephant, giraffe, lion and hen; + is a promoted piece."""


def layout_of(config: EnvConfig) -> Layout | None:
    """The layout of a game; None: it is no board of two players that is seen in planes."""
    return LAYOUTS.get(config.id) if config.suite == "pgx" else None


class Position(NamedTuple):
    """What stands on a board, and what is to be known beside it."""

    names: np.ndarray  # [H, W] of a cell's piece, "" where there is none
    owners: np.ndarray  # [H, W] player of the piece, -1 where there is none
    note: str  # one line; empty: nothing


def read_position(layout: Layout, timestep: Timestep) -> Position:
    """The position that the newest frame of the lane shows."""
    planes, mover = timestep.observation[0, -1] > 0, int(timestep.player[0])
    names, owners = np.full(planes.shape[:2], "", "<U2"), np.full(planes.shape[:2], -1)
    held = ["", ""]
    firsts = (0, layout.others)
    for player, first, hand in zip((mover, 1 - mover), firsts, layout.hands, strict=True):
        for plane, name in enumerate(layout.names(player), first):
            names[planes[..., plane]], owners[planes[..., plane]] = name, player
        letters = layout.hand.lower() if player else layout.hand
        held[player] = "".join(x for i, x in enumerate(letters, hand) if planes[0, 0, i])
    note = "A joins top and bottom, B left and right" if layout.is_hex else ""
    if layout.hand:
        note = f"in hand: {' '.join(filter(None, held)) or 'nothing'}"
    return Position(names, owners, note)


def board_text(layout: Layout, timestep: Timestep) -> str:
    """The board in letters, `.` where a cell is empty; rows of hex are shifted as its cells are."""
    names, _, note = read_position(layout, timestep)
    width, gap = max(map(len, layout.pieces)), " " * layout.is_hex
    rows = (gap.join(f"{x or '.':>{width}}" for x in row) for row in names.tolist())
    lines = [gap * i + row for i, row in enumerate(rows)]
    return "\n".join([*lines, note] if note else lines)
