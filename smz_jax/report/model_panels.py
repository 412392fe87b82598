"""The figures of a report that are of the model: a new one is one entry."""

from functools import partial

from smz_jax.report import bars, curves, style
from smz_jax.report.plot import Line, Mark, Panel, Plot, add_panel

NO_CHECK = "the model has not been checked yet"
MODEL_PANELS: dict[str, Panel] = {}
"""In the order of the page."""
_add = partial(add_panel, MODEL_PANELS)
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
    "Beside it the same rows by how far apart the search found the actions (the largest less the "
    "smallest Q of those it tried): where the choice matters most, a wrong value costs most.",
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
        draw=partial(curves.draw_calibration, of="_by_spread", parts=4),
        scale="free",
        across="quarter (4: actions furthest apart)",
    ),
    columns=3,
    empty="not known",
    shown=lambda runs: any(curves.calibration(run).size for run in runs),
)
_add(
    "targets",
    "Refresh of stored targets",
    "How old the policy and value targets in the replay are, in updates of the model, and what "
    "changes in rows that are searched anew (reanalyse.ratio). A small divergence: the stored "
    "policies had not fallen behind.",
    Plot("mean age of the targets", [Line("replay/target_age")], "learner steps", "counts"),
    Plot("best action is another one", [Line("reanalyse/policy_changed")], scale="share"),
    Plot("KL(stored, new policy)", [Line("reanalyse/policy_kl")], "nats"),
    Plot("change of the value", [Line("reanalyse/value_change")], scale="free"),
    columns=2,
    given=True,
    shown=lambda runs: any(run.curve("reanalyse/rows")[0] for run in runs),
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
_JUMP = (
    ("rewards: mean absolute error", "reward_error", "zero"),
    ("rewards foreseen", "paid", "share"),
    ("rewards invented", "invented", "zero"),
    ("value at the end: mean absolute error", "value_error", "zero"),
    ("ends near the real one", "near", "share"),
)
_add(
    "jump",
    "The jump beside the model's steps",
    "What a sequence of actions leads to, foreseen in one call (the jump) and step by step through "
    "the likeliest outcomes, at the last check and by the length of the sequence, on replayed "
    "windows that the jump was never trained on. Rewards are discounted sums: their error in "
    "windows with a reward, the share of those whose sum is foreseen within "
    "macro.reward_threshold, and of the windows without one the share where one is foreseen. An "
    "end is near within macro.distance_threshold.",
    *(
        Plot(
            title,
            scale=scale,
            draw=partial(curves.draw_jump, key=f"jump/{key}"),
            across="actions",
            needs=f"jump/{key}_0",
        )
        for title, key, scale in _JUMP
    ),
    legend=4,
    given=True,
    shown=lambda runs: any(run.vectors("jump/near") for run in runs),
)
_add(
    "planning",
    "Planning with jumps and macros",
    "What a search did, on average: which share of its simulations went through a macro (and of "
    "the steps of play, which share followed one), how many steps of the game deep they ended, "
    "and how often it called the model's functions and the jump. And how good the head is that "
    "says what macros gain, on held-out states: of the best gain the share that its choice "
    "realises, and the share of what it holds certain that is not. Marked: from where on a search "
    "may use macros.",
    Plot(
        "through a macro",
        [
            Line("search/macro_simulations", "simulations", style.BLUE),
            Line("rollout/macro_steps", "steps of play", style.ORANGE, "--"),
        ],
        scale="share",
    ),
    Plot("depth in steps of the game", [Line("search/depth")]),
    Plot(
        "calls of a search",
        [
            Line("search/calls_jump", "jump", style.BLUE),
            Line("search/calls_afterstate", "phi, psi", style.GREEN, "--"),
            Line("search/calls_dynamics", "g", style.GREEN, ":"),
        ],
    ),
    Plot(
        "gain realised",
        [Line("gains/share")],
        scale="share",
        marks=[Mark(0.85, "at least 0.85", style.GREY, ":")],
    ),
    Plot(
        "falsely certain",
        [Line("gains/false_yes")],
        marks=[Mark(0.03, "at most 0.03", style.GREY, ":")],
    ),
    Plot("slots that a search may use", [Line("gains/usable")]),
    shown=lambda runs: any(
        run.curve(key)[0] for run in runs for key in ("search/depth", "gains/share")
    ),
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
