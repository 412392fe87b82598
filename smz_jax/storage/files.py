"""Files that are whole or not there: written at once, read with doubt."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a reader, or a kill at any moment, sees the old or the new one whole.

    Its folder is made if need be.

    Raises:
        OSError: if it cannot be written (a former file is then intact).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Like `atomic_write_bytes`, for text in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes atomically as indented JSON what `plain` takes; raises OSError if it cannot."""
    atomic_write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path, fault: str = "is damaged", advice: str = "") -> dict[str, Any]:
    """Reads the JSON object that a file holds, whole or not at all.

    Raises:
        ConfigError: in one line, `{path} {fault}: {reason}`, if it cannot be read (`advice` ends
            the line then), is no JSON in UTF-8, or holds anything but an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} {fault}: {reason}{advice}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} {fault}: it holds no object")
    return value


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a file or a folder, to read; it leads there under any later name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def by_descriptor(descriptor: int, path: Path) -> Path:
    """A path to what is open as `descriptor`, under any name that it has by now.

    Where the system shows no descriptors of a process (outside of Linux) that is `path`, its name
    when it was opened.
    """
    shown = Path("/proc/self/fd")
    return shown / str(descriptor) if shown.is_dir() else path


def drop(path: Path) -> None:
    """Deletes a folder, a file or a link, but not what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Turns nested mappings, sequences, texts, numbers and arrays into what strict JSON can hold.

    Numbers that are not finite become null.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Path):
        return str(value)
    number = float(value)
    return number if math.isfinite(number) else None
