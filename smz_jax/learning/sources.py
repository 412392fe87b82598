"""Where the loop gets its experience, without knowing who made it.

There are two sources: play (`acting.actor.Actor`) and a dataset (`run.stored_play.StoredPlay`).
"""

from typing import Any, Protocol

from smz_jax.types import Array, Experience, Params


class Source(Protocol):
    """Gives rows of experience, and can continue where it stood."""

    count: int
    """Rows of every lane that are, or were, in the replay so far."""

    def begin(self, replay_state: Any) -> Any:
        """The replay's state that a run begins with; the one given is consumed."""
        ...

    def next(self, params: Params, learner_step: Array | int, replay_state: Any) -> Experience:
        """The rows of one iteration; raises GameFault where there can be no more.

        `learner_step` is that of the parameters: the rows' `target_step`. The replay's state is
        consumed; the one of the `Experience` holds the rows.
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
