"""Speed of each part of a run, measured on the parts that a run uses.

The networks are untrained: no time below depends on their weights but that of the macro merge,
which grows with the candidates; its row "every window a candidate" is the worst case.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.rollout import (
    NOTEBOOK_LANES,
    NOTEBOOK_STEPS_PER_SECOND,
    acting_case,
    environment_case,
    make_agent,
    notebook_config,
)
from experiments.benchmark.timing import (
    QUICK_SECONDS,
    ROUNDS,
    Case,
    compile_cache,
    compiled,
    interleave,
    surroundings,
    timed,
)
from smz_jax.config.settings import Config
from smz_jax.config.sources import to_dict
from smz_jax.learning.sources import Play
from smz_jax.macros.mine.miner import Miner
from smz_jax.run.loop import known_macros
from smz_jax.run.parts import Parts as RunParts
from smz_jax.run.parts import make_parts
from smz_jax.run.state import RunState, fresh_state
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, Trajectory


class Parts(NamedTuple):
    """A run that has played enough to learn, and its compiled programs."""

    run: RunParts
    state: RunState
    params: Any
    rows: Trajectory  # its last rollout
    search: Callable[[], Decision]
    learn: Callable  # (TrainState, replay state) -> both, metrics
    compile_seconds: dict[str, float]


def prepare(config: Config) -> Parts:
    """Makes the run, compiles search and training step, and fills the replay with real games."""
    run = make_parts(config, PhaseTimers())
    state = fresh_state(run)
    assert isinstance(run.source, Play)
    resets = [env.reset() for env in run.source.envs]
    first = jax.tree.map(lambda *pools: np.concatenate(pools), *resets)
    params = jax.tree.map(jnp.copy, state.train.params)  # the training step donates its own
    arguments = (
        params,
        jax.random.key(config.seed),
        np.int32(0),
        first.observation,
        first.invalid_actions,
        np.float32(1),
        np.float32(0),
        np.float32(1),
    )
    search, search_seconds = compiled(run.decide, *arguments)
    known = known_macros(state.macros)
    learn, learn_seconds = compiled(run.train_step, state.train, state.replay, known)
    replay, macros, count = state.replay, state.macros, 0
    while True:
        run.miner.begin(macros, count)
        rows = run.source.next(params).rows
        macros, _, _ = run.miner.end_rollout(rows)
        replay, count = run.replay.add_donated(replay, rows), run.source.count
        if run.env_steps(count) >= config.replay.min_size and run.replay.can_sample(replay):
            break
    return Parts(
        run=run,
        state=state._replace(replay=replay, macros=macros),
        params=params,
        rows=rows,
        search=lambda: search(*arguments),
        learn=learn,
        compile_seconds={"search": search_seconds, "training_step": learn_seconds},
    )


def rollout_case(parts: Parts) -> Case:
    """A whole rollout with its macros, per step of all lanes."""
    run = parts.run

    def work() -> Trajectory:
        rows = run.source.next(parts.params).rows
        run.miner.end_rollout(rows)
        return rows

    work()  # compiles
    return lambda: timed(work) / run.config.rollout.length


def macro_cases(name: str, parts: Parts, miner: Miner) -> dict[str, Case]:
    """The post-pass of a rollout's steps, per step, and the merge at its end."""
    decision = parts.search()
    length = parts.run.config.rollout.length

    def watch() -> Any:
        for _ in range(length):
            miner.watch(decision)
        return miner.state

    def merge() -> Any:
        miner.end_rollout(parts.rows)
        return miner.state

    def timed_pass() -> float:
        seconds = timed(watch) / length
        jax.block_until_ready(merge())
        return seconds

    def timed_merge() -> float:
        jax.block_until_ready(watch())
        return timed(merge)

    timed_pass()  # compiles
    return {f"{name}_pass": timed_pass, f"{name}_merge": timed_merge}


def learning_cases(parts: Parts) -> dict[str, Case]:
    """The training step per update, and the replay by itself."""
    run, state = parts.run, parts.state
    sample = jax.jit(run.replay.sample)
    key = jax.random.key(run.config.seed)

    def learn() -> Any:
        nonlocal state
        known = known_macros(run.miner.state)
        train_state, replay, metrics = parts.learn(state.train, state.replay, known)
        state = state._replace(train=train_state, replay=replay)
        return train_state, metrics

    def add() -> Any:
        nonlocal state
        state = state._replace(replay=run.replay.add_donated(state.replay, parts.rows))
        return state.replay

    jax.block_until_ready((learn(), add(), sample(state.replay, key)))
    updates = run.config.learner.updates_per_dispatch
    return {
        "training_step": lambda: timed(learn) / updates,
        "replay_add": lambda: timed(add),
        "replay_sample": lambda: timed(lambda: sample(state.replay, key)),
    }


def worst_miner(parts: Parts) -> Miner:
    """A miner whose thresholds let every window through."""
    config = parts.run.config
    macro = dataclasses.replace(config.macro, play_threshold=1.0, tree_threshold=1.0)
    shape = jax.eval_shape(lambda: parts.search().embedding).shape[1:]
    worst = dataclasses.replace(config, macro=macro)
    miner = Miner(worst, parts.run.spec.num_actions, shape)
    miner.begin(miner.init(jax.random.key(0)), 0)
    return miner


def measure(config: Config, seconds: float) -> dict[str, Any]:
    """Measures every part.

    Args:
        config: the run whose parts are measured.
        seconds: for each part, without compilation. Below `QUICK_SECONDS` programs come from the
            shared compile cache and the two rows that need programs of their own are left out.

    Returns:
        `seconds` (medians, by part), `speed`, `compile_seconds`, and what they depend on.
    """
    around = surroundings()
    is_quick = seconds < QUICK_SECONDS
    with compile_cache(own=not is_quick):
        parts = prepare(config)
        cases = {
            "environment": environment_case(config),
            "search": lambda: timed(parts.search),
            "rollout": rollout_case(parts),
            **macro_cases("macro", parts, parts.run.miner),
            **learning_cases(parts),
        }
        if not is_quick:
            notebook = notebook_config(config)
            cases |= macro_cases("macro_worst", parts, worst_miner(parts))
            cases["notebook"] = acting_case(notebook, make_agent(notebook), pools=1)
        medians = interleave(cases, seconds)
    return {
        "seconds": medians,
        "speed": speeds(medians, config),
        "compile_seconds": parts.compile_seconds,
        "seconds_per_part": seconds,
        "rounds": ROUNDS,
        **around,
        "config": to_dict(config),
    }


def speeds(seconds: dict[str, float], config: Config) -> dict[str, float]:
    """What the medians (by part, per step of all lanes where it has steps) say, per second."""
    lanes, length = config.env.num_envs, config.rollout.length

    def share(name: str) -> float:
        a_step = seconds[f"{name}_pass"] + seconds[f"{name}_merge"] / length
        return a_step / seconds["search"]

    speed = {
        "environment_steps_per_second": lanes / seconds["environment"],
        "searches_per_second": lanes / seconds["search"],
        "search_batches_per_second": 1 / seconds["search"],
        "rollout_steps_per_second": lanes / seconds["rollout"],
        "updates_per_second": 1 / seconds["training_step"],
        "macro_share_of_search": share("macro"),
    }
    if "notebook" in seconds:
        notebook = NOTEBOOK_LANES / seconds["notebook"]
        speed["macro_worst_share_of_search"] = share("macro_worst")
        speed["notebook_steps_per_second"] = notebook
        speed["notebook_ratio"] = notebook / NOTEBOOK_STEPS_PER_SECOND
    return speed
