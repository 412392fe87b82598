"""Training from stored play alone: `python -m experiments.offline --dataset DIR`.

The game, its family of presets and what else the dataset knows of its experiment are taken from it;
every setting may be given. Nothing is played but evaluations, and steps are updates:
`docs/offline.md`. Any other experiment takes `--dataset` too.
"""

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.dataset import value_of
from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment, find_experiment
from smz_jax.config.kept import ALL, read_keep
from smz_jax.config.process import run_main
from smz_jax.config.sources import SETTINGS, read_file
from smz_jax.run.launch import launch

DESCRIPTION = "Stochastic MuZero from a dataset: searches what was stored anew and learns from it."
EXPERIMENT = Experiment("offline", "gym", description=DESCRIPTION)
"""As far as it is known without a dataset."""
CUT_BELOW = 0.5
"""`learner.cut_below` but in Atari: what was played, perhaps at random, is not what values are to
be of."""


@functools.cache  # a sweep asks for each of its runs, and a dataset's sums are verified each time
def suited(path: Path, keep: str = ALL, named: str | None = None) -> Experiment:
    """The experiment of a dataset; raises ConfigError in one line where that is none.

    `keep` is `replay.keep`, which says how many rows there are to hold; `named` the `env.id` that
    was typed.
    """
    from smz_jax.storage.dataset import Dataset

    dataset, kept = Dataset(path), read_keep(keep)
    if keep != ALL:
        dataset.keep(kept)
    over: dict[str, Any] = {"dataset": str(path), "replay.capacity": dataset.rows}
    over["replay.min_size"] = dataset.rows
    settings, base = dataset.about.get("env") or {}, {}
    if settings.get("suite") != "atari":
        over["learner.cut_below"] = CUT_BELOW
    game = settings.get("id") if dataset.about else game_of(dataset.metadata.get("env_spec"))
    allowed = "given with --env.id: a dataset may not name a module to be imported"
    is_named = ":" not in str(game) or named == game
    require(is_named, "env.id", game, allowed)
    if dataset.about:
        env = {f"env.{name}": x for name, x in settings.items()}
        over |= {name: x for name, x in env.items() if name in SETTINGS and x is not None}
        try:
            found = find_experiment(str(dataset.about.get("experiment")))
        except ConfigError:  # of somebody's own script
            return Experiment("offline", "gym", over=over, description=DESCRIPTION)
        return Experiment("offline", found.family, found.base, DESCRIPTION, over=over)
    if game:
        base = {"env.suite": "gym", "env.id": game}
    family = "vector" if len(dataset.observation_space.shape or (0, 0)) == 1 else "gym"
    return Experiment("offline", family, base, DESCRIPTION, over=over)


def game_of(spec: Any) -> str | None:
    """The id in Gymnasium's description of an environment; None: there is none to be read."""
    try:
        found = json.loads(spec)["id"]
    except (TypeError, ValueError, LookupError):
        return None
    return found if isinstance(found, str) else None


def experiment_of(words: Sequence[str]) -> Experiment:
    """The experiment of a command line; raises ConfigError in one line where it has no dataset."""
    path, keep = (value_of(name, words) for name in ("--dataset", "--replay.keep"))
    if file := value_of("--config", words):
        given = read_file(Path(file))
        path = path or given.get("dataset")
        keep = keep or str(given.get("replay.keep") or ALL)
    if path is not None:
        return suited(Path(path), keep or ALL, value_of("--env.id", words))
    if not {"-h", "--help", "--resume"} & set(words):
        parse(words, EXPERIMENT)  # names what is wrong beside it
        raise ConfigError("dataset = None is not allowed: it must be given: --dataset DIR")
    return EXPERIMENT


def main() -> None:
    """Finds the dataset, and what it is of, and trains."""
    launch(experiment_of(sys.argv[1:]))


if __name__ == "__main__":
    run_main(main)
