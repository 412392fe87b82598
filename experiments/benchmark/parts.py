"""Speed of each part of a run, measured on the parts that a run uses, and of acting alone.

The networks are untrained: no time below depends on their weights but that of the macro merge,
which grows with the candidates; its row "every window a candidate" is the worst case.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import timing
from experiments.benchmark.timing import QUICK_SECONDS, ROUNDS, Case, Work, figure, make_case
from smz_jax.acting.agent import make_decide
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import RolloutConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.macros.mine.miner import Miner
from smz_jax.macros.precondition.updates import Known
from smz_jax.model.networks import make_networks
from smz_jax.run.parts import make_parts, open_games
from smz_jax.run.state import fresh_state
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, Params, Trajectory

NOTEBOOK_STEPS_PER_SECOND = 66.0
"""Environment steps per second of the original PyTorch notebook, 10 simulations, 2 CPU cores."""
NOTEBOOK_LANES = 32
NOTEBOOK_RATIO = 22.0  # what acting with its setting should reach, times the notebook's own speed
TURN_SHARE = 0.9  # acting in turn should reach this share of 1 / (t_environment + t_search)
OVERLAP_SHARE = 0.95
"""Overlapping should reach this share of the speed in turn where nothing can be won by it."""
ACTING = ("environment", "search", "in_turn", "overlapped")


def notebook_config(config: Config) -> Config:
    """The notebook's setting: the `mlp` family 256 wide, 10 simulations; 32 lanes."""
    return dataclasses.replace(
        Config(),
        env=dataclasses.replace(config.env, num_envs=NOTEBOOK_LANES),
        network=NetworkConfig(family="mlp", embedding_size=256, hidden_size=256),
        search=SearchConfig(engine=config.search.engine, num_simulations=10),
        rollout=RolloutConfig(length=min(config.rollout.length, 32)),
        learner=dataclasses.replace(Config().learner, updates_per_env_step=0.0),
        seed=config.seed,
    )


def environment_case(config: Config) -> Case:
    """A step of all lanes with random actions."""
    env = make_env(config.env, seed=config.seed + 1)
    env.reset()
    generator = np.random.default_rng(config.seed)

    def case() -> float:
        actions = generator.integers(0, env.spec.num_actions, env.num_envs, dtype=np.int32)
        return timing.timed(lambda: env.step(actions))

    return case


def compile_search(config: Config, decide: Callable, params: Params) -> tuple[Work, float]:
    """One decision for all lanes, on the games' first observations, and the seconds to compile it.

    The representation is included.
    """
    env = make_env(config.env, seed=config.seed + 1)
    first = env.reset()
    env.close()
    key, one, zero = jax.random.key(config.seed), np.float32(1), np.float32(0)
    seen = (first.observation, first.invalid_actions)
    arguments = (params, key, np.int32(0), *seen, one, zero, one)
    search, seconds = timing.compiled(decide, *arguments)
    return lambda: search(*arguments), seconds


def acting_cases(config: Config, pools: tuple[int, ...] = (1, 2)) -> dict[str, Case]:
    """Environment and search apart, in turn, and overlapped where the lanes can be halved.

    Acting is a rollout without macros, per step of all lanes. With two pools of lanes one steps
    while the other one searches.
    """
    spec = make_spec(config.env)
    networks = make_networks(config.network, spec)
    params = jax.jit(networks.init)(jax.random.key(config.seed))
    decide = make_decide(networks, config, spec, policy="search")
    search, _ = compile_search(config, decide, params)
    cases = [environment_case(config), make_case(search)]
    for number in pools:
        if config.env.num_envs % number == 0:
            rollout = dataclasses.replace(config.rollout, pools=number)
            settings = dataclasses.replace(config, rollout=rollout)
            key = jax.random.key(config.seed + 1)
            play = open_games(settings, decide, key, PhaseTimers(), lambda *decisions: None)
            cases.append(make_case(lambda play=play: play.next(params).rows, rollout.length))
    return dict(zip(ACTING, cases, strict=False))


def acting_figures(name: str, seconds: Mapping[str, float], lanes: int) -> list[dict[str, Any]]:
    """The ratios of one setting, beside their targets.

    `seconds` are by part, for a step of all lanes; `overlapped` may be missing.
    """
    turn, is_notebook = seconds["in_turn"], name == "notebook"
    apart = seconds["environment"] + seconds["search"]
    ratio = lanes / turn / NOTEBOOK_STEPS_PER_SECOND
    what = f"in turn, x the notebook's {NOTEBOOK_STEPS_PER_SECOND:.0f} steps/s"
    share = TURN_SHARE if is_notebook else None
    rows = [(what, ratio, NOTEBOOK_RATIO)] if is_notebook else []
    rows += [("in turn, x 1 / (t_environment + t_search)", apart / turn, share)]
    if "overlapped" in seconds:
        rows += [("overlapped, x in turn", turn / seconds["overlapped"], OVERLAP_SHARE)]
    return [figure(name, *row, at_least=True) for row in rows]


def measure_acting(config: Config, seconds: float, preset: str) -> dict[str, Any]:
    """Measures acting with the settings given and with the notebook's.

    Each part takes `seconds` without compilation. Below `QUICK_SECONDS` the notebook's setting,
    which has programs of its own, is left out.

    Returns:
        `settings` (for each its `config`, `seconds` of a step of all lanes and
        `steps_per_second`, both by part) and `figures`; plain JSON.
    """
    chosen = {preset: config}
    if seconds >= QUICK_SECONDS:
        chosen["notebook"] = notebook_config(config)
    cases: dict[str, Case] = {}
    with timing.show_steps(len(chosen) * (1 + len(ACTING) * ROUNDS), "rollout") as step:
        for name, setting in chosen.items():
            step(f"{name}: compiling")
            cases |= {f"{name}/{part}": case for part, case in acting_cases(setting).items()}
        medians = timing.interleave(cases, seconds, show=step)
    settings, figures = {}, []
    for name, setting in chosen.items():
        lanes = setting.env.num_envs
        own = {part: medians[f"{name}/{part}"] for part in ACTING if f"{name}/{part}" in medians}
        speeds = {part: lanes / value for part, value in own.items()}
        settings[name] = {
            "seconds": own,
            "steps_per_second": speeds,
            "config": dataclasses.asdict(setting),
        }
        figures += acting_figures(name, own, lanes)
    how = {"seconds_per_part": seconds, "rounds": ROUNDS}
    return {"settings": settings, "figures": figures, **how}


def run_cases(config: Config, *, is_quick: bool) -> tuple[dict[str, Case], dict[str, float]]:
    """The work that a run consists of, once it has played enough to learn.

    With `is_quick` the two cases that need programs of their own are left out.

    Returns:
        Cases by part, of a step of all lanes where it has steps, and seconds to compile search and
        training step.
    """
    run = make_parts(config, PhaseTimers())
    state = fresh_state(run)
    train, replay, macros = state.train, state.replay, state.macros
    params = jax.tree.map(jnp.copy, train.params)  # the others are donated
    search, search_seconds = compile_search(config, run.decide, params)
    arguments = (train._replace(head=None), replay)
    _, step_seconds = timing.compiled(run.train_step.program, *arguments)
    done = itertools.count(step=config.learner.updates_per_dispatch)
    run.miner.begin(macros, 0)

    def roll_out() -> Any:
        rows = run.source.next(params, 0, None).rows
        run.miner.end_rollout(rows)
        return rows

    def add() -> Any:
        nonlocal replay
        replay = run.replay.add_donated(replay, rows)
        return replay

    def learn() -> Any:
        nonlocal train, replay
        found = run.miner.state
        known = Known(found.table.actions, found.table.play_count, found.buckets)
        train, replay, metrics = run.train_step(train, replay, known, next(done))
        return train, metrics

    while True:
        rows = roll_out()
        add()
        is_full = run.source.count * config.env.num_envs >= config.replay.min_size
        if is_full and run.replay.can_sample(replay):
            break
    sample, key = jax.jit(run.replay.sample), jax.random.key(config.seed)
    cases = {
        "environment": environment_case(config),
        "search": make_case(search),
        "rollout": make_case(roll_out, config.rollout.length),
        **macro_cases("macro", run.miner, search(), rows),
        "training_step": make_case(learn, config.learner.updates_per_dispatch),
        "replay_add": make_case(add),
        "replay_sample": make_case(lambda: sample(replay, key)),
    }
    if not is_quick:
        # Thresholds that let every window through.
        macro = dataclasses.replace(config.macro, play_threshold=1.0, tree_threshold=1.0)
        worst = dataclasses.replace(config, macro=macro)
        miner = Miner(worst, run.spec.action_space, search().embedding.shape[1:])
        miner.begin(miner.init(jax.random.key(0)), 0)
        cases |= macro_cases("macro_worst", miner, search(), rows)
        cases["notebook"] = acting_cases(notebook_config(config), pools=(1,))["in_turn"]
    return cases, {"search": search_seconds, "training_step": step_seconds}


def macro_cases(name: str, miner: Miner, decision: Decision, rows: Trajectory) -> dict[str, Case]:
    """The post-pass of a rollout's steps, per step, and the merge at its end."""
    length = rows.action.shape[1]

    def watch() -> Any:
        for _ in range(length):
            miner.watch(decision)
        return miner.state

    def merge() -> Any:
        miner.end_rollout(rows)
        return miner.state

    passing = make_case(watch, length, after=merge)
    return {f"{name}_pass": passing, f"{name}_merge": make_case(merge, before=watch)}


def measure(config: Config, seconds: float) -> dict[str, Any]:
    """Measures every part of a run.

    Each takes `seconds` without compilation. Below `QUICK_SECONDS` the two rows that need programs
    of their own are left out.

    Returns:
        `seconds` (medians by part, of a step of all lanes where it has steps), `speed`,
        `compile_seconds` and `config`; plain JSON.
    """
    cases, compile_seconds = run_cases(config, is_quick=seconds < QUICK_SECONDS)
    lanes, length = config.env.num_envs, config.rollout.length
    medians = timing.interleave(cases, seconds)
    speed = {
        "environment_steps_per_second": lanes / medians["environment"],
        "searches_per_second": lanes / medians["search"],
        "search_batches_per_second": 1 / medians["search"],
        "rollout_steps_per_second": lanes / medians["rollout"],
        "updates_per_second": 1 / medians["training_step"],
    }
    for name in ("macro", "macro_worst"):
        if f"{name}_pass" in medians:
            a_step = medians[f"{name}_pass"] + medians[f"{name}_merge"] / length
            speed[f"{name}_share_of_search"] = a_step / medians["search"]
    if "notebook" in medians:
        speed["notebook_steps_per_second"] = NOTEBOOK_LANES / medians["notebook"]
        speed["notebook_ratio"] = speed["notebook_steps_per_second"] / NOTEBOOK_STEPS_PER_SECOND
    return {
        "seconds": medians,
        "speed": speed,
        "compile_seconds": compile_seconds,
        "config": dataclasses.asdict(config),
        "seconds_per_part": seconds,
        "rounds": ROUNDS,
    }
