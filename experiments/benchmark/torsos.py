"""What a training step costs with each torso over a sequence, beside the feed-forward one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark import timing
from experiments.benchmark.timing import ROUNDS, Case, make_case
from smz_jax.config.settings import Config
from smz_jax.envs import make_spec
from smz_jax.learning.learner import init_train_state, make_update
from smz_jax.learning.replay import make_replay
from smz_jax.model.networks import make_networks

FRAMES: Mapping[str, int] = {"mlp": 1, "lstm": 8, "transformer": 16}
"""Families, and the frames of an observation that each reads; the first is what others cost
beside."""


def step_case(config: Config) -> tuple[Case, float]:
    """An update, and the seconds to compile it.

    Its batch has zeros alone, whose time is that of any.
    """
    spec = make_spec(config.env)
    networks, replay = make_networks(config.network, spec), make_replay(config, spec)
    key = jax.random.key(config.seed)
    state = jax.jit(lambda: init_train_state(networks, config, key))()
    shapes = jax.eval_shape(lambda: replay.sample(replay.init(), key))
    sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sample = sample._replace(rows=sample.rows._replace(discount=jnp.ones_like(sample.rows.reward)))
    update, seconds = timing.compiled(jax.jit(make_update(networks, config, spec)), state, sample)
    return make_case(lambda: update(state, sample)), seconds


def measure(config: Config, seconds: float, frames: Mapping[str, int] = FRAMES) -> dict[str, Any]:
    """Measures the update of each family, in turn.

    Returns:
        `families` (for each its `frames`, `seconds` of an update, these as `times` of the first
        family's, and `compile_seconds`), and `config`; plain JSON.
    """
    cases, compile_seconds = {}, {}
    with timing.show_steps(len(frames) * (1 + ROUNDS), "torsos") as step:
        for family, count in frames.items():
            step(f"{family}: compiling")
            own = dataclasses.replace(
                config,
                env=dataclasses.replace(config.env, frame_stack=count, mark_start=False),
                network=dataclasses.replace(config.network, family=family),
            )
            cases[family], compile_seconds[family] = step_case(own)
        medians = timing.interleave(cases, seconds, show=step)
    least = next(iter(medians.values()))
    families = {
        family: {
            "frames": frames[family],
            "seconds": taken,
            "times": taken / least,
            "compile_seconds": compile_seconds[family],
        }
        for family, taken in medians.items()
    }
    how = {"seconds_per_part": seconds, "rounds": ROUNDS}
    return {"families": families, "config": dataclasses.asdict(config), **how}
