"""Stored play in a folder as Minari's, the format of Gymnasium's foundation; no pickle.

    data/main_data.hdf5   a group for each episode: observations, actions, rewards, ends, infos
    data/metadata.json    spaces, counts, and under `smz_jax` what Minari has no field for
    SHA256SUMS            the sums of both, as `sha256sum -c` reads them

An episode is a game, or the part of one that was stored. Its observations are the newest frames
alone, compressed; stacks are built anew from them. All fields of its rows are in the infos, one
more of each than there are actions: the last row is the final observation's. So what was stored
comes back bit for bit; `rewards`, `terminations` and `truncations` are for other readers. Times of
a learner mean nothing elsewhere: `target_step` is left out. `dataset_writer.py` writes them.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.config.kept import Kept
from smz_jax.storage.checkpoint.sums import Damage, reason_of, sum_of, sums_below
from smz_jax.storage.documents.forms import every, fields, kind, number, optional
from smz_jax.storage.files import read_json
from smz_jax.types import EnvSpec, Trajectory

FORMAT = 1
SUMS, DATA, METADATA, MAIN = "SHA256SUMS", "data", "metadata.json", "main_data.hdf5"
OURS = "smz_jax"
"""Entry of the metadata: `format`, `experiment`, `env`, `action_names`, `played_by`."""
_NOT_KEPT = ("frame", "target_step", "player", "rewards", "values", "search_spread")
INFOS = tuple(x for x in Trajectory._fields if x not in _NOT_KEPT)
PLAYED = ("id", "kwargs", "frame_skip", "mode", "sticky_prob", "clip_rewards")
"""Settings of an environment that make its play another thing."""
SCORE = "smz_jax_score"
"""Attribute of an episode: the sum of its rewards as they were scored."""
PART = "smz_jax_part"
"""Attribute of an episode that is not a whole game: it was cut off, at its beginning or its end."""
Choose = Callable[[Sequence[float]], Sequence[int]]
"""Which episodes are kept, in their order, by the scores of all."""
FORM = fields(
    **dict.fromkeys(("total_episodes", "total_steps"), number(1, 2**40, whole=True)),
    # Without them Minari would import the environment's module, whatever that is.
    **dict.fromkeys(("observation_space", "action_space"), kind(str)),
    smz_jax=optional(
        fields(format=kind(int), env=optional(kind(dict)), action_names=every(kind(str)))
    ),
)
"""What the metadata of any dataset must hold."""


class Episode(NamedTuple):
    """What is known of an episode before its arrays are read."""

    number: int  # in the dataset, from 0
    score: float  # where none was noted, the sum of its rewards
    steps: int  # actions
    is_whole: bool  # a game from its first observation to its end


def check_library() -> None:
    """Raises ConfigError in one line where Minari or h5py is not installed."""
    missing = [name for name in ("minari", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"not installed: {', '.join(missing)}; type pip install '.[data]'")


def check_recordable(spec: EnvSpec) -> None:
    """Raises ConfigError in one line where a dataset cannot hold an environment's actions."""
    parts = f"{spec.num_actions} of {len(spec.action_space.sizes)} numbers or choices"
    allowed = "one discrete choice: datasets hold no other actions"
    require(not spec.action_space.parts, f"action space of {spec.name}", parts, allowed)
    allowed = "1 or 2: a dataset says what one player gains"
    require(spec.sides == 1, f"players of {spec.name}", spec.players, allowed)


class Dataset:
    """A Minari dataset in a folder; what has sums is verified before anything in it is parsed.

    Args:
        path: its folder, or the `data` in it. No name of Minari's, and nothing is downloaded.

    Raises:
        ConfigError: in one line, if it is none, of another format, damaged or half written.
    """

    def __init__(self, path: Path) -> None:
        is_inner = path.name == DATA and os.path.isfile(path / METADATA)
        self.path = path.parent if is_inner else path
        self._data = self.path / DATA if os.path.isdir(self.path / DATA) else self.path
        allowed = f"the folder of a Minari dataset, which holds {DATA}/{METADATA}"
        require(os.path.isfile(self._data / METADATA), "dataset", str(path), allowed)
        check_library()
        with self._readable():
            self.is_verified = _verify(self.path)
            self.metadata = read_json(self._data / METADATA)
            self.about = _about(self.metadata)
            if self.about and not self.is_verified:
                raise Damage(f"{SUMS} is missing")
            from minari.dataset.minari_storage import MinariStorage

            self._storage = MinariStorage.read(self._data)
            if not self.is_verified:
                self._check_counts()
        self.episodes, self.steps = (self.metadata[f"total_{x}"] for x in ("episodes", "steps"))
        self.main = self._data / MAIN
        """File of the episodes."""
        self._numbers: Sequence[int] = range(self.episodes)  # that are read
        self.observation_space: Any = self._storage.observation_space
        self.action_space: Any = self._storage.action_space

    def __str__(self) -> str:
        size = sum(x.stat().st_size for x in self.path.rglob("*") if x.is_file()) / 1e6
        return f"{self.path}: {self.episodes:,} episodes, {self.steps:,} steps, {size:.1f} MB"

    @property
    def sum(self) -> str:
        """SHA-256 of its sums, or where it has none of its episodes."""
        return sum_of(self.path / SUMS if self.is_verified else self.main)[1]

    @property
    def rows(self) -> int:
        """Rows of a replay: the steps, and the final observation of each episode."""
        return self.steps + self.episodes

    def _check_counts(self) -> None:
        """Raises Damage where the metadata tell of other episodes or steps than are stored."""
        import h5py

        with h5py.File(self._data / MAIN, "r") as file:
            stored = [len(file), sum(len(group["rewards"]) for group in file.values())]
        told = [self.metadata[f"total_{x}"] for x in ("episodes", "steps")]
        if told != stored:
            raise Damage(f"episodes and steps are {stored}, {METADATA} says {told}")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises ConfigError in one line for whatever is raised over bytes made on purpose."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, ConfigError) else reason_of(error)
            where = f"dataset {str(self.path)!r} is damaged or not as Minari's: "
            raise ConfigError(where + text) from None

    def listed(self) -> list[Episode]:
        """All its episodes, the oldest first; of those that it does not read, too.

        Raises:
            ConfigError: in one line, if the file of the episodes is not as Minari writes it.
        """
        import h5py

        with self._readable(), h5py.File(self.main, "r") as file:
            found = []
            for number in range(self.metadata["total_episodes"]):
                group: Any = file[f"episode_{number}"]
                rewards, score = group["rewards"], group.attrs.get(SCORE)
                score = float(np.sum(rewards[:]) if score is None else score)
                begins = "infos/is_first" not in group or bool(group["infos/is_first"][0])
                is_whole = begins and not group.attrs.get(PART, False)
                found.append(Episode(number, score, len(rewards), is_whole))
            if not np.isfinite([x.score for x in found]).all():
                raise Damage("a score is not finite")
            return found

    def scores(self) -> list[float]:
        """Score of each episode of the dataset; raises as `listed`."""
        return [x.score for x in self.listed()]

    def keep(self, which: Kept) -> tuple[list[Episode], int]:
        """Has only whole games read, and counted as `episodes`: those that `replay.keep` keeps.

        Returns:
            The games that are kept, and how many whole ones there are.

        Raises:
            ConfigError: in one line, as `listed`, or if none is kept.
        """
        whole = [x for x in self.listed() if x.is_whole]
        scores = [x.score for x in whole]
        chosen = which.choose(scores, "replay.keep", "whole games in the dataset")
        kept = [whole[x] for x in chosen]
        self._numbers = [x.number for x in kept]
        self.episodes, self.steps = len(kept), sum(x.steps for x in kept)
        return kept, len(whole)

    def read(self) -> Iterator[dict[str, Any]]:
        """The episodes, or those that are kept, as Minari gives them, one after the other; NumPy.

        Raises:
            ConfigError: in one line naming the first whose parts do not go together.
        """
        for at in self._numbers:
            with self._readable():
                (found,) = self._storage.get_episodes([at])
                _check_episode(found, f"episode {at}")
            yield found


def _about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What this project wrote of a dataset; {} of another's. Raises Damage."""
    if fault := FORM(metadata, ""):
        raise Damage(f"{METADATA}: {fault}")
    about = metadata.get(OURS) or {}
    if about and about["format"] != FORMAT:
        raise Damage(f"it has format {about['format']}, this version reads format {FORMAT}")
    return about


def _check_episode(found: dict[str, Any], name: str) -> None:
    """Raises Damage where lengths do not agree, or a number is not finite."""
    actions, rewards = np.asarray(found["actions"]), np.asarray(found["rewards"])
    if actions.ndim != 1 or actions.dtype.kind not in "iu":
        raise Damage(f"{name}: its actions are no whole numbers")
    if not np.isfinite(rewards.astype(np.float64)).all():
        raise Damage(f"{name}: a reward is not finite")
    for part in ("rewards", "terminations", "truncations"):
        if np.shape(found[part]) != actions.shape:
            raise Damage(f"{name}: {part} are {np.shape(found[part])}, not {actions.shape}")
    observations = found["observations"]
    if isinstance(observations, np.ndarray) and len(observations) != len(actions) + 1:
        raise Damage(f"{name}: {len(observations)} observations of {len(actions)} actions")
    infos = found["infos"] or {}
    if set(INFOS) <= set(infos):
        for part in INFOS:
            if len(infos[part]) != len(actions) + 1:
                raise Damage(f"{name}: infos/{part} has {len(infos[part])} rows")
        if not np.array_equal(infos["action"][:-1], actions):
            raise Damage(f"{name}: its infos are of other actions")


def _verify(folder: Path) -> bool:
    """Compares the sums of all files; False where there are none. Raises Damage."""
    if not (folder / SUMS).exists():
        return False
    listed: dict[str, str] = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    found = {name: digest for name, (_, digest) in sums_below(folder).items() if name != SUMS}
    for name in {**listed, **found}:
        if listed.get(name) != found.get(name):
            what = "has another SHA-256 than" if name in found else "is missing, of"
            raise Damage(f"{name[:80]} {what} {SUMS}" + ("" if name in listed else " (none)"))
    return True
