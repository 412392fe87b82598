"""Puts a report together: reads the runs, draws the figures, writes the page."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context

from smz_jax.config.settings import require
from smz_jax.report.data import RunData, load_runs
from smz_jax.report.page import FigureBlock, render_page
from smz_jax.report.panels import DRAWN_ELSEWHERE, PANELS
from smz_jax.report.plot import draw_panel
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.files import atomic_write_text


def build_report(run_dirs: Sequence[Path], out_dir: Path | None = None) -> Path:
    """Writes `figures/*.png` and a self-contained `report.html` about one or several runs.

    Works during a run and after a kill: what is not there yet is shown as missing. Runs whose
    settings differ only in the seed are drawn as thin lines with their mean.

    Args:
        run_dirs: folders `runs/<experiment>/<name>`; several are drawn over each other.
        out_dir: where to; unset: the first run folder.

    Returns:
        Path of the page.

    Raises:
        ConfigError: in one line, if a folder is missing, or holds no metrics or damaged ones, or
            if `out_dir` is no folder that can be written.
        OSError: if the output cannot be written for another reason (a full disk).
    """
    runs = load_runs(run_dirs)
    out = Path(run_dirs[0] if out_dir is None else out_dir)
    require_writable(out)
    blocks = []
    with rc_context(RC), warnings.catch_warnings():
        # A run's name may hold letters that the figures' font lacks; the page shows it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for panel in (panel for panel in PANELS.values() if panel.shown(runs)):
            path = out / "figures" / f"{panel.name}.png"
            save_figure(draw_panel(panel, runs), path)
            note = _batch_note(runs) if panel.of_one_batch else ""
            blocks.append(FigureBlock(panel.name, panel.caption + note, path.read_bytes()))
    for name, caption in DRAWN_ELSEWHERE.items():
        found = (_block(run, name, caption, len(runs) > 1) for run in runs)
        blocks += [block for block in found if block]
    page = out / "report.html"
    atomic_write_text(page, render_page(runs, blocks))
    return page


def _batch_note(runs: Sequence[RunData]) -> str:
    """How much a check of the model is drawn from, where the settings are known."""
    sizes = [
        [run.setting("learner", name) for name in ("batch_size", "unroll_steps")] for run in runs
    ]
    known = dict.fromkeys(f"{x} windows of {k} steps" for x, k in sizes if x and k)
    if not known:
        return ""
    return f" Each check is of one batch ({' or '.join(known)}): small differences are noise."


def _block(run: RunData, name: str, caption: str, several: bool) -> FigureBlock | None:
    """A picture that something else has drawn into the run's folder, if it is there."""
    path = run.path / "figures" / f"{name}.png"
    if not path.is_file():
        return None
    if several:
        name, caption = f"{name} {run.label}", f"{run.label}. {caption}"
    return FigureBlock(name, caption, path.read_bytes())


def require_writable(out: Path) -> None:
    """Raises ConfigError unless `out` is, or can be made, a folder with room for `figures/`."""
    figures = (out / "figures").absolute()
    nearest = next(folder for folder in (figures, *figures.parents) if folder.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK)
    require(good, "out", str(out), "a folder that can be written")
