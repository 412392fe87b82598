"""Loops and branches of the search: decided on the way, or fixed for accelerators."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from smz_jax.config.check import require
from smz_jax.config.search import SearchConfig
from smz_jax.types import Array


class Control(NamedTuple):
    """How loops end and branches are taken; the results are the same."""

    static: bool

    def branch(self, condition: Array, compute: Callable[[], Any], skip: Callable[[], Any]) -> Any:
        """`compute()` where the scalar condition holds, else `skip()`; static: always `compute()`.

        What `compute()` gives must be that of `skip()` in all rows for which it is not needed.
        """
        return compute() if self.static else jax.lax.cond(condition, compute, skip)

    def repeat(self, goes_on: Callable[[Any], Array], body: Any, start: Any, most: int) -> Any:
        """Repeats `body` while it `goes_on`; static: `most` times, the last ones change nothing."""
        if self.static:
            return jax.lax.fori_loop(0, most, lambda _, carry: body(carry), start)
        return jax.lax.while_loop(goes_on, body, start)


def make_control(settings: SearchConfig) -> Control:
    """The settings' control; on accelerators it is static where they leave it open.

    XLA:GPU reads the condition of a loop or of a branch on the host, tens of microseconds each.

    Raises:
        ConfigError: if rows are to be gathered, whose number a static search does not know.
    """
    is_open = settings.static is None
    static = jax.default_backend() != "cpu" if is_open else bool(settings.static)
    allowed = "unset where search.static is on" + (", as on accelerators" if is_open else "")
    fits = not static or settings.row_multiple is None
    require(fits, "search.row_multiple", settings.row_multiple, allowed)
    return Control(static)
