"""Games that can be resumed: the library's games are opened anew on a schedule.

envpool cannot clone its games, and the generators of sticky actions and random no-ops are out of
reach. So another vector is opened every `every` + 1 steps, with a seed that follows from the run's
seed and the vector's number: in a run that is stopped and in one that never was. A lane moves to
the newest vector when its game is over, and rests in all others; a vector without lanes is closed.
What a checkpoint needs is the numbers and the actions since; they are played again.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.envs.protocol import GameFault, RestingEnv, VectorEnv, check_actions, first_line
from smz_jax.types import Timestep

MAX_RESTARTS = 3
"""Times that all games are opened anew after an error of the library, while no vector is due."""
EXTRA_PERIODS = 3
"""After its own one, in which a vector's games are played to their end; then they are cut off. So
no game of up to 3 (`every` + 1) steps is."""


class GamesState(NamedTuple):
    """Where games stand; NumPy, of fixed shapes. Steps count from the oldest vector's opening."""

    number: np.ndarray  # [] int64, of the oldest vector that has lanes
    failures: np.ndarray  # [] int64, errors of the library since a vector was due
    failed: np.ndarray  # [] bool, whether the last step was such an error
    count: np.ndarray  # [] int64, n, steps so far
    entered: np.ndarray  # [B] int64, step at which a lane came to its vector: the newest one then
    actions: np.ndarray  # [(EXTRA_PERIODS + 1) (every + 1) - 1, B] uint8 or wider, the first n


def join_states(parts: GamesState, every: int) -> GamesState:
    """The state of all lanes of the states of some, whose arrays are `[parts, ...]`.

    Their vectors are opened every `every` + 1 steps, at the same ones. The oldest vector is that
    of all; actions of a lane before it came to its own one are 0, and are not played again.
    """
    number = parts.number.min()
    later = (parts.number - number) * (every + 1)
    count, rows = later + parts.count, parts.actions.shape[1]
    assert (count == count[0]).all() and not parts.failed.any(), "the parts are not at one step"
    actions = np.zeros_like(parts.actions)
    for part, (shift, own) in enumerate(zip(later, parts.actions, strict=True)):
        actions[part, shift:] = own[: rows - shift]
    return GamesState(
        number=np.array(number),
        failures=np.array(parts.failures.max()),
        failed=np.array(False),
        count=np.array(count[0]),
        entered=(parts.entered + later[:, None]).reshape(-1),
        actions=np.moveaxis(actions, 0, 1).reshape(rows, -1),
    )


def own_state(state: GamesState, lanes: slice) -> GamesState:
    """The state of some of the lanes."""
    return state._replace(entered=state.entered[lanes], actions=state.actions[:, lanes])


class RebuiltEnv(VectorEnv):
    """A `VectorEnv` whose games move from one vector to the next.

    A game that outlives its vector's period by `extra` more is truncated in the step before the
    next vector opens, so that its last observation is a final one like any other. An error of the
    library, and a number that is not finite, truncates all games at once, with what was seen last:
    nothing is learned from such a step, and the next one opens all games anew.
    """

    def __init__(
        self, make: Callable[[int], RestingEnv], every: int, extra: int = EXTRA_PERIODS
    ) -> None:
        """Opens the first vector.

        Args:
            make: opens the vector of a number; its lanes must not depend on each other.
            every: a vector is the newest one for `every` + 1 steps.
            extra: see `EXTRA_PERIODS`.
        """
        self._make, self._period, self._extra = make, every + 1, extra
        self.restarts = 0  # errors of the library so far
        self._failures = 0
        self._vectors: dict[int, RestingEnv] = {}
        self._begin(0)
        env = self._open(0)
        self.spec, self.num_envs = env.spec, env.num_envs
        self._entered = np.zeros(self.num_envs, np.int64)
        self.cut = np.zeros(self.num_envs, np.bool_)
        """`[B]`, games that the last step cut off: their scores are not those of whole games."""

    def _begin(self, number: int) -> None:
        """Closes all games; those of `number` are the next ones."""
        self.close()
        self._vectors, self._oldest = {}, number
        self._actions: list[np.ndarray] = []  # that something came of, since the oldest opened
        self._last: Timestep | None = None
        self._failed = self._is_told = False

    def _open(self, number: int) -> RestingEnv:
        env = self._vectors[number] = self._make(number)
        return env

    def _number(self, step: np.ndarray | int) -> np.ndarray:
        """Number of the vector that is the newest one at a step."""
        return np.asarray(self._oldest + step // self._period)

    @property
    def state(self) -> GamesState:
        """What `restore` needs; not while a step is on its way."""
        count = len(self._actions)
        rows = (self._extra + 1) * self._period - 1
        kind = np.min_scalar_type(self.spec.num_actions - 1)
        actions = np.zeros((rows, self.num_envs), kind)
        actions[:count] = np.reshape(self._actions, (count, self.num_envs))
        numbers = map(np.array, (self._oldest, self._failures, self._failed, count))
        number, failures, failed, steps = numbers
        return GamesState(number, failures, failed, steps, self._entered.copy(), actions)

    def restore(self, state: GamesState) -> Timestep:
        """Opens the vectors of a state and plays its actions again; gives the last step.

        Raises:
            GameFault: in one line, if the games fail at that again and again: games that are
                opened anew instead would be others than those of the run.
        """
        played = list(np.array(state.actions[: int(state.count)], np.int32))
        for attempt in range(1, MAX_RESTARTS + 2):
            try:
                self._begin(int(state.number))
                self._actions, self._entered = played, np.array(state.entered, np.int64)
                numbers = {int(x) for x in self._number(np.append(self._entered, len(played)))}
                self._look({number: self._replay(number) for number in sorted(numbers)})
                break
            except Exception as error:
                _raise_mistake(error)
                if attempt > MAX_RESTARTS:
                    raise GameFault(
                        f"the games failed {attempt} times when the {len(played)} steps since "
                        f"their last rebuild were played again: {first_line(error)}"
                    ) from error
        self._failures, self._failed = int(state.failures), bool(state.failed)
        return self._seen()

    def _replay(self, number: int) -> Timestep:
        """Opens a vector and plays those lanes again that are in it; gives its last step."""
        env, opened = self._open(number), (number - self._oldest) * self._period
        elsewhere, step = self._number(self._entered) != number, env.reset()
        env.rest(elsewhere | (self._entered > opened))
        for count, actions in enumerate(self._actions[opened:], opened + 1):
            env.rest(elsewhere | (self._entered > count))
            env.send(actions)
            step = env.recv()
        return step

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        if self._last is None:
            with self._noting_errors():
                return self._start()
        return self._reopen()

    def _start(self) -> Timestep:
        self._last = self._vectors[self._oldest].reset()
        self._entered = np.zeros(self.num_envs, np.int64)
        self.cut = np.zeros(self.num_envs, np.bool_)
        return self._last

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane; opens a vector where one is due; see `VectorEnv.send`."""
        if self._failed:
            return
        actions = check_actions(actions, self.num_envs, self.spec.num_actions)
        with self._noting_errors():
            assert self._last is not None, "send() before reset()"
            count = len(self._actions) + 1
            newest = int(self._number(count))
            moves = self._last.game_over & (self._number(self._entered) != newest)
            entered = np.where(moves, count, self._entered)
            home = self._number(entered)
            for number in self._vectors.keys() - {newest, *home.tolist()}:
                self._vectors.pop(number).close()
            first = {} if newest in self._vectors else {newest: self._open(newest).reset()}
            for number, env in self._vectors.items():
                env.rest(home != number)
                if number not in first:
                    env.send(actions)
            self._sent = actions, entered, first

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        if self._is_told:
            return self._reopen()
        if not self._failed:
            with self._noting_errors():
                actions, entered, steps = self._sent
                for number, env in self._vectors.items():
                    steps[number] = steps.get(number) or env.recv()
                self._actions.append(actions)
                self._entered = entered
                self._look(steps)
                past = int(self._entered.min()) // self._period
                self._oldest += past
                self._entered = self._entered - past * self._period
                del self._actions[: past * self._period]
        return self._seen()

    def close(self) -> None:
        """Frees the games; see `VectorEnv.close`."""
        for env in self._vectors.values():
            env.close()

    def _reopen(self) -> Timestep:
        """Opens all games anew; tries again where they fail at once."""
        while True:
            with self._noting_errors():
                self._begin(int(self._number(len(self._actions))) + 1)
                self._open(self._oldest)
                return self._start()

    def _look(self, steps: dict[int, Timestep]) -> None:
        """Joins what the lanes show in their vectors, and cuts off what has lasted for too long."""
        home, count = self._number(self._entered), len(self._actions)
        last = steps[int(home[0])]
        if (home != home[0]).any():
            last = Timestep(*(x.copy() for x in last))
            for number in steps:
                lanes = home == number
                for whole, part in zip(last, steps[number], strict=True):
                    whole[lanes] = part[lanes]
        self.cut = np.zeros(self.num_envs, np.bool_)
        if (count + 1) % self._period == 0:
            self._failures = 0
            self.cut = ~last.game_over & (home + self._extra <= self._number(count))
        self._last = last._replace(
            truncated=last.truncated | self.cut, game_over=last.game_over | self.cut
        )

    def _seen(self) -> Timestep:
        """The last step; where the library failed, one after which every game is over."""
        last = self._last
        assert last is not None
        if self._failed:  # nothing came of the actions: the games end where they were seen last
            every = np.ones_like(last.game_over)
            self._is_told, self.cut = True, every
            last = last._replace(
                reward=np.zeros_like(last.reward),
                raw_reward=np.zeros_like(last.raw_reward),
                terminated=~every,
                truncated=every,
                game_over=every,
                is_first=last.game_over,
            )
        return last

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
