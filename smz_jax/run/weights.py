"""The weights of another run, or of an export, that a run begins with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.model.jump import without_jump
from smz_jax.model.lanes import brought_home
from smz_jax.storage.checkpoint import CheckpointStore, Kind
from smz_jax.storage.export import read_export
from smz_jax.storage.pretrained import is_export
from smz_jax.storage.weights import fit
from smz_jax.types import Params, TrainState

OF_JUMPS = ("jump_length", "gain_slots", "reward_support", "reward_transform")
"""Settings of networks that say which shapes a jump has beside those of its model."""


def load_weights(
    config: Config, train: TrainState, run_dir: Path, kind: Kind, step: int | None
) -> tuple[TrainState, str]:
    """A learner's fresh state with the model of another run, of its newest good step if unset.

    The folder may be an export, which holds one. The weights of a jump come along where it has the
    same shapes, and are fresh where not; what was found out of it never does, so that its gates are
    closed.

    Returns:
        The state, and a line for the user: the step whose weights were taken, whether the jump's
        are, and in what its game and its model were set otherwise.

    Raises:
        ConfigError: in one line, if there is none, or its model is another one.
    """
    own, ours = brought_home(train.params), flat_dict(config)
    read = _of_export(run_dir) if is_export(run_dir) else _of_run(run_dir, kind)
    params, manifest = read(without_jump(own), step)
    theirs, beside = manifest.get("config"), ""
    if "jump" in own:
        params = {**params, "jump": own["jump"]}
        if not differing(theirs, {x: ours[x] for x in (f"network.{name}" for name in OF_JUMPS)}):
            part = {"jump": {"weights": own["jump"]["weights"]}}
            jump = read(part, manifest["step"])[0]["jump"]
            params["jump"], beside = {**own["jump"], **jump}, " with its jump"
    matters = {x: ours[x] for x in ours if x == "env.id" or x.startswith("network.")}
    other = differing(theirs, matters)
    line = f"weights of step {manifest['step']:,} of {run_dir}{beside}{other and f' ({other})'}"
    return train._replace(params=params, target_params=jax.tree.map(jnp.copy, params)), line


_Read = Callable[[Params, int | None], tuple[Params, dict[str, Any]]]
"""From some of a model's parameters, and a step, to those that were saved, and the manifest."""


def _of_export(folder: Path) -> _Read:
    found = read_export(folder)
    manifest = {"step": found.about["env_steps"] or 0, "config": flat_dict(found.config)}

    def read(part: Params, _: int | None) -> tuple[Params, dict[str, Any]]:
        start = ("jump/weights/",) if "jump" in part else tuple(f"{name}/" for name in part)
        named = {x: y for x, y in found.weights.items() if x.startswith(start)}
        return fit(jax.eval_shape(lambda: part), named), manifest

    return read


def _of_run(folder: Path, kind: Kind) -> _Read:
    store = CheckpointStore(folder)

    def read(part: Params, step: int | None) -> tuple[Params, dict[str, Any]]:
        params, _, manifest = store.restore_model(kind, part, step=step)
        return params, manifest

    return read


def differing(theirs: Any, ours: dict[str, Any]) -> str:
    """Where a manifest has other values than those of `ours`, the first five; empty: nowhere."""
    theirs = theirs if isinstance(theirs, dict) else {}
    found = [
        f"{name}: {theirs.get(name)!r} in it, {value!r} here"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
