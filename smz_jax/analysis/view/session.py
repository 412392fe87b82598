"""Looks at the macros of a trained model: the library by compression, then the figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context

from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view import games as watching
from smz_jax.analysis.view.selection import measure_selection
from smz_jax.analysis.view.streams import count_actions, has_replay, replay_pieces
from smz_jax.analysis.view.strips import choose_strips, strips_figure
from smz_jax.analysis.view.timeline import timeline_figure
from smz_jax.analysis.view.tree_figure import tree_figure
from smz_jax.config.settings import require
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.export import Exported

TIMELINE, TREE, STRIPS = "macro_timeline", "macro_tree", "macro_strips"
"""Names of the figures, which a report looks for in `figures/`."""


class Looked(NamedTuple):
    """What was found."""

    library: dict[str, Any]  # with its selection
    watched: watching.Watched | None  # None: the games were not needed yet


def measure(
    folder: Path,
    model: Exported,
    library: Mapping[str, Any],
    request: MacrosRequest,
    *,
    is_run: bool,
) -> Looked:
    """The library by compression of a run's or an export's macros.

    Args:
        folder: of the run or the export.
        model: that plays, if games must be played.
        library: its macros, of the model's actions (`macro_file.check_fits`).
        request: where the actions come from.
        is_run: whether the folder is that of a run, which has a replay.

    Raises:
        ConfigError: in one line, if the replay is asked for and not there, or damaged.
    """
    there = is_run and has_replay(folder)
    allowed = "games: the folder holds no checkpoint with a replay"
    require(request.play != "replay" or there, "play", request.play, allowed)
    if request.play != "games" and there:
        pieces = replay_pieces(folder, model.config.env.num_envs)
        if count_actions(pieces):
            return Looked(_with(library, measure_selection(library, pieces, source="replay")), None)
    watched = watch(model, library, request)
    pieces = watching.pieces(watched.games)
    return Looked(_with(library, measure_selection(library, pieces, source="games")), watched)


def _with(library: Mapping[str, Any], selection: dict[str, Any]) -> dict[str, Any]:
    """The library with its selection, in the order of the documented file."""
    document = {name: value for name, value in library.items() if name != "selection"}
    macros = document.pop("macros")
    return {**document, "selection": selection, "macros": macros}


def watch(model: Exported, library: Mapping[str, Any], request: MacrosRequest) -> watching.Watched:
    """Plays the games that figures are drawn of; says so, since it may take a minute."""
    games = "1 game" if request.games == 1 else f"{request.games} games"
    print(f"playing {games} of at most {request.max_steps:,} steps", flush=True)
    return watching.watch(
        model, library, games=request.games, max_steps=request.max_steps, seed=request.seed
    )


def draw(
    model: Exported, library: Mapping[str, Any], watched: watching.Watched, out: Path
) -> list[tuple[str, Path | None]]:
    """Draws the figures into `out/figures`.

    Args:
        model: that played.
        library: its macros, with their selection.
        watched: what it played.
        out: folder.

    Returns:
        Of each figure its name and file; None where there is nothing to draw, and a former file is
        gone then.

    Raises:
        ConfigError: in one line, if the game does not repeat itself.
        OSError: if a file cannot be written.
    """
    settings = watched.config.macro
    with rc_context(RC):
        figures: list[tuple[str, Any]] = [
            (
                TIMELINE,
                timeline_figure(watched.games, library, play_threshold=settings.play_threshold),
            )
        ]
        decided = watched.decided
        tree = None
        if decided is not None:
            tree = tree_figure(decided, library, tree_threshold=settings.tree_threshold)
        figures.append((TREE, tree))
        strips = choose_strips(watched.games, library, settings.play_threshold)
        drawn = None
        if strips:
            wanted = {step for strip in strips for step in strip.steps}
            seen = watching.pictures(model, watched, wanted)
            drawn = strips_figure(strips, seen.__getitem__, library)
        figures.append((STRIPS, drawn))
        found = []
        for name, figure in figures:
            path = out / "figures" / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                save_figure(figure, path)
            found.append((name, None if figure is None else path))
    return found
