"""What a verification found, as the document of `smz_jax.storage.documents.verify_json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify.criteria import judge
from smz_jax.analysis.verify.libraries import CERTAIN, Library, Savings, saved_bits, split
from smz_jax.analysis.verify.starts import PlayedGames
from smz_jax.analysis.verify.trial import LibraryTrials, Tally
from smz_jax.config.check import ConfigError
from smz_jax.macros.library.gate import gate_and_reason
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.documents.macro_form import decode
from smz_jax.storage.documents.verify_json import KINDS, SCHEMA
from smz_jax.storage.estimate import Estimate
from smz_jax.storage.export import Exported
from smz_jax.storage.files import read_json

SIZES = ("macros", "states", "repeats", "games", "max_steps", "seed", "any_status")
"""Of a request, in verify.json."""


class Verification(NamedTuple):
    """What play and trials gave."""

    results: Sequence[LibraryTrials]  # the first is of the run's own macros
    saving: Sequence[Library]  # by name the libraries whose saved bits are measured
    played: PlayedGames  # by the trained agent
    untrained_scores: Sequence[float]
    pairs: list[dict[str, Any]] | None
    owned: int | None  # of the run's macros that were tried, those with a slot; None: no head
    same: Sequence[int]  # for each action the first one that does the same


def kind_of(actions: Sequence[int], same: Sequence[int]) -> str:
    """Whether a macro changes the action or repeats one; under sticky actions that matters.

    One that goes from an action to another that does the same repeats it.
    """
    return KINDS[len({same[action] for action in actions}) <= 1]


def to_document(
    model: Exported, library: Mapping[str, Any], request: VerifyRequest, found: Verification
) -> dict[str, Any]:
    """What was found of a model and its library (as macros.json), as plain JSON."""
    config, names = model.config, library["action_names"]
    known, held_out = split(found.played.pieces)
    gate = gate_and_reason(library)
    sound = [x["actions"] for x in library["macros"] if x["status"] == "sound"]
    kinds = [kind_of(actions, found.same) for actions in sound]
    renamed = [len(set(x)) > 1 for x, kind in zip(sound, kinds, strict=True) if kind == KINDS[1]]
    saving = {each.name: each.macros for each in found.saving}
    parts = []
    for result in found.results:
        name, saved = result.library.name, None
        if name != CERTAIN:
            saved = saved_bits(saving[name], known, held_out, len(names), request.seed)
        real = found.results[0].library
        parts.append(plain_library(result, names, real, found.same, saved))
    document = {
        "schema": SCHEMA,
        **{name: model.about.get(name) for name in ("experiment", "seed", "checkpoint")},
        "env_steps": model.about.get("env_steps"),
        "suite": config.env.suite,
        "game": config.env.id,
        "sticky": config.env.sticky if config.env.suite == "atari" else None,
        "code_perplexity": None,
        "action_names": list(names),
        "asked": {name: getattr(request, name) for name in SIZES},
        "play": {
            "games": len(found.played.scores),
            "actions": sum(len(piece.actions) for piece in found.played.pieces),
            "held_out": sum(map(len, held_out)),
            "mean_score": float(np.mean(found.played.scores)),
            "untrained_score": float(np.mean(found.untrained_scores)),
        },
        "same_actions": list(found.same),
        "sound": {**{kind: kinds.count(kind) for kind in KINDS}, "renamed": sum(renamed)},
        "owned": found.owned,
        "gate": None if gate is None else {"closed": gate[0], "why": gate[1]},
        "pairs": found.pairs,
        "libraries": parts,
    }
    return {**document, "criteria": judge(document)}


def plain_library(
    result: LibraryTrials,
    names: Sequence[str],
    real: Library,
    same: Sequence[int],
    saved: Savings | None,
) -> dict[str, Any]:
    """An entry of `libraries`."""
    macros, kinds = result.library.macros, {}
    for kind in KINDS:
        rows = [i for i, macro in enumerate(macros) if kind_of(macro, same) == kind]
        kinds[kind] = {"macros": len(rows), "totals": plain_tally(result.tally(rows))}
    return {
        "name": result.library.name,
        "totals": plain_tally(result.tally()),
        "kinds": kinds,
        "shared": len(set(macros) & set(real.macros)),
        "saved": None if saved is None else plain_saved(saved),
        "macros": [
            {
                "actions": list(macro),
                "names": decode(macro, names),
                "status": status,
                **plain_tally(result.tally([index])),
            }
            for index, (macro, status) in enumerate(zip(macros, result.library.status, strict=True))
        ],
    }


def plain_tally(found: Tally) -> dict[str, Any]:
    """A tally as plain JSON."""
    numbers = ("chance", "cut", "unrivalled")
    return {
        name: value if name in numbers else plain_estimate(value)
        for name, value in found._asdict().items()
    }


def plain_estimate(found: Estimate | None) -> dict[str, Any]:
    """An estimate with its number of trials."""
    mean, low, high, trials = found or (None, None, None, 0)
    return {"mean": mean, "low": low, "high": high, "trials": trials}


def plain_saved(saved: Savings) -> dict[str, Any]:
    """Savings as plain JSON."""
    encoding = saved.encoding
    return {
        "bits_per_action": encoding.saved_per_action,
        "low": saved.low,
        "high": saved.high,
        "plain_bits_per_action": encoding.plain_bits_per_action,
        "coverage": encoding.coverage,
        "kept": len(saved.kept),
    }


def code_perplexity(folder: Path) -> float | None:
    """That of a run's model at its end, by its last check; None where there was none."""
    try:
        found = read_json(folder / "summary.json")["model_check"]["code_perplexity"]
    except (ConfigError, KeyError, TypeError):
        return None
    return float(found) if is_number(found) else None
