"""Where a trained model is: an export, or weights that come with the package; loads no JAX.

`smz_jax/pretrained/<name>/` is an export of a run of the experiment of that name, and
`smz_jax/pretrained/scores.json` says what each scored: `python -m experiments.evaluate NAME`.
"""

import json
import os
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError, require, shorten

ROOT = Path(__file__).parents[1] / "pretrained"
SCORES = ROOT / "scores.json"
SUMS, ABOUT, WEIGHTS = "SHA256SUMS", "export.json", "weights.npz"
"""Files that an export has and a run has not."""


def pretrained() -> dict[str, dict[str, Any]]:
    """What there is, by name: score, seeds and the command that trained it."""
    return json.loads(SCORES.read_text(encoding="utf-8"))


def find_model(folder: Path, name: str = "folder") -> Path:
    """The folder of a model: that of this path if there is one, else the weights of this name.

    So a folder in the working directory wins over weights that come with the package.

    Raises:
        ConfigError: in one line with the `name` of the setting and the weights there are, if it is
            neither.
    """
    if os.path.exists(folder):  # of a Path it may raise
        return folder
    names = sorted(pretrained())
    if str(folder) in names:
        return ROOT / folder
    allowed = (
        "the folder of an export or of a run, or the name of weights that come with the package"
    )
    raise ConfigError(
        f"{name} = {shorten(str(folder))} is not allowed: it must be {allowed}: {', '.join(names)}"
    )


def place_for(folder: Path, out: Path | None) -> Path:
    """Where what is found about a model goes: to `out`, or into its folder.

    Raises:
        ConfigError: in one line, if that is a folder of the package, where nothing is written.
    """
    is_ours = folder.absolute().parent == ROOT
    allowed = "given for weights that come with the package: a folder for what is found"
    require(out is not None or not is_ours, "out", None, allowed)
    return out or folder


def is_export(folder: Path) -> bool:
    """Whether `folder` is meant to be an export, whole or not: it holds a file that a run has not.

    Raises:
        ConfigError: if there is no such folder.
    """
    require(folder.is_dir(), "folder", str(folder), "the folder of an export or of a run")
    return any((folder / name).exists() for name in (SUMS, ABOUT, WEIGHTS))
