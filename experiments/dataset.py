"""Stored play as a Minari dataset: `python -m experiments.dataset export|info|merge`.

examples:
  the replay of a run's newest checkpoint, into RUN_DIR/dataset:
    python -m experiments.dataset export runs/cartpole/20260131-120000-seed0
  games of a person, of a trained model or of chance:
    python -m experiments.record --help
  what is in a dataset, with every episode read once:
    python -m experiments.dataset info good
  several as one:
    python -m experiments.dataset merge random good --out mixed
  the ten best games of one:
    python -m experiments.dataset merge good --best 10 --out better
  training on it, without playing:
    python -m experiments.offline --dataset mixed

A dataset is a folder as Minari's, with a SHA-256 of each file beside it. Observations are the
newest frames, as the networks see them before they are stacked; rewards are those of training,
which in Atari are their signs unless --env.no_clip_rewards is given. Needs `pip install '.[data]'`.
"""  # noqa: D405

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smz_jax.config.check import Checked, ConfigError, require
from smz_jax.config.cli import read_request
from smz_jax.config.kept import Kept
from smz_jax.config.process import run_main
from smz_jax.storage.run_dir import read_config


@dataclass(frozen=True)
class ReplayRequest(Checked):
    """A run whose replay becomes a dataset."""

    run_dir: Path
    """folder of a run that has a checkpoint"""
    out: Path | None = None
    """new or empty folder (default: RUN_DIR/dataset)"""


@dataclass(frozen=True)
class InfoRequest(Checked):
    """A dataset to be described."""

    folder: Path
    """of a Minari dataset"""


@dataclass(frozen=True)
class _Folders(Checked):
    """Datasets."""

    folders: tuple[Path, ...]
    """of Minari datasets with the same spaces"""


@dataclass(frozen=True)
class MergeRequest(Kept, _Folders):
    """Datasets that become one, or the games of them that are kept."""

    out: Path | None = None
    """new or empty folder; must be given"""


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """What a flag is given on a command line, the last time; None: it is not there."""
    found = None
    for number, token in enumerate(argv):
        name, equals, value = token.partition("=")
        if name == flag:
            found = value if equals else next(iter(argv[number + 1 :]), None)
    return found


def write(out: Path | None, make: Callable[[], Any], kept: Kept | None = None) -> None:
    """Writes the `Recording` that `make` gives, once it is clear that it can be written."""
    from smz_jax.run.devices import prepare_jax
    from smz_jax.storage.dataset import Dataset, check_library
    from smz_jax.storage.dataset_writer import all_of, write_dataset
    from smz_jax.storage.export import check_new_folder

    require(out is not None, "out", None, "given: a new or an empty folder")
    assert out is not None
    check_new_folder(out)
    check_library()
    prepare_jax()
    found = make()

    def choose(scores: Sequence[float]) -> Sequence[int]:
        try:
            return (kept or Kept()).choose(scores)
        except ConfigError as error:  # it was played, and cannot be played again
            print(f"{error}; all games are kept, `experiments.dataset merge` filters them")
            return all_of(scores)

    try:
        write_dataset(out, *found, choose=choose)
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r} cannot be written: {error.strerror}") from None
    dataset = Dataset(out)
    scores = dataset.scores()
    mean = sum(scores) / len(scores)
    print(f"wrote {dataset}; scores {min(scores):g} to {max(scores):g}, mean {mean:.2f}")


def export(words: list[str]) -> None:
    """Writes the replay of a run."""
    request = read_request(ReplayRequest, words, __doc__ or "")
    read_config(request.run_dir)

    def make() -> Any:
        from smz_jax.analysis.recording import read_replay

        return read_replay(request.run_dir)

    write(request.out or request.run_dir / "dataset", make)


def describe(episode: dict[str, Any]) -> tuple[float, int, bool, bool]:
    """Return and length, and whether there are a termination and policy targets."""
    from smz_jax.storage.dataset import INFOS

    rewards, infos = episode["rewards"], episode["infos"] or {}
    ended = bool(episode["terminations"].any())
    return float(rewards.sum()), len(rewards), ended, set(INFOS) <= set(infos)


def info(words: list[str]) -> None:
    """Reads a whole dataset and prints what is in it."""
    from smz_jax.storage.dataset import Dataset

    dataset = Dataset(read_request(InfoRequest, words, __doc__ or "").folder)
    about, found = dataset.about, list(map(describe, dataset.read()))
    returns, lengths, ended, targets = map(sorted, zip(*found, strict=True))
    sums = "verified" if dataset.is_verified else "none, so that damage is not noticed"
    scores = sorted(dataset.scores())
    lines = [str(dataset), f"id: {dataset.metadata.get('dataset_id')}; sums: {sums}"]
    if about:
        lines.append(f"experiment: {about.get('experiment')}, {about.get('env', {}).get('id')}")
        lines.append(f"played by: {about.get('played_by')}")
        lines.append(f"actions: {', '.join(about['action_names'])}")
    lines += [
        f"observations: {dataset.observation_space}; actions: {dataset.action_space}",
        f"returns of episodes: {returns[0]:g} to {returns[-1]:g}, "
        f"median {returns[len(returns) // 2]:g}",
        f"scores: {scores[0]:g} to {scores[-1]:g}, median {scores[len(scores) // 2]:g}",
        f"lengths: {lengths[0]} to {lengths[-1]}; {sum(ended):,} end in a termination",
        f"with policy targets and search values: {sum(targets):,} episodes",
    ]
    print("\n".join(" ".join(line.split()) for line in lines))


def merge(words: list[str]) -> None:
    """Writes several datasets as one."""
    from smz_jax.storage.dataset import Dataset
    from smz_jax.storage.dataset_writer import merge_datasets

    request = read_request(MergeRequest, words, __doc__ or "")
    require(request.out is not None, "out", None, "given: a new or an empty folder")
    assert request.out is not None
    folders = [Dataset(folder) for folder in request.folders]
    merge_datasets(request.out, folders, request.choose)
    print(f"wrote {Dataset(request.out)}")


COMMANDS = {"export": export, "info": info, "merge": merge}


def main() -> int:
    """Does what the first word says."""
    command, *words = sys.argv[1:] or [""]
    if command in ("-h", "--help"):
        print(f"usage: python -m experiments.dataset {'|'.join(COMMANDS)} ...\n\n{__doc__}")
        return 0
    require(command in COMMANDS, "command", command, "one of " + ", ".join(COMMANDS))
    COMMANDS[command](words)
    return 0


if __name__ == "__main__":
    run_main(main)
