"""The checkpoints of one run: `checkpoints/last/` to resume, `checkpoints/best/` to keep.

last/000000061440/     a step, by its environment steps
    state/             Orbax arrays
    manifest.json      settings, versions, counters, shapes, where the rows are, SHA-256 sums
    manifest.sha256    the manifest's own sum
rows-a/, rows-b/       the replay's rows, of every other step each (`rows`)

A save copies what it needs to the host and writes it in a thread. A step is written under a
`.partial` name, forced to the disk and renamed when complete; then it is read back and verified,
and only then older ones go. So a kill, a power cut or a full disk at any moment leaves the former
step whole. A restore verifies every sum first and walks back from a damaged step to the newest
good one.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.storage.checkpoint import arrays, sums
from smz_jax.storage.checkpoint import rows as row_files
from smz_jax.storage.checkpoint.rows import RowChunks, SavedRows
from smz_jax.storage.checkpoint.steps import (
    FORMAT,
    READABLE,
    Kind,
    check_format,
    find_steps,
    place_of,
    rename,
)
from smz_jax.storage.checkpoint.sums import Damage, reason_of
from smz_jax.storage.files import by_descriptor, drop, opened
from smz_jax.types import Params, TrainState, Trajectory

Among = Callable[[Callable[[], Any]], list[Any]]
"""Makes something in a thread of each process; the first gets what all made, in their order."""

KEPT = {"last": 2, "best": 1}
"""Newest steps that are kept: of `last` one to resume from, one to walk back to."""
OTHER = {"a": "b", "b": "a"}
"""Of the sets of rows, whose turn comes after it."""


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
        stride: environment steps of an iteration.
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
        for name in ("last", "best", *(f"rows-{name}" for name in OTHER)):
            path = self._root / name
            allowed = "a folder of the run's own, no link"
            require(not path.is_symlink(), f"checkpoints/{name}", str(path), allowed)
        self._about, self._keep_every, self._stride = dict(about or {}), keep_every, stride
        self._saved: dict[str, SavedRows | None] = dict.fromkeys(OTHER)  # newest, verified ones
        self.turn = "a"  # of the sets of rows, whose turn it is to take them
        self._newest: tuple[int, str] | None = None  # step and set that this process knows of
        self._is_there = self.run_dir.is_dir()
        self._pool = futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving: futures.Future[Any] | None = None

    def steps(self, kind: Kind) -> list[int]:
        """Environment steps of all complete checkpoints of a kind, oldest first."""
        return find_steps(self._root / kind)

    @property
    def run_dir(self) -> Path:
        """The run's folder, absolute."""
        return self._root.parent

    def move(self, run_dir: Path) -> None:
        """Goes on in the run's folder by its new name, after the running save."""
        if self._saving is not None:
            futures.wait([self._saving])
        self._root = run_dir.absolute() / "checkpoints"

    def path(self, kind: Kind, step: int) -> Path:
        """Folder of a step; its former one, if the process was killed while it was replaced."""
        return place_of(self._root / kind, step)

    def newest_good(
        self, kind: Kind, step: int | None = None
    ) -> tuple[int, dict[str, Any], list[str]]:
        """The newest step (or `step`) all as it was written, its manifest, and what is damaged.

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
                damaged.append(f"checkpoint {str(folder)!r} is damaged: {reason_of(error)}")
                continue
            check_format(folder, manifest, READABLE)
            return one, manifest, damaged
        if damaged:
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            raise ConfigError(f"no good checkpoint is left: {damaged[0]}{more}")
        raise ConfigError(f"no checkpoint in {str(self._root / kind)!r}: nothing to go on from")

    def restore(
        self,
        kind: Kind,
        abstract_state: Any,
        *,
        experience: Trajectory | None = None,
        step: int | None = None,
        partial: bool = False,
        fits: Callable[[dict[str, Any]], None] | None = None,
    ) -> Restored:
        """Reads the newest good step of a kind.

        Args:
            kind: where it was saved.
            abstract_state: a pytree as it was saved, of arrays or `jax.ShapeDtypeStruct`s; NumPy
                leaves come back as NumPy, numbers as numbers, the rest on the device.
            experience: as `read_rows` takes it, for a step that has rows; unset: they are left.
            step: this one; unset: the newest good one.
            partial: `abstract_state` is some of what was saved, found by its names; else all.
            fits: called with the manifest before arrays are read; it may raise ConfigError.

        Raises:
            ConfigError: in one line, if there is none, all are damaged, or it does not fit.
        """
        found, manifest, damaged = self.newest_good(kind, step)
        folder, rows = self.path(kind, found), None
        if not partial:
            check_format(folder, manifest, (FORMAT,))
        if fits:
            fits(manifest)
        state = arrays.read_state(folder, manifest["leaves"], abstract_state, partial=partial)
        if experience is not None and (listed := manifest["rows"]):
            turn, saved = listed["set"], SavedRows.from_json(listed)
            with arrays.readable(folder):
                rows = row_files.read_rows(self._rows_folder(turn), saved, experience)
            self._saved[turn], self._newest, self.turn = saved, (found, turn), OTHER[turn]
        return Restored(state, manifest["extra"], rows, found, damaged, manifest)

    def restore_model(
        self, kind: Kind, params: Params, head: Any = None, *, step: int | None = None
    ) -> tuple[Params, Any, dict[str, Any]]:
        """Reads the model alone, which `last` and `best` hold at different places; as `restore`.

        Returns:
            The parameters that play (see `learner.target_update_share`), the head of preconditions
            (None: it is left), and the step's manifest.
        """
        part: Any = {"params": params, "head": head}
        if kind == "best":
            found = self.restore(kind, part, step=step, partial=True)
            return found.state["params"], found.state["head"], found.manifest
        part = {"train": TrainState(params, params, None, None, None, head)}  # type: ignore[arg-type]
        found = self.restore(kind, part, step=step, partial=True)
        model: TrainState = found.state["train"]
        config = found.manifest.get("config")
        share = config.get("learner.target_update_share", 1) if isinstance(config, dict) else 1
        is_average = isinstance(share, float) and share < 1
        return model.target_params if is_average else model.params, model.head, found.manifest

    def read_fields(self, lanes: int, names: Sequence[str]) -> list[np.ndarray]:
        """Small fields of the replay's rows, as `rows.read_fields`, of the newest good step.

        Raises:
            ConfigError: in one line, if there is none; an empty list if it was saved without rows.
        """
        step, manifest, _ = self.newest_good("last")
        if not (listed := manifest["rows"]):
            return []
        with arrays.readable(self.path("last", step)):
            folder, saved = self._rows_folder(listed["set"]), SavedRows.from_json(listed)
            return row_files.read_fields(folder, saved, lanes, names)

    def set_aside(self, kind: Kind, newer_than: int) -> None:
        """Renames steps that a run walked back from; the next good save drops them."""
        for step in self.steps(kind):
            if step > newer_than:
                rename(self.path(kind, step), ".damaged")

    def saved_rows(self, step: int, parts: int = 1) -> SavedRows | None:
        """Rows that need not be saved again at the next save, which is of `step`.

        The newest step again goes where it was: the other set is that of the step before it. Rows
        in other `parts` are all saved anew. What a save that was cut short left is dropped.
        """
        if self._newest and self._newest[0] == step:
            self.turn = self._newest[1]
        with contextlib.suppress(OSError):
            for left in self._rows_folder(self.turn).glob(".*.tmp"):
                drop(left)
        if (saved := self._saved[self.turn]) and saved.parts != parts:
            self._saved[self.turn] = None
        return self._saved[self.turn]

    def save(
        self,
        kind: Kind,
        step: int,
        state: Any,
        extra: Mapping[str, Any] | None = None,
        rows: RowChunks | None = None,
        *,
        block: bool = True,
        among: Among = lambda make: [make()],
    ) -> None:
        """Saves a step; waits for the save before it.

        Args:
            kind: `last` or `best`. A `best` replaces the former one.
            step: environment steps.
            state: any pytree of arrays, numbers and random keys; it is copied before this returns.
            extra: what JSON can hold beside it: counters, scores.
            rows: the replay's rows, as `take_rows` gives them against `saved_rows(step)`.
            block: wait until it is written; else `wait` or the next save does.
            among: what all processes made, where others `save_part` meanwhile.

        Raises:
            OSError, ValueError: if this (with `block`) or the save before it could not be written;
                the steps before are intact.
        """
        self.wait()
        leaves = arrays.named_leaves(state)
        copied = [arrays.to_host(leaf) for leaf in leaves.values()]
        manifest = {
            **{"format": FORMAT, "kind": kind, "step": step, "extra": dict(extra or {})},
            **self._about,
            "leaves": {name: arrays.describe(leaf) for name, leaf in leaves.items()},
        }
        self._saving = self._pool.submit(self._write, manifest, copied, rows, among)
        if block:
            self.wait()

    def save_part(self, turn: str, rows: RowChunks, among: Among, *, block: bool = True) -> None:
        """Writes the own part of a step that the first process, whose `turn` it is, saves so."""
        self.wait()
        self._saving = self._pool.submit(among, lambda: self._write_part(turn, rows))
        if block:
            self.wait()

    def wait(self) -> None:
        """Waits for the running save; raises its error, once."""
        if self._saving is not None:
            futures.wait([self._saving])
            done, self._saving = self._saving, None
            done.result()

    def _make(self, *folders: Path) -> None:
        """Makes folders; a run's folder that was renamed or deleted is not made again."""
        for folder in (self._root, *folders):
            folder.mkdir(parents=not self._is_there, exist_ok=True)

    def _write_part(self, turn: str, chunks: RowChunks) -> list[Any]:
        folder = self._rows_folder(turn)
        self._make(folder)
        with opened(folder) as there:
            return row_files.write_rows(by_descriptor(there, folder), chunks)

    def _write(
        self, manifest: dict[str, Any], leaves: list[Any], chunks: RowChunks | None, among: Among
    ) -> None:
        kind, step, turn = manifest["kind"], manifest["step"], self.turn
        final = self._root / kind / f"{step:012d}"

        def begin() -> list[Any]:
            self._clear(kind)
            self._make(final.parent)
            return self._write_part(turn, chunks) if chunks else []

        try:
            written = among(begin)
            saved = row_files.list_rows(chunks, self._saved[turn], written) if chunks else None
            listed = saved and {"set": turn, **saved.as_json()}
            partial = final.with_suffix(".partial")
            partial.mkdir()
            arrays.write_arrays(partial / "state", leaves)
            manifest |= {"rows": listed, "files": sums.sums_below(partial)}
            sums.write_manifest(partial, manifest)
            sums.sync_below(partial)
            if final.exists():  # the same step again: whatever happens, one of the two is whole
                rename(final, ".former")
            os.replace(partial, final)
            sums.sync(final.parent)
            try:
                self._verify(final, saved)  # its rows were read back as they were written
                arrays.check_arrays(final / "state", leaves)
            except Damage:
                self._saved[turn] = None  # the next save here writes everything anew
                rename(final, ".damaged")
                raise
            drop(final.with_suffix(".former"))
            if saved:
                self._saved[turn], self._newest, self.turn = saved, (step, turn), OTHER[turn]
            self._prune(kind, step)
        except Exception:
            with contextlib.suppress(OSError):  # what was written takes room for nothing
                self._clear(kind)
                self._prune_rows()
            raise

    def _verify(self, folder: Path, known: SavedRows | None = None) -> dict[str, Any]:
        """The manifest of a step all of whose files are right; raises Damage naming one.

        Rows that are listed in `known` were verified before: only their sizes are compared.
        """
        manifest = sums.verify_folder(folder)
        if missing := {"format", "kind", "step", "extra", "leaves", "rows"} - set(manifest):
            raise Damage(f"the manifest lacks {sorted(missing)[0]}")
        if manifest["format"] in READABLE:
            for name in ("extra", "leaves"):
                if not isinstance(manifest[name], dict):
                    raise Damage(f"the manifest's {name} are no mapping")
            if manifest["step"] != int(folder.name[:12]) or manifest["kind"] != folder.parent.name:
                raise Damage(f"it is the step {manifest['step']} of {manifest['kind']!r}")
            if rows := manifest["rows"]:
                saved = SavedRows.from_json(rows)
                row_files.verify_rows(self._rows_folder(rows["set"]), saved, known)
        return manifest

    def _rows_folder(self, turn: str) -> Path:
        if turn not in OTHER:
            raise Damage(f"{turn!r} is no set of rows")
        return self._root / f"rows-{turn}"

    def _clear(self, kind: Kind) -> None:
        for left in (self._root / kind).glob("*.partial"):  # of saves that were cut short
            drop(left)

    def _prune(self, kind: Kind, newest: int) -> None:
        """Drops steps that a newer, verified one replaces, then rows that no step lists."""
        folder = self._root / kind
        for former in folder.glob("*.former"):
            if former.with_suffix("").exists():
                drop(former)
        older = [step for step in self.steps(kind) if step != newest]
        for step in older[: len(older) + 1 - KEPT[kind]]:
            every, before = self._keep_every, step - self._stride
            if kind == "best" or not every or step // every == before // every:
                # A kill while it is deleted leaves no half checkpoint.
                drop(rename(self.path(kind, step), ".old.partial"))
        for damaged in folder.glob("*.damaged"):
            drop(damaged)
        if kind == "last":
            self._prune_rows()

    def _prune_rows(self) -> None:
        listed: dict[str, set[str]] = {name: set() for name in OTHER}
        for step in self.steps("last"):
            try:
                if rows := sums.read_manifest(self.path("last", step)).get("rows"):
                    listed[rows["set"]] |= SavedRows.from_json(rows).names
            except Exception:  # damaged: what it needs is not known, and nothing is dropped
                return
        for name, saved in self._saved.items():
            folder = self._rows_folder(name)
            for path in folder.iterdir() if folder.is_dir() else []:
                if path.name not in listed[name]:
                    path.unlink(missing_ok=True)
            if saved and not saved.names <= listed[name]:
                self._saved[name] = None  # the next save here writes everything anew
