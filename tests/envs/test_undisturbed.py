"""Environments that disturb the process, of several agents, or of unusual pictures and masks."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces

from smz_jax.config.check import ConfigError
from smz_jax.config.process import RESTS_ON
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id, make_env, make_spec
from smz_jax.envs.gym import gym_ids
from smz_jax.envs.gym.observations import make_coder
from smz_jax.envs.undisturbed import TIMES
from tests.support.gym_worlds import Views

ROOT = Path(__file__).resolve().parents[2]
GLOBAL_DRAWS = re.compile(
    r"^(import random|from random)|np\.random\.(?!default_rng|SeedSequence|Generator|RandomState)",
    re.MULTILINE,
)


def world(name, frame_stack=1, backend: Any = "gymnasium", **kwargs):
    words = ", ".join(f'"{key}": "{value}"' for key, value in kwargs.items())
    env_id = name if "-v1" in name else f"tests.support.gym_worlds:{name}-v0"
    return EnvConfig(
        suite="gym", id=env_id, backend=backend, kwargs=f"{{{words}}}",
        frame_stack=frame_stack, frame_size=16,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def forget():
    """Every test finds a process that was told nothing."""
    TIMES.clear()
    gym_ids.find.cache_clear()
    gym_ids._try_gymnasium.cache_clear()


def process():
    jax_settings = {name: getattr(jax.config, name) for name in RESTS_ON}
    root = (logging.root.level, [*logging.root.handlers], logging.root.manager.disable)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return jax_settings, root, handlers, os.getcwd(), np.geterr(), sys.stdout, sys.stderr


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("signals", "the signal handlers"),
        ("folder", "the current folder"),
        ("logging", "the root of logging"),
        ("jax", "JAX's settings"),
        ("numpy", "NumPy's floating-point errors"),
        ("output", "stdout or stderr"),
        ("close", "failed when it was closed: OSError: it does not close"),
    ],
)
def test_a_rude_environment_changes_nothing_and_is_told_once(how, told, capsys):
    before = process()
    config = world("Rude", how=how)
    check_env_id(config)
    assert process() == before
    env = make_env(config, seed=0, num_envs=3)
    assert process() == before
    env.reset()
    assert process() == before
    for _ in range(4):  # every second step starts new games
        env.step(np.zeros(3, np.int32))
        assert process() == before
    env.close()
    env.close()
    assert process() == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and told in lines[0], lines
    assert sum(TIMES.values()) > 3


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(suite="grid", id="GridWorld"),
        EnvConfig(suite="pgx", id="2048"),
        world("CartPole-v1"),
        world("CartPole-v1", backend="envpool"),
    ],
    ids=lambda config: f"{config.suite}-{config.backend}",
)
def test_of_a_polite_environment_nothing_is_told(config, capsys):
    env = make_env(config, seed=0, num_envs=2)
    env.reset()
    env.close()
    assert capsys.readouterr().out == "" and not TIMES


def test_nothing_of_the_project_draws_from_a_global_generator():
    assert GLOBAL_DRAWS.search("x = np.random.rand(3)") and GLOBAL_DRAWS.search("import random")
    paths = [*ROOT.glob("smz_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    assert len(paths) > 100
    assert not [path for path in paths if GLOBAL_DRAWS.search(path.read_text())]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (world("Agents", several="reward"), "one agent: its reward must be one number, not array"),
        (world("Agents", several="names"), "one agent: its reward must be one number, not {'a'"),
        (world("Agents", several="terminated"), "its terminated must be one number, not {'a'"),
        (world("Agents", several="truncated"), "its truncated must be one number, not array"),
        (world("Agents", several="observation"), "fit their space: (2, 3), not (3,)"),
        (world("TicTacToe-v1", backend="envpool"), "for one player: it has 2"),
        (world("ConnectFour-v1", backend="envpool"), "for one player: it has 2"),
        (world("SparrowMahjong-v1", backend="envpool"), "for one player: it has 3"),
        (world("IntersectionMultiAgent-v1", backend="envpool"), "for one player: it has 2"),
    ],
)
def test_several_agents_are_refused_at_once(config, told):
    with pytest.raises(ConfigError) as excinfo:
        check_env_id(config)
    message = str(excinfo.value)
    assert told in message and "env.id" in message and "\n" not in message, message


@pytest.mark.parametrize(
    ("how", "told"), [("signals", "the signal handlers"), ("folder", "the current folder")]
)
def test_what_a_step_changes_is_put_back_and_counted(how, told, capsys):
    env = make_env(world("Rude", how=how, in_step="yes"), seed=0, num_envs=2)
    env.reset()
    TIMES.clear()
    capsys.readouterr()
    before = process()
    for _ in range(4):
        env.step(np.zeros(2, np.int32))
        assert process() == before
    env.close()
    assert list(TIMES.values()) == [4] and told in next(iter(TIMES))
    assert capsys.readouterr().out.count(told) == 1


@pytest.mark.parametrize("name", ["mask", "legal_actions", "avail_actions", "valid_actions"])
@pytest.mark.parametrize("form", ["bits", "int8", "bool", "box"])
def test_a_mask_may_have_other_names(name, form, capsys):
    step, spec = first_step(world("Masked", key=name, form=form))
    assert spec.frame_shape == (2,) and capsys.readouterr().out == ""
    np.testing.assert_array_equal(step.invalid_actions, [[0, 1, 0]] * 2)


@pytest.mark.parametrize(("form", "size"), [("long", 6), ("wide", 5)])
def test_what_is_no_mask_is_told_to_be_an_input(form, size, capsys):
    step, spec = first_step(world("Masked", key="mask", form=form))
    assert spec.frame_shape == (size,) and not step.invalid_actions.any()
    line = "'mask' of the observation counts as an input, not as the mask"
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.parametrize(("form", "invalid"), [("bits", 1), ("long", 0), ("wide", 0)])
def test_masks_in_the_info(form, invalid, capsys):
    step, spec = first_step(world("Masked", key="action_masks", where="info", form=form))
    assert spec.frame_shape == (2,)
    np.testing.assert_array_equal(step.invalid_actions, [[0, invalid, 0]] * 2)
    told = capsys.readouterr().out.count("info['action_masks'] is no mask of 3 actions")
    assert told == 1 - invalid


def first_step(config):
    env = make_env(config, seed=0, num_envs=2)
    env.reset()
    step = env.step(np.zeros(2, np.int32))
    env.close()
    return step, env.spec


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (spaces.Box(0, 1, (20, 24)), True),
        (spaces.Box(0, 255, (20, 24)), True),
        (spaces.Box(0, 1, (20, 24, 3)), True),
        (spaces.Box(-1, 1, (20, 24)), False),
        (spaces.Box(0, 1, (8, 8)), False),
    ],
)
def test_images_of_floats_are_told_to_be_a_vector(space, told):
    note = make_coder(spaces.Dict({"a": space}), 16).note
    assert note == (
        f"what may be images of shape {space.shape} counts as numbers of a vector" * told
    )


@pytest.mark.parametrize("form", ["first", "last", "rgba", "colours", "channels", "masked"])
def test_pictures_are_the_newest_in_whatever_form(form, capsys):
    env = make_env(world("Views", frame_stack=2, form=form), seed=0, num_envs=2)
    assert env.spec.frame_shape == (16, 16)
    steps = [env.reset(), env.step(np.zeros(2, np.int32)), env.step(np.ones(2, np.int32))]
    env.close()
    for at, step in enumerate(steps):
        picture = Views().picture(at)[None]
        if form in ("first", "last"):
            picture = picture[..., :1]
        coder = gym_ids.make_coder(gym_ids.spaces.Box(0, 255, picture.shape[1:], np.uint8), 16)
        np.testing.assert_array_equal(step.observation[:, -1], coder.encode(picture).repeat(2, 0))
        masked = [0, 1, 0] if form == "masked" else [0, 0, 0]
        np.testing.assert_array_equal(step.invalid_actions, [masked] * 2)
    told = {"masked": "", "rgba": "RGBA"}.get(form, "stacks")
    assert told in capsys.readouterr().out and len(TIMES) == (form != "masked")


def test_planes_are_told_to_be_a_vector(capsys):
    assert make_spec(world("Views", form="planes")).frame_shape == (20 * 24 * 4,)
    assert "shape (20, 24, 4) counts as numbers of a vector" in capsys.readouterr().out


@pytest.mark.parametrize(("env_id", "size"), [("Game2048-v1", 16), ("Play2048-v1", 4 * 4 * 31)])
def test_envpools_masks_count(env_id, size):
    env = make_env(world(env_id, backend="envpool"), seed=0, num_envs=16)
    assert env.spec.frame_shape == (size,)
    step = env.reset()
    for _ in range(6):
        step = env.step(step.invalid_actions.argmin(axis=1))
    env.close()
    assert step.invalid_actions.any() and not step.invalid_actions.all(axis=1).any()


@pytest.mark.parametrize("settings", ['suite="gym", id="CartPole-v1"', 'id="Breakout"'])
def test_no_warning_is_an_error(settings):
    """`python -W error`: warnings of libraries stay inside, and no code of this project warns."""
    script = f"""
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env
import numpy as np
env = make_env(EnvConfig({settings}), seed=0, num_envs=2)
env.reset()
env.step(np.zeros(2, np.int32))
env.close()
"""
    words = [sys.executable, "-W", "error", "-c", script]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
