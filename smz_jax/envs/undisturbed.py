"""The process kept as it was, whatever an environment's constructor, reset or close does to it.

A run rests on its signals, its folder, its output and the settings of its libraries. The global
generators of `random` and NumPy are left to the environments: nothing of this project draws there.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.process import ENDING_SIGNALS, RESTS_ON
from smz_jax.envs.protocol import error_text

TIMES: Counter[str] = Counter()
"""How often each thing was to be told."""


def tell(what: str, more: str = "") -> None:
    """Prints a line, `what` and more, the first time; counts it by `what`."""
    TIMES[what] += 1
    if TIMES[what] == 1:
        print(what + more, flush=True)


class _Kind(NamedTuple):
    """Something of the process that may be changed."""

    read: Callable[[], dict[Any, Any]]  # as it is now
    write: Callable[[dict[Any, Any]], Any]


@contextlib.contextmanager
def undisturbed(env_id: str, kinds: dict[str, _Kind] | None = None) -> Iterator[None]:
    """Puts back what the code within changes in this process, and tells once of each kind.

    Args:
        env_id: `EnvConfig.id`, which is told.
        kinds: what is compared: `IN_STEP`; None: everything.
    """
    kinds = _KINDS if kinds is None else kinds
    before = {name: kind.read() for name, kind in kinds.items()}
    try:
        yield
    finally:
        for name, kind in kinds.items():
            after = kind.read()
            is_changed = any(after.get(key) != value for key, value in before[name].items())
            if is_changed or kind is _SIGNALS:  # which a library in C changes unseen
                kind.write(before[name])
            if is_changed:
                tell(f"env.id = {env_id!r} changed {name}", " (put back)")


def close(games: Any, env_id: str) -> None:
    """Closes what a library opened; an error of that is told once, and passed over."""
    with undisturbed(env_id):
        try:
            games.close()
        except (Exception, SystemExit) as error:
            tell(f"env.id = {env_id!r} failed when it was closed", f": {error_text(error)}")


_WAKEUP = "wakeup"


def _handlers() -> dict[Any, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING_SIGNALS)}


def _signals() -> dict[Any, Any]:
    if not (handlers := _handlers()):
        return {}
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    return {**handlers, _WAKEUP: descriptor}


def _set_handlers(handlers: dict[Any, Any]) -> None:
    for number, handler in handlers.items():
        if number == _WAKEUP:
            signal.set_wakeup_fd(handler, warn_on_full_buffer=False)
        elif handler is not None:  # one that was not set by Python
            signal.signal(number, handler)


def _folder() -> dict[str, str]:
    with contextlib.suppress(OSError):  # it was deleted
        return {"folder": os.getcwd()}
    return {}


def _set_folder(folder: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder["folder"])


def _logging() -> dict[str, Any]:
    root = logging.root
    return {"level": root.level, "handlers": [*root.handlers], "off": root.manager.disable}


def _set_logging(former: dict[str, Any]) -> None:
    logging.root.setLevel(former["level"])
    logging.root.handlers[:] = former["handlers"]
    logging.disable(former["off"])


def _jax() -> dict[str, Any]:
    config = getattr(sys.modules.get("jax"), "config", None)  # imported later, it is set up later
    return {name: getattr(config, name) for name in RESTS_ON} if config else {}


def _set_jax(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        sys.modules["jax"].config.update(name, value)


def _set_output(streams: dict[str, Any]) -> None:
    sys.stdout, sys.stderr = streams["stdout"], streams["stderr"]


_SIGNALS = _Kind(_signals, _set_handlers)
IN_STEP = {
    "the signal handlers": _Kind(_handlers, _set_handlers),
    "the current folder": _Kind(_folder, _set_folder),
}
"""What is compared in every step, for some microseconds: what else may change there is seldom
changed, and is put back at the next reset."""
_KINDS = {
    "stdout or stderr": _Kind(lambda: {"stdout": sys.stdout, "stderr": sys.stderr}, _set_output),
    "the signal handlers": _SIGNALS,
    "the current folder": _Kind(_folder, _set_folder),
    "the root of logging": _Kind(_logging, _set_logging),
    "JAX's settings": _Kind(_jax, _set_jax),
    "NumPy's floating-point errors": _Kind(
        lambda: {**np.geterr()}, lambda former: np.seterr(**former)
    ),
}
