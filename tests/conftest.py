"""Compiled programs are kept on disk between test runs, as the experiments keep them."""

import gc
from pathlib import Path

import jax
import pytest

from smz_jax.run.devices import prepare_jax, use_fast_compiler

use_fast_compiler()
prepare_jax()
OPTIMISES_LESS = jax.config.read("jax_disable_most_optimizations")
MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000
"""Each program that XLA compiles for a CPU keeps memory maps; past the kernel's limit (65,530 by
default) the process dies with a segmentation fault."""


@pytest.fixture(autouse=True, scope="module")
def bounded_memory_maps():
    """Forgets compiled programs between test files when too many are held."""
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def optimisations_as_before():
    """What a command at preset tiny turns off in this process is on again in the next test."""
    yield
    jax.config.update("jax_disable_most_optimizations", OPTIMISES_LESS)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Folder of a finished run, not to be changed."""
    from tests.support.tiny_run import make_run

    return make_run(tmp_path_factory.mktemp("tiny") / "run")
