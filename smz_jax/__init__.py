"""Stochastic MuZero with learned temporal abstractions (macros), in JAX.

    import smz_jax

    run = smz_jax.train("cartpole", preset="smoke")   # as `python -m smz_jax cartpole`
    model = smz_jax.load(run.run_dir)                 # or an export, or "cartpole"
    model.act(observation)                            # the action's number
    model.search(observation)                         # visits, values, chance, the tree
    model.macros(status="sound")
    model.evaluate(games=100)["mean"]

`docs/python.md` has it at length. Importing this loads nothing heavy: JAX comes with the first use.
"""

import importlib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from smz_jax.analysis.look import Look
    from smz_jax.analysis.trained import Model
    from smz_jax.config.check import ConfigError
    from smz_jax.config.experiment import Experiment
    from smz_jax.run.from_python import Run, train
    from smz_jax.storage.pretrained import pretrained

__all__ = ["ConfigError", "Experiment", "Look", "Model", "Run", "load", "pretrained", "train"]

_HOMES = {
    "ConfigError": "smz_jax.config.check",
    "Experiment": "smz_jax.config.experiment",
    "Look": "smz_jax.analysis.look",
    "Model": "smz_jax.analysis.trained",
    "Run": "smz_jax.run.from_python",
    "pretrained": "smz_jax.storage.pretrained",
    "train": "smz_jax.run.from_python",
}
"""Where each name is defined; it is imported at its first use."""


def load(folder: "str | Path", checkpoint: Literal["best", "last"] | None = None) -> "Model":
    """A trained model: of a run, of an export, or by the name of weights of the package.

    Args:
        folder: of a run or an export; or a name (`"cartpole"`), where no folder is called so.
        checkpoint: of a run: its `"best"` model (unset, if it has one) or its `"last"`.

    Raises:
        ConfigError: in one line, if there is none, it is damaged, or does not fit its game.
    """
    from pathlib import Path

    from smz_jax.run.devices import prepare_jax

    prepare_jax()
    from smz_jax.analysis.load import load_model
    from smz_jax.analysis.trained import Model

    return Model(load_model(Path(folder).expanduser(), checkpoint))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smz_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
