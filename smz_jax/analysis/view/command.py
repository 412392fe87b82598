"""The table of `experiments.macros`, which needs no JAX."""

import json
import sys
from pathlib import Path
from typing import Any

from smz_jax.analysis.requests import MacrosRequest, check_folder
from smz_jax.config.check import ConfigError, require
from smz_jax.macros.library.gate import closed_gate, prefix_line
from smz_jax.macros.library.listing import Wanted, listed
from smz_jax.storage.documents.macro_form import LIBRARY
from smz_jax.storage.pretrained import is_export


def read_library(request: MacrosRequest) -> tuple[dict[str, Any], bool]:
    """The library of a folder that is there, and whether that is a run's; no JAX.

    Raises:
        ConfigError: in one line, for a folder or file that cannot be read.
    """
    from smz_jax.storage.export import MACROS, read_files

    folder, out = request.folder, request.out
    check_folder(folder, request.checkpoint)
    is_run = not is_export(folder)
    there = (folder / MACROS).is_file() if is_run else MACROS in read_files(folder)
    allowed = f"a folder with its {MACROS}: a run writes it at each checkpoint"
    require(there, "RUN_DIR", str(folder), allowed)
    require(out is None or out.is_dir() or not out.exists(), "out", str(out), "a folder")
    return LIBRARY.read(folder), is_run


def print_library(library: dict[str, Any], wanted: Wanted) -> None:
    """The table, the library by compression, and what a reader must know of them."""
    from smz_jax.report.macro_tables import format_selection, format_table  # loads NumPy

    print(format_table(library, listed(library, wanted)), flush=True)
    print("\n" + format_selection(library))
    if (gate := closed_gate(library)) is not None:
        print(f"no macro is sound; the gate that closed: {gate}")
    if line := prefix_line(library):
        print(f"take care: {line}")
    sys.stdout.flush()


def write_listing(library: dict[str, Any], wanted: Wanted, target: str) -> None:
    """The listed macros as JSON, a library like the file it is from.

    Raises:
        ConfigError: in one line, if the file cannot be written.
    """
    document = {**library, "macros": listed(library, wanted)}
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    if target == "-":
        print(text)
        return
    from smz_jax.storage.files import atomic_write_text

    path = Path(target)
    require(path.parent.is_dir(), "json", target, "a file in a folder that is there")
    try:
        atomic_write_text(path, text + "\n")
    except OSError as error:
        raise ConfigError(f"json = {target!r} cannot be written: {error.strerror}") from None
