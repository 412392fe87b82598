"""The macros of a trained model in figures: the library by compression, then what macros do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view.games import WatchedGames, pictures, watch
from smz_jax.analysis.view.selection import measure_selection, replay_pieces
from smz_jax.analysis.view.spans import pieces_of_games
from smz_jax.analysis.view.strips import choose_strips, strips_figure
from smz_jax.analysis.view.timeline import timeline_figure
from smz_jax.analysis.view.tree_figure import tree_figure
from smz_jax.config.check import require
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.export import Exported

TIMELINE, TREE, STRIPS = "macro_timeline", "macro_tree", "macro_strips"
"""Names of the figures, which a report looks for in `figures/`."""


class MeasuredLibrary(NamedTuple):
    """A library by compression."""

    library: dict[str, Any]  # with its selection, in the order of the documented file
    watched: WatchedGames | None  # None: the games were not needed yet


def measure(
    folder: Path,
    model: Exported,
    library: Mapping[str, Any],
    request: MacrosRequest,
    *,
    is_run: bool,
) -> MeasuredLibrary:
    """The library by compression of a run's or an export's macros.

    Args:
        folder: of the run or the export.
        model: that plays, if games must be played.
        library: its macros, of the model's actions (`check_fits`).
        request: says where the actions come from.
        is_run: whether the folder is that of a run, which has a replay.

    Raises:
        ConfigError: in one line, if the replay is wanted and not there, or damaged.
    """
    has_replay = is_run and CheckpointStore(folder).exists("last")
    allowed = "games: the folder holds no checkpoint with a replay"
    require(request.play != "replay" or has_replay, "play", request.play, allowed)
    pieces, watched = [], None
    if request.play != "games" and has_replay:
        pieces = replay_pieces(folder, model.config.env.num_envs)
    source = "replay" if pieces else "games"
    if not pieces:
        watched = watch(model, library, request)
        pieces = pieces_of_games(watched.games)
    selection = measure_selection(library, pieces, source=source)
    document = {name: x for name, x in library.items() if name not in ("selection", "macros")}
    return MeasuredLibrary(
        {**document, "selection": selection, "macros": library["macros"]}, watched
    )


def draw(
    library: Mapping[str, Any], watched: WatchedGames, out: Path
) -> list[tuple[str, Path | None]]:
    """Draws the figures into `out/figures`.

    Returns:
        Of each figure its name and file; None where there is nothing to draw, and a former file is
        gone then.

    Raises:
        ConfigError: in one line, if the game does not repeat itself.
        OSError: if a file cannot be written.
    """
    settings, found = watched.config.macro, []
    with rc_context(RC):
        figures: dict[str, Figure | None] = dict.fromkeys((TIMELINE, TREE, STRIPS))
        figures[TIMELINE] = timeline_figure(
            watched.games, library, play_threshold=settings.play_threshold
        )
        if watched.decided is not None:
            figures[TREE] = tree_figure(
                watched.decided, library, tree_threshold=settings.tree_threshold
            )
        if strips := choose_strips(watched.games, library, settings.play_threshold):
            seen = pictures(watched, {step for strip in strips for step in strip.steps})
            figures[STRIPS] = strips_figure(strips, seen.__getitem__, library)
        for name, figure in figures.items():
            path = out / "figures" / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                save_figure(figure, path)
            found.append((name, path if figure else None))
    return found
