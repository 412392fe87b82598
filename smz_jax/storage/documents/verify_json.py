"""verify.json: what a verification of macros found; its form, its writer and its strict reader.

    schema                  3
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
    libraries               the run's macros (with a head a second time, without it: `macros,
                            certain only`), and the controls: name, totals, saved, macros; kinds
                            (the totals of those that change the action, and of repeats of one);
                            shared (how many are among the run's)
    criteria                what a library has to show (`what`), what was `found`, whether it is
                            `met`; null: not measured

`totals`, and each entry of `macros` (with its actions, names and status), hold the estimates of a
tally of trials: mean, low, high (95 %; null where there is none) and trials.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from smz_jax.config.settings import ConfigError, shorten
from smz_jax.storage.documents.checks import is_number
from smz_jax.storage.files import read_json, write_json

SCHEMA = 3
FILE, TABLE = "verify.json", "verify.md"
KINDS = ("changing", "repeats")
Form = Callable[[Any], bool] | dict[str, Any] | list[Any]
"""What a value must be: what a predicate says, an object with some keys, or a list of one form."""


class Maybe(NamedTuple):
    """A form, or null."""

    form: Form


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(x, bool) or is_number(x) for x in value.values()
    )


def _anything(value: Any) -> bool:
    del value
    return True


def _estimate(is_mean: Callable[[Any], bool]) -> Form:
    bounds = {name: Maybe(is_mean) for name in ("mean", "low", "high")}
    return {**bounds, "trials": _is_count}


_SHARES = (
    *("applied", "held", "nearest", "told_apart", "paid_rewarded", "paid_unrewarded"),
    *("held_anywhere", "repeats"),
)
_TALLY = {
    **{name: _estimate(_is_share) for name in _SHARES},
    **{name: _estimate(is_number) for name in ("gain", "lives")},
}
_SAVED = ("bits_per_action", "plain_bits_per_action", "coverage", "kept")
_LIBRARY = {
    "name": lambda value: isinstance(value, str),
    "saved": Maybe(
        {
            **dict.fromkeys(_SAVED, is_number),
            **dict.fromkeys(("low", "high"), Maybe(is_number)),
        }
    ),
    "shared": _is_count,
    "kinds": {kind: {"macros": _is_count, "totals": _TALLY} for kind in KINDS},
    "totals": _TALLY,
    "macros": [{"names": lambda value: isinstance(value, str), **_TALLY}],
}
_DOCUMENT: dict[str, Any] = {
    "schema": lambda value: value == SCHEMA,
    **dict.fromkeys(("experiment", "checkpoint", "suite", "game"), _is_text),
    **dict.fromkeys(("asked", "play"), _is_flat),
    "code_perplexity": Maybe(is_number),
    "owned": Maybe(_is_count),
    "sound": dict.fromkeys((*KINDS, "renamed"), _is_count),
    "gate": Maybe({"closed": _anything, "why": _anything}),
    "pairs": Maybe(
        [
            {
                **dict.fromkeys(("precision", "recall"), Maybe(_is_share)),
                "lengths": lambda value: isinstance(value, list),
                "model": lambda value: isinstance(value, str),
            }
        ]
    ),
    "libraries": [_LIBRARY],
    "criteria": [
        {
            **dict.fromkeys(("what", "found"), _is_text),
            "met": Maybe(lambda value: isinstance(value, bool)),
        }
    ],
}


def find_problem(value: Any, form: Form | Maybe = _DOCUMENT, where: str = "") -> str | None:
    """The first part of a value that has not the form, as `NAME = VALUE`; None: there is none."""
    if isinstance(form, Maybe):
        return None if value is None else find_problem(value, form.form, where)
    wrong = f"{where or 'it'} = {shorten(value)}"
    if callable(form):
        return None if form(value) else wrong
    if isinstance(form, list):
        if not isinstance(value, list):
            return wrong
        parts = [(f"{where}[{index}]", part, form[0]) for index, part in enumerate(value)]
    else:
        if not isinstance(value, dict):
            return wrong
        if missing := [name for name in form if name not in value]:
            return f"{where}{'.' * bool(where)}{missing[0]} is missing"
        dot = f"{where}." if where else ""
        parts = [(dot + name, value[name], part) for name, part in form.items()]
    problems = (find_problem(part, inner, name) for name, part, inner in parts)
    return next((problem for problem in problems if problem), None)


def check_document(document: Any, path: Path) -> None:
    """Raises ConfigError in one line unless the document has the form above."""
    if problem := find_problem(document):
        raise ConfigError(f"{path} is not a verification of schema {SCHEMA}: {problem}")


def read_verify_json(path: Path) -> dict[str, Any]:
    """Reads and checks a document.

    Raises:
        ConfigError: in one line, if it is missing, damaged or of another schema.
    """
    document = read_json(path, "is not a readable verification")
    check_document(document, path)
    return document


def write_verify_json(run_dir: Path, document: Mapping[str, Any]) -> Path:
    """Writes the document into the folder of a run or an export; gives its path."""
    path = run_dir / FILE
    write_json(path, document)
    return path
