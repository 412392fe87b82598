"""summary, grid, ladder, baselines, peer, sweep; export, evaluation: a JSON document each.

A part that is left out, or null, is not known. They are written by `run.ending`,
`run.evaluate_and_save`, `experiments.gridworld`, `experiments.peer`, `experiments.sweep` and
`analysis.load`, which say what the parts mean.
"""

from typing import Any

from smz_jax.storage.documents import forms
from smz_jax.storage.documents.forms import COUNTS, TEXT, every, fields, nullable, number, optional

_NUMBER, _OBJECT = optional(number()), optional(forms.kind(dict))
_EVALUATION = optional(every(nullable(number()), dict, but=("scores",)))
_MEASURED = fields(mean=number(), **dict.fromkeys(("mean_low", "mean_high"), nullable(number())))

SUMMARY = forms.Document(
    "summary.json",
    **dict.fromkeys(("env_steps", "env_frames", "learner_steps", "seconds_total"), _NUMBER),
    seconds=optional(every(number(), dict)),
    **dict.fromkeys(("evaluation", "evaluation_greedy", "evaluation_sticky"), _EVALUATION),
    opponent_fault=optional(TEXT),
    baselines=optional(fields(random=_EVALUATION, constant=optional(every(_EVALUATION, dict)))),
    **dict.fromkeys(("macros", "model_check", "versions"), _OBJECT),
)
BASELINES = forms.Document(
    "baselines.json", random=nullable(_MEASURED), constant=every(_MEASURED, dict)
)
ABOUT = forms.Document(
    "export.json",
    experiment=TEXT,
    seed=forms.kind(int),
    checkpoint=TEXT,
    env_steps=optional(COUNTS),
    action_names=every(TEXT),
)
_PEER_SCORE = fields(
    **dict.fromkeys(("mean", "mean_low", "mean_high"), number()),
    **dict.fromkeys(("games", "distinct"), COUNTS),
)
_PEER_ROW = {"cpu_minutes": number(0), "env_steps": COUNTS, "score": nullable(number())}


def _rises(peer: dict[str, Any]) -> str | None:
    minutes = [row["cpu_minutes"] for row in peer["rows"]]
    return None if minutes == sorted(minutes) else "rows are not in the order of cpu_minutes"


PEER = forms.Document(
    "peer.json",
    _rises,
    kind="a measurement of experiments.peer",
    **dict.fromkeys(("game", "hardware"), TEXT),
    commit=nullable(TEXT),
    seed=COUNTS,
    settings=every(number(), dict),
    versions=every(TEXT, dict),
    rows=every(fields(**_PEER_ROW, evaluation=_PEER_SCORE)),
)
SWEEP = forms.Document(
    "sweep.json",
    kind="the results of a sweep",
    **dict.fromkeys(("name", "base", "preset"), TEXT),
    normalise=every(every(number()), dict),
    variants=every(fields(variant=TEXT, settings=forms.kind(dict), runs=COUNTS)),
    trials=every(fields(variant=TEXT, experiment=TEXT, seed=COUNTS, state=TEXT, folder=TEXT)),
)
SCORES = every(
    fields(
        policy=TEXT,
        when=TEXT,
        env_steps=nullable(COUNTS),
        this_model=forms.TRUTH,
        mean=number(),
        **dict.fromkeys(("mean_low", "mean_high"), optional(number())),
    )
)
"""The form of evaluation.json, a list: rows of `analysis.load.score_table`."""


def _pairs(found: Any, where: str) -> str | None:
    """A part of grid.json with a number for each state and action."""
    if found is forms.ABSENT:
        return None
    rows = every(every(number()))
    return rows(found, where) or (
        f"{where} is no table" if len(set(map(len, found))) != 1 else None
    )


def _same_shape(grid: dict[str, Any]) -> str | None:
    shapes = {(len(grid[x]), len(grid[x][0])) for x in _PAIRS if x in grid}
    return f"tables of {len(shapes)} shapes" if len(shapes) > 1 else None


_PAIRS = ("entropy_errors", "true_entropy", "visits")
GRID = forms.Document("grid.json", _same_shape, returns=_OBJECT, **dict.fromkeys(_PAIRS, _pairs))


def _same_length(ladder: dict[str, Any]) -> str | None:
    lengths = {len(ladder[x]) for x in ("env_steps", "elo", "elo_low", "elo_high")}
    return f"lists of {len(lengths)} lengths" if len(lengths) > 1 else None


LADDER = forms.Document(
    "ladder.json",
    _same_length,
    env_steps=every(COUNTS),
    **dict.fromkeys(("elo", "elo_low", "elo_high"), every(number())),
    matches=every(
        fields(first=COUNTS, second=COUNTS, mean=number(), games=COUNTS, cut_share=_NUMBER)
    ),
)
