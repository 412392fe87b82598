"""A command as a process: its output, its exit code, and what ends it from outside."""

import contextlib
import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from smz_jax.config.check import ConfigError

if not hasattr(signal, "SIGHUP"):  # Windows, which has no file locks of POSIX either
    raise SystemExit(
        "error: smz_jax needs Linux or macOS; on Windows it runs in WSL 2 or a container: "
        "docs/systems.md"
    )

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a file that must not grow."""
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that save like Ctrl-C."""
RESTS_ON = {
    "jax_enable_x64": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_disable_jit": False,
    "jax_transfer_guard": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
}
"""Settings of JAX that its environment variables may change, and that numbers and dtypes rest on.
A number that is not finite is no error here: such an update is skipped and counted."""


class LastingStream:
    """A text stream that outlives its reader: what can no longer be written is dropped.

    Args:
        stream: written to until that fails.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Why output was dropped; a reader that left is no error (`... | head`)."""

    def write(self, text: str) -> int:
        """Writes as the stream itself; gives the number of characters."""
        self._guard(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flushes as the stream itself."""
        self._guard(self._stream.flush)

    def _guard(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.error = self.error or error
            # What is still in its buffer goes there too; it may be a stream of no file.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[Callable[[], OSError | None]]:
    """Stdout and stderr that a program may write to, whatever it was started with.

    One that is closed is as if it led to /dev/null; a character that the encoding lacks is
    replaced; a reader that leaves, or a device that is full, does not end the program.

    Yields:
        A function that gives why output to stdout was lost, or None.
    """
    for number in range(3):  # a file opened later would get the number, and the output with it
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    former = sys.stdout, sys.stderr
    for stream in former:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = (LastingStream(stream or nowhere) for stream in former)
        sys.stdout, sys.stderr = out, err  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield lambda: out.error
        finally:
            sys.stdout, sys.stderr = former


def command_names(folder: Path) -> list[str]:
    """Every command: the modules, and the packages with a `__main__`, of `experiments`."""
    modules = [*folder.glob("*.py"), *folder.glob("*/__main__.py")]
    names = {(x.parent if x.parent != folder else x).stem for x in modules}
    return sorted(names - {"__init__", "__main__", "smz_jax"})


def own_words(caller: Mapping[str, Any]) -> list[str]:
    """What is typed after `python` for a user's own script or module; [] for one of `experiments`.

    Args:
        caller: the globals of the module that launches a run.
    """
    spec = caller.get("__spec__")
    if caller.get("__name__") != "__main__" or (spec and spec.name.startswith("experiments.")):
        return []
    if spec:
        return ["-m", spec.name.removesuffix(".__main__")]
    return [sys.argv[0]] if "__file__" in caller else []  # `python -c`


def command_words(name: str) -> list[str]:
    """What is typed after `python` for a command: by its module, or as `smz_jax.__main__`."""
    by_package = ("-m", "smz_jax") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return ["-m", "smz_jax", name] if by_package else ["-m", f"experiments.{name}"]


def jax_refusal(error: ValueError) -> str | None:
    """What JAX, at its import, does not take in its environment variables; None: another error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    name = (re.findall(r"jax_\w+", str(error), re.IGNORECASE) or [""])[-1].upper()
    if frame.f_globals.get("__name__") != "jax._src.config" or name not in os.environ:
        return None
    values = frame.f_locals.get("enum_values")
    allowed = "one of " + ", ".join(map(str, values)) if values else "a number"
    allowed = "true or false" if "truth" in str(error) else allowed
    value = os.environ[name]
    return f"{name} = {value!r} in the environment is not allowed: it must be {allowed}"


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits with its code.

    A `ConfigError`, or a value of JAX's environment variables that JAX refuses, is one line on
    stderr and code 2. A signal that `main` does not handle itself is one line too: 130 after
    Ctrl-C, 143 after SIGTERM, 129 after SIGHUP; and so is a full disk, with code 1. A closed pipe
    (`--help | head`) is no error. Outside of the main thread signals are left alone.
    """

    def terminate(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt(number)

    is_main = threading.current_thread() is threading.main_thread()
    for number in ENDING_SIGNALS if is_main else ():
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, terminate)
    with lasting_output() as lost:
        try:
            code = main() or 0
        except ConfigError as error:
            print("error: " + " ".join(str(error).split()), file=sys.stderr)
            code = 2
        except ValueError as error:
            if not (line := jax_refusal(error)):
                raise
            print(f"error: {line}", file=sys.stderr)
            code = 2
        except KeyboardInterrupt as error:  # Python's own has no number
            print("interrupted", file=sys.stderr)
            code = 128 + (error.args or (signal.SIGINT,))[0]
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = error.filename or "a file of the run"
            print(
                f"error: {error.strerror}: {where}; make room and go on with the same line, of a "
                "run with --resume: what was saved before is kept",
                file=sys.stderr,
            )
            code = 1
        sys.stdout.flush()
        if error := lost():
            print(f"error: output is lost: {error.strerror}", file=sys.stderr)
            code = code or 1
        sys.stderr.flush()
    sys.exit(code)
