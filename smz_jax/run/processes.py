"""What the processes of one run know together, and what one of them does for all.

All make the same run with the same numbers, in step: each steps its own lanes and holds its own
rings, and the devices of all are one mesh (`docs/devices.md`). The first one alone evaluates and
writes. `smz_jax/run/joining.py` starts and ends them. JAX is imported within the functions:
processes are joined before it starts.
"""

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from smz_jax.config.check import ConfigError
from smz_jax.run.signals import StopSignal
from smz_jax.storage.files import plain
from smz_jax.storage.metrics import PhaseTimers

T = TypeVar("T")

_rounds, _asides = itertools.count(), itertools.count()
_over = threading.Event()


def is_first() -> bool:
    """Whether this is the process that evaluates and writes."""
    import jax

    return jax.process_index() == 0


def gather(value: T) -> list[T]:
    """`value` of every process, in their order; what JSON can hold. All call this, and wait."""
    import jax

    if (count := jax.process_count()) == 1:
        return [value]
    client = _client()
    number, own = next(_rounds), jax.process_index()
    client.key_value_set(f"smz/{number}/{own}", json.dumps(plain(value)))
    found = [json.loads(_wait_for(client, f"smz/{number}/{one}")) for one in range(count)]
    if number:  # all have read what was said before
        client.key_value_delete(f"smz/{number - 1}/{own}")
    found[own] = value
    return found


def _client() -> Any:
    """JAX's store of keys and values, which all processes of the run see."""
    from jax._src.distributed import global_state

    return global_state.client


def _wait_for(client: Any, key: str) -> str:
    """A value that another process gives, however late; a second signal ends the waiting.

    Raises:
        OSError: if this process is ending.
    """
    import jax

    while True:
        try:
            return client.blocking_key_value_get(key, 1000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            if _over.is_set():
                raise OSError("the run ended before another process answered") from None


def stop_waiting() -> None:
    """Nothing is to be heard of the other processes any more; threads that wait for them end."""
    _over.set()


def alone(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, to all: the others wait. All call this.

    Raises:
        ConfigError, GameFault, OpponentFault: in all processes, as `make` does.
    """
    import jax

    if jax.process_count() == 1:
        return make()
    answer: list[Any] = [None, None]
    if is_first():
        try:
            answer[0] = make()
        except ConfigError as error:
            answer[1] = [type(error).__name__, str(error)]
    told, fault = gather(answer)[0]
    if fault:
        from smz_jax.envs import GameFault, OpponentFault

        kinds = {x.__name__: x for x in (GameFault, OpponentFault)}
        raise kinds.get(fault[0], ConfigError)(fault[1])
    return told


def beside() -> Callable[[Callable[[], T]], list[T]]:
    """What a thread of each process makes beside the run, for the first one. All call this.

    Returns:
        A function that each process calls once with what it makes. In the first one it waits for
        all, whatever happened to its own, and gives what they made, as JSON holds it, in their
        order; in the others their own. It raises what `make` raised, and OSError in the first
        process where that was in another.
    """
    import jax

    count, own, name = jax.process_count(), jax.process_index(), f"smz/beside/{next(_asides)}"
    if count == 1:
        return lambda make: [make()]
    client = _client()

    def among(make: Callable[[], T]) -> list[T]:
        if own:
            answer: list[Any] = [None, "it ended"]
            try:
                answer = [made := make(), None]
            except Exception as error:
                answer[1] = (str(error).splitlines() or [""])[0] or type(error).__name__
                raise
            finally:
                client.key_value_set(f"{name}/{own}", json.dumps(plain(answer)))
            return [made]
        found, faults = [], []
        try:
            found.append(make())
        except Exception as error:
            faults.append(error)
        for one in range(1, count):
            made, fault = json.loads(_wait_for(client, f"{name}/{one}"))
            client.key_value_delete(f"{name}/{one}")
            found.append(made)
            if fault:
                faults.append(OSError(f"process {one}: {fault}"))
        if faults:
            raise faults[0]
        return found

    return among


def cpu_seconds(timers: PhaseTimers) -> float | None:
    """CPU seconds of all processes so far; None: not known. All call this."""
    found = gather(timers.cpu_seconds)
    return None if None in found else sum(x for x in found if x is not None)


class AgreedStop(StopSignal):
    """A signal to any of the processes, seen by all at the same question `bool(stop)`."""

    _agreed: int | None = None

    def __bool__(self) -> bool:
        if self._agreed is None:
            self._agreed = next((x for x in gather(self.number) if x is not None), None)
            self.number = self._agreed if self.number is None else self.number
        return self._agreed is not None
