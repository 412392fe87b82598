"""The games that a person plays: steps, ways back, and the rows of what was played."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from smz_jax.acting.actor import join_rows
from smz_jax.envs import GameFault, Playable
from smz_jax.types import Decision, EnvSpec, SearchOutput, Timestep, Trajectory

SECONDS_OF_BOOKMARKS = 120
"""Of play to which a library goes back at once; behind it, games are played again."""


class PlayedGame(NamedTuple):
    """A game, or what was played of it."""

    rows: Trajectory  # [1, T, ...] NumPy, as the rollout makes them of the same actions
    raw: np.ndarray  # [1, T] float32, rewards as scored
    is_whole: bool  # it came to its end

    @property
    def score(self) -> float:
        """Sum of the raw rewards."""
        return float(self.raw.sum())


class _Bookmark(NamedTuple):
    """A place in a game to which its library goes back."""

    count: int  # actions before it
    now: Timestep
    go_back: Callable[[], None]


class PersonGames:
    """One game after the other; number i is the first game of lane i - 1 of a seed.

    Args:
        playable: an open game; it is closed by who opened it.
        every: steps from one bookmark to the next, where there are some.
    """

    def __init__(self, playable: Playable, every: int = 15) -> None:
        self._playable, self._every = playable, every
        self._env = playable.game.env
        self.spec: EnvSpec = self._env.spec
        self.done: list[PlayedGame] = []
        self.message = ""
        """What the person should know of the last key."""
        self._number = 0
        self.begin()

    def begin(self) -> None:
        """Starts the next game, and keeps what was played of this one."""
        if self._number:
            self.finish()
        self.now: Timestep = self._playable.begin(self._number)
        """Where the game stands."""
        self._number += 1
        self._steps, self._actions = [_compact(self.now)], list[int]()
        self._bookmarks: deque[_Bookmark] = deque(maxlen=SECONDS_OF_BOOKMARKS)
        self._mark()

    def _mark(self) -> None:
        if self._playable.bookmark is not None and len(self._actions) % self._every == 0:
            back = self._playable.bookmark()
            self._bookmarks.append(_Bookmark(len(self._actions), self.now, back))

    @property
    def number(self) -> int:
        """Of the game, from 1."""
        return self._number

    @property
    def count(self) -> int:
        """Actions that were played in this game."""
        return len(self._actions)

    @property
    def score(self) -> float:
        """Raw rewards of this game so far."""
        return float(sum(step.raw_reward[0] for step in self._steps))

    @property
    def is_over(self) -> bool:
        """Whether this game has ended."""
        return bool(self.now.game_over[0])

    @property
    def invalid(self) -> np.ndarray:
        """`[A]` bool, actions that are not allowed now."""
        return self.now.invalid_actions[0] > 0

    def act(self, action: int, *, replace: bool = False) -> bool:
        """Plays an action; gives whether it was played.

        One that is not allowed is refused; with `replace` the first that is allowed takes its
        place, as in a vector environment, where only FIRE is after a lost life.
        """
        self.message = ""
        if self.is_over:
            return False
        if self.invalid[action]:
            if not replace:
                self.message = f"{self.spec.action_space.name(action)} is not allowed here"
                return False
            action = int(self.invalid.argmin())
        step = self._env.step(np.array([action], np.int32))
        self._actions.append(action)
        self._steps.append(_compact(step))
        self.now = step
        if not self.is_over:
            self._mark()
        return True

    def undo(self, count: int) -> None:
        """Goes back by so many actions, or to the game's start; chance stays what it was.

        A library without bookmarks plays the game again from its start. Where that leads elsewhere
        what was played is kept, and the next game begins.
        """
        keep = max(len(self._actions) - count, 0)
        gone = len(self._actions) - keep
        while self._bookmarks and self._bookmarks[-1].count > keep:
            self._bookmarks.pop()
        try:
            is_same = self._go_to(keep)
        except GameFault:
            is_same = False
        if not is_same:
            self.finish(has_end=False)
            self.begin()
            self.message = "played again, the game went elsewhere: it is kept, and the next begins"
            return
        del self._actions[keep:], self._steps[keep + 1 :]
        how = "" if self._bookmarks else ", played again from the start"
        self.message = f"{gone} step{'s' * (gone != 1)} back{how}"

    def _go_to(self, count: int) -> bool:
        """Goes back to the place after so many actions; whether all looks as it did."""
        if self._bookmarks:
            start, self.now, go_back = self._bookmarks[-1]
            go_back()
        else:
            start, self.now = 0, self._playable.begin(self._number - 1)
        for at in range(start, count):
            if not _are_alike(self.now, self._steps[at]):
                return False
            self.now = self._env.step(np.array([self._actions[at]], np.int32))
        return _are_alike(self.now, self._steps[count])

    def finish(self, *, has_end: bool = True) -> None:
        """Keeps what was played of this game, if it is two actions at least.

        The last row of a part of a game is where it was cut: nothing is learned from its action.
        With `has_end` a game that is over gets the row of its final observation, which takes a step
        of the vector: where it stands elsewhere there is none.
        """
        steps, actions = self._steps, self._actions
        is_whole = has_end and self.is_over
        if is_whole:
            steps.append(_compact(self._env.step(np.zeros(1, np.int32))))
            actions.append(0)  # ignored, as that of any final observation
        if len(actions) > 1:
            self.done.append(PlayedGame(_rows(steps, actions, self.spec), _raw(steps), is_whole))
        self._steps, self._actions = [], []
        self._bookmarks.clear()


def _compact(step: Timestep) -> Timestep:
    """A step with its newest frame alone, of which rows are made."""
    return step._replace(observation=step.observation[:, -1:].copy())


def _are_alike(step: Timestep, stored: Timestep) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(_compact(step), stored, strict=True))


def _raw(steps: list[Timestep]) -> np.ndarray:
    """Raw rewards `[1, T]` that followed the actions."""
    return np.stack([step.raw_reward for step in steps[1:]], axis=1)


def _rows(steps: list[Timestep], actions: list[int], spec: EnvSpec) -> Trajectory:
    """T + 1 steps of one lane and the actions between them as rows `[1, T, ...]`.

    The policy target is the action that was played; nobody searched, and nobody knows how certain
    what follows is: value 0, entropy 1.
    """
    action = np.array([actions], np.int32)
    zeros = np.zeros(action.shape, np.float32)
    weights = np.eye(spec.num_options, dtype=np.float32)[action]
    no_faults, no_mask = zeros.astype(np.int32), zeros.astype(np.bool_)
    search = SearchOutput(action, weights, zeros, None, no_faults, no_mask)  # pyright: ignore
    played = Decision(search, zeros, zeros + 1)  # pyright: ignore[reportArgumentType]
    return jax.tree.map(np.asarray, join_rows([steps], played, 0))


def rows_of(games: list[PlayedGame]) -> tuple[Trajectory, np.ndarray]:
    """Games one after the other in one lane: rows `[1, T, ...]`, and raw rewards `[1, T]`."""
    rows = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *[game.rows for game in games])
    return rows, np.concatenate([game.raw for game in games], axis=1)
