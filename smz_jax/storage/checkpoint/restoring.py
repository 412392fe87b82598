"""Reading back what a run has saved, whole or in part, once every sum is right."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.storage.checkpoint.arrays import named_leaves, read_arrays, unfit
from smz_jax.storage.checkpoint.rows import SavedRows, read_fields, read_rows
from smz_jax.storage.checkpoint.steps import Kind, StepFolders, other_set, reason_of
from smz_jax.types import Params, TrainState, Trajectory


class Restored(NamedTuple):
    """What came back."""

    state: Any
    extra: dict[str, Any]
    rows: Trajectory | None  # the replay's ring, if it was saved with the step
    step: int
    damaged: list[str]  # a line for each newer step that could not be used
    manifest: dict[str, Any]


class CheckpointReader(StepFolders):
    """Restores the state of one run; walks back from a damaged step to the newest good one."""

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
                self._turn = other_set(listed["set"])
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


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises ConfigError in one line where bytes as written are of another version, or forged."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"checkpoint {str(folder)!r} cannot be read: {reason_of(error)}"
        ) from None
