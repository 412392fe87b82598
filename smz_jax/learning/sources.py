"""Where experience comes from: what the loop asks for rows, without knowing who made them.

There is one source, play. A data set or recorded play is another class with the same methods.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from smz_jax.types import Array, Params, Trajectory


class Experience(NamedTuple):
    """What a source gives for one iteration."""

    rows: Trajectory  # [B, T, ...]
    games: list[tuple[float, int]]  # raw score and length of each game that ended
    metrics: dict[str, Array]  # counts, on the device
    restarts: int  # how often games that failed were opened anew meanwhile


class Source(Protocol):
    """Gives rows of experience, and can be gone on with where it stood."""

    @property
    def count(self) -> int:
        """Steps of every lane so far."""
        ...

    def next(self, params: Params) -> Experience:
        """The rows of one iteration; raises GameFault where there can be no more."""
        ...

    @property
    def games(self) -> Any:
        """Where it stands between two iterations: a pytree of NumPy arrays of fixed shapes."""
        ...

    def restore(self, games: Any, count: int) -> None:
        """Goes on from `games` and `count`."""
        ...

    def close(self) -> None:
        """Frees what it holds; may be called twice."""
        ...


class Play:
    """Games played by the newest parameters.

    Args:
        envs: the games of each pool (`RebuiltEnv`).
        actor: plays them (`Actor`).
    """

    def __init__(self, envs: Sequence[Any], actor: Any) -> None:
        self.envs, self.actor = envs, actor

    def next(self, params: Params) -> Experience:
        """See `Source`."""
        before = self._restarts
        rows, games = self.actor.rollout(params)
        return Experience(rows, games, self.actor.faults, self._restarts - before)

    @property
    def _restarts(self) -> int:
        return sum(env.restarts for env in self.envs)

    @property
    def count(self) -> int:
        """See `Source`."""
        return self.actor.count

    @property
    def games(self) -> Any:
        """See `Source`."""
        return self.actor.games

    def restore(self, games: Any, count: int) -> None:
        """See `Source`."""
        self.actor.restore(games, count)

    def close(self) -> None:
        """See `Source`."""
        for env in self.envs:
            env.close()
