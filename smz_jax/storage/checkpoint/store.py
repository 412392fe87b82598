"""The checkpoints of one run: `checkpoints/last/` to resume, `checkpoints/best/` to keep.

A save copies what it needs to the host and writes it in a thread. A step is written under a
`.partial` name, forced to the disk and renamed when complete; then it is read back and verified,
and only then older ones go. So a kill, a power cut or a full disk at any moment leaves the former
step whole. A restore verifies every sum first and walks back from a damaged step to the newest
good one.
"""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smz_jax.storage.checkpoint.arrays import describe, named_leaves, to_host, write_arrays
from smz_jax.storage.checkpoint.restoring import CheckpointReader
from smz_jax.storage.checkpoint.rows import RowChunks, SavedRows
from smz_jax.storage.checkpoint.steps import FORMAT, SETS, Kind, drop, former_of, other_set
from smz_jax.storage.checkpoint.sums import (
    Damage,
    read_manifest,
    sums_below,
    sync,
    sync_below,
    write_manifest,
)

KEPT = 2
"""Newest steps of `last` that are kept: one to resume from, one to walk back to."""


class CheckpointStore(CheckpointReader):
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
        super().__init__(run_dir)
        self._about, self._keep_every, self._stride = dict(about or {}), keep_every, stride
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def saved_rows(self, step: int) -> SavedRows | None:
        """Rows that need not be saved again at the next save, which is of `step`.

        The newest step again goes where it was: the other set is that of the step before it.
        """
        if self._newest and self._newest[0] == step:
            self._turn = self._newest[1]
        return self._sets[self._turn].saved

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
        """Whether a save is running."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the running save; raises its error, once."""
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
        former = former_of(final)
        if final.exists():  # the same step again: whatever happens, one of the two is whole
            drop(former)
            os.replace(final, former)
        os.replace(partial, final)
        sync(final.parent)
        try:
            self._verify(final, again=False)
        except Damage:
            turn.saved = None  # the next save here writes everything anew
            self._set_aside(final)
            raise
        drop(former)
        if saved:
            turn.saved, self._newest = saved, (step, self._turn)
            self._turn = other_set(self._turn)
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
                drop(former)
        kept = 1 if kind == "best" else KEPT
        older = [step for step in self.steps(kind) if step != newest]
        for step in older if kept == 1 else older[: -(kept - 1)]:
            every, before = self._keep_every, step - self._stride
            if kind == "best" or not every or step // every == before // every:
                _remove(self.path(kind, step))
        for damaged in (self._root / kind).glob("*.damaged"):
            drop(damaged)
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


def _check_room(folder: Path, size: int) -> None:
    """Raises OSError where arrays cannot fit: Orbax would say so in a hundred lines."""
    free = shutil.disk_usage(folder).free
    if free < size:
        need = f"a checkpoint needs {size / 2**20:.1f} MiB, {free / 2**20:.1f} are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {need}", str(folder))


def _remove(folder: Path) -> None:
    """Deletes a step; a kill meanwhile leaves no half checkpoint."""
    doomed = folder.with_name(folder.name + ".old.partial")
    drop(doomed)
    os.replace(folder, doomed)
    drop(doomed)
