"""A run on several devices is the run on one: in a process with devices of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "devices", ["4", *(pytest.param(x, marks=pytest.mark.slow) for x in ("2", "8"))]
)
def test_several_devices_are_as_one_and_a_run_moves_between_them(tmp_path, devices):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.several_devices", devices, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=400,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.endswith("the same\n"), done.stderr[-2000:]
