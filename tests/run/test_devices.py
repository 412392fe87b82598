"""JAX as a run needs it, whatever the environment says, and where programs are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, pwd, sys
if "NO_HOME" in os.environ:
    def nobody(uid):
        raise KeyError(uid)
    pwd.getpwuid = nobody
    os.environ.pop("HOME", None)
from smz_jax.config.process import RESTS_ON, run_main
from smz_jax.run.devices import prepare_jax
def main():
    import jax, jax.numpy as jnp
    prepare_jax()
    for name, value in RESTS_ON.items():
        assert getattr(jax.config, name) in (value, None), name
    assert jnp.ones(1).dtype == "float32" and (jnp.ones((2, 3)) + jnp.ones(3)).shape == (2, 3)
    print("folder", jax.config.jax_compilation_cache_dir)
run_main(main)
"""


def run(cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_ENABLE_X64", "1"),
        ("JAX_NUMPY_RANK_PROMOTION", "raise"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg"),
        ("JAX_THREEFRY_PARTITIONABLE", "0"),
        ("JAX_DISABLE_JIT", "1"),
        ("JAX_TRANSFER_GUARD", "disallow"),
        ("JAX_DEBUG_NANS", "1"),
        ("JAX_DEBUG_KEY_REUSE", "1"),
    ],
)
def test_settings_of_others_are_set_right_with_a_line(tmp_path, name, value):
    code, lines, _ = run(tmp_path, **{name: value})
    assert code == 0 and len(lines) == 2 and lines[0].startswith(f"{name} = ")


@pytest.mark.parametrize("platforms", ["cuda", "tpu", "nonsense"])
def test_a_missing_accelerator_is_one_line(tmp_path, platforms):
    code, _, err = run(tmp_path, JAX_PLATFORMS=platforms)
    assert code == 2
    assert f"error: JAX_PLATFORMS = {platforms!r} cannot be used: " in err.splitlines()[-1]


def test_without_a_home_no_program_is_kept(tmp_path):
    code, lines, _ = run(tmp_path, NO_HOME="1", SMZ_COMPILE_CACHE="")
    assert code == 0 and lines[-1] == "folder None" and not list(tmp_path.iterdir())
    assert lines[0].startswith("no program is kept for the next start: ")


def test_an_empty_name_of_the_cache_is_none(tmp_path):
    code, lines, _ = run(tmp_path, HOME=str(tmp_path), SMZ_COMPILE_CACHE="")
    assert (code, lines) == (0, [f"folder {tmp_path}/.cache/smz_jax/xla"])


def test_a_cache_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").touch()
    code, lines, _ = run(tmp_path, SMZ_COMPILE_CACHE=str(tmp_path / "file/x"))
    assert code == 0 and lines[-1] == "folder None" and "Not a directory" in lines[0]


def test_freed_memory_is_kept_for_the_next_array():
    script = """
import resource, numpy as np
from smz_jax.run.devices import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**20)  # 8 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
keep_freed_memory()
faults()
print(first, faults())
"""
    words = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(words, capture_output=True, text=True, env=environment, check=True).stdout
    first, then = map(int, out.split())
    assert then < 100 < first
