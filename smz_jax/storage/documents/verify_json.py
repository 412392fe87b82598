"""verify.json: what a verification found, its form, and how it is read back.

    schema                  4
    experiment, seed, checkpoint, env_steps, suite, game, sticky, action_names    of the model
    asked                   sizes: macros, states, repeats, games, max_steps, seed, any_status
    play                    games, actions, held_out (actions), mean_score, untrained_score
    code_perplexity         null, or that of the run's model at its end
    same_actions            for each action the first one that does the same (in Breakout's flight
                            FIRE and NOOP do), by trial from states of play
    sound                   sound macros of the whole table: changing (the action), repeats (of one,
                            or of ones that do the same), renamed (of those, by several actions)
    owned                   null, or how many of the run's macros tried own a slot of the head
    gate                    null, or which gate let no macro be sound: closed, why
    pairs                   null, or (grid) precision and recall of "certain from here", and counts
                            for each length: from the states that play reached (starts) by the
                            trained network, from all states, and by the untrained one
    probed                  what a linear probe reads, by the game's memory; empty: not known
    libraries               the run's macros (with a head a second time, without it: `macros,
                            certain only`), and the controls (those that own a slot a second time:
                            `..., with the head`): name, totals, saved, macros; kinds
                            (the totals of those that change the action, and of repeats of one);
                            shared (how many are among the run's); probe (null, or by length of the
                            macro its mean errors in pixels, each as `probed`: of foreseen ends, of
                            real ones, and if nothing moved)
    ceiling                 of saved bits: those of a perfect library, chosen by the held-out play
                            itself of its deterministic windows that come back: macros (how many
                            such there are), saved
    criteria                what a library has to show: what, met, found

`totals`, and each entry of `macros` (with its actions, names and status), hold estimates: mean,
low, high (95 %; null where there is none) and trials. `whole` is of the test of the whole state,
`whole_paid` of it and the rewards, `held` of the effect of the actions (`nearest`) and the rewards;
`in_time`, `later` and `elsewhere` are of the whole state against the rivals of one kind alone;
`lost` is of trials in which a life or the game ends, `lost_foreseen` of these.
"""

from typing import Any

from smz_jax.storage.documents import forms
from smz_jax.storage.documents.forms import COUNTS, SHARE, TEXT, every, fields, nullable, number

SCHEMA = 4
FILE, TABLE = "verify.json", "verify.md"
KINDS = {"changing": "- that change the action", "repeats": "- repeats of one action"}
"""Kinds of macros, and their rows of a table."""
MOMENTS = ("in_time", "later", "elsewhere")
"""Kinds of rivals in the test of the whole state."""
SHARES = (
    *("applied", "held", "nearest", "told_apart", "paid_rewarded", "paid_unrewarded"),
    *(
        *MOMENTS,
        "held_anywhere",
        "repeats",
        "whole",
        "whole_paid",
        "whole_anywhere",
        "lost",
        "lost_foreseen",
    ),
)
MEANS = ("gain", "lives")
ERRORS = ("foreseen", "real", "still")
"""Of the linear probe: on foreseen ends, on real ones, and if nothing moved."""
ESTIMATE = ("mean", "low", "high", "trials")


def _estimate(limit: forms.Form) -> forms.Form:
    bound = nullable(limit)
    whole = fields(mean=bound, low=bound, high=bound, trials=COUNTS)
    return forms.value(lambda x: whole(x, "") is None and set(x) == set(ESTIMATE))


def _are_numbers(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(x, bool) or forms.is_number(x) for x in found.values()
    )


_TALLY = {**dict.fromkeys(SHARES, _estimate(SHARE)), **dict.fromkeys(MEANS, _estimate(number()))}
_KIND = fields(macros=COUNTS, totals=fields(**_TALLY))
_NUMBERS, _SCORES = forms.value(_are_numbers), fields(mean_score=number(), games=number())
_SAVED = dict.fromkeys(("bits_per_action", "plain_bits_per_action", "coverage", "kept"), number())
_SAVINGS = nullable(fields(**_SAVED, low=nullable(number()), high=nullable(number())))
_PIXELS = every(number(0))
_LIBRARY = fields(
    name=forms.kind(str),
    saved=_SAVINGS,
    shared=COUNTS,
    probe=nullable(every(fields(length=COUNTS, trials=COUNTS, **dict.fromkeys(ERRORS, _PIXELS)))),
    kinds=fields(**dict.fromkeys(KINDS, _KIND)),
    macros=every(fields(names=forms.kind(str), **_TALLY)),
    totals=fields(**_TALLY),
)
_PAIRS = fields(
    precision=nullable(SHARE),
    recall=nullable(SHARE),
    lengths=forms.kind(list),
    model=forms.kind(str),
)
VERIFICATION = forms.Document(
    FILE,
    kind=f"a verification of schema {SCHEMA}",
    schema=forms.value(lambda x: x == SCHEMA, f", allowed is {SCHEMA}"),
    **dict.fromkeys(("experiment", "checkpoint", "suite", "game"), TEXT),
    asked=_NUMBERS,
    play=lambda x, where: _NUMBERS(x, where) or _SCORES(x, where),
    code_perplexity=nullable(number()),
    owned=nullable(COUNTS),
    probed=every(TEXT),
    sound=fields(**dict.fromkeys((*KINDS, "renamed"), COUNTS)),
    gate=nullable(fields(closed=TEXT, why=TEXT)),
    pairs=nullable(every(_PAIRS)),
    ceiling=fields(macros=COUNTS, saved=_SAVINGS),
    criteria=every(fields(what=TEXT, met=nullable(forms.TRUTH), found=TEXT)),
    libraries=every(_LIBRARY),
)
