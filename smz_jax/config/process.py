"""A command as a process: its output, its exit code, and what ends it from outside."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from smz_jax.config.check import ConfigError

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
            with contextlib.suppress(OSError):  # a stream of no file
                # What is still in its buffer goes there too.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

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


def command_words(name: str) -> list[str]:
    """What is typed after `python` for a command: by its module, or as `smz_jax.__main__`."""
    by_package = ("-m", "smz_jax") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return ["-m", "smz_jax", name] if by_package else ["-m", f"experiments.{name}"]


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits with its code.

    A `ConfigError` is one line on stderr and code 2. A signal that `main` does not handle itself
    is one line too: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP; and so is a full disk,
    with code 1. A closed pipe (`--help | head`) is no error.
    """

    def terminate(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt(number)

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, terminate)
    with lasting_output() as lost:
        try:
            code = main() or 0
        except ConfigError as error:
            print("error: " + " ".join(str(error).split()), file=sys.stderr)
            code = 2
        except KeyboardInterrupt as error:  # Python's own has no number
            print("interrupted", file=sys.stderr)
            code = 128 + (error.args or (signal.SIGINT,))[0]
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = error.filename or "a file of the run"
            print(
                f"error: {error.strerror}: {where}; make room and go on with --resume: what was "
                "saved before is kept",
                file=sys.stderr,
            )
            code = 1
        sys.stdout.flush()
        if error := lost():
            print(f"error: output is lost: {error.strerror}", file=sys.stderr)
            code = code or 1
        sys.stderr.flush()
    sys.exit(code)
