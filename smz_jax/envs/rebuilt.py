"""Games that can be resumed: the library's games are closed and opened anew on a schedule.

envpool cannot clone its games, and the generators of sticky actions and random no-ops are out of
reach. So a vector is rebuilt every `every` steps of its lanes, with a seed that follows from the
run's seed and the rebuild's number: in a run that is stopped and in one that never was. What a
checkpoint needs is the number and the actions since; they are played again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class RebuiltEnv:
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
        self._env: VectorEnv | _Closed = make(0)
        self.spec, self.num_envs = self._env.spec, self._env.num_envs
        self.restarts = 0  # errors of the library so far
        self.cut = np.zeros(self.num_envs, np.bool_)
        """`[B]`, games that the last step cut off: their scores are not those of whole games."""
        self._number = self._failures = 0
        self._begin()

    def _begin(self) -> None:
        self._actions: list[np.ndarray] = []
        self._last: Timestep | None = None
        self._due = self._failed = False

    @property
    def state(self) -> GamesState:
        """What `restore` needs; not while a step is on its way."""
        actions = np.zeros((self._every, self.num_envs), np.int32)
        count = len(self._actions)
        if count:
            actions[:count] = self._actions
        return GamesState(
            np.array(self._number, np.int64),
            np.array(self._failures, np.int64),
            np.array(self._failed, np.bool_),
            np.array(count, np.int64),
            actions,
        )

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
                last = self._start()
                for actions in played:
                    self._env.send(actions)
                    last = self._env.recv()
                break
            except Exception as error:
                _raise_mistake(error)
                self._env = _Closed(self._env)
                if attempt > MAX_RESTARTS:
                    raise GameFault(
                        f"the games failed {attempt} times when the {len(played)} steps since "
                        f"their last rebuild were played again: {first_line(error)}"
                    ) from error
        self._actions, self._last = list(played), last
        self._failures, self._failed = int(state.failures), bool(state.failed)
        if self._failed:
            self._env = _Closed(self._env)
        return self._cut_off(last) if self._failed or self._is_due else last

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        try:
            return self._start()
        except Exception as error:
            self._fail(error)
            return self._reopen()

    def _start(self) -> Timestep:
        first = self._last = self._env.reset()
        self.cut = np.zeros(self.num_envs, np.bool_)
        return first

    def step(self, actions: np.ndarray) -> Timestep:
        """Steps every lane; see `VectorEnv.step`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane, or a rebuild where one is due; see `VectorEnv.send`."""
        if self._due:
            return
        try:
            self._env.send(actions)
            self._actions.append(np.asarray(actions, np.int32))
        except Exception as error:
            self._fail(error)

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        if self._due:
            return self._reopen()
        if not self._failed:
            try:
                self._last = self._env.recv()
            except Exception as error:
                del self._actions[-1:]  # nothing came of them
                self._fail(error)
        assert self._last is not None
        if self._failed or self._is_due:
            if not self._failed:
                self._failures = 0
            return self._cut_off(self._last)
        self.cut = np.zeros(self.num_envs, np.bool_)
        return self._last

    @property
    def _is_due(self) -> bool:
        return len(self._actions) >= self._every

    def close(self) -> None:
        """Frees the games; see `VectorEnv.close`."""
        self._env.close()

    def _reopen(self) -> Timestep:
        """Opens the next games; tries again where they fail at once."""
        while True:
            try:
                self._rebuild(self._number + 1)
                return self._start()
            except Exception as error:
                self._fail(error)

    def _rebuild(self, number: int) -> None:
        self._env.close()
        self._number = number
        self._env = self._make(number)
        self._begin()

    def _cut_off(self, last: Timestep) -> Timestep:
        """The step as one after which every game is over."""
        self._due = True
        if self._failed:  # nothing came of the actions: the games end where they were seen last
            nothing = np.zeros_like(last.reward)
            over = np.zeros_like(last.game_over)
            last = last._replace(
                reward=nothing,
                raw_reward=nothing,
                terminated=over,
                truncated=over,
                game_over=over,
                is_first=last.game_over,
            )
        self.cut = ~last.game_over
        return last._replace(
            truncated=last.truncated | self.cut, game_over=np.ones(self.num_envs, np.bool_)
        )

    def _fail(self, error: Exception) -> None:
        """Notes an error of the games; gives up where there were too many, or it is none of them.

        Raises:
            GameFault: in one line, after `MAX_RESTARTS` in a row.
            ConfigError: if it is that: wrong actions or settings.
        """
        _raise_mistake(error)
        self.restarts += 1
        self._failures += 1
        if self._failures > MAX_RESTARTS:
            raise GameFault(
                f"the games failed {self._failures} times with no rebuild between: "
                f"{first_line(error)}"
            ) from error
        self._failed = True
        self._env = _Closed(self._env)


def _raise_mistake(error: Exception) -> None:
    """Raises what no new games can mend: wrong actions or settings."""
    if isinstance(error, ConfigError) and not isinstance(error, GameFault):
        raise error


class _Closed:
    """Stands in for games that failed: all that is left to do is to close them."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def close(self) -> None:
        try:
            self._env.close()
        except Exception:  # it failed before
            return

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the games failed: {name} is not there any more")
