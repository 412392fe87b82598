"""verify.json: what a verification found, its form, and how it is read back.

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
    criteria                what a library has to show, by `smz_jax.analysis.verify.criteria`

`totals`, and each entry of `macros` (with its actions, names and status), hold the estimates of
`smz_jax.analysis.verify.trial.Tally`: mean, low, high (95 %; null where there is none) and trials.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smz_jax.analysis.verify.bounds import Estimate
from smz_jax.analysis.verify.trial import Tally
from smz_jax.config.settings import ConfigError, shorten
from smz_jax.storage.documents.checks import is_number
from smz_jax.storage.files import write_json

SCHEMA = 3
FILE, TABLE = "verify.json", "verify.md"
KINDS = ("changing", "repeats")
SHARES = (
    *(
        "applied",
        "held",
        "nearest",
        "told_apart",
        "paid_rewarded",
        "paid_unrewarded",
        "held_anywhere",
    ),
    "repeats",
)
MEANS = ("gain", "lives")
_TEXTS = ("experiment", "checkpoint", "suite", "game")
_OBJECTS = ("asked", "play")
_COUNTS = ("shared",)
_SAVED = ("bits_per_action", "plain_bits_per_action", "coverage", "kept")


def plain_tally(found: Tally) -> dict[str, Any]:
    """A tally as plain JSON."""
    return {
        name: value._asdict() if isinstance(value, Estimate) else value
        for name, value in found._asdict().items()
    }


def code_perplexity(folder: Path) -> float | None:
    """That of a run's model at its end, by its last check; None where there was none."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        found = summary["model_check"]["code_perplexity"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return float(found) if is_number(found) else None


def write_verify_json(run_dir: Path, document: Mapping[str, Any]) -> Path:
    """Writes the document into the folder of a run or an export; gives its path."""
    path = run_dir / FILE
    write_json(path, document)
    return path


def read_verify_json(path: Path) -> dict[str, Any]:
    """Reads and checks a document.

    Raises:
        ConfigError: in one line, if it is missing, damaged or of another schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} is not a readable verification: {reason}") from None
    check_document(document, path)
    return document


def check_document(document: Any, path: Path) -> None:
    """Raises ConfigError in one line unless the document has the form above."""

    def check(condition: bool, problem: str) -> None:
        if not condition:
            raise ConfigError(f"{path} is not a verification: {problem}")

    check(isinstance(document, dict), "it holds no object")
    schema = document.get("schema")
    check(schema == SCHEMA, f"schema = {shorten(schema)}, allowed is {SCHEMA}")
    for name in _TEXTS:
        value = document.get(name)
        check(isinstance(value, str) and value.isprintable(), f"{name} = {shorten(value)}")
    for name in _OBJECTS:
        value = document.get(name)
        is_flat = isinstance(value, dict) and all(
            isinstance(x, bool) or is_number(x) for x in value.values()
        )
        check(is_flat, f"{name} = {shorten(value)}")
    perplexity, owned = document.get("code_perplexity", ""), document.get("owned", "")
    is_perplexity = perplexity is None or is_number(perplexity)
    check(is_perplexity, f"code_perplexity = {shorten(perplexity)}")
    check(owned is None or _is_count(owned), f"owned = {shorten(owned)}")
    sound = document.get("sound")
    is_sound = isinstance(sound, dict) and all(
        _is_count(sound.get(name)) for name in (*KINDS, "renamed")
    )
    check(is_sound, f"sound = {shorten(sound)}")
    gate = document.get("gate", 0)
    is_gate = gate is None or (isinstance(gate, dict) and {"closed", "why"} <= set(gate))
    check(is_gate, f"gate = {shorten(gate)}")
    for name in ("pairs", "libraries"):
        value = document.get(name, 0)
        may_lack = name == "pairs" and value is None
        is_list = isinstance(value, list) and all(isinstance(x, dict) for x in value)
        check(may_lack or is_list, f"{name} = {shorten(value)}")
    for index, pairs in enumerate(document["pairs"] or ()):
        where, lengths = f"pairs[{index}]", pairs.get("lengths")
        for name in ("precision", "recall"):
            value = pairs.get(name)
            is_share = value is None or (is_number(value) and 0 <= value <= 1)
            check(is_share, f"{where}.{name} = {shorten(value)}")
        check(isinstance(lengths, list) and isinstance(pairs.get("model"), str), where)
    criteria = document.get("criteria")
    is_judged = isinstance(criteria, list) and all(map(_is_criterion, criteria))
    check(is_judged, f"criteria = {shorten(criteria)}")
    for index, library in enumerate(document["libraries"]):
        problem = _library_problem(library)
        check(problem is None, f"libraries[{index}]{problem}")


def _library_problem(library: Mapping[str, Any]) -> str | None:
    """What is wrong with an entry of `libraries`; None: nothing."""
    if not isinstance(library.get("name"), str):
        return f".name = {shorten(library.get('name'))}"
    saved = library.get("saved", 0)
    is_saved = isinstance(saved, dict) and all(is_number(saved.get(name)) for name in _SAVED)
    if saved is not None and not is_saved:
        return f".saved = {shorten(saved)}"
    for name in _COUNTS:
        if not _is_count(library.get(name)):
            return f".{name} = {shorten(library.get(name))}"
    kinds, macros = library.get("kinds"), library.get("macros")
    if (
        not isinstance(kinds, dict)
        or set(kinds) != set(KINDS)
        or not all(isinstance(x, dict) and _is_count(x.get("macros")) for x in kinds.values())
    ):
        return f".kinds = {shorten(kinds)}"
    if not isinstance(macros, list) or not all(isinstance(x, dict) for x in macros):
        return f".macros = {shorten(macros)}"
    rows = [("totals", library.get("totals"))]
    rows += [(f"kinds.{kind}.totals", kinds[kind].get("totals")) for kind in KINDS]
    rows += [(f"macros[{index}]", macro) for index, macro in enumerate(macros)]
    for where, row in rows:
        if not isinstance(row, dict):
            return f".{where} = {shorten(row)}"
        if not where.endswith("totals") and not isinstance(row.get("names"), str):
            return f".{where}.names = {shorten(row.get('names'))}"
        for name in (*SHARES, *MEANS):
            if not _is_estimate(row.get(name), is_share=name in SHARES):
                return f".{where}.{name} = {shorten(row.get(name))}"
    return None


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_criterion(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("met", 0), (bool, type(None))):
        return False
    texts = (value.get("what"), value.get("found"))
    return all(isinstance(text, str) and text.isprintable() for text in texts)


def _is_estimate(value: Any, *, is_share: bool) -> bool:
    if not isinstance(value, dict) or set(value) != set(Estimate._fields):
        return False
    numbers = [value[name] for name in ("mean", "low", "high") if value[name] is not None]
    fits = all(is_number(x) and (not is_share or 0 <= x <= 1) for x in numbers)
    return fits and _is_count(value["trials"])
