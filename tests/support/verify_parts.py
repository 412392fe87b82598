"""Made-up trials, play, libraries and documents of a verification."""

import dataclasses
import functools
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify.document import LibraryTrials, Verification, to_document
from smz_jax.analysis.verify.played import PlayedGames
from smz_jax.analysis.verify.tried_libraries import Library, Piece, Trial
from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.storage.documents.verify_json import FILE, VERIFICATION
from smz_jax.storage.files import read_json, write_json

NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")
SETTINGS = MacroConfig()
SAME = (0, 0, 2, 3)


def random_trials(rng, macros=5, states=7):
    return [
        Trial(
            macro=int(m),
            state=int(s),
            applies=bool(rng.random() < 0.7),
            drawn=bool(s < 4),
            cut=bool(rng.random() < 0.2),
            rivals=int(rng.integers(0, 4)),
            nearest=bool(rng.random() < 0.6),
            told_apart=bool(rng.random() < 0.6),
            paid=bool(rng.random() < 0.7),
            rewarded=bool(rng.random() < 0.5),
            lives=int(rng.integers(0, 2)),
            gain=float(rng.normal()),
            repeats=[None, True, False][rng.integers(3)],
            whole=bool(rng.random() < 0.6),
            moments=int(rng.integers(0, 4)),
            beats=tuple([None, True, False][rng.integers(3)] for _ in range(3)),
            hidden=int(rng.integers(0, 3)),
            ended=bool(rng.random() < 0.2),
            end_foreseen=bool(rng.random() < 0.5),
            errors=tuple(map(tuple, rng.random((3, 3)).tolist())) if rng.random() < 0.8 else (),
        )
        for m, s in itertools.product(range(macros), range(states))
    ]


def pieces_of(rng, count=4, phrase=(2, 2, 3, 1)):
    """Play in which a phrase comes again and again."""
    found = []
    for game in range(count):
        parts = [rng.integers(0, 4, rng.integers(0, 3)) for _ in range(60)]
        actions = np.concatenate([np.concatenate([part, phrase]) for part in parts])
        found.append(Piece(actions.astype(np.int32), game))
    return found


def macro_entry(actions, status="sound", **more):
    held = {"sound": 1.0}.get(status, 0.5)
    return {
        "actions": list(actions), "names": " → ".join(NAMES[a] for a in actions),
        "length": len(actions), "count": 9, "play_count": 9, "mean_entropy": 0.1,
        "total_reward": 0.0, "mean_reward": 0.0, "generality": 0, "buckets": [], "source": "play",
        "deterministic": False, "status": status, "windows": 80.0, "certain": 0.625,
        "certain_low": 0.55, "trials": 50.0, "held": held,
        "held_low": held * 0.9, "held_high": held, "near": 0.7, "paid": 0.8, "agreed": 0.9,
        "ends": 1.0, "effective": 50.0, "p_value": 0.01, **more,
    }  # fmt: skip


def library_of(*macros):
    config = dataclasses.asdict(SETTINGS)
    return {"action_names": list(NAMES), "macros": list(macros), "stats": {}, "config": config}


def made_up_document(tmp_path, sound=True):
    document, tried = made_up(sound)
    write_json(tmp_path / FILE, document)
    return document, tried, tmp_path / FILE


def read_verification(path):
    document = read_json(path)
    VERIFICATION.check(document, path)
    return document


@functools.cache
def made_up(sound, same=range(4)):
    rng = np.random.default_rng(7)
    pieces = pieces_of(rng)
    libs = [
        Library(name, ((2, 2, 3, 1), (1, 2), (3, 3), (0, 1), (0, 0)), ("sound",) * 5)
        for name in ("macros", "random")
    ]
    tried = [
        LibraryTrials(each, tuple(random_trials(rng)), rng.random((5, 7)) < 0.5) for each in libs
    ]
    if not sound:
        libs[0] = Library("macros", (), ())
        tried[0] = LibraryTrials(libs[0], (), np.zeros((0, 7), np.bool_))
    model = SimpleNamespace(
        config=Config(),
        about={"experiment": "breakout", "seed": 0, "checkpoint": "best"},
        macros=library_of(macro_entry((1, 2), "sound" if sound else "refuted")),
    )
    played = PlayedGames(pieces, [3.0, 5.0, 4.0, 4.0])
    found = Verification(tried, libs, played, [0.0, 0.0], None, 3, same)
    return to_document(model, VerifyRequest(Path()), found), tried  # type: ignore[arg-type]
