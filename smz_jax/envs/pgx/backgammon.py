"""Backgammon as pgx plays it: what is seen, back to checkers, and the names of the actions.

One action moves one checker by one die, `6 x source + die - 1`: source 0 is to skip, 1 the bar, and
2 + i the point 24 - i of who moves. A player whose dice are not all played moves again; then the
other one rolls. pgx's rules differ from a club's in two things: nobody has to play both dice, or
the higher one, where one alone can be played, and a checker on the bar is none in the winner's
home (2 points where a club counts 3). There is no doubling cube.
"""

from typing import Any

import numpy as np

POINTS, SIDES, SOURCES = 24, 6, 26
CHECKERS = 15
UNITS = 4
"""Numbers for the checkers of one player on a point (after Tesauro 1992, "Practical Issues in
Temporal Difference Learning"): at least 1, 2, 3, and how many more."""
ONE, MORE = 255, 255 // CHECKERS
"""Of a byte: a fact, and one of several checkers or dice that are counted."""
SIZE = 2 * (POINTS * UNITS + 2 + 1) + SIDES * UNITS
"""Length of a frame: each player's points, bar and checkers borne off, then the dice left."""
ROLLS = [(low, high) for low in range(1, 7) for high in range(low, 7)]
"""The 21 rolls of two dice that can be told apart."""
ROLL_CHANCES = np.array([(1 if low == high else 2) / 36 for low, high in ROLLS])
ROLL_ENTROPY = float(-(ROLL_CHANCES * np.log(ROLL_CHANCES)).sum())
"""Of a roll, in nats: 3.006."""


def frame_of(counts: Any, numpy: Any = np) -> Any:
    """A frame `[222]` uint8 of what pgx shows, `[34]` int32.

    `counts` has the mover's checkers above 0 and the other's below: 24 points, the two bars, both
    borne off; then how many dice of each number are left. `numpy` may be JAX's.
    """
    parts = []
    for own in (counts[:28], -counts[:28]):
        held = numpy.maximum(own, 0)
        points = held[:POINTS, None]
        facts = (points >= numpy.arange(1, UNITS)) * ONE
        parts.append(numpy.concatenate([facts, (points > 3) * (points - 3) * MORE], axis=1).ravel())
        bar = held[24:26].sum()
        parts.append(numpy.stack([(bar > 0) * ONE, bar * MORE, held[26:].sum() * MORE]))
    parts.append(((counts[28:, None] > numpy.arange(UNITS)) * ONE).ravel())
    return numpy.concatenate(parts).astype(numpy.uint8)


def counts_of(frames: np.ndarray) -> np.ndarray:
    """Back from frames `[N, 222]` to what pgx shows, `[N, 34]` int32; see `frame_of`."""
    frames, half = frames.astype(np.int32), POINTS * UNITS + 3
    counts = np.zeros((len(frames), 34), np.int32)
    for side, sign in enumerate((1, -1)):
        own = frames[:, side * half : (side + 1) * half]
        points = own[:, : POINTS * UNITS].reshape(-1, POINTS, UNITS)
        held = (points[..., :3] // ONE).sum(axis=2) + points[..., 3] // MORE
        counts[:, :POINTS] += sign * held
        counts[:, 24 + side] = sign * own[:, -2] // MORE
        counts[:, 26 + side] = sign * own[:, -1] // MORE
    counts[:, 28:] = (frames[:, 2 * half :].reshape(-1, SIDES, UNITS) // ONE).sum(axis=2)
    return counts


def only_one_skip(valid: Any) -> Any:
    """The valid actions `[156]` with one way to skip in place of pgx's six that are the same."""
    return valid & ((np.arange(SOURCES * SIDES) == 0) | (np.arange(SOURCES * SIDES) >= SIDES))


def name_of(action: int) -> str:
    """An action as players write it: 24/18, bar/22, 3/off; a die that is larger stands behind."""
    source, die = action // SIDES, action % SIDES + 1
    if source == 0:
        return "skip" if die == 1 else f"skip({die})"
    start = POINTS + 2 - source if source > 1 else POINTS + 1
    end = start - die
    target = str(end) if end > 0 else "off" + f"({die})" * (end < 0)
    return f"{'bar' if source == 1 else start}/{target}"


ACTION_NAMES = tuple(map(name_of, range(SOURCES * SIDES)))
