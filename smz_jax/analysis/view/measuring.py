"""The library by compression: which macros shorten the description of play, for macros.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smz_jax.analysis.verify.tried_libraries import (
    frequent_windows,
    other_random_macros,
    saved_bits,
)
from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.selection import select
from smz_jax.macros.library.controls import shuffled
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.documents.macro_form import decode
from smz_jax.types import is_end

TREE_SHARE = 0.1
"""Imagined actions per played one: how much the search's visits weigh in the choice."""
CONTROLLED = 256
"""Macros that are compared with controls at most."""
NEWEST = 50_000
"""So many of the newest actions of a replay are measured: all of a long run's would take minutes,
and the oldest are those of a player who had not learned."""


def pieces_of(action: np.ndarray, is_first: np.ndarray, discount: np.ndarray) -> list[np.ndarray]:
    """The uninterrupted pieces of one lane's rows: 1-D arrays, int32.

    As for macros (`macros.play_windows`) a piece may end with a lost life and never reaches over
    one. The newest row is left out: the next one would say whether its action counted.

    Args:
        action: `[T]` int.
        is_first: `[T]` bool; the row before one with it holds an action that was ignored.
        discount: `[T]`, 0 where the action ended a life or a game.
    """
    counts = ~np.asarray(is_first[1:], np.bool_)
    ends = np.flatnonzero(~counts | is_end(discount[:-1])) + 1
    rows = np.split(np.arange(len(counts)), ends)
    pieces = [action[piece[counts[piece]]].astype(np.int32) for piece in rows]
    return [piece for piece in pieces if len(piece)]


def replay_pieces(run_dir: Path, lanes: int, newest: int = NEWEST) -> list[np.ndarray]:
    """The newest actions that a run's last checkpoint keeps in its replay, lane by lane.

    At most `newest` of all lanes together, in pieces as `pieces_of` gives them; none if the
    checkpoint holds no rows.

    Raises:
        ConfigError: in one line, if there is no good checkpoint.
    """
    rows = CheckpointStore(run_dir).read_fields(lanes, ("action", "is_first", "discount"))
    if not rows:
        return []
    start = max(0, rows[0].shape[1] - newest // len(rows[0]))
    by_lane = zip(*(field[:, start:] for field in rows), strict=True)
    return [piece for lane in by_lane for piece in pieces_of(*lane)]


def measure_selection(
    library: Mapping[str, Any],
    pieces: Sequence[np.ndarray],
    *,
    source: Literal["replay", "games"],
) -> dict[str, Any]:
    """Chooses the library of the fewest bits among the sound macros, weighted by search visits.

    Visits of a macro are what its count has beyond play: windows of search trees (each once for a
    path, or by its end node's visits, as `macro.tree_weight` says).

    Where no macro is sound, it chooses among all of the table, and says so in `of`: what is saved
    then is no claim about the game.

    Args:
        library: as `LIBRARY.read` gives it.
        pieces: of play, each 1-D.
        source: of play.

    Returns:
        `selection` of macros.json, see `docs/macros_json.md`; the bits are those of
        `macros.coding`.
    """
    names = library["action_names"]
    sound = [macro for macro in library["macros"] if macro["status"] == "sound"]
    allowed = sound or library["macros"]
    visits = [macro["count"] - macro["play_count"] for macro in allowed]
    macros = [tuple(macro["actions"]) for macro in allowed]
    chosen = select(pieces, macros, len(names), visits=visits, tree_share=TREE_SHARE)
    encoding = chosen.encoding
    bits = (encoding.uses, chosen.saved_bits, chosen.missed_bits)
    return {
        "play": {"source": source, "actions": sum(map(len, pieces)), "pieces": len(pieces)},
        "of": "sound" if sound else "table",
        "allowed": len(allowed),
        "tree_share": TREE_SHARE if any(visits) else 0.0,
        "sampled": chosen.sampled,
        "controls": _measure_controls(library, macros[:CONTROLLED], pieces),
        "bits_per_action": encoding.bits_per_action,
        "bits_per_action_plain": encoding.plain_bits_per_action,
        "dictionary_bits": encoding.dictionary_bits,
        "coverage": encoding.coverage,
        "redundancy": chosen.redundancy,
        "redundancy_allowed": chosen.allowed_redundancy,
        "phrases": [
            {
                "actions": list(actions),
                "names": decode(actions, names),
                "uses": int(uses),
                "saved_bits": float(saved),
                "missed_bits": float(missed),
            }
            for actions, uses, saved, missed in zip(chosen.phrases, *bits, strict=True)
        ],
    }


def _measure_controls(
    library: Mapping[str, Any], macros: Sequence[tuple[int, ...]], pieces: Sequence[np.ndarray]
) -> dict[str, Any] | None:
    """`controls` of `selection`: what macros and as many controls save of play that is held out.

    Of each library those are kept that shorten every other piece of play; the rest of play is
    measured, the dictionary paid, with its 95 % interval (`verify.tried_libraries.saved_bits`). So
    a control, too, is taken at its best; none of a control's is among the macros. Their lengths are
    those of the macros; if there is none, they are of every length. None: nothing can be held out.
    """
    known, held_out = pieces[::2], pieces[1::2]
    if not sum(map(len, held_out)):
        return None
    num_actions, settings = len(library["action_names"]), MacroConfig(**library["config"])
    between = range(max(settings.min_length, 2), max(settings.max_length, 2) + 1)
    lengths = [len(macro) for macro in macros] or [between[i % len(between)] for i in range(32)]
    rng = np.random.default_rng(0)
    libraries = {
        "macros": macros,
        "shuffled play": frequent_windows(shuffled(known, rng), lengths, settings, macros),
        "random": other_random_macros(lengths, num_actions, settings, macros, rng),
    }
    found = []
    for name, each in libraries.items():
        saved = saved_bits(each, known, held_out, num_actions, seed=0)
        assert saved is not None, "pieces hold actions"
        counts = {"name": name, "macros": len(each), "kept": len(saved.kept)}
        bits = {"saved_bits_per_action": saved.encoding.saved_per_action}
        found.append({**counts, **bits, "saved_low": saved.low, "saved_high": saved.high})
    return {"held_out": sum(map(len, held_out)), "libraries": found}
