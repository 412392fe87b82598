"""macros.json: reading and writing it, and words for macros (no JAX, so that a table is quick)."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from smz_jax.config.check import require
from smz_jax.storage.documents.macro_form import ARROW, TIMES, check_library
from smz_jax.storage.files import atomic_write_text, read_json


def fold(names: Sequence[str]) -> str:
    """Action names with repeats folded: FIRE, then RIGHT twice."""
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return ARROW.join(name if times == 1 else f"{name} {TIMES}{times}" for name, times in runs)


def prefix_share(phrases: Sequence[Sequence[int]]) -> float:
    """Share of the phrases that are a proper prefix of another one; 0 where there are none."""
    whole = {tuple(phrase) for phrase in phrases}
    starts = {phrase[:end] for phrase in whole for end in range(len(phrase))}
    return len(whole & starts) / len(whole) if whole else 0.0


def check_fits(document: Mapping[str, Any], action_names: Sequence[str], longest: int) -> None:
    """Checks that a library is of a model's game and of its `macro.max_length`, `longest`.

    Raises:
        ConfigError: in one line, if its actions are others, or a macro is longer.
    """
    names = document["action_names"]
    shown = ", ".join(map(str, action_names))
    allowed = f"those of the model: {shown}; take a library of the same game and action set"
    require(names == list(action_names), "macros.json: action_names", names, allowed)
    length = max((macro["length"] for macro in document["macros"]), default=0)
    allowed = f"at most macro.max_length = {longest} of the model's settings"
    require(length <= longest, "macros.json: length", length, allowed)


def write_macros_json(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Writes the library of `summarise`; a reader sees the old file or the new, never a part."""
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    atomic_write_text(Path(path), text)


def read_macros_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a library, as `summarise` gave it.

    Raises:
        ConfigError: in one line, if the file is missing, damaged or of another schema.
    """
    source = Path(path)
    document = read_json(
        source, "is not a readable macro library", "; a run writes it anew at each checkpoint"
    )
    check_library(document, source)
    return document
