"""Compiled programs are kept on disk between test runs, as the experiments keep them.

Most of a cold suite is tracing and compiling programs that then run once: XLA optimises little, and
the garbage collector does not look through JAX's millions of long-lived objects at each turn. What
needs programs like a run's sets `jax_disable_most_optimizations` itself.
"""

import fcntl
import gc
import os
from pathlib import Path

import jax
import pytest

from smz_jax.run.devices import prepare_jax, use_fast_compiler

use_fast_compiler()
prepare_jax()
jax.config.update("jax_disable_most_optimizations", True)
gc.set_threshold(50_000, 20, 100)
MAPS = Path("/proc/self/maps")
MOST_MAPS = 40_000
"""Each program that XLA compiles for a CPU keeps memory maps; past the kernel's limit (65,530 by
default) the process dies with a segmentation fault."""

LONGEST = (
    "test_train.py",
    "test_resume.py",
    "test_engine.py",
    "test_envs_atari.py",
    "test_search.py",
    "test_encoders.py",
    "test_several_devices.py",
    "test_export.py",
    "test_kill.py",
    "test_run_checks.py",
    "test_learning.py",
    "test_process.py",
    "test_report.py",
    "test_report_model.py",
    "test_gym_runs.py",
    "test_full_disk.py",
    "test_gpu_preset.py",
    "test_benchmark.py",
    "test_pools.py",
    "test_search_faults.py",
    "test_macros_table.py",
    "test_preconditions.py",
    "test_play.py",
)
"""Begun first, so that no process works on one of them while the other has nothing left; of those
that need `tiny_run`, one long before the others."""


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True, scope="module")
def bounded_memory_maps():
    """Forgets compiled programs between test files when too many are held."""
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def little_optimised():
    """What one test changes, its commands too, is as it was for the next."""
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def unrendered(monkeypatch):
    """For what a page says: a report's figures are made of its data, but their pixels are not."""
    from smz_jax.report import build
    from smz_jax.storage.files import atomic_write_bytes

    save = lambda figure, path: atomic_write_bytes(path, b"no pixels")  # noqa: E731
    monkeypatch.setattr(build, "save_figure", save)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Folder of a finished run, not to be changed; one for all processes of the tests."""
    from tests.support.tiny_run import make_run

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make_run(tmp_path_factory.mktemp("tiny") / "run")
    folder = tmp_path_factory.getbasetemp().parent / "tiny_run"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "summary.json").exists():  # written last
            make_run(folder)
    return folder


@pytest.fixture(scope="module")
def shared_programs():
    """Runs of the file use the programs of those before; gives a function that forgets them."""
    from tests.support.programs import shared_programs

    with shared_programs() as forget:
        yield forget


@pytest.fixture(scope="module")
def shared_by_all_lengths():
    """Also with runs of other lengths."""
    from tests.support.programs import shared_programs

    with shared_programs(any_length=True):
        yield
