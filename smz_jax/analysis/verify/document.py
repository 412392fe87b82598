"""What a verification found and which criteria it meets, as the document of `verify_json`."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify import tried_libraries as tried
from smz_jax.analysis.verify.criteria import judge
from smz_jax.analysis.verify.played import PlayedGames
from smz_jax.analysis.verify.probe import MEMORY
from smz_jax.analysis.verify.tried_libraries import Library, Trial
from smz_jax.config.check import ConfigError
from smz_jax.macros.library.gate import gate_and_reason
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.documents.macro_form import decode
from smz_jax.storage.documents.verify_json import ERRORS, ESTIMATE, KINDS, MOMENTS, SCHEMA
from smz_jax.storage.estimate import Estimate, mean_estimate, share_estimate
from smz_jax.storage.export import Exported
from smz_jax.storage.files import read_json

SIZES = ("macros", "states", "repeats", "games", "max_steps", "seed", "any_status")
"""Of a request, in verify.json."""


class LibraryTrials(NamedTuple):
    """A library after its trials."""

    library: Library
    trials: Sequence[Trial]  # by macro and state
    applied: np.ndarray  # [macros, states] bool

    def tally(self, macros: Collection[int] | None = None) -> dict[str, Any]:
        """As `tally`, of the macros of some indices; None: of all."""
        rows = range(len(self.library.macros)) if macros is None else macros
        return tally([x for x in self.trials if x.macro in rows], self.applied[list(rows)])

    def probe(self) -> list[dict[str, Any]] | None:
        """Mean errors of the linear probe by length, as verify.json keeps them; None: none."""
        found: dict[int, list[Trial]] = {}
        for trial in self.trials:
            if trial.applies and trial.errors:
                found.setdefault(len(self.library.macros[trial.macro]), []).append(trial)
        rows = [
            {
                "length": length,
                "trials": len(trials),
                **dict(zip(ERRORS, np.mean([x.errors for x in trials], 0).tolist(), strict=True)),
            }
            for length, trials in sorted(found.items())
        ]
        return rows or None


def tally(trials: Sequence[Trial], applied: np.ndarray) -> dict[str, Any]:
    """What trials of some macros say together, as verify.json keeps it.

    They apply where `applied [macros, states]` is true. Gives estimates with their numbers of
    trials; clusters of their intervals are the states.
    """
    here = [trial for trial in trials if trial.applies]
    counted, whole = ([x for x in here if getattr(x, y)] for y in ("counts", "counts_whole"))
    alive = [x for x in whole if not x.ended]
    states = np.broadcast_to(np.arange(applied.shape[1]), applied.shape)

    def estimate(kind: Callable[..., Estimate | None], *values: Any) -> dict[str, Any]:
        return dict(zip(ESTIMATE, kind(*values) or (None, None, None, 0), strict=True))

    def of(chosen: Sequence[Trial], name: str, kind: Any = share_estimate) -> dict[str, Any]:
        return estimate(kind, [getattr(x, name) for x in chosen], [x.state for x in chosen])

    def against(kind: int) -> dict[str, Any]:
        rows = [(x.beats[kind], x.state) for x in alive if x.beats[kind] is not None]
        return estimate(share_estimate, [x for x, _ in rows], [x for _, x in rows])

    return {
        # of (macro, state) pairs, those in which the macro applies
        "applied": estimate(share_estimate, applied.ravel(), states.ravel()),
        "held": of(counted, "holds"),
        "nearest": of(counted, "nearest"),
        "told_apart": of(counted, "told_apart"),
        "paid_rewarded": of([x for x in counted if x.rewarded], "paid"),
        "paid_unrewarded": of([x for x in counted if not x.rewarded], "paid"),
        "whole": of(whole, "whole"),
        "whole_paid": of(whole, "whole_paid"),
        **{name: against(kind) for kind, name in enumerate(MOMENTS)},
        # trials in which a life or the game ends, and of those the ones in which that was foreseen
        "lost": of(here, "ended"),
        "lost_foreseen": of([x for x in here if x.ended], "end_foreseen"),
        "whole_anywhere": of([x for x in trials if x.drawn and x.counts_whole], "whole"),
        # in drawn states, whether or not it applies
        "held_anywhere": of([x for x in trials if x.drawn and x.counts], "holds"),
        "gain": of(here, "gain", mean_estimate),
        "lives": of(here, "lives", mean_estimate),
        # share that would be nearest if one were picked blindly
        "chance": float(np.mean([1 / (1 + x.rivals) for x in counted])) if counted else None,
        "whole_chance": float(np.mean([1 / (1 + x.moments) for x in alive])) if alive else None,
        "hidden": sum(x.hidden for x in here),
        "cut": sum(x.cut for x in here),
        "unrivalled": sum(not x.cut and x.rivals == 0 for x in here),
        "repeats": of([x for x in here if x.repeats is not None], "repeats"),
    }


class Verification(NamedTuple):
    """What play and trials gave."""

    results: Sequence[LibraryTrials]  # the first is of the run's own macros
    saving: Sequence[Library]  # by name the libraries whose saved bits are measured
    played: PlayedGames  # by the trained agent
    untrained_scores: Sequence[float]
    pairs: list[dict[str, Any]] | None
    owned: int | None  # of the run's macros that were tried, those with a slot; None: no head
    same: Sequence[int]  # for each action the first one that does the same
    perfect: Sequence[tried.Macro] = ()  # that the ceiling of saved bits is chosen of


def kind_of(actions: Sequence[int], same: Sequence[int]) -> str:
    """Whether a macro changes the action or repeats one; under sticky actions that matters.

    One that goes from an action to another that does the same repeats it.
    """
    return "changing" if len({same[action] for action in actions}) > 1 else "repeats"


def saved_of(bits: tried.Savings) -> dict[str, Any]:
    """Saved bits, as verify.json keeps them."""
    return {
        "bits_per_action": bits.encoding.saved_per_action,
        "low": bits.low,
        "high": bits.high,
        "plain_bits_per_action": bits.encoding.plain_bits_per_action,
        "coverage": bits.encoding.coverage,
        "kept": len(bits.kept),
    }


def to_document(model: Exported, request: VerifyRequest, found: Verification) -> dict[str, Any]:
    """What was found of a model, which has a library, as plain JSON."""
    env, about, library = model.config.env, model.about, model.macros
    assert library is not None, "there are macros to verify"
    names, (known, held_out) = library["action_names"], tried.split(found.played.pieces)
    gate = gate_and_reason(library)
    sound = [x["actions"] for x in library["macros"] if x["status"] == "sound"]
    kinds = [kind_of(actions, found.same) for actions in sound]
    renamed = [len(set(x)) > 1 for x, kind in zip(sound, kinds, strict=True) if kind == "repeats"]
    saved = {
        each.name: tried.saved_bits(each.macros, known, held_out, len(names), request.seed)
        for each in found.saving
    }
    ceiling = tried.ceiling(found.perfect, known, held_out, len(names), request.seed)
    own = set(found.results[0].library.macros)

    def entry(result: LibraryTrials) -> dict[str, Any]:
        name, macros, status = result.library
        bits, of_kind = saved.get(name), {kind: [] for kind in KINDS}
        for row, macro in enumerate(macros):
            of_kind[kind_of(macro, found.same)].append(row)
        return {
            "name": name,
            "totals": result.tally(),
            "kinds": {
                kind: {"macros": len(rows), "totals": result.tally(rows)}
                for kind, rows in of_kind.items()
            },
            "shared": len(own & set(macros)),
            "probe": result.probe(),
            "saved": bits and saved_of(bits),
            "macros": [
                {
                    "actions": list(macro),
                    "names": decode(macro, names),
                    "status": status[row],
                    **result.tally([row]),
                }
                for row, macro in enumerate(macros)
            ],
        }

    document = {
        "schema": SCHEMA,
        **{x: about.get(x) for x in ("experiment", "seed", "checkpoint", "env_steps")},
        "suite": env.suite,
        "game": env.id,
        "sticky": env.sticky if env.suite == "atari" else None,
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
        "probed": list(MEMORY[env.id].read) if env.id in MEMORY else [],
        "sound": {**{kind: kinds.count(kind) for kind in KINDS}, "renamed": sum(renamed)},
        "owned": found.owned,
        "gate": None if gate is None else {"closed": gate[0], "why": gate[1]},
        "pairs": found.pairs,
        "ceiling": {"macros": len(found.perfect), "saved": ceiling and saved_of(ceiling)},
        "libraries": [entry(result) for result in found.results],
    }
    return {**document, "criteria": judge(document)}


def code_perplexity(folder: Path) -> float | None:
    """That of a run's model at its end, by its last check; None where there was none."""
    try:
        found = read_json(folder / "summary.json")["model_check"]["code_perplexity"]
    except (ConfigError, KeyError, TypeError):
        return None
    return float(found) if is_number(found) else None
