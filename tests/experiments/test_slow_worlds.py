"""What is required of a world, of seed 0: a whole run at `laptop`, minutes to an hour each.

python -m pytest -m slow                          all of it, hours
python -m pytest -m slow -k "cartpole or grid"    about ten minutes
"""

import subprocess
import sys

import pytest

from experiments.results.results_report import make_report


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", ["grid-slippery", "grid-deterministic", "cartpole", "2048", "breakout", "encoders"]
)
def test_world_is_learned(world, tmp_path):
    words = ["--worlds", world, "--seeds", "0", "--run_dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "experiments.results", *words], check=True)
    (row,) = make_report(tmp_path).rows
    required = [x for x in row.figures if x.required and "minutes" not in x.name]
    assert required
    assert [x for x in required if not x.reached] == []
