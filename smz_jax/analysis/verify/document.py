"""What a verification found, as the document of `smz_jax.storage.documents.verify_json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify.library_criteria import judge
from smz_jax.analysis.verify.played import PlayedGames
from smz_jax.analysis.verify.trials import LibraryTrials
from smz_jax.analysis.verify.tried_libraries import Library, Macro, Savings, saved_bits, split
from smz_jax.config.check import ConfigError
from smz_jax.macros.library.gate import gate_and_reason
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.documents.macro_form import decode
from smz_jax.storage.documents.verify_json import KINDS, SCHEMA
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
    return "changing" if len({same[action] for action in actions}) > 1 else "repeats"


def to_document(model: Exported, request: VerifyRequest, found: Verification) -> dict[str, Any]:
    """What was found of a model, which has a library, as plain JSON."""
    config, library = model.config, model.macros
    assert library is not None, "there are macros to verify"
    names, (known, held_out) = library["action_names"], split(found.played.pieces)
    gate = gate_and_reason(library)
    sound = [x["actions"] for x in library["macros"] if x["status"] == "sound"]
    kinds = [kind_of(actions, found.same) for actions in sound]
    renamed = [len(set(x)) > 1 for x, kind in zip(sound, kinds, strict=True) if kind == "repeats"]
    saved = {
        each.name: saved_bits(each.macros, known, held_out, len(names), request.seed)
        for each in found.saving
    }
    own = set(found.results[0].library.macros)
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
        "libraries": [
            plain_library(x, names, own, found.same, saved.get(x.library.name))
            for x in found.results
        ],
    }
    return {**document, "criteria": judge(document)}


def plain_library(
    result: LibraryTrials,
    names: Sequence[str],
    own: set[Macro],
    same: Sequence[int],
    saved: Savings | None,
) -> dict[str, Any]:
    """An entry of `libraries`; `own` are the run's macros."""
    _, macros, status = result.library
    rows = {kind: [i for i, x in enumerate(macros) if kind_of(x, same) == kind] for kind in KINDS}
    return {
        "name": result.library.name,
        "totals": result.tally(),
        "kinds": {
            kind: {"macros": len(some), "totals": result.tally(some)} for kind, some in rows.items()
        },
        "shared": len(own & set(macros)),
        "saved": saved
        and {
            "bits_per_action": saved.encoding.saved_per_action,
            "low": saved.low,
            "high": saved.high,
            "plain_bits_per_action": saved.encoding.plain_bits_per_action,
            "coverage": saved.encoding.coverage,
            "kept": len(saved.kept),
        },
        "macros": [
            {
                "actions": list(macro),
                "names": decode(macro, names),
                "status": status[index],
                **result.tally([index]),
            }
            for index, macro in enumerate(macros)
        ],
    }


def code_perplexity(folder: Path) -> float | None:
    """That of a run's model at its end, by its last check; None where there was none."""
    try:
        found = read_json(folder / "summary.json")["model_check"]["code_perplexity"]
    except (ConfigError, KeyError, TypeError):
        return None
    return float(found) if is_number(found) else None
