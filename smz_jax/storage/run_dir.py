"""The folder of a run: where it is, whether it may be used, and what is written there first."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import Invocation
from smz_jax.config.settings import Config
from smz_jax.config.sources import config_from_yaml, config_to_yaml, diff
from smz_jax.storage.files import atomic_write_text, drop
from smz_jax.storage.pretrained import find_model, is_export, pretrained

CONFIG_NAME, LOCK_NAME = "config.yaml", ".lock"
RUNS_ROOT = Path("runs")
WRITABLE = "a folder that can be written"
_INIT_FROM = "# init_from: "
Weights = tuple[Path, Literal["last", "best"], int | None]
"""Folder, kind of checkpoint and step (None: the newest good one) of another run."""
MAY_DIFFER = ("total_env_steps", "devices", "processes")
"""Settings that a run may be resumed with other values of."""
LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "mctx", "chex", "numpy", "flashbax", "orbax-checkpoint"),
    *("gymnasium", "ale-py", "envpool", "pgx"),
)


def _not_allowed(run_dir: Path, allowed: str) -> ConfigError:
    return ConfigError(f"run_dir = {str(run_dir)!r} is not allowed: it must be {allowed}")


def new_folder(config: Config) -> Path:
    """Makes `runs/<experiment>/<YYYYmmdd-HHMMSS>-seed<seed>`, with -2, -3, ... if it exists.

    Raises:
        ConfigError: in one line, if there can be no such folder.
        OSError: if it cannot be written.
    """
    parent = RUNS_ROOT / config.experiment
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{config.seed}"
    for attempt in range(1, 1000):
        path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                message = f"run_dir = {str(path)!r} is not allowed: {str(parent)!r} is a file"
                raise ConfigError(message) from None
        else:
            return path
    raise ConfigError(f"run_dir = {str(parent)!r} is not allowed: 999 runs began in this second")


def can_write(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    parent = next(x for x in (folder, *folder.absolute().parents) if x.exists())
    return parent.is_dir() and os.access(parent, os.W_OK)


def read_config(run_dir: Path) -> Config:
    """The resolved settings of the run in `run_dir`.

    Raises:
        ConfigError: in one line, if its config.yaml is missing or damaged.
    """
    path = run_dir / CONFIG_NAME
    try:
        return config_from_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _not_allowed(run_dir, f"the folder of a run ({CONFIG_NAME}: {error})") from None


def _needed(run_dir: Path, invocation: Invocation) -> str | None:
    """What the folder must be for this run to begin, or continue, in it; None: it may."""
    if run_dir.exists() and not run_dir.is_dir():
        return "a folder, not a file"
    if not (run_dir / CONFIG_NAME).exists():
        if invocation.resume:
            return f"a folder that holds a run ({CONFIG_NAME}), to resume"
        if (run_dir / "metrics.jsonl").exists():
            return f"a new folder: this one holds metrics of a run without its {CONFIG_NAME}"
        return None if can_write(run_dir) else WRITABLE
    saved = read_config(run_dir)
    # With no preset named the settings are not decided yet; they are compared when they are.
    changes = diff(saved, invocation.config) if invocation.preset is not None else []
    allowed = "a new folder, as this one holds a run with other settings"
    if invocation.resume:
        longer = invocation.config.total_env_steps >= saved.total_env_steps
        may_differ = MAY_DIFFER if longer else MAY_DIFFER[1:]
        changes = [x for x in changes if x.partition(":")[0] not in may_differ]
        allowed = "resumed with its own settings (total_env_steps may be raised, devices differ)"
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        return f"{allowed}: {', '.join(changes[:5])}{more}"
    if not invocation.resume:
        return "another folder, or pass --resume: it already holds a run with these settings"
    return None if can_write(run_dir) else WRITABLE


def check_run_dir(invocation: Invocation) -> None:
    """Checks the folder that was named, if one was; writes nothing.

    Raises:
        ConfigError: in one line, if the folder cannot be used.
    """
    run_dir = invocation.run_dir
    if run_dir is None:
        allowed = "given with --resume: the folder of the run to go on with"
        require(not invocation.resume, "run_dir", None, allowed)
        return
    try:
        needed = _needed(run_dir, invocation)
    except OSError as error:
        needed = f"{WRITABLE} ({error.strerror})"
    if needed:
        raise _not_allowed(run_dir, needed)


def prepare_run_dir(
    invocation: Invocation, before_writing: Callable[[Path], Any] = lambda folder: None
) -> Path:
    """Makes or checks the folder of the run and writes `config.yaml` into it.

    A resumed run keeps its settings, except that `devices` and `processes` may differ and
    `total_env_steps` be raised; schedules over the run's length then stretch. The invocation comes
    after `choose_preset`, so that what is written is what runs; `before_writing` is called with the
    folder, e.g. to lock it.

    Raises:
        ConfigError: in one line, if the folder cannot be used.
    """
    check_run_dir(invocation)
    run_dir = invocation.run_dir
    try:
        run_dir = run_dir or new_folder(invocation.config)
        run_dir.mkdir(parents=True, exist_ok=True)
        before_writing(run_dir)
        _write_config(run_dir, invocation)
    except OSError as error:
        needed = f"{WRITABLE} ({error.strerror})"
        raise _not_allowed(run_dir or RUNS_ROOT, needed) from None
    return run_dir


def _write_config(run_dir: Path, invocation: Invocation) -> None:
    """Writes the resolved settings; a kill leaves the former file or the new one, never half."""
    header = (
        "# The resolved settings of this run: --config with this file repeats it.\n"
        f"# command: {invocation.command}\n# preset: {invocation.preset}\n"
    )
    if invocation.init_from:
        folder, kind, step = split_init_from(invocation.init_from)
        name = f"{folder.absolute()}@{step or kind}"
        header += f"{_INIT_FROM}{name if name.isprintable() else json.dumps(name)}\n"
    path = run_dir / CONFIG_NAME
    if path.exists():  # a resumed run keeps what its first start was called with
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        header = "".join(line for line in lines if line.startswith("# ")) or header
    atomic_write_text(path, header + config_to_yaml(invocation.config))


def forget_start(run_dir: Path, before: Sequence[str]) -> None:
    """Takes back what a start wrote that came to nothing, so that a corrected one may follow.

    The folder, with the names that were in it `before`, is left once there is more than that.
    """
    if not run_dir.is_dir():  # it was deleted, or has another name now
        return
    new = set(os.listdir(run_dir)) - set(before)
    metrics = run_dir / "metrics.jsonl"
    if not new <= {CONFIG_NAME, LOCK_NAME, metrics.name, "tensorboard"} or CONFIG_NAME in before:
        return
    if not (metrics.exists() and metrics.stat().st_size):
        with contextlib.suppress(OSError):
            for name in new:
                drop(run_dir / name)
            run_dir.rmdir()  # unless something else is in it


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Keeps a second process out of a run's folder for as long as this one lives.

    The lock is the kernel's (`flock`): it goes with the process, also when that is killed.

    Raises:
        ConfigError: in one line, if another process holds it.
        OSError: if the file system cannot lock, or the file cannot be written.
    """
    with open(run_dir / LOCK_NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            allowed = f"a folder that no other process uses: process {holder} does"
            raise _not_allowed(run_dir, allowed) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def find_weights(init_from: str) -> Weights:
    """Where `--init_from` points to: folder, kind of checkpoint, and step if one was named.

    The folder may be an export, or the name of weights that come with the package.

    Raises:
        ConfigError: in one line, if that is no folder of a run, or no such checkpoint is there.
    """
    folder, kind, step = split_init_from(init_from)
    read_config(folder)
    if is_export(folder):
        allowed = "named without @: an export holds one model"
        require((kind, step) == ("last", None), "init_from", init_from, allowed)
        return folder, kind, step
    there = folder / "checkpoints" / kind
    require(there.is_dir(), "init_from", init_from, f"a run with checkpoints in {str(there)!r}")
    return folder, kind, step


def split_init_from(init_from: str) -> Weights:
    """The parts of `--init_from`, where a run's folder may have an @ too; raises as `find_weights`.

    A folder of that whole name that holds a run is meant itself.
    """
    name, _, which = init_from.rpartition("@")
    is_step = which.isdecimal() and len(which) <= 12
    whole, is_which = os.path.expanduser(init_from), which in ("last", "best") or is_step
    is_whole = not name or "/" in which or os.path.exists(os.path.join(whole, CONFIG_NAME))
    # A folder that is there is meant, though it holds no run.
    is_other = is_which and os.path.isdir(os.path.expanduser(name))
    if is_whole or (os.path.isdir(whole) and not is_other):
        name, which, is_step, is_which = init_from, "last", False, True
    require(is_which, "init_from", init_from, "RUN_DIR, RUN_DIR@STEP or RUN_DIR@best")
    kind: Literal["last", "best"] = "best" if which == "best" else "last"
    folder = Path(os.path.expanduser(name))
    if not os.path.exists(folder) and name in pretrained():
        folder = find_model(folder)
    return folder, kind, int(which) if is_step else None


def began_with(run_dir: Path | None) -> str | None:
    """What a run's first start was given as `--init_from`, as its config.yaml says."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (Path(run_dir or "") / CONFIG_NAME).read_text(encoding="utf-8").splitlines():
            if line.startswith(_INIT_FROM):
                name = line.removeprefix(_INIT_FROM)
                return json.loads(name) if name.startswith('"') else name
    return None


def hardware(device: object) -> str:
    """System, number of cores and a device of JAX, for the records."""
    return f"{platform.platform()}, {os.cpu_count()} cores, {device}"


def versions() -> dict[str, str]:
    """Versions of Python, the platform and each library, without importing any of them."""
    found = dict.fromkeys(("python", "platform", *LIBRARIES), "not installed")
    found |= {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, `-dirty` if changed; None outside of git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's checkout
        return None
    command = ["git", "-C", root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
