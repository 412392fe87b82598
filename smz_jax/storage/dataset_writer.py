"""Writes datasets that `dataset.py` reads: whole and verified, or nothing."""

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smz_jax.config.check import require, shorten
from smz_jax.storage.checkpoint.sums import sums_below, sync_below
from smz_jax.storage.dataset import (
    DATA,
    FORMAT,
    INFOS,
    MAIN,
    OURS,
    PART,
    PLAYED,
    SCORE,
    SUMS,
    Choose,
    Dataset,
    check_library,
)
from smz_jax.storage.export import check_new_folder
from smz_jax.storage.files import atomic_write_text
from smz_jax.types import Trajectory

CHUNK_BYTES = 2**19
"""Frames are compressed in pieces of about so many bytes."""
LEAST_BYTES = 4096
"""Smaller arrays are not compressed: pieces cost more than they save."""
_SAME = ("observation_space", "action_space", "action_names", "jpeg_encoding", *PLAYED, "env_spec")
"""What datasets that are merged have in common."""


def all_of(scores: Sequence[float]) -> Sequence[int]:
    """Every episode."""
    return range(len(scores))


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
    left: Collection[int] | None = None,
    choose: Choose = all_of,
) -> None:
    """Writes rows `[lanes, T, ...]` (NumPy) of a ring to a new or empty folder.

    Each lane begins with its row `oldest`. The episodes are in the order of the lanes, so that as
    many lanes of as many rows are those rows again, where all are kept. `about` goes into the
    metadata. With raw rewards `[lanes, T]` each episode gets its score, of two players without them
    too: that of who began. Where it is known which games were `left`, by number, the last of
    a lane is over if it is none of them; else its last action says it.

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
    newest = (oldest - 1) % rows.is_first.shape[1]
    takes_turns = bool((rows.discount < 0).any())
    earned = [_earned(rows, x, at) if raw is None else raw[x, at] for x, at in places]
    scores = [float(x.sum(dtype=np.float64)) for x in earned]
    chosen = choose(scores)
    with _written(out, spaces, {OURS: {"format": FORMAT, **about}}) as file:
        for at, number in enumerate(chosen):
            group = file.create_group(f"episode_{at}")
            if raw is not None or takes_turns:
                group.attrs[SCORE] = scores[number]
            part = jax.tree.map(lambda x, i=number: x[places[i]], rows)
            is_last = left is None and places[number][1][-1] == newest
            if number in (left or ()) or _is_part(part, is_last):
                group.attrs[PART] = True
            _write_episode(group, at, part)


def _places(is_first: np.ndarray, oldest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Lane and rows of each game, or of what there is of it."""
    for lane, firsts in enumerate(is_first):
        order = np.roll(np.arange(len(firsts)), -oldest)
        ends = sorted({0, *np.flatnonzero(firsts[order]).tolist(), len(firsts)})
        for start, end in itertools.pairwise(ends):
            yield lane, order[start:end]


def _earned(rows: Trajectory, lane: int, at: np.ndarray) -> np.ndarray:
    """The stored rewards of a game, from the side of who moves in its first row."""
    reward, discount = (np.asarray(x[lane, at[:-1]]) for x in (rows.reward, rows.discount))
    side = np.cumprod(np.where(discount < 0, -1.0, 1.0))
    return reward * np.append(1.0, side)[:-1]


def _is_part(rows: Trajectory, is_last: bool) -> bool:
    """Whether the rows of an episode are a game without its beginning or its end.

    Of the last rows of a lane no end is known, unless their last action led to one.
    """
    has_end = not is_last or bool((rows.discount[-2:-1] == 0).any())
    return not (rows.is_first[0] and has_end)


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
        for name in _SAME:
            ours, theirs = (
                {**x.metadata, **x.about, **x.about.get("env", {})}.get(name)
                for x in (first, other)
            )
            allowed = f"{shorten(ours)}, as {first.path}"
            require(ours == theirs, f"{name} of {other.path}", theirs, allowed)
    form = {x.metadata.get("data_format") for x in datasets}
    require(form == {"hdf5"}, "data_format", sorted(map(str, form)), "hdf5")
    import h5py

    more: dict[str, Any] = {}
    if "env_spec" in first.metadata:
        more["env_spec"] = first.metadata["env_spec"]
    if first.about:
        players = sorted({str(x.about.get("played_by")) for x in datasets})
        more[OURS] = {**first.about, "played_by": ", ".join(players)}
    more["combined_datasets"] = [str(x.metadata.get("dataset_id")) for x in datasets]
    spaces = first.observation_space, first.action_space
    jpeg = bool(first.metadata.get("jpeg_encoding", True))
    kept = set(choose([score for dataset in datasets for score in dataset.scores()]))
    numbers = itertools.count()
    with _written(out, spaces, more, jpeg=jpeg) as file:
        for dataset in datasets:
            with h5py.File(dataset.main, "r") as source:
                for episode in range(dataset.episodes):
                    if next(numbers) not in kept:
                        continue
                    at = len(file)
                    source.copy(f"episode_{episode}", file, f"episode_{at}")
                    file[f"episode_{at}"].attrs["id"] = at
