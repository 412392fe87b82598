"""Runs of the same settings in one process share what they trace and compile."""

import functools
from contextlib import contextmanager

import pytest

from smz_jax.run import parts

FACTORIES = (
    "make_networks",
    "make_replay",
    "make_decide",
    "make_refresh",
    "make_check",
    "make_foresight",
    "TrainStep",
)
"""Of a run's parts: what they give is made of the settings alone, and holds nothing of a run."""


@contextmanager
def shared_programs():
    """Within it, the functions of equal settings are the same; games and miners are a run's own.

    Gives a function that forgets them, so that the next run is traced as in a new process.
    """
    new_miner = parts.Miner
    shared = {name: functools.cache(getattr(parts, name)) for name in FACTORIES}
    first = functools.cache(new_miner)

    def miner(*settings):
        made = new_miner(*settings)
        for name in ("init", "_post_pass", "_merge"):
            setattr(made, name, getattr(first(*settings), name))
        return made

    def forget():
        for cached in (first, *shared.values()):
            cached.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        for name, cached in shared.items():
            patch.setattr(parts, name, cached)
        patch.setattr(parts, "Miner", miner)
        yield forget
