"""The macros of a trained model in figures: the library by compression, then what macros do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context

from smz_jax.analysis import load
from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.verify import tried_libraries
from smz_jax.analysis.view.command import print_library
from smz_jax.analysis.view.game_figures import choose_strips, strips_figure, timeline_figure
from smz_jax.analysis.view.tree_figure import tree_figure
from smz_jax.analysis.view.watched_games import watch
from smz_jax.config.check import ConfigError, require
from smz_jax.config.training import MacroConfig
from smz_jax.macros.compression.selection import select
from smz_jax.macros.library.controls import shuffled
from smz_jax.macros.library.listing import Wanted
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.documents.macro_form import (
    MAX_ACTIONS,
    check_fits,
    decode,
    write_macros_json,
)
from smz_jax.storage.run_dir import WRITABLE, can_write
from smz_jax.types import is_end

TIMELINE, TREE, STRIPS = "macro_timeline", "macro_tree", "macro_strips"
"""Names of the figures, which a report looks for in `figures/`."""
MISSING = {
    TREE: "no tree of the games held a certain transition",
    STRIPS: "no macro occurred in the games",
}
TREE_SHARE = 0.1
"""Imagined actions per played one: how much the search's visits weigh in the choice."""
CONTROLLED = 256
"""Macros that are compared with controls at most."""
NEWEST = 50_000
"""So many of the newest actions of a replay are measured: all of a long run's would take minutes,
and the oldest are those of a player who had not learned."""


def draw_library(
    request: MacrosRequest, library: dict[str, Any], wanted: Wanted, *, is_run: bool
) -> None:
    """Chooses the library by compression, prints and writes it, and draws the figures.

    The request says where the actions come from, and where figures and library go. The library is
    that of its folder, which is that of a run (`is_run`) or of an export without a replay.

    Raises:
        ConfigError: in one line, if model and library do not fit, the replay is wanted and not
            there, or damaged, or a file cannot be written.
    """
    folder, out = request.folder, request.out or request.folder
    if not 0 < (count := len(library["action_names"])) <= MAX_ACTIONS:
        why = f"there are {count} actions, and they hold at most {MAX_ACTIONS}"
        without = "actions have continuous parts, or there are too many"
        raise ConfigError(f"{folder} has no macros: {why if count else without}")
    kinds = [kind for kind in ("last", "best") if any((folder / "checkpoints" / kind).glob("*"))]
    if is_run and not kinds:
        print_library(library, wanted)
        what = "nothing was played or drawn: the run has no checkpoint yet; what would work is"
        print(
            f"{what} a run that has saved one: training does so at its end, and now and then before"
        )
        return
    require(can_write(out / "figures"), "out", str(out), WRITABLE)
    kind: Any = request.checkpoint or next(iter(kinds), "last")
    model = load.load_model(folder, kind)
    check_fits(library, model.about["action_names"], model.config.macro.max_length)
    has_replay = is_run and bool(CheckpointStore(folder).steps("last"))
    allowed = "games: the folder holds no checkpoint with a replay"
    require(request.play != "replay" or has_replay, "play", request.play, allowed)
    replayed = has_replay and request.play != "games"
    pieces = replay_pieces(folder, model.config.env.num_envs) if replayed else []
    watched = None if pieces else watch(model, library, request)
    if watched:
        pieces = [actions for game in watched.games for _, actions in game.pieces]
    selection = measure_selection(library, pieces, source="games" if watched else "replay")
    # In the order of the documented file.
    about = {name: x for name, x in library.items() if name not in ("selection", "macros")}
    library = {**about, "selection": selection, "macros": library["macros"]}
    print_library(library, wanted)
    try:
        if out != folder or is_run:
            out.mkdir(parents=True, exist_ok=True)
            write_macros_json(out, library)
            print(f"wrote {out / 'macros.json'}")
        watched = watched or watch(model, library, request)
        games, decided, picture = watched.games, watched.decided, watched.picture
        play, tree = model.config.macro.play_threshold, model.config.macro.tree_threshold
        with rc_context(RC):
            strips = choose_strips(games, library, play)
            figures = {
                TIMELINE: timeline_figure(games, library, play_threshold=play),
                TREE: decided and tree_figure(decided, library, tree_threshold=tree),
                STRIPS: strips_figure(strips, picture, library) if strips else None,
            }
            for name, figure in figures.items():
                path = out / "figures" / f"{name}.png"
                if figure is None:
                    path.unlink(missing_ok=True)  # a former one
                else:
                    save_figure(figure, path)
                print(f"wrote {path}" if figure else f"no {name}.png: {MISSING[name]}", flush=True)
        if is_run and out == folder:
            print(f"python -m experiments.report {folder} shows them in its report.html")
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r} cannot be written: {error.strerror}") from None


def pieces_of(action: np.ndarray, is_first: np.ndarray, discount: np.ndarray) -> list[np.ndarray]:
    """The uninterrupted pieces of one lane's rows `[T]`: 1-D arrays, int32.

    As for macros (`macros.play_windows`) a piece may end with a lost life (discount 0) and never
    reaches over one. The action before a row with `is_first` was ignored. The newest row is left
    out: the next one would say whether its action counted.
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
    library: Mapping[str, Any], pieces: Sequence[np.ndarray], *, source: Literal["replay", "games"]
) -> dict[str, Any]:
    """Chooses the library of the fewest bits among the sound macros, weighted by search visits.

    Visits of a macro are what its count has beyond play: windows of search trees (each once for a
    path, or by its end node's visits, as `macro.tree_weight` says).

    Where no macro is sound, it chooses among all of the table, and says so in `of`: what is saved
    then is no claim about the game. The pieces of play are 1-D, `source` says where they are from.

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
    bits = zip(encoding.uses, chosen.saved_bits, chosen.missed_bits, strict=True)
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
                **{"uses": int(uses), "saved_bits": float(saved), "missed_bits": float(missed)},
            }
            for actions, (uses, saved, missed) in zip(chosen.phrases, bits, strict=True)
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
    own = tried_libraries.Library("macros", tuple(macros), ())
    lengths = tried_libraries.wanted_lengths(own, library, settings, 32)
    rng = np.random.default_rng(0)
    mixed = tried_libraries.frequent_windows(shuffled(known, rng), lengths, settings, macros)
    drawn = tried_libraries.other_random_macros(lengths, num_actions, settings, macros, rng)
    found = []
    for name, each in (("macros", macros), ("shuffled play", mixed), ("random", drawn)):
        saved = tried_libraries.saved_bits(each, known, held_out, num_actions, seed=0)
        assert saved is not None, "pieces hold actions"
        counts = {"name": name, "macros": len(each), "kept": len(saved.kept)}
        bits = {"saved_bits_per_action": saved.encoding.saved_per_action}
        found.append({**counts, **bits, "saved_low": saved.low, "saved_high": saved.high})
    return {"held_out": sum(map(len, held_out)), "libraries": found}
