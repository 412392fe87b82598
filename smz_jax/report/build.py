"""Puts a report together: reads the runs, draws the figures, writes the page."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from smz_jax.config import require
from smz_jax.metrics import atomic_write_text
from smz_jax.report import curves, findings
from smz_jax.report.data import RunData, load_runs
from smz_jax.report.page import FigureBlock, render_page
from smz_jax.report.style import RC, save_figure

Draw = Callable[[Sequence[RunData]], Figure]

FIGURES: tuple[tuple[str, Draw, str], ...] = (
    (
        "score",
        curves.score_figure,
        "Raw score. Lines: recent training games, which explore. Dots: evaluations, greedy, with "
        "95 % intervals; a diamond is the final one. Grey: the random policy's interval.",
    ),
    (
        "episode_length",
        curves.episode_length_figure,
        "How long the recent training games lasted.",
    ),
    (
        "losses",
        curves.losses_figure,
        "Each term of the loss; faint lines are raw values, strong ones their running mean.",
    ),
    (
        "macros_found",
        curves.macros_found_figure,
        "Macros in the table: those that were ever played, and those seen in search trees only.",
    ),
    (
        "transition_entropy",
        curves.transition_entropy_figure,
        "How uncertain the model holds the outcome of the actions played; below the dashed lines "
        "a transition counts as certain.",
    ),
    (
        "certain_rate",
        curves.certain_rate_figure,
        "Share of the transitions under their source's threshold: 0 % leaves nothing to find, "
        "100 % means that the test excludes nothing.",
    ),
    (
        "trees_processed",
        curves.trees_figure,
        "Search trees climbed, and windows in which every transition was certain.",
    ),
    (
        "generality",
        findings.generality_figure,
        "In how many kinds of start states the macros were seen.",
    ),
    (
        "macro_entropy_hist",
        findings.entropy_histogram,
        "How certain the macros found are, by their mean entropy.",
    ),
    (
        "macro_length_hist",
        findings.length_histogram,
        "How many actions the macros found have.",
    ),
    (
        "top_macros",
        findings.top_macros_figure,
        "The macros seen most often, with their decoded actions.",
    ),
    (
        "time",
        findings.time_figure,
        "Seconds of each phase of the run, as the host sees them: 'macros' and 'search' overlap "
        "with work on the device, so their shares of the search are measured by "
        "experiments.benchmark instead.",
    ),
    (
        "model",
        findings.model_figure,
        "A perplexity near 1 means that all outcomes share one code; a variance near 0 that all "
        "states look the same to the model.",
    ),
)
"""Name, drawing function and caption of every figure, in the order of the page."""


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
    _require_writable(out)
    blocks = []
    with rc_context(RC), warnings.catch_warnings():
        # A run's name may hold letters that the figures' font lacks; the page shows it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, draw, caption in FIGURES:
            path = out / "figures" / f"{name}.png"
            save_figure(draw(runs), path)
            blocks.append(FigureBlock(name, caption, path.read_bytes()))
    page = out / "report.html"
    atomic_write_text(page, render_page(runs, blocks))
    return page


def _require_writable(out: Path) -> None:
    """Raises ConfigError unless `out` is, or can be made, a folder with room for `figures/`."""
    figures = (out / "figures").absolute()
    nearest = next(folder for folder in (figures, *figures.parents) if folder.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK)
    require(good, "out", str(out), "a folder that can be written")
