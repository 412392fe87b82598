"""Stored play in a folder as Minari's, the format of Gymnasium's foundation; no pickle.

    data/main_data.hdf5   a group for each episode: observations, actions, rewards, ends, infos
    data/metadata.json    spaces, counts, and under `smz_jax` what Minari has no field for
    SHA256SUMS            the sums of both, as `sha256sum -c` reads them

An episode is a game, or the part of one that was stored. Its observations are the newest frames
alone, compressed; stacks are built anew from them. All fields of its rows are in the infos, one
more of each than there are actions: the last row is the final observation's. So what was stored
comes back bit for bit; `rewards`, `terminations` and `truncations` are for other readers. Times of
a learner mean nothing elsewhere: `target_step` is left out.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.storage.checkpoint.sums import Damage, reason_of, sums_below, sync_below
from smz_jax.storage.documents.forms import every, fields, kind, number, optional
from smz_jax.storage.export import check_new_folder
from smz_jax.storage.files import atomic_write_text, read_json
from smz_jax.types import EnvSpec, Trajectory

FORMAT = 1
SUMS, DATA, METADATA, MAIN = "SHA256SUMS", "data", "metadata.json", "main_data.hdf5"
OURS = "smz_jax"
"""Entry of the metadata: `format`, `experiment`, `env`, `action_names`, `played_by`."""
_NOT_KEPT = ("frame", "target_step", "player", "rewards", "values")
INFOS = tuple(x for x in Trajectory._fields if x not in _NOT_KEPT)
SCORE = "smz_jax_score"
"""Attribute of an episode: the sum of its rewards as they were scored."""
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
CHUNK_BYTES = 2**19
"""Frames are compressed in pieces of about so many bytes."""
LEAST_BYTES = 4096
"""Smaller arrays are not compressed: pieces cost more than they save."""


def all_of(scores: Sequence[float]) -> Sequence[int]:
    """Every episode."""
    return range(len(scores))


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
        is_inner = path.name == DATA and (path / METADATA).is_file()
        self.path = path.parent if is_inner else path
        self._data = self.path / DATA if (self.path / DATA).is_dir() else self.path
        allowed = f"the folder of a Minari dataset, which holds {DATA}/{METADATA}"
        require((self._data / METADATA).is_file(), "dataset", str(path), allowed)
        check_library()
        with self._readable():
            self.is_verified = _verify(self.path)
            self.metadata = read_json(self._data / METADATA)
            self.about = _about(self.metadata)
            if self.about and not self.is_verified:
                raise Damage(f"{SUMS} is missing")
            from minari.dataset.minari_storage import MinariStorage

            self._storage = MinariStorage.read(self._data)
        self.episodes, self.steps = (self.metadata[f"total_{x}"] for x in ("episodes", "steps"))
        self.observation_space: Any = self._storage.observation_space
        self.action_space: Any = self._storage.action_space

    def __str__(self) -> str:
        size = sum(x.stat().st_size for x in self.path.rglob("*") if x.is_file()) / 1e6
        return f"{self.path}: {self.episodes:,} episodes, {self.steps:,} steps, {size:.1f} MB"

    @property
    def rows(self) -> int:
        """Rows of a replay: the steps, and the final observation of each episode."""
        return self.steps + self.episodes

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises ConfigError in one line for whatever is raised over bytes made on purpose."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, ConfigError) else reason_of(error)
            where = f"dataset {str(self.path)!r} is damaged or not as Minari's: "
            raise ConfigError(where + text) from None

    def scores(self) -> list[float]:
        """Score of each episode; where none was noted, the sum of its rewards.

        Raises:
            ConfigError: in one line, if the file of the episodes is not as Minari writes it.
        """
        import h5py

        with self._readable(), h5py.File(self._data / MAIN, "r") as file:
            found = []
            for number in range(self.episodes):
                group: Any = file[f"episode_{number}"]
                score = group.attrs.get(SCORE)
                found.append(float(np.sum(group["rewards"][:]) if score is None else score))
            if not np.isfinite(found).all():
                raise Damage("a score is not finite")
            return found

    def read(self) -> Iterator[dict[str, Any]]:
        """The episodes as Minari gives them, one after the other; NumPy.

        Raises:
            ConfigError: in one line naming the first whose parts do not go together.
        """
        for at in range(self.episodes):
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


@contextlib.contextmanager
def _written(
    out: Path, spaces: Sequence[Any], more: Mapping[str, Any], *, jpeg: bool = False
) -> Iterator[Any]:
    """The open HDF5 file of a dataset, which appears at `out` when it is complete, or not at all.

    `spaces` are those of observations and actions, `more` goes into the metadata.
    """
    check_new_folder(out)
    import h5py
    import minari
    from minari.dataset.minari_storage import MinariStorage

    partial = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        storage = MinariStorage.new(partial / DATA, *spaces, jpeg_encoding=jpeg)
        with h5py.File(partial / DATA / MAIN, "w", track_order=True) as file:
            yield file
            steps = [len(group["rewards"]) for group in file.values()]
        name = re.sub(r"[^-\w]", "-", out.absolute().name)
        about = {
            "dataset_id": f"{OURS}/{name}-v0",
            "minari_version": minari.__version__,
            "total_episodes": len(steps),
            "total_steps": sum(steps),
            "dataset_size": storage.get_size(),
        }
        storage.update_metadata({**about, **more})
        sums = sorted((name, digest) for name, (_, digest) in sums_below(partial).items())
        atomic_write_text(partial / SUMS, "".join(f"{x}  {name}\n" for name, x in sums))
        sync_below(partial)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_dataset(
    out: Path,
    rows: Trajectory,
    about: Mapping[str, Any],
    oldest: int = 0,
    raw: np.ndarray | None = None,
    choose: Choose = all_of,
) -> None:
    """Writes rows `[lanes, T, ...]` (NumPy) of a ring to a new or empty folder.

    Each lane begins with its row `oldest`. The episodes are in the order of the lanes, so that as
    many lanes of as many rows are those rows again, where all are kept. `about` goes into the
    metadata. With raw rewards `[lanes, T]` each episode gets its score.

    Raises:
        ConfigError: if `out` is no new or empty folder, or Minari is not installed, or as `choose`.
        OSError: if it cannot be written; nothing is left then.
    """
    check_library()
    from minari.serialization import deserialize_space

    shape, kind = rows.frame.shape[2:], rows.frame.dtype
    is_bits = kind.kind == "b"
    dtype = np.dtype(np.uint8) if is_bits else kind
    bounds = (-np.inf, np.inf)
    if dtype.kind in "iu":
        bounds = (np.iinfo(dtype).min, 1 if is_bits else np.iinfo(dtype).max)
    low, high = (np.full(shape, x).tolist() for x in bounds)
    box = {"type": "Box", "dtype": str(dtype), "shape": list(shape), "low": low, "high": high}
    actions = {"type": "Discrete", "n": len(about["action_names"]), "start": 0}
    spaces = [deserialize_space(json.dumps(x)) for x in (box, actions)]
    rows = rows._replace(frame=rows.frame.astype(dtype, copy=False))
    places = list(_places(np.asarray(rows.is_first), oldest))
    earned = [rows.reward[x, at[:-1]] if raw is None else raw[x, at] for x, at in places]
    scores = [float(x.sum(dtype=np.float64)) for x in earned]
    chosen = choose(scores)
    with _written(out, spaces, {OURS: {"format": FORMAT, **about}}) as file:
        for at, number in enumerate(chosen):
            group = file.create_group(f"episode_{at}")
            if raw is not None:
                group.attrs[SCORE] = scores[number]
            _write_episode(group, at, jax.tree.map(lambda x, i=number: x[places[i]], rows))


def _places(is_first: np.ndarray, oldest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Lane and rows of each game, or of what there is of it."""
    for lane, firsts in enumerate(is_first):
        order = np.roll(np.arange(len(firsts)), -oldest)
        ends = sorted({0, *np.flatnonzero(firsts[order]).tolist(), len(firsts)})
        for start, end in itertools.pairwise(ends):
            yield lane, order[start:end]


def _write_episode(group: Any, number: int, rows: Trajectory) -> None:
    """Writes an episode as Minari does, but compressed."""
    steps = len(rows.action) - 1
    over = np.zeros((2, steps), np.bool_)  # terminations, truncations
    if steps:
        over[int(rows.discount[steps - 1] != 0), -1] = True
    group.attrs.update({"id": number, "total_steps": steps})
    arrays = {
        "observations": rows.frame,
        "actions": rows.action[:-1].astype(np.int64),
        "rewards": rows.reward[:-1],
        "terminations": over[0],
        "truncations": over[1],
        **{f"infos/{name}": getattr(rows, name) for name in INFOS},
    }
    for name, array in arrays.items():
        options = {}
        if array.nbytes >= LEAST_BYTES:
            piece = max(1, min(len(array), CHUNK_BYTES * len(array) // array.nbytes))
            options = {"chunks": (piece, *array.shape[1:]), "compression": "gzip"}
            options["compression_opts"] = 1
        group.create_dataset(name, data=array, **options)


def merge_datasets(out: Path, datasets: Sequence[Dataset], choose: Choose = all_of) -> None:
    """Writes the episodes of several datasets, in their order, to a new or empty folder.

    Raises:
        ConfigError: in one line, if they are of other spaces, actions or encodings, or `out` cannot
            be used, or as `choose`.
        OSError: if it cannot be written; nothing is left then.
    """
    first, *others = datasets
    for other in others:
        for name in ("observation_space", "action_space", "action_names", "jpeg_encoding"):
            ours, theirs = ({**x.metadata, **x.about}.get(name) for x in (first, other))
            require(ours == theirs, f"{name} of {other.path}", theirs, f"{ours}, as {first.path}")
    form = {x.metadata.get("data_format") for x in datasets}
    require(form == {"hdf5"}, "data_format", sorted(map(str, form)), "hdf5")
    import h5py

    more: dict[str, Any] = {OURS: first.about} if first.about else {}
    more["combined_datasets"] = [str(x.metadata.get("dataset_id")) for x in datasets]
    spaces = first.observation_space, first.action_space
    jpeg = bool(first.metadata.get("jpeg_encoding", True))
    kept = set(choose([score for dataset in datasets for score in dataset.scores()]))
    numbers = itertools.count()
    with _written(out, spaces, more, jpeg=jpeg) as file:
        for dataset in datasets:
            with h5py.File(dataset._data / MAIN, "r") as source:
                for episode in range(dataset.episodes):
                    if next(numbers) not in kept:
                        continue
                    at = len(file)
                    source.copy(f"episode_{episode}", file, f"episode_{at}")
                    file[f"episode_{at}"].attrs["id"] = at
