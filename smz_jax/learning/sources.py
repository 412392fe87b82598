"""Where the loop gets its experience, without knowing who made it.

There is one source, play (`acting.actor.Actor`). A data set or recorded play is another class with
the same methods.
"""

from typing import Any, Protocol

from smz_jax.types import Array, Experience, Params


class Source(Protocol):
    """Gives rows of experience, and can continue where it stood."""

    count: int
    """Steps of every lane so far."""

    def next(self, params: Params, learner_step: Array | int = 0) -> Experience:
        """The rows of one iteration; raises GameFault where there can be no more.

        `learner_step` is that of the parameters: the rows' `target_step`.
        """
        ...

    @property
    def games(self) -> Any:
        """Where it stands between two iterations: a pytree of NumPy arrays of fixed shapes."""
        ...

    def restore(self, games: Any, count: int) -> None:
        """Continues from `games` and `count`."""
        ...

    def close(self) -> None:
        """Frees what it holds; may be called twice."""
        ...
