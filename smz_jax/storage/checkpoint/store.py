"""The checkpoints of one run: `checkpoints/last/` to go on from, `checkpoints/best/` to keep.

    last/000000061440/     a step, by its environment steps
        state/             Orbax arrays
        manifest.json      settings, versions, counters, shapes, where the rows are, SHA-256 sums
        manifest.sha256    the manifest's own sum
    rows-a/, rows-b/       the replay's rows, of every other step each (`rows`)

A save copies what it needs to the host and goes on in a thread. A step is written under a
`.partial` name, forced to the disk and renamed when complete; then it is read back and verified,
and only then older ones go. So a kill, a power cut or a full disk at any moment leaves the former
step whole. A restore verifies every sum first and walks back from a damaged step to the newest
good one.
"""

import contextlib
import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from smz_jax.config.settings import ConfigError, require
from smz_jax.storage.checkpoint.arrays import (
    describe,
    named_leaves,
    read_arrays,
    to_host,
    unfit,
    write_arrays,
)
from smz_jax.storage.checkpoint.rows import RowChunks, RowFiles, SavedRows, read_fields, read_rows
from smz_jax.storage.checkpoint.sums import (
    Damage,
    read_manifest,
    sums_below,
    sync,
    sync_below,
    verify_folder,
    write_manifest,
)
from smz_jax.types import Params, TrainState, Trajectory

Kind = Literal["last", "best"]

FORMAT = 4
SETS = ("a", "b")
KEPT = 2
"""Newest steps of `last` that are kept: one to go on from, one to walk back to."""
_COMPLETE = re.compile(r"\d{12}(\.former)?")


class Restored(NamedTuple):
    """What came back."""

    state: Any
    extra: dict[str, Any]
    rows: Trajectory | None  # the replay's ring, if it was saved with the step
    step: int
    damaged: list[str]  # a line for each newer step that could not be used
    manifest: dict[str, Any]


class CheckpointStore:
    """Saves and restores the state of one run.

    Args:
        run_dir: folder of the run; checkpoints are kept below it, nothing is made before a save.
        about: goes into every manifest: settings, versions.
        keep_every: the first step of `last` at or past each multiple is never dropped; 0
            drops all but the newest.
    """

    def __init__(
        self,
        run_dir: Path | str,
        *,
        about: Mapping[str, Any] | None = None,
        keep_every: int = 0,
        stride: int = 1,
    ) -> None:
        self._root = Path(run_dir).absolute() / "checkpoints"
        # Old steps and rows are deleted here: what lies elsewhere is none of this run's.
        for name in ("last", "best", *(f"rows-{name}" for name in SETS)):
            path = self._root / name
            allowed = "a folder of the run's own, no link"
            require(not path.is_symlink(), f"checkpoints/{name}", str(path), allowed)
        self._about, self._keep_every, self._stride = dict(about or {}), keep_every, stride
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._sets = {name: RowFiles(self._root / f"rows-{name}") for name in SETS}
        self._turn = SETS[0]  # whose turn it is to take the rows
        self._newest: tuple[int, str] | None = None  # step and set that this process knows of

    # --- what is there ---

    def steps(self, kind: Kind) -> list[int]:
        """Environment steps of all complete checkpoints of a kind, oldest first."""
        folder = self._root / kind
        names = [x.name for x in folder.iterdir() if x.is_dir()] if folder.is_dir() else []
        return sorted({int(name[:12]) for name in names if _COMPLETE.fullmatch(name)})

    def exists(self, kind: Kind) -> bool:
        """Whether a complete checkpoint of this kind is there."""
        return bool(self.steps(kind))

    def path(self, kind: Kind, step: int) -> Path:
        """Folder of a step; its former one, if the process was killed while it was replaced."""
        final = self._root / kind / f"{step:012d}"
        former = _former(final)
        return former if former.exists() and not final.exists() else final

    def saved_rows(self, step: int) -> SavedRows | None:
        """Rows that need not be saved again at the next save, which is of `step`.

        The newest step again goes where it was: the other set is that of the step before it.
        """
        if self._newest and self._newest[0] == step:
            self._turn = self._newest[1]
        return self._sets[self._turn].saved

    # --- saving ---

    def save(
        self,
        kind: Kind,
        step: int,
        state: Any,
        extra: Mapping[str, Any] | None = None,
        rows: RowChunks | None = None,
        *,
        block: bool = True,
    ) -> None:
        """Saves a step; waits for the save before it.

        Args:
            kind: `last` or `best`. A `best` replaces the former one.
            step: environment steps.
            state: any pytree of arrays, numbers and random keys; it is copied before this returns.
            extra: what JSON can hold beside it: counters, scores.
            rows: the replay's rows, as `take_rows` gives them against `saved_rows(step)`.
            block: wait until it is written; else `wait` or the next save does.

        Raises:
            OSError, ValueError: if this (with `block`) or the save before it could not be written;
                the steps before are intact.
        """
        self.wait()
        leaves = named_leaves(state)
        arrays = [to_host(leaf) for leaf in leaves.values()]
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "step": step,
            "extra": dict(extra or {}),
            **self._about,
            "leaves": {name: describe(leaf) for name, leaf in leaves.items()},
        }

        def work() -> None:
            try:
                self._write(kind, step, arrays, manifest, rows)
            except Exception as error:  # reported by `wait`, in the thread of the run
                self._failure = error
                with contextlib.suppress(OSError):  # what was written takes room for nothing
                    self._clear(kind)
                    self._prune_rows()

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()
        if block:
            self.wait()

    @property
    def busy(self) -> bool:
        """Whether a save goes on."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the save that goes on; raises what it failed of, once."""
        if self._thread is not None:
            self._thread.join()
        self._thread, failure = None, self._failure
        self._failure = None
        if failure is not None:
            raise failure

    def _write(
        self,
        kind: Kind,
        step: int,
        arrays: list[Any],
        manifest: dict[str, Any],
        rows: RowChunks | None,
    ) -> None:
        final = self._root / kind / f"{step:012d}"
        final.parent.mkdir(parents=True, exist_ok=True)
        turn = self._sets[self._turn]
        self._clear(kind)
        saved = turn.write(rows) if rows else None
        partial = final.with_name(final.name + ".partial")
        partial.mkdir()
        _check_room(partial, sum(array.nbytes for array in arrays))
        write_arrays(partial / "state", arrays)
        listed = {"set": self._turn, **saved.as_json()} if saved else None
        write_manifest(partial, {**manifest, "rows": listed, "files": sums_below(partial)})
        sync_below(partial)
        former = _former(final)
        if final.exists():  # the same step again: whatever happens, one of the two is whole
            _drop(former)
            os.replace(final, former)
        os.replace(partial, final)
        sync(final.parent)
        try:
            self._verify(final, again=False)
        except Damage:
            turn.saved = None  # the next save here writes everything anew
            self._set_aside(final)
            raise
        _drop(former)
        if saved:
            turn.saved, self._newest = saved, (step, self._turn)
            self._turn = _other(self._turn)
        self._prune(kind, step)

    def _clear(self, kind: Kind) -> None:
        """Drops what saves that were cut short left."""
        below = self._root / kind
        for left in [*below.glob("*.partial"), *self._sets[self._turn].folder.glob(".*.tmp")]:
            is_folder = left.is_dir() and not left.is_symlink()
            shutil.rmtree(left) if is_folder else left.unlink()

    def _prune(self, kind: Kind, newest: int) -> None:
        """Drops steps that a newer, verified one replaces, then rows that no step lists."""
        for former in (self._root / kind).glob("*.former"):
            if former.with_suffix("").exists():
                _drop(former)
        kept = 1 if kind == "best" else KEPT
        older = [step for step in self.steps(kind) if step != newest]
        for step in older if kept == 1 else older[: -(kept - 1)]:
            every, before = self._keep_every, step - self._stride
            if kind == "best" or not every or step // every == before // every:
                _remove(self.path(kind, step))
        for damaged in (self._root / kind).glob("*.damaged"):
            _drop(damaged)
        if kind == "last":
            self._prune_rows()

    def _prune_rows(self) -> None:
        listed: dict[str, set[str]] = {name: set() for name in SETS}
        for step in self.steps("last"):
            try:
                if rows := read_manifest(self.path("last", step)).get("rows"):
                    files = SavedRows.from_json(rows).files.values()
                    listed[rows["set"]] |= {name for name, _, _ in files}
            except Exception:  # damaged: what it needs is not known, and nothing is dropped
                return
        for name, files in self._sets.items():
            files.prune(listed[name])

    # --- restoring ---

    def _verify(self, folder: Path, *, again: bool = True) -> dict[str, Any]:
        """The manifest of a step all of whose files are right; raises Damage naming one."""
        manifest = verify_folder(folder)
        if missing := {"format", "kind", "step", "extra", "leaves", "rows"} - set(manifest):
            raise Damage(f"the manifest lacks {sorted(missing)[0]}")
        if manifest["format"] == FORMAT:
            for name in ("extra", "leaves"):
                if not isinstance(manifest[name], dict):
                    raise Damage(f"the manifest's {name} are no mapping")
            if manifest["step"] != int(folder.name[:12]) or manifest["kind"] != folder.parent.name:
                raise Damage(f"it is the step {manifest['step']} of {manifest['kind']!r}")
            if rows := manifest["rows"]:
                self._sets[rows["set"]].verify(SavedRows.from_json(rows), again=again)
        return manifest

    def newest_good(
        self, kind: Kind, step: int | None = None
    ) -> tuple[int, dict[str, Any], list[str]]:
        """The newest step whose every byte is as it was written, its manifest, and what is not.

        Args:
            kind: `last` or `best`.
            step: only this one.

        Raises:
            ConfigError: in one line, if there is none, or if it has another format.
        """
        steps = self.steps(kind)
        if step is not None:
            if step not in steps:
                there = ", ".join(map(str, steps)) or "none"
                raise ConfigError(f"no checkpoint {step} in {str(self._root / kind)!r}: {there}")
            steps = [step]
        damaged = []
        for one in reversed(steps):
            folder = self.path(kind, one)
            try:
                manifest = self._verify(folder)
            except Exception as error:  # a forged manifest may hold anything
                damaged.append(f"checkpoint {str(folder)!r} is damaged: {_reason(error)}")
                continue
            if manifest["format"] != FORMAT:
                found = f"has format {manifest['format']!r}: this version reads format {FORMAT}"
                found += "; the commit in the run's summary.json reads it"
                raise ConfigError(f"checkpoint {str(folder)!r} {found}")
            return one, manifest, damaged
        if damaged:
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            raise ConfigError(f"no good checkpoint is left: {damaged[0]}{more}")
        raise ConfigError(f"no checkpoint in {str(self._root / kind)!r}: nothing to go on from")

    def read_manifest(self, kind: Kind, step: int | None = None) -> dict[str, Any]:
        """Manifest of the newest good step; raises ConfigError as `newest_good` does."""
        return self.newest_good(kind, step)[1]

    def restore(
        self,
        kind: Kind,
        abstract_state: Any,
        *,
        experience: Trajectory | None = None,
        step: int | None = None,
        fits: Callable[[dict[str, Any]], None] | None = None,
    ) -> Restored:
        """Reads the newest good step of a kind.

        Args:
            kind: `last` or `best`.
            abstract_state: a pytree as it was saved, of arrays or `jax.ShapeDtypeStruct`s; NumPy
                leaves come back as NumPy, numbers as numbers, the rest on the device.
            experience: as `read_rows` takes it, for a step that has rows; unset: they are left.
            step: this one; unset: the newest good one.
            fits: looks at the manifest before arrays are read, and raises ConfigError.

        Raises:
            ConfigError: in one line, if there is none, all are damaged, or it does not fit.
        """
        found, manifest, damaged = self.newest_good(kind, step)
        folder = self.path(kind, found)
        if fits:
            fits(manifest)
        wanted = named_leaves(abstract_state)
        if text := unfit(manifest["leaves"], wanted):
            raise ConfigError(f"checkpoint {str(folder)!r} does not fit this run: {text}")
        rows = None
        with _readable(folder):
            leaves = read_arrays(folder / "state", wanted)
            if experience is not None and (listed := manifest["rows"]):
                files = self._sets[listed["set"]]
                files.saved, self._newest = SavedRows.from_json(listed), (found, listed["set"])
                self._turn = _other(listed["set"])
                rows = read_rows(files.folder, files.saved, experience)
        treedef = jax.tree_util.tree_structure(abstract_state)
        state = jax.tree_util.tree_unflatten(treedef, leaves)
        return Restored(state, manifest["extra"], rows, found, damaged, manifest)

    def restore_params(
        self, kind: Kind, abstract_params: Params, *, step: int | None = None
    ) -> tuple[Params, dict[str, Any]]:
        """Reads the model's parameters alone, to play with or for a new run to begin with.

        Args:
            kind: `last` or `best`, which hold them at different places.
            abstract_params: as they were saved, arrays or abstract.
            step: this one; unset: the newest good one.

        Returns:
            The parameters and the manifest of the step they are of.

        Raises:
            ConfigError: in one line, if there is none, all are damaged, or it does not fit.
        """
        state: Any = {"params": abstract_params}
        if kind == "last":
            state = {"train": TrainState(abstract_params, None, None, None, None)}  # type: ignore[arg-type]
        found, manifest = self.restore_part(kind, state, step=step)
        return found["params"] if kind == "best" else found["train"].params, manifest

    def restore_part(
        self, kind: Kind, abstract_part: Any, *, step: int | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reads some of what was saved, found by its names.

        Args:
            kind: `last` or `best`.
            abstract_part: a pytree as it was saved, arrays or abstract; None for what is left.
            step: this one; unset: the newest good one.

        Returns:
            The same structure, and the manifest of the step it is of.

        Raises:
            ConfigError: in one line, if there is none, all are damaged, or it does not fit.
        """
        found, manifest, _ = self.newest_good(kind, step)
        folder = self.path(kind, found)
        wanted, saved = named_leaves(abstract_part), manifest["leaves"]
        if text := unfit({name: x for name, x in saved.items() if name in wanted}, wanted):
            raise ConfigError(f"checkpoint {str(folder)!r} is of another model: {text}")
        positions = [list(saved).index(name) for name in wanted]
        with _readable(folder):
            leaves = read_arrays(folder / "state", wanted, positions)
        treedef = jax.tree_util.tree_structure(abstract_part)
        return jax.tree_util.tree_unflatten(treedef, leaves), manifest

    def read_fields(self, lanes: int, names: Sequence[str]) -> list[np.ndarray]:
        """Small fields of the replay's rows, as `rows.read_fields`, of the newest good step.

        Raises:
            ConfigError: in one line, if there is none; an empty list if it was saved without rows.
        """
        found, manifest, _ = self.newest_good("last")
        if not manifest["rows"]:
            return []
        listed = manifest["rows"]
        with _readable(self.path("last", found)):
            folder = self._sets[listed["set"]].folder
            return read_fields(folder, SavedRows.from_json(listed), lanes, names)

    def set_aside(self, kind: Kind, newer_than: int) -> None:
        """Renames steps that a run walked back from; the next good save drops them."""
        for step in self.steps(kind):
            if step > newer_than:
                self._set_aside(self.path(kind, step))

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(path.name + ".damaged")
        _drop(aside)
        os.replace(path, aside)


def _check_room(folder: Path, size: int) -> None:
    """Raises OSError where arrays cannot fit: Orbax would say so in a hundred lines."""
    free = shutil.disk_usage(folder).free
    if free < size:
        need = f"a checkpoint needs {size / 2**20:.1f} MiB, {free / 2**20:.1f} are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {need}", str(folder))


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises ConfigError in one line where bytes as written are of another version, or forged."""
    try:
        yield
    except Exception as error:
        raise ConfigError(f"checkpoint {str(folder)!r} cannot be read: {_reason(error)}") from None


def _former(final: Path) -> Path:
    """Where a step is while it is replaced."""
    return final.with_name(final.name + ".former")


def _other(name: str) -> str:
    return SETS[1 - SETS.index(name)]


def _remove(folder: Path) -> None:
    """Deletes a step; a kill meanwhile leaves no half checkpoint."""
    doomed = folder.with_name(folder.name + ".old.partial")
    _drop(doomed)
    os.replace(folder, doomed)
    _drop(doomed)


def _drop(path: Path) -> None:
    """Deletes a folder, a file or a link, but not what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """First line of what an error says."""
    text = (str(error).splitlines() or [""])[0][:200]
    return text if isinstance(error, Damage) else f"{type(error).__name__}: {text}"
