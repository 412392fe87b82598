"""A trained model as one small folder that needs no run: weights, settings, scores, macros, sums.

    SHA256SUMS       names every other file and its sum, and the format's version in its first line;
                     the last line is the sum of those above. `sha256sum -c SHA256SUMS` reads it too
    export.json      what it is: experiment, seed, checkpoint, actions, versions
    config.yaml      the resolved settings
    weights.npz      arrays by their path in the parameters, not compressed
    evaluation.json  the scores of the agent, over the run, and of the baselines
    macros.json      the macro library, if the run has one
    precondition.npz the precondition head with its slots and counts, if the run has one

`weights.npz` and not safetensors: NumPy alone reads it, also without this project. Reading trusts
nothing: each file is read once, summed, and only then parsed from the bytes that were summed; no
pickle is ever loaded; names other than those above are refused.
"""

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.config.sources import config_from_yaml, config_to_yaml
from smz_jax.storage.documents import macro_form, results_json
from smz_jax.storage.files import atomic_write_bytes
from smz_jax.storage.pretrained import ABOUT, SUMS, WEIGHTS
from smz_jax.storage.run_dir import CONFIG_NAME, WRITABLE, can_write

FORMAT = 1
SCORES, MACROS, HEAD = "evaluation.json", "macros.json", "precondition.npz"
REQUIRED = (CONFIG_NAME, SCORES, ABOUT, WEIGHTS)
MAX_SUMS_BYTES = 10_000

_HEAD = "# smz_jax export, format {}\n"
_OWN_SUM = "# the lines above: "
_ARRAY_NAME = re.compile(r"\w+(/\w+)*", re.ASCII)


class Exported(NamedTuple):
    """A trained model with all that is known of it; plain Python and NumPy."""

    config: Config
    weights: dict[str, np.ndarray]  # by path, e.g. params/trunk/Dense_0/kernel
    about: dict[str, Any]  # export.json
    scores: list[dict[str, Any]]  # rows of `smz_jax.analysis.load.score_table`
    macros: dict[str, Any] | None  # as macros.json
    head: dict[str, np.ndarray] | None = None  # the precondition head, likewise by path


def check_new_folder(out: Path) -> None:
    """Raises ConfigError in one line unless an export can be written to `out`."""
    is_new = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    require(is_new, "out", str(out), "a new or an empty folder")
    require(can_write(out), "out", str(out), WRITABLE)


def write_export(out: Path, model: Exported) -> Path:
    """Writes an export; it appears at `out` when it is complete.

    The same model gives the same bytes.

    Raises:
        ConfigError: if `out` is no new or empty folder, cannot be used, or a weight is not finite.
        OSError: if it cannot be written; nothing is left then.
    """
    check_new_folder(out)
    files = {CONFIG_NAME: config_to_yaml(model.config).encode()}
    for name, value in ((SCORES, model.scores), (ABOUT, model.about), (MACROS, model.macros)):
        if value is not None:
            text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
            files[name] = f"{text}\n".encode()
    for name, arrays in ((WEIGHTS, model.weights), (HEAD, model.head)):
        if arrays is not None:
            _check_weights(arrays, "the checkpoint")
            np.savez(stream := io.BytesIO(), allow_pickle=False, **dict(sorted(arrays.items())))
            files[name] = stream.getvalue()
    body = _HEAD.format(FORMAT)
    body += "".join(f"{_sum(data)}  {name}\n" for name, data in sorted(files.items()))
    files[SUMS] = f"{body}{_OWN_SUM}{_sum(body.encode())}\n".encode()
    partial = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        for name, data in files.items():
            atomic_write_bytes(partial / name, data)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def read_export(folder: Path) -> Exported:
    """Reads an export as it was written; its sums are compared before anything in it is parsed.

    Raises:
        ConfigError: in one line, if it is no export, of another format, or damaged; names every
            file that is missing or differs.
    """
    files = read_files(folder)
    try:
        config = config_from_yaml(files[CONFIG_NAME].decode(), str(folder / CONFIG_NAME))
        about, scores = (json.loads(files[name]) for name in (ABOUT, SCORES))
        macros = json.loads(files[MACROS]) if MACROS in files else None
    except (ValueError, RecursionError) as error:  # a ConfigError is one too
        _refuse(folder, str(error))
    if fault := results_json.ABOUT.fault(about):
        _refuse(folder, f"{ABOUT}: {fault}")
    if fault := results_json.SCORES(scores, SCORES):
        _refuse(folder, fault)
    if macros is not None:
        macro_form.LIBRARY.check(macros, folder / MACROS)
    weights = _read_weights(folder, WEIGHTS, files[WEIGHTS])
    head = _read_weights(folder, HEAD, files[HEAD]) if HEAD in files else None
    return Exported(config, weights, about, scores, macros, head)


def read_files(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of an export, none of them parsed.

    Raises:
        ConfigError: in one line, as `read_export` for what the sums tell.
    """
    sums = _read_sums(folder)
    files: dict[str, bytes] = {}
    problems = []
    for name, wanted in sums.items():
        try:
            files[name] = _read_file(folder / name)
        except OSError as error:
            problems.append(f"{name} is missing ({error.strerror})")
            continue
        if _sum(files[name]) != wanted:
            problems.append(f"{name} has another SHA-256 than {SUMS} says")
    if problems:
        _refuse(folder, "; ".join(problems))
    return files


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(folder: Path, problem: str) -> NoReturn:
    raise ConfigError(f"export {str(folder)!r} is damaged: {' '.join(problem.split())}")


def _read_file(path: Path, limit: int = -1) -> bytes:
    """The bytes of a plain file; anything else (a link, a folder, an endless pipe) is missing."""
    if path.is_symlink() or not path.is_file():
        raise FileNotFoundError(0, "no such file")
    with path.open("rb") as file:
        return file.read(limit)


def _read_sums(folder: Path) -> dict[str, str]:
    """Sums by file name, checked by the file's own last line; raises ConfigError."""
    try:
        data = _read_file(folder / SUMS, MAX_SUMS_BYTES + 1)
    except OSError as error:
        _refuse(folder, f"{SUMS} is missing ({error.strerror})")
    if len(data) > MAX_SUMS_BYTES:
        _refuse(folder, f"{SUMS} has more than the {MAX_SUMS_BYTES:,} bytes of an export's")
    body, found, own = data.rpartition(_OWN_SUM.encode())
    if not found or own != f"{_sum(body)}\n".encode():
        _refuse(folder, f"{SUMS} does not agree with its own last line")
    first, *lines = body.decode("utf-8", "replace").splitlines() or [""]
    head = re.fullmatch(_HEAD.strip().format(r"(\d+)"), first)
    if head is None:
        _refuse(folder, f"{SUMS} does not begin as an export's")
    if int(head[1]) != FORMAT:
        found = f"has format {head[1]}: this version reads format {FORMAT}"
        raise ConfigError(f"export {str(folder)!r} {found}")
    sums: dict[str, str] = {}
    for line in lines:
        entry = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        name = entry[2] if entry else line
        if entry is None or name not in (*REQUIRED, MACROS, HEAD) or name in sums:
            _refuse(folder, f"{SUMS} names {name[:80]!r}, which is no file of an export")
        sums[name] = entry[1]
    if absent := [name for name in REQUIRED if name not in sums]:
        _refuse(folder, f"{SUMS} does not name {absent[0]}")
    return sums


def _read_weights(folder: Path, source: str, data: bytes) -> dict[str, np.ndarray]:
    """Arrays of an npz file; raises ConfigError for objects, and for what would grow if unpacked.

    NumPy refuses objects by itself, and opens anything that is no zip archive as a pickle: which is
    why it must be one. Members that overlap, or claim more than there is, hold more than the file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
        if any(x.compress_type != zipfile.ZIP_STORED for x in members):
            raise ValueError("it is compressed")
        if sum(x.file_size for x in members) > len(data):
            raise ValueError("it claims to hold more than its own bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            weights = {name: arrays[name] for name in arrays.files}
        if len(weights) != len(members):
            raise ValueError("it holds a name twice")
        _check_weights(weights, source)
    except Exception as error:  # zipfile and NumPy raise anything over bytes made on purpose
        _refuse(folder, f"{source}: {str(error)[:200]}")
    return weights


def _check_weights(weights: dict[str, Any], source: str) -> None:
    """Raises ConfigError naming the first entry that is no array of finite numbers, or misnamed."""
    for name, array in weights.items():
        is_name = _ARRAY_NAME.fullmatch(name) is not None
        require(is_name, f"a name in {source}", name, "a path in the parameters")
        is_numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        found = "finite" if is_numbers and np.isfinite(array).all() else "no finite numbers"
        require(found == "finite", f"{name} of {source}", found, "an array of finite numbers")
