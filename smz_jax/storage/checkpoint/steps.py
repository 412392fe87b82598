"""The steps of a run on disk: which are there, which are whole.

last/000000061440/     a step, by its environment steps
state/             Orbax arrays
manifest.json      settings, versions, counters, shapes, where the rows are, SHA-256 sums
manifest.sha256    the manifest's own sum
rows-a/, rows-b/       the replay's rows, of every other step each (`rows`)
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

from smz_jax.config.check import ConfigError, require
from smz_jax.storage.checkpoint.rows import RowFiles, SavedRows
from smz_jax.storage.checkpoint.sums import Damage, verify_folder

Kind = Literal["last", "best"]

FORMAT = 4
SETS = ("a", "b")
_COMPLETE = re.compile(r"\d{12}(\.former)?")


class StepFolders:
    """What a run has saved: `checkpoints/last/` to resume, `checkpoints/best/` to keep.

    Args:
        run_dir: folder of the run; checkpoints are kept below it.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self._root = Path(run_dir).absolute() / "checkpoints"
        # Old steps and rows are deleted here: what lies elsewhere is none of this run's.
        for name in ("last", "best", *(f"rows-{name}" for name in SETS)):
            path = self._root / name
            allowed = "a folder of the run's own, no link"
            require(not path.is_symlink(), f"checkpoints/{name}", str(path), allowed)
        self._sets = {name: RowFiles(self._root / f"rows-{name}") for name in SETS}
        self._turn = SETS[0]  # whose turn it is to take the rows
        self._newest: tuple[int, str] | None = None  # step and set that this process knows of

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
        former = former_of(final)
        return former if former.exists() and not final.exists() else final

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
                damaged.append(f"checkpoint {str(folder)!r} is damaged: {reason_of(error)}")
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

    def set_aside(self, kind: Kind, newer_than: int) -> None:
        """Renames steps that a run walked back from; the next good save drops them."""
        for step in self.steps(kind):
            if step > newer_than:
                self._set_aside(self.path(kind, step))

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(path.name + ".damaged")
        drop(aside)
        os.replace(path, aside)


def former_of(final: Path) -> Path:
    """Where a step is while it is replaced."""
    return final.with_name(final.name + ".former")


def other_set(name: str) -> str:
    """The set of rows whose turn is next."""
    return SETS[1 - SETS.index(name)]


def drop(path: Path) -> None:
    """Deletes a folder, a file or a link, but not what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """First line of what an error says."""
    text = (str(error).splitlines() or [""])[0][:200]
    return text if isinstance(error, Damage) else f"{type(error).__name__}: {text}"
