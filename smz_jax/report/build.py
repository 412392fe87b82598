"""Puts a report together: reads the runs, draws the figures, writes the page."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from smz_jax.config.settings import require
from smz_jax.report import curves, findings, model, preconditions, rules, verification
from smz_jax.report.data import RunData, load_runs
from smz_jax.report.page import FigureBlock, render_page
from smz_jax.report.style import RC, save_figure
from smz_jax.storage.files import atomic_write_text

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
        "preconditions",
        preconditions.preconditions_figure,
        "Where a macro applies: every transition is certain, what follows is as foreseen, and it "
        "is worth as much as the best action. A head learns to say so from the state; here on "
        "replayed windows that it was never trained on, at probability 0.5, older windows counting "
        "for less. Dashed and dotted, what it must beat: to say so always (recall 1), or wherever "
        "it was so at least every second time in the same start-state bucket. Calibration error: "
        "how far its probabilities are from what happened, on average.",
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
        model.model_figure,
        "Lines: the batches learned from, whose codes may be drawn with noise. Dots: checks of one "
        "replayed batch without noise, as the search sees the model. A perplexity near 1 means "
        "that all outcomes share one code; a variance near 0 that all states look the same to the "
        "model. Agreement: how often the outcome that the model held for likeliest came.",
    ),
    (
        "unroll_errors",
        model.unroll_errors_figure,
        "The model is unrolled along replayed games, told by its own codes what happened, and "
        "compared with what was seen: above at the last check, by the number of steps that it "
        "looked ahead (root: before the first), below over the run. Errors near 0 and a cosine "
        "near 1 are good; errors that grow with the step add up. Past a game's end rewards and "
        "values are 0, and count.",
    ),
    (
        "entropy_hist",
        model.entropy_figure,
        "How random the model holds replayed transitions to be. All at 0: it takes everything "
        "for certain. All at 1: its codes say nothing that it could foresee.",
    ),
    (
        "gradient_shares",
        model.gradient_figure,
        "What the model is learning from: the norm of each weighted loss's own gradient, as a "
        "share of their sum. A loss with a large share decides what the model becomes.",
    ),
)
"""Name, drawing function and caption of every figure, in the order of the page."""

OF_ONE_BATCH = ("unroll_errors", "entropy_hist")
"""Figures whose caption says how large the batch of a check is."""

RULES_FIGURE = (
    "rules",
    rules.rules_figure,
    "The world's rules are known, so that the model's transition entropy H can be compared with "
    "the true one. ROC area: the chance that a random transition has a higher entropy than a "
    "certain one (1: always, 0.5: guessing). Orange: random by the rules, blue: certain.",
)
"""Likewise, shown where some run has it."""

VERIFICATION_FIGURE = (
    "verification",
    verification.verification_figure,
    "The run's macros beside the controls, with 95 % intervals: macros carry information where "
    "theirs lie apart from those of every control. Of several seeds: the mean with Student's t "
    "interval over them, and each seed as a dot.",
)
"""Likewise, of runs that experiments.verify has tried."""


DRAWN_ELSEWHERE = {
    "macro_timeline": (
        "A game of the model, drawn by experiments.macros: its score (dotted: a life lost), how "
        "uncertain the model held each action's outcome to be, and where the most used macros were "
        "followed from their first action to their last, none over another; faint where the model "
        "did not hold each of these transitions to be certain. Green: sound, by replay; grey: not "
        "enough evidence, or certain too rarely; red: refuted."
    ),
    "macro_tree": (
        "The tree of one of its decisions, from the root on the left: round nodes are states to "
        "act in, square ones wait for chance, small hollow squares would have nothing to wait for: "
        "the model holds their transition to be certain. Larger ones were searched more; dotted "
        "edges are uncertain. The green chain of certain transitions is what a collapsed search "
        "walks in one go, and what a macro is found from. Numbers: entropies of the chain, of the "
        "most visited path, and of what was searched from the chain's end."
    ),
    "macro_strips": (
        "What the best macros do, in the real game: the screen before, after each action, and what "
        "has changed from first to last (red: where something has come, blue: where it is gone). "
        "Grey titles: the model did not hold each of these transitions to be certain."
    ),
    "grid": (
        "Left: the map, with the value of each cell and the best actions. Middle: how random each "
        "action's outcome is by the rules, a triangle for each action of a cell. Right: how random "
        "the model holds it to be, faded where the replay has nothing; the more alike the two, the "
        "better it knows what is chance."
    ),
}
"""Captions of the pictures that other commands leave in a run's folder, in the page's order."""


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
    shown = [*FIGURES, *([RULES_FIGURE] if rules.has_rules(runs) else [])]
    shown += [VERIFICATION_FIGURE] if any(run.verification for run in runs) else []
    with rc_context(RC), warnings.catch_warnings():
        # A run's name may hold letters that the figures' font lacks; the page shows it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for name, draw, caption in shown:
            caption += _batch_note(runs) if name in OF_ONE_BATCH else ""
            path = out / "figures" / f"{name}.png"
            save_figure(draw(runs), path)
            blocks.append(FigureBlock(name, caption, path.read_bytes()))
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
