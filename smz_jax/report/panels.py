"""The figures of a report, in the order of the page: a new one is one entry."""

from functools import partial
from typing import Any

from smz_jax.report import bars, curves, style
from smz_jax.report.model_panels import MODEL_PANELS
from smz_jax.report.plot import Line, Mark, Panel, Plot, add_panel
from smz_jax.report.verification import SAVED

LOSSES = (
    *("total", "policy", "value", "reward", "afterstate_value", "chance", "commitment"),
    *("consistency", "code_entropy", "reconstruction", "continuation"),
    *("representation", "contrast"),
)
NO_MACROS = "no macros yet"
PANELS: dict[str, Panel] = {}
"""Every figure by its name."""
_add = partial(add_panel, PANELS)
_IF_MACROS: Any = {"shown": lambda runs: any(run.can_have_macros for run in runs)}
_OF_MACROS: Any = {"unit": "macros", "scale": "counts", "empty": NO_MACROS, **_IF_MACROS}
_HEAD = "check/precondition/"
_RAW = ("head, without temperature", style.BLUE, ":")
_BUCKET = ("start-state bucket", style.ORANGE, "--")


def _by_source(key: str) -> list[Line]:
    return [Line(key + x, name, style.SOURCE_COLOURS[x]) for x, name in style.SOURCE_LABELS.items()]


_add(
    "score",
    "Score",
    "Raw score. Lines: recent training games, which explore. Dots: evaluations, greedy unless "
    "eval.noise is set, with 95 % intervals; a diamond is the final one. "
    "Grey: the random policy's interval.",
    lines=[Line("score/mean", "training games, mean of the last 100")],
    unit="raw score per game",
    scale="free",
    draw=curves.draw_scores,
    legend=2,
)
_add(
    "episode_length",
    "Game length",
    "How long the recent training games lasted.",
    lines=[Line("episode/length_mean")],
    unit="agent steps per game (mean of last 100)",
)
_add(
    "losses",
    "Losses, as logged",
    "Each term of the loss; faint lines are raw values, strong ones their running mean.",
    *(Plot(name.replace("_", " "), [Line(f"loss/{name}")], scale="free") for name in LOSSES),
    empty="no learner step yet",
    given=True,
)
_add(
    "macros_found",
    "Macros found, by source",
    "Macros in the table: those that were ever played, and those seen in search trees only.",
    lines=[*_by_source("macros/"), Line("macros/total", "both together", style.BLACK, ":")],
    unit="macros in the table",
    scale="counts",
    splits=True,
    **_IF_MACROS,
)
_FOLLOWED = {
    "given": style.GREEN,
    "shuffled": style.ORANGE,
    "random": style.VERMILLION,
    "native": style.BLUE,
}
_add(
    "transfer",
    "Macros that were given from elsewhere",
    "Of the macros of macros_from, which begin as candidates: the share that is sound here, and "
    "the share with trials enough to tell. Beside them their actions in another order, random "
    "sequences of the same lengths, and as many of the run's own that it saw most often.",
    *(
        Plot(
            title,
            [Line(f"transfer/{x}_{key}", x, colour) for x, colour in _FOLLOWED.items()],
            scale="share",
        )
        for title, key in (("sound", "sound"), ("tried often enough", "tested"))
    ),
    columns=2,
    legend=4,
    shown=lambda runs: any(run.curve("transfer/given_sound")[0] for run in runs),
)
_add(
    "transition_entropy",
    "Transition entropy of played actions",
    "How uncertain the model is of the outcome of the actions played; below the dashed lines a "
    "transition counts as certain.",
    lines=[Line("search/transition_entropy")],
    unit="mean entropy / ln C   (0 certain, 1 uniform)",
    scale="share",
    marks=[
        Mark(f"macro.{x}_threshold", f"{name}: certain below {{:g}}", style.SOURCE_COLOURS[x])
        for x, name in style.SOURCE_LABELS.items()
    ],
)
_add(
    "certain_rate",
    "Certain transitions, by source",
    "Share of the transitions under their source's threshold: 0 % leaves nothing to find, 100 % "
    "means that the test excludes nothing.",
    lines=_by_source("macros/certain_rate_"),
    unit="certain transitions",
    scale="percent",
    splits=True,
    **_IF_MACROS,
)
_add(
    "trees_processed",
    "Trees processed and candidates",
    "Search trees processed, and the sequences in the table that were seen too seldom so far.",
    Plot(
        "search trees processed, in all",
        [Line("macros/trees")],
        "count since the start of the run",
        "counts",
    ),
    Plot("candidates now: seen too seldom yet", [Line("macros/candidates")], scale="counts"),
    **_IF_MACROS,
)
_add(
    "generality",
    "Generality of the macros",
    "In how many kinds of start states the macros were seen.",
    lines=[
        Line("macros/generality_mean", "mean over macros"),
        Line("macros/generality_max", "most general macro", style.PURPLE),
    ],
    scale="counts",
    draw=curves.note_buckets,
    splits=True,
    **_IF_MACROS,
)
_add(
    "macro_entropy_hist",
    "Mean entropy of the macros",
    "How certain the macros found are, by their mean entropy.",
    **_OF_MACROS,
    draw=partial(bars.draw_histogram, key="mean_entropy"),
    across="mean entropy of the macro's transitions / ln C   (0 = certain)",
)
_add(
    "macro_length_hist",
    "Length of the macros",
    "How many actions the macros found have.",
    **_OF_MACROS,
    draw=partial(bars.draw_histogram, key="length"),
    across="actions in the macro",
)
_add(
    "gates",
    "What the gates refuse",
    "Trials are replayed windows of macros that the model is certain of. Left: the share that did "
    "not hold. Right, of those: the share that each gate refused; more than one may refuse a "
    "trial. near: what was seen at the end. paid: the sum of the rewards. agreed: the codes. ends: "
    "the game ended (a lost life, where it is an end) where it was not foreseen, or did not where "
    "it was.",
    Plot("trials that did not hold", [Line("macros/refusals")], scale="share"),
    Plot(
        "of those, refused by",
        [
            Line("macros/refused_near", "near", style.BLUE),
            Line("macros/refused_paid", "paid", style.ORANGE, "--"),
            Line("macros/refused_agreed", "agreed", style.PURPLE, ":"),
            Line("macros/refused_ends", "ends", style.VERMILLION, "-."),
        ],
        scale="share",
    ),
    columns=2,
    legend=4,
    empty="not known",
    shown=lambda runs: any(x.can_have_macros and x.curve("macros/refusals")[0] for x in runs),
)
_add(
    "top_macros",
    "Most frequent macros",
    "The macros seen most often, with their decoded actions.",
    draw=bars.draw_top_macros,
    across="times seen",
    empty=NO_MACROS,
    each=lambda run: bool(run.macros),
    **_IF_MACROS,
)
_add(
    "preconditions",
    "Preconditions of macros, on held-out windows",
    "Where a macro applies: every transition is certain, what follows is as predicted, and it is "
    "worth as much as the best action. A head learns to predict this from the state; here on "
    "replayed windows that it was never trained on, at probability 0.5, older windows counting for "
    "less. Dashed and dotted, its baselines: to predict it always (recall 1), or wherever it was "
    "so at least every second time in the same start-state bucket. Calibration error: how far its "
    "probabilities are from what happened, on average.",
    Plot(
        "precision: predicted, and applied",
        [
            Line(f"{_HEAD}precision", "head"),
            Line(f"{_HEAD}bucket_precision", *_BUCKET),
            Line(f"{_HEAD}always_precision", "always", style.GREY, ":"),
        ],
        scale="share",
    ),
    Plot(
        "recall: applied, and predicted",
        [Line(f"{_HEAD}recall", "head"), Line(f"{_HEAD}bucket_recall", *_BUCKET)],
        scale="share",
        marks=[Mark(1.0, "", style.GREY, ":")],  # of always
    ),
    Plot(
        "expected calibration error", [Line(f"{_HEAD}ece", "head"), Line(f"{_HEAD}ece_raw", *_RAW)]
    ),
    legend=4,
    empty="not known yet",
    **_IF_MACROS,
)
_add(
    "time",
    "Where the time went",
    "Seconds of each phase of the run, as the host sees them: 'macros' and 'search' overlap with "
    "work on the device, so their shares of the search are measured by experiments.benchmark "
    "instead.",
    draw=bars.draw_seconds,
    across="seconds",
    legend=4,
)
PANELS |= MODEL_PANELS
_TRIED = (
    ("whole", "whole state, where it applies"),
    ("held", "effect of the actions and pay"),
    ("held_anywhere", "the same, anywhere"),
    *(("applied", "applies"), ("lost", "loses a life")),
    (SAVED, "saved bits per action"),
)
_add(
    "verification",
    "Macros and controls in the real game",
    "The run's macros beside the controls, with 95 % intervals, in the tests of the whole state "
    "and of the effect of the actions: macros carry information where their intervals lie apart "
    "from those of every control. Of several seeds: the mean with Student's t interval over them, "
    "and each seed as a dot.",
    *(Plot(x, draw=partial(bars.draw_libraries, key=key), across="") for key, x in _TRIED),
    columns=2,
    empty="not tried",
    shown=lambda runs: any(run.verification for run in runs),
)
