"""Runs of the same settings in one process share what they trace and compile."""

import functools
from contextlib import contextmanager
from dataclasses import replace

import pytest

from smz_jax.config.settings import Config
from smz_jax.run import parts

FACTORIES = (
    "make_networks",
    "make_replay",
    "make_decide",
    "make_reanalyse",
    "make_check",
    "make_foresight",
    "TrainStep",
)
"""Of a run's parts: what they give is made of the settings alone, and holds nothing of a run."""


@contextmanager
def shared_programs(any_length=False):
    """Within it, the functions of equal settings are the same; games and miners are a run's own.

    `any_length`: also of runs that differ in length alone, whose schedule is then the first one's.
    Gives a function that forgets them, so that the next run is traced as in a new process.
    """
    new_miner, lengths = parts.Miner, {}
    cached = {name: functools.cache(getattr(parts, name)) for name in FACTORIES}
    first = functools.cache(new_miner)

    def first_length(x):
        is_config = any_length and isinstance(x, Config)
        return lengths.setdefault(replace(x, total_env_steps=10**9), x) if is_config else x

    def of_first(make):
        return lambda *settings, **more: make(*map(first_length, settings), **more)

    def miner(*settings):
        made = new_miner(*settings)
        for name in ("init", "_post_pass", "_merge"):
            setattr(made, name, getattr(of_first(first)(*settings), name))
        return made

    def forget():
        for function in (first, *cached.values()):
            function.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        for name, function in cached.items():
            patch.setattr(parts, name, of_first(function))
        patch.setattr(parts, "Miner", miner)
        yield forget
