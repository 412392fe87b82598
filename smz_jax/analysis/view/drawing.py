"""The macros of a trained model in figures: the library by compression, then what macros do."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from smz_jax.analysis import load
from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view.command import print_library
from smz_jax.analysis.view.measuring import measure_selection, replay_pieces
from smz_jax.analysis.view.strips import choose_strips, strips_figure
from smz_jax.analysis.view.timeline import timeline_figure
from smz_jax.analysis.view.tree_figure import tree_figure
from smz_jax.analysis.view.watched_games import WatchedGames, watch
from smz_jax.config.check import ConfigError, require
from smz_jax.config.training import MacroConfig
from smz_jax.macros.library.listing import Wanted
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.documents.macro_form import check_fits, write_macros_json
from smz_jax.storage.run_dir import WRITABLE, can_write

TIMELINE, TREE, STRIPS = "macro_timeline", "macro_tree", "macro_strips"
"""Names of the figures, which a report looks for in `figures/`."""
MISSING = {
    TREE: "no tree of the games held a certain transition",
    STRIPS: "no macro occurred in the games",
}


def draw_library(
    request: MacrosRequest, library: dict[str, Any], wanted: Wanted, *, is_run: bool
) -> None:
    """Chooses the library by compression, prints and writes it, and draws the figures.

    Args:
        request: where the actions come from, and where figures and library go.
        library: the macros of the request's folder.
        wanted: what the table shows.
        is_run: whether the folder is that of a run, which has a replay.

    Raises:
        ConfigError: in one line, if model and library do not fit, the replay is wanted and not
            there, or damaged, or a file cannot be written.
    """
    folder, out = request.folder, request.out or request.folder
    kinds = [kind for kind in ("last", "best") if any((folder / "checkpoints" / kind).glob("*"))]
    if is_run and not kinds:
        print_library(library, wanted)
        print(
            "nothing was played or drawn: the run has no checkpoint yet; what would work is a run "
            "that has saved one: training does so at its end, and now and then before"
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
        for name, figure in _figures(library, watched, model.config.macro):
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


def _figures(
    library: Mapping[str, Any], watched: WatchedGames, settings: MacroConfig
) -> Iterator[tuple[str, Figure | None]]:
    """Each figure with its name; None where there is nothing to draw."""
    games, threshold = watched.games, settings.play_threshold
    with rc_context(RC):
        yield TIMELINE, timeline_figure(games, library, play_threshold=threshold)
        at, decided = settings.tree_threshold, watched.decided
        yield TREE, decided and tree_figure(decided, library, tree_threshold=at)
        strips = choose_strips(games, library, threshold)
        yield STRIPS, strips_figure(strips, watched.picture, library) if strips else None
