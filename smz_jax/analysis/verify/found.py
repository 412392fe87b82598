"""What a verification found, and how it becomes the document."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify.criteria import judge
from smz_jax.analysis.verify.document import KINDS, SCHEMA, plain_tally
from smz_jax.analysis.verify.libraries import CERTAIN, Library, Piece, Saved, saved_bits, split
from smz_jax.analysis.verify.trial import Tried, tally
from smz_jax.macros.library.listing import gate_and_reason
from smz_jax.macros.library.summary import decode
from smz_jax.storage.export import Exported

SIZES = ("macros", "states", "repeats", "games", "max_steps", "seed", "any_status")
"""Of a request, in verify.json."""


class Found(NamedTuple):
    """What the play and the trials of a suite gave."""

    libraries: Sequence[Library]  # the first is the run's own
    tried: Sequence[Tried]
    saving: Sequence[Library]  # by name the libraries whose saved bits are measured
    pieces: Sequence[Piece]
    scores: Sequence[float]
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
    model: Exported, library: Mapping[str, Any], request: VerifyRequest, found: Found
) -> dict[str, Any]:
    """What was found, as plain JSON."""
    config, names = model.config, library["action_names"]
    known, held_out = split(found.pieces)
    gate = gate_and_reason(library)
    about = {name: model.about.get(name) for name in ("experiment", "seed", "checkpoint")}
    sound = [x["actions"] for x in library["macros"] if x["status"] == "sound"]
    kinds = [kind_of(actions, found.same) for actions in sound]
    renamed = sum(
        kind == KINDS[1] and len(set(x)) > 1 for x, kind in zip(sound, kinds, strict=True)
    )
    saving, parts = {each.name: each.macros for each in found.saving}, []
    for each, tried in zip(found.libraries, found.tried, strict=True):
        part = plain_library(each, tried, names, found.libraries[0], found.same)
        if each.name != CERTAIN:
            saved = saved_bits(saving[each.name], known, held_out, len(names), request.seed)
            part["saved"] = None if saved is None else plain_saved(saved)
        parts.append(part)
    document = {
        "schema": SCHEMA,
        **about,
        "env_steps": model.about.get("env_steps"),
        "suite": config.env.suite,
        "game": config.env.id,
        "sticky": config.env.sticky if config.env.suite == "atari" else None,
        "code_perplexity": None,
        "action_names": list(names),
        "asked": {name: getattr(request, name) for name in SIZES},
        "play": {
            "games": len(found.scores),
            "actions": sum(len(piece.actions) for piece in found.pieces),
            "held_out": sum(len(actions) for actions in held_out),
            "mean_score": float(np.mean(found.scores)),
            "untrained_score": float(np.mean(found.untrained_scores)),
        },
        "same_actions": list(found.same),
        "sound": {**{kind: kinds.count(kind) for kind in KINDS}, "renamed": renamed},
        "owned": found.owned,
        "gate": None if gate is None else {"closed": gate[0], "why": gate[1]},
        "pairs": found.pairs,
        "libraries": parts,
    }
    return {**document, "criteria": judge(document)}


def plain_library(
    library: Library,
    tried: Tried,
    names: Sequence[str],
    real: Library,
    same: Sequence[int],
) -> dict[str, Any]:
    """A library and its trials as plain JSON, without what it saves."""
    rows = []
    for index, macro in enumerate(library.macros):
        head = {"actions": list(macro), "names": decode(macro, names)}
        rows.append({**head, "status": library.status[index], **_sum_of(tried, [index])})
    kinds = {
        kind: [i for i, macro in enumerate(library.macros) if kind_of(macro, same) == kind]
        for kind in KINDS
    }
    return {
        "name": library.name,
        "totals": _sum_of(tried, range(len(library.macros))),
        "kinds": {
            kind: {"macros": len(indices), "totals": _sum_of(tried, indices)}
            for kind, indices in kinds.items()
        },
        "shared": len(set(library.macros) & set(real.macros)),
        "saved": None,
        "macros": rows,
    }


def _sum_of(tried: Tried, macros: Sequence[int]) -> dict[str, Any]:
    """The tally of some macros of a library."""
    own = [trial for trial in tried.trials if trial.macro in macros]
    return plain_tally(tally(own, tried.applied[list(macros)]))


def plain_saved(saved: Saved) -> dict[str, Any]:
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
