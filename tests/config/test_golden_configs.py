"""Every experiment at every preset has the settings that `tests/golden/configs.json` holds.

The file has all defaults, and for each `experiment preset` what differs from them; for the encoder
comparison's jobs, `encoders preset variant`. Where a setting is changed on purpose, the file is
changed with it, by hand: its difference is then what a reader sees.
"""

import importlib
import json
from pathlib import Path

import pytest

from experiments.encoders.variants import EXPERIMENT as ENCODERS
from experiments.encoders.variants import SIZES, Job, Plan, job_config
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "configs.json").read_text())
DEFAULTS = GOLDEN.pop("defaults")
TOOLS = {"benchmark": Experiment("benchmark", base={"env.id": "Breakout"}), "encoders": ENCODERS}


def experiment_of(name):
    """The value that the experiment's module runs."""
    return TOOLS.get(name) or importlib.import_module(f"experiments.{name}").EXPERIMENT


def check_same(config, golden):
    flat = flat_dict(config)
    wanted = {**DEFAULTS, **golden}
    assert flat == wanted
    assert {name: type(x) for name, x in flat.items()} == {
        name: type(x) for name, x in wanted.items()
    }


def test_defaults():
    check_same(Config(), {})


@pytest.mark.parametrize("pair", [key for key in GOLDEN if len(key.split()) == 2])
def test_settings_of_an_experiment_at_a_preset(pair):
    name, preset = pair.split()
    assert experiment_of(name).name == name
    check_same(parse(["--preset", preset], experiment_of(name)).config, GOLDEN[pair])


@pytest.mark.parametrize("job", [key for key in GOLDEN if len(key.split()) == 3])
def test_settings_of_an_encoder_job(job):
    _, preset, variant = job.split()
    plan = Plan(preset, SIZES[preset], (), {}, Path())
    check_same(job_config(plan, Job(variant, 0.25, 1)), GOLDEN[job])
