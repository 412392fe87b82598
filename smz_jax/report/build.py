"""Puts a report together: reads the runs, draws the figures, writes the page."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context

from smz_jax.config.check import require
from smz_jax.report.data import RunData, load_runs
from smz_jax.report.page import figure_html, render_page
from smz_jax.report.panels import PANELS
from smz_jax.report.plot import draw_panel
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.files import atomic_write_text
from smz_jax.storage.run_dir import WRITABLE, can_write

DRAWN_ELSEWHERE = {
    "macro_timeline": (
        "A game of the model, drawn by experiments.macros: its score (dotted: a life lost), how "
        "uncertain each action's outcome was to the model, and where the most used macros were "
        "followed from their first action to their last, none over another; faint where not each "
        "of these transitions was certain to the model. Green: sound, by replay; grey: not "
        "enough evidence, or certain too rarely; red: refuted."
    ),
    "macro_tree": (
        "The tree of one of its decisions, from the root on the left: round nodes are states to "
        "act in, square ones wait for chance, small hollow squares would have nothing to wait for: "
        "their transition is certain to the model. Larger ones were searched more; dotted "
        "edges are uncertain. The green chain of certain transitions is what a collapsed search "
        "walks in one go, and what a macro is found from. Numbers: entropies of the chain, of the "
        "most visited path, and of what was searched from the chain's end."
    ),
    "macro_strips": (
        "What the best macros do, in the real game: the screen before, after each action, and what "
        "has changed from first to last (red: where something has come, blue: where it is gone). "
        "Grey titles: not each of these transitions was certain to the model."
    ),
    "grid": (
        "Left: the map, with the value of each cell and the best actions. Middle: how random each "
        "action's outcome is by the rules, a triangle for each action of a cell. Right: how random "
        "it is to the model, faded where the replay has nothing; the more alike the two, the "
        "better it knows what is chance."
    ),
}
"""Captions of the pictures that other commands leave in a run's folder, in the page's order."""


def build_report(run_dirs: Sequence[Path], out_dir: Path | None = None) -> Path:
    """Writes `figures/*.png` and a self-contained `report.html` about one or several runs.

    Works during a run and after a kill: what is not there yet is shown as missing. Runs whose
    settings differ only in the seed are drawn as thin lines with their mean. The page, whose path
    is given, goes into `out_dir`, or the first run folder.

    Raises:
        ConfigError: in one line, if a folder is missing, or holds no metrics or damaged ones, or
            if `out_dir` is no folder that can be written.
        OSError: if the output cannot be written for another reason (a full disk).
    """
    runs = load_runs(run_dirs)
    out = Path(run_dirs[0] if out_dir is None else out_dir)
    require(can_write(out / "figures"), "out", str(out), WRITABLE)
    blocks = []
    with rc_context(RC), warnings.catch_warnings():
        # A run's name may hold letters that the figures' font lacks; the page shows it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for panel in (panel for panel in PANELS.values() if panel.shown(runs)):
            path = out / "figures" / f"{panel.name}.png"
            save_figure(draw_panel(panel, runs), path)
            note = _batch_note(runs) if panel.of_one_batch else ""
            blocks.append(figure_html(panel.name, panel.caption + note, path.read_bytes()))
    for name, caption in DRAWN_ELSEWHERE.items():
        for run in runs:
            path = run.path / "figures" / f"{name}.png"
            # Something else has drawn it into the run's folder.
            if path.is_file():
                after, before = (f" {run.label}", f"{run.label}. ") if len(runs) > 1 else ("", "")
                blocks.append(figure_html(name + after, before + caption, path.read_bytes()))
    page = out / "report.html"
    atomic_write_text(page, render_page(runs, blocks))
    return page


def _batch_note(runs: Sequence[RunData]) -> str:
    """How much a check of the model is drawn from, where the settings are known."""
    names = ("batch_size", "unroll_steps")
    sizes = [[run.setting("learner", name) for name in names] for run in runs]
    known = " or ".join(dict.fromkeys(f"{x} windows of {k} steps" for x, k in sizes if x and k))
    return known and f" Each check is of one batch ({known}): small differences are noise."
