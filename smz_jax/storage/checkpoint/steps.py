"""The folders of a run's checkpoints: which steps are there, under which names, of which format."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from smz_jax.config.check import ConfigError
from smz_jax.storage.files import drop

Kind = Literal["last", "best"]
"""To resume from, or the best by evaluation."""

FORMAT = 7
READABLE = (5, 6, FORMAT)
"""Formats whose models and rows are read; a run is continued from `FORMAT` alone."""
_COMPLETE = re.compile(r"\d{12}(\.former)?")


def find_steps(folder: Path) -> list[int]:
    """Environment steps of all complete checkpoints of a folder, oldest first."""
    names = [x.name for x in folder.iterdir() if x.is_dir()] if folder.is_dir() else []
    return sorted({int(name[:12]) for name in names if _COMPLETE.fullmatch(name)})


def place_of(folder: Path, step: int) -> Path:
    """Where a step is; its former one, if the process was killed while it was replaced."""
    final = folder / f"{step:012d}"
    former = final.with_suffix(".former")
    return former if former.exists() and not final.exists() else final


def rename(path: Path, ending: str) -> Path:
    """Gives a step's folder an ending, in place of one that has it; returns where it is now."""
    renamed = path.with_name(path.name + ending)
    drop(renamed)
    return path.replace(renamed)


def check_format(folder: Path, manifest: Mapping[str, Any], formats: Sequence[int]) -> None:
    """Refuses another format in one line, as ConfigError."""
    if manifest["format"] not in formats:
        found = f"has format {manifest['format']!r}: this version reads format {FORMAT}"
        found += "; the commit in the run's summary.json reads it"
        raise ConfigError(f"checkpoint {str(folder)!r} {found}")
