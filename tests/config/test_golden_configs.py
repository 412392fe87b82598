"""Every experiment at every preset has the settings that `tests/golden/configs.json` holds.

The file has all defaults, and for each `experiment preset` what differs from them; for the encoder
comparison's jobs, `encoders preset variant`. Where a setting is changed on purpose, the file is
changed with it, by hand: its difference is then what a reader sees.
"""

import importlib
import json
import runpy
from pathlib import Path

import pytest

import smz_jax.run.launch
from experiments.encoders.variants import BASE, SIZES, Job, job_config
from smz_jax.config.cli import parse
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "configs.json").read_text())
DEFAULTS = GOLDEN.pop("defaults")
TOOLS = {"benchmark": {"env.id": "Breakout"}, "encoders": {}}


def base_of(name, monkeypatch):
    """What an experiment sets itself."""
    if name == "encoders":
        return {key: BASE[key] for key in ("env.id", "network.decoder_size")}
    if name in TOOLS:
        return TOOLS[name]
    found = []
    monkeypatch.setattr(
        smz_jax.run.launch, "launch", lambda name, base, *rest, **more: found.append(base)
    )
    importlib.import_module(f"experiments.{name}")
    runpy.run_module(f"experiments.{name}", run_name="__main__")
    return found[0]


def same(config, golden):
    flat = flat_dict(config)
    wanted = {**DEFAULTS, **golden}
    assert flat == wanted
    assert {name: type(x) for name, x in flat.items()} == {
        name: type(x) for name, x in wanted.items()
    }


def test_defaults():
    same(Config(), {})


@pytest.mark.parametrize("pair", [key for key in GOLDEN if len(key.split()) == 2])
def test_settings_of_an_experiment_at_a_preset(pair, monkeypatch):
    name, preset = pair.split()
    config = parse(["--preset", preset], experiment=name, base=base_of(name, monkeypatch)).config
    same(config, GOLDEN[pair])


@pytest.mark.parametrize("job", [key for key in GOLDEN if len(key.split()) == 3])
def test_settings_of_an_encoder_job(job):
    _, preset, variant = job.split()
    same(job_config(preset, SIZES[preset], Job(variant, 0.25, 1), {}), GOLDEN[job])
