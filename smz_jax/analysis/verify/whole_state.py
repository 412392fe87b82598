"""The test of the whole foreseen state: its rivals are real ends of other moments.

The end that a model foresees of a macro must be nearer to where the macro really ended than to

    in time    what was seen 1, 2 and 4 steps before that, and after it while NOOP is played
    later      where the macro ends 1, 2, 4 and 8 steps later with the agent in the same place: a
               few steps before the start NOOP is played for so long, then what was played there,
               then the macro
    elsewhere  where the macro ends from other states of play, at most `ELSEWHERE`: those where the
               agent stands nearest by the game's memory, if its address is known

All are under the same chance. Rivals whose newest frame is the real end's are dropped; those that a
lost life or the game's end hides are left out, and counted. Distances are cosines in the space of
`make_place`, and a tie is not nearer. Where a life or the game ends, at the latest with the last
action, the state is as foreseen if the model says that the episode ends at that very step (its
discount falls below 1/2); where it says so of a step that ends nothing, it is not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smz_jax.analysis.verify.outcomes import Outcome, play_from
from smz_jax.analysis.verify.played import StartState, is_over
from smz_jax.analysis.verify.tried_libraries import Macro
from smz_jax.config.settings import Config
from smz_jax.envs.atari.emulator import Emulator, EmulatorState
from smz_jax.envs.frames import push_frames

STEPS = (1, 2, 4)
"""Between a real end and its rivals in time."""
DELAYS = (1, 2, 4, 8)
"""Steps by which a macro begins later."""
ELSEWHERE = 9
NOOP = 0


class Moments(NamedTuple):
    """Rivals of a real end."""

    seen: Sequence[np.ndarray] = ()  # observations [F, H, W]
    kinds: Sequence[int] = ()  # of each, an index of `verify_json.MOMENTS`
    hidden: int = 0  # that were left out


def moments(
    emulator: Emulator,
    start: StartState,
    later: Sequence[EmulatorState | None],
    others: Sequence[StartState],
    macro: Macro,
    seed: int,
    config: Config,
) -> Moments:
    """Rivals of a macro's real end.

    Args:
        emulator: of the game.
        start: where the macro begins.
        later: as `later_starts` gives them.
        others: other states of play, those with the agent in the nearest place first.
        macro: its actions.
        seed: of the sticky actions, as in the macro's own run.
        config: of the run.
    """

    def run(begin: StartState, actions: Macro) -> Outcome:
        return play_from(emulator, begin, [actions], [seed], config)[actions][0]

    length, ahead = len(macro), run(start, (*macro, *[NOOP] * max(STEPS)))
    found: list[tuple[int, np.ndarray | None]] = []
    for step in (*(length - x for x in STEPS), *(length + x for x in STEPS)):
        there = observation_at(start, ahead, step, config) if step < ahead.ends else None
        found.append((0, there))
    begins = [(1, None if x is None else StartState(x, 0, 0)) for x in later]
    for kind, begin in (*begins, *((2, x) for x in others[:ELSEWHERE])):
        end = None if begin is None else run(begin, macro)
        found.append((kind, None if end is None or end.ends <= length else end.observation))
    own = ahead.frames[len(start.state.step.observation) + length - 1]
    seen = [(kind, x) for kind, x in found if x is not None]
    rivals = [(kind, x) for kind, x in seen if (x[-1] != own).any()]
    return Moments([x for _, x in rivals], [x for x, _ in rivals], len(found) - len(seen))


def observation_at(start: StartState, run: Outcome, step: int, config: Config) -> np.ndarray | None:
    """What was seen `[F, H, W]` some steps after a start state, or before it (None: not kept)."""
    if step < 0:
        return start.before[step] if -step <= len(start.before) else None
    first = start.state.step.observation
    since = run.frames[len(first) : len(first) + step]
    return push_frames(first, since, config.env.mark_start)


def later_starts(
    emulator: Emulator, start: StartState, seed: int, config: Config
) -> list[EmulatorState | None]:
    """States like a start state, but so much later as `DELAYS` says: the agent did the same since.

    None: the life ended on the way.
    """
    found, state, waited = [], start.back or start.state, 0
    for delay in DELAYS:
        if state is not None:
            state = _after(emulator, state, [NOOP] * (delay - waited), seed, config)
        waited = delay
        then = None if state is None else _after(emulator, state, start.since, seed, config)
        found.append(then)
    return found


def _after(
    emulator: Emulator, state: EmulatorState, actions: Sequence[int], seed: int, config: Config
) -> EmulatorState | None:
    """The state after some actions; None: the life ended."""
    step = emulator.restore(state, seed=seed)
    for action in actions:
        lives, step = step.lives, emulator.step(action)
        if is_over(step, lives, config):
            return None
    return emulator.clone()


def is_whole(own: Outcome, over: int, nearer: bool) -> bool:
    """Whether the whole state is as foreseen.

    Args:
        own: what a macro came to.
        over: number of the step that ends the episode by the model; a later one: none does.
        nearer: the foreseen end is nearer to the real one than to every rival.
    """
    if own.over or over < own.ends:
        return over == own.ends
    return nearer
