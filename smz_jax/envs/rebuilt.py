"""Games that can be resumed: the library's games are closed and opened anew on a schedule.

envpool cannot clone its games, and the generators of sticky actions and random no-ops are out of
reach. So a vector is rebuilt every `every` steps of its lanes, with a seed that follows from the
run's seed and the rebuild's number: in a run that is stopped and in one that never was. What a
checkpoint needs is the number and the actions since; they are played again.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.envs.protocol import GameFault, VectorEnv, first_line
from smz_jax.types import Timestep

MAX_RESTARTS = 3
"""Rebuilds after an error of the library between two that are due."""


class GamesState(NamedTuple):
    """Where games stand; NumPy, of fixed shapes."""

    number: np.ndarray  # [] int64, rebuilds so far
    failures: np.ndarray  # [] int64, errors of the library since one that was due
    failed: np.ndarray  # [] bool, whether the last step was such an error
    count: np.ndarray  # [] int64, n, steps since the last rebuild
    actions: np.ndarray  # [every, B] int32, the first n


class RebuiltEnv(VectorEnv):
    """A `VectorEnv` of games that are rebuilt.

    The step before a rebuild truncates every game that is not over, so that its last observation
    is a final one like any other; the next step ignores its actions and starts the new games. An
    error of the library, and a number that is not finite, does the same at once, with what was seen
    last: nothing is learned from such a step.
    """

    def __init__(self, make: Callable[[int], VectorEnv], every: int) -> None:
        """Opens the first games.

        Args:
            make: opens the games of a rebuild, given its number.
            every: steps of each lane between two rebuilds.
        """
        self._make, self._every = make, every
        self.restarts = 0  # errors of the library so far
        self._failures = 0
        self._open(0)
        self.spec, self.num_envs = self._env.spec, self._env.num_envs
        self.cut = np.zeros(self.num_envs, np.bool_)
        """`[B]`, games that the last step cut off: their scores are not those of whole games."""

    def _open(self, number: int) -> None:
        self._number = number
        self._env = self._make(number)
        self._actions: list[np.ndarray] = []  # that something came of
        self._last: Timestep | None = None
        self._due = self._failed = False

    @property
    def state(self) -> GamesState:
        """What `restore` needs; not while a step is on its way."""
        count = len(self._actions)
        actions = np.zeros((self._every, self.num_envs), np.int32)
        actions[:count] = np.reshape(self._actions, (count, self.num_envs))
        numbers = map(np.array, (self._number, self._failures, self._failed, count))
        number, failures, failed, steps = numbers
        return GamesState(number, failures, failed, steps, actions)

    def restore(self, state: GamesState) -> Timestep:
        """Opens the games of a state and plays its actions again; gives the last step.

        Raises:
            GameFault: in one line, if the games fail at that again and again: games that are
                opened anew instead would be others than those of the run.
        """
        played = np.array(state.actions[: int(state.count)], np.int32)
        for attempt in range(1, MAX_RESTARTS + 2):
            try:
                self._rebuild(int(state.number))
                self._start()
                for actions in played:
                    self._env.send(actions)
                    self._last = self._env.recv()
                break
            except Exception as error:
                _raise_mistake(error)
                self._failed = True
                if attempt > MAX_RESTARTS:
                    raise GameFault(
                        f"the games failed {attempt} times when the {len(played)} steps since "
                        f"their last rebuild were played again: {first_line(error)}"
                    ) from error
        self._actions = list(played)
        self._failures, self._failed = int(state.failures), bool(state.failed)
        return self._seen()

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        with self._noting_errors():
            return self._start()
        return self._reopen()

    def _start(self) -> Timestep:
        self._last = self._env.reset()
        self.cut = np.zeros(self.num_envs, np.bool_)
        return self._last

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane, or a rebuild where one is due; see `VectorEnv.send`."""
        if self._due or self._failed:
            return
        with self._noting_errors():
            self._env.send(actions)
            self._sent = np.array(actions, np.int32)

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        if self._due:
            return self._reopen()
        if not self._failed:
            with self._noting_errors():
                self._last = self._env.recv()
                self._actions.append(self._sent)
        return self._seen()

    def close(self) -> None:
        """Frees the games; see `VectorEnv.close`."""
        self._env.close()

    def _reopen(self) -> Timestep:
        """Opens the next games; tries again where they fail at once."""
        while True:
            with self._noting_errors():
                self._rebuild(self._number + 1)
                return self._start()

    def _rebuild(self, number: int) -> None:
        self.close()
        self._open(number)

    def _seen(self) -> Timestep:
        """The last step; one after which every game is over where the next is a rebuild."""
        last = self._last
        assert last is not None
        self._due = self._failed or len(self._actions) >= self._every
        if self._failed:  # nothing came of the actions: the games end where they were seen last
            nothing, over = np.zeros_like(last.reward), np.zeros_like(last.game_over)
            last = last._replace(
                reward=nothing,
                raw_reward=nothing,
                terminated=over,
                truncated=over,
                game_over=over,
                is_first=last.game_over,
            )
        elif self._due:
            self._failures = 0
        self.cut = ~last.game_over & self._due
        return last._replace(
            truncated=last.truncated | self.cut, game_over=last.game_over | self.cut
        )

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Notes an error of the games; gives up where there were too many, or it is none of them.

        Raises:
            GameFault: in one line, after `MAX_RESTARTS` in a row.
            ConfigError: if it is that: wrong actions or settings.
        """
        try:
            yield
        except Exception as error:
            _raise_mistake(error)
            self.restarts += 1
            self._failures += 1
            if self._failures > MAX_RESTARTS:
                raise GameFault(
                    f"the games failed {self._failures} times with no rebuild between: "
                    f"{first_line(error)}"
                ) from error
            self._failed = True


def _raise_mistake(error: Exception) -> None:
    """Raises what no new games can mend: wrong actions or settings."""
    if isinstance(error, ConfigError) and not isinstance(error, GameFault):
        raise error
