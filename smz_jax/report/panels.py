"""The figures of a report, in the order of the page: a new one is one entry."""

from functools import partial
from typing import Any

from smz_jax.report import bars, curves, style
from smz_jax.report.plot import Line, Mark, Panel, Plot
from smz_jax.report.verification import SAVED

LOSSES = (
    *("total", "policy", "value", "reward", "afterstate_value", "chance", "commitment"),
    *("consistency", "code_entropy", "reconstruction", "continuation"),
    *("representation", "contrast"),
)
NO_MACROS, NO_CHECK = "no macros yet", "the model has not been checked yet"
PANELS: dict[str, Panel] = {}
"""Every figure by its name."""
_OF_MACROS: Any = {"unit": "macros", "scale": "counts", "empty": NO_MACROS}
_HEAD = "check/precondition/"
_RAW = ("head, without temperature", style.BLUE, ":")
_BUCKET = ("start-state bucket", style.ORANGE, "--")


def _add(name: str, title: str, caption: str, *plots: Plot, **options: Any) -> None:
    """Adds a figure; `options` are those of the panel, and of its plot where none is given."""
    own = {} if plots else {key: options.pop(key) for key in Plot.__match_args__ if key in options}
    PANELS[name] = Panel(name, title, caption, plots or [Plot(**own)], **options)


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
    shown=lambda runs: any(run.curve("macros/refusals")[0] for run in runs),
)
_add(
    "top_macros",
    "Most frequent macros",
    "The macros seen most often, with their decoded actions.",
    draw=bars.draw_top_macros,
    across="times seen",
    empty=NO_MACROS,
    each=lambda run: bool(run.macros),
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
_add(
    "model",
    "Health of the model",
    "Lines: the batches learned from, whose codes may be drawn with noise. Dots: checks of one "
    "replayed batch without noise, as the search sees the model. A perplexity near 1 means that "
    "all outcomes share one code; a variance near 0 that all states look the same to the model. "
    "Agreement: how often the outcome that the model gave the highest probability came.",
    Plot(
        "codes in use (perplexity)",
        [Line("model/code_perplexity", dots=True)],
        marks=[Mark(1.0, "1 = collapsed", style.VERMILLION)],
    ),
    Plot(
        "codes predicted by the prior (agreement)",
        [Line("model/agreement", dots=True)],
        scale="share",
    ),
    Plot("variance of the embedding over a batch", [Line("model/embedding_variance", dots=True)]),
    Plot("gradient norm, before clipping", [Line("learner/grad_norm")], draw=curves.note_checks),
    columns=2,
)
_EIGHTHS = "eighth by time (1: the oldest)"
_add(
    "calibration",
    "Stored values against real returns",
    "The search value that each row of the replay holds, and the discounted return that really "
    "followed it, as it is trained on, up to the episode's end: means at the last check, by the "
    "age of the rows. A ratio below 1: stored values are too small. Rows whose episode was cut off "
    "or has not ended count in neither, so that the newest eighth tells of short episodes alone. "
    "Beside it the same rows by how far the search preferred one action (the entropy of its stored "
    "weights): where the choice matters most, a wrong value costs most.",
    Plot(
        "mean value (dashed: real)",
        draw=curves.draw_calibration,
        scale="free",
        across=_EIGHTHS,
    ),
    Plot(
        "stored / real",
        draw=partial(curves.draw_calibration, ratio=True),
        across=_EIGHTHS,
        marks=[Mark(1.0, "", style.GREY, ":")],
    ),
    Plot(
        "mean value (dashed: real)",
        draw=partial(curves.draw_calibration, of="_by_peakedness", parts=4),
        scale="free",
        across="quarter (4: most peaked weights)",
    ),
    columns=3,
    empty="not known",
    shown=lambda runs: any(curves.calibration(run).size for run in runs),
)
_add(
    "targets",
    "Refresh of stored targets",
    "How old the policy and value targets in the replay are, in updates of the model, and what "
    "changes in rows that are searched anew (replay.refresh_rows). A small divergence: the stored "
    "policies had not fallen behind.",
    Plot("mean age of the targets", [Line("replay/target_age")], "learner steps", "counts"),
    Plot("best action is another one", [Line("refresh/policy_changed")], scale="share"),
    Plot("KL(stored, new policy)", [Line("refresh/policy_kl")], "nats"),
    Plot("change of the value", [Line("refresh/value_change")], scale="free"),
    columns=2,
    given=True,
    shown=lambda runs: any(run.curve("refresh/rows")[0] for run in runs),
)
_UNROLLED = (
    ("value: mean absolute error", "zero", {"key": "check/value_error", "first": 0}),
    ("reward: mean absolute error", "zero", {"key": "check/reward_error", "first": 1}),
    ("embedding: cosine with the real", "cosine", {"key": "check/consistency", "first": 1}),
)
_add(
    "unroll_errors",
    "How far ahead the model is right",
    "The model is unrolled along replayed games, told by its own codes what happened, and compared "
    "with what was seen: above at the last check, by the number of steps ahead (root: before the "
    "first), below over the run. Errors near 0 and a cosine near 1 are good; errors that grow with "
    "the step add up. Past a game's end rewards and values are 0, and count.",
    *(
        Plot(x, scale=scale, draw=partial(curves.draw_unrolled, **of), across="unroll step")
        for x, scale, of in _UNROLLED
    ),
    *(Plot(scale=scale, draw=partial(curves.draw_courses, **of)) for _, scale, of in _UNROLLED),
    legend=6,
    empty="not checked yet",
    of_one_batch=True,
)
_FORESEEN = "foresight/"
_add(
    "foresight",
    "Rewards, effects and ends foreseen",
    "The model is unrolled along the actions of replayed windows, through the outcomes that it "
    "holds likeliest, as macros are. Above, at the last check and by the steps ahead: of the "
    "rewards that came, the share that was foreseen within macro.reward_threshold; of the steps "
    "without one, the share where one was foreseen; the share of windows whose own actions explain "
    "what was seen better than each of 20 random sequences. Below, over the run: what it makes of "
    "states past an end, which are worth 0.",
    *(
        Plot(
            title,
            scale=scale,
            draw=partial(curves.draw_unrolled, key=_FORESEEN + key, first=1),
            across="steps ahead",
        )
        for title, scale, key in (
            ("rewards foreseen", "share", "rewards_foreseen"),
            ("rewards invented", "zero", "rewards_invented"),
            ("effect of the actions known", "share", "effects_known"),
        )
    ),
    Plot("mean value past an end", [Line(f"{_FORESEEN}value_past_end")], scale="zero"),
    Plot(
        "the same, as search counts it",
        [Line(f"{_FORESEEN}value_past_end_counted")],
        scale="zero",
    ),
    columns=3,
    empty="not checked yet",
    shown=lambda runs: any(run.vectors(f"{_FORESEEN}rewards_foreseen") for run in runs),
)
_add(
    "entropy_hist",
    "Transition entropy, at the last check",
    "How random replayed transitions are to the model. All at 0: it takes everything for certain. "
    "All at 1: its codes say nothing that it could predict.",
    unit="share of the transitions",
    draw=bars.draw_checked_entropies,
    across="entropy of the transition's outcome / ln C   (0 certain, 1 uniform)",
    empty=NO_CHECK,
    of_one_batch=True,
)
_add(
    "gradient_shares",
    "Share of each loss in the gradient",
    "What the model is learning from: the norm of each weighted loss's own gradient, as a share of "
    "their sum. A loss with a large share decides what the model becomes.",
    unit="share of the gradient norm",
    scale="parts",
    draw=curves.draw_gradients,
    legend=5,
    empty=NO_CHECK,
    each=lambda run: bool(curves.gradient_curves(run)),
)
_add(
    "rules",
    "The model against the known rules",
    "The world's rules are known, so that the model's transition entropy H can be compared with "
    "the true one. ROC area: the chance that a random transition has a higher entropy than a "
    "certain one (1: always, 0.5: guessing). Orange: random by the rules, blue: certain.",
    Plot(
        "random against certain (ROC area)",
        [Line("rules/roc_area")],
        scale="roc",
        marks=[Mark(0.5, "0.5 = as good as guessing", style.GREY)],
    ),
    Plot("mean |H(model) - H(true)|, nats", [Line("rules/entropy_error")]),
    Plot(
        "the model's mean entropy, nats",
        [
            Line("rules/entropy_random", "random by the rules", style.VERMILLION),
            Line("rules/entropy_certain", "certain by the rules", style.BLUE, "--"),
        ],
    ),
    Plot(
        "|H(model) - H(true)| of each pair, at the end",
        unit="state-action pairs",
        scale="counts",
        draw=partial(bars.draw_histogram, key="pairs"),
        across="nats",
    ),
    columns=2,
    shown=lambda runs: any(run.grid or run.curve("rules/entropy_error")[0] for run in runs),
)
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
