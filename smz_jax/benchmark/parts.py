"""Speed of each part of a run, measured on the parts that a run uses.

The networks are untrained: no time below depends on their weights but that of the macro merge,
which grows with the candidates; its row "every window a candidate" is the worst case.
"""

import contextlib
import dataclasses
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.table import Table

from smz_jax.config import Config, NetworkConfig, RolloutConfig, SearchConfig
from smz_jax.envs import make_env
from smz_jax.launch import use_compile_cache
from smz_jax.metrics import PhaseTimers
from smz_jax.mining import Miner
from smz_jax.networks import make_networks
from smz_jax.rollout import Actor, Decision, make_decide
from smz_jax.run import Run
from smz_jax.run_dir import git_commit, versions
from smz_jax.settings import to_dict
from smz_jax.types import Trajectory

NOTEBOOK_STEPS_PER_SECOND = 66.0
"""Environment steps per second of the original PyTorch notebook, 10 simulations, 2 CPU cores."""
QUICK_SECONDS = 1.0
"""A measurement with fewer seconds a part only shows that every part runs."""
ROUNDS = 5
"""Each part is measured so often, in turn with the others; the median is reported."""

Case = Callable[[], dict[str, float]]
"""Does a part's work once; gives seconds by name."""


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def interleave(cases: list[Case], seconds: float, rounds: int = ROUNDS) -> dict[str, float]:
    """Measures all cases in turn, several times over, so that a slow spell meets them all.

    Args:
        cases: each is called at least once in a round.
        seconds: for each case, over all rounds.
        rounds: how often.

    Returns:
        For each name, the median over the rounds of a round's mean seconds.
    """
    means: dict[str, list[float]] = {}
    for _ in range(rounds):
        for case in cases:
            taken: dict[str, list[float]] = {}
            end = time.perf_counter() + seconds / rounds
            while not taken or time.perf_counter() < end:
                for name, value in case().items():
                    taken.setdefault(name, []).append(value)
            for name, values in taken.items():
                means.setdefault(name, []).append(statistics.fmean(values))
    return {name: statistics.median(values) for name, values in means.items()}


def compiled(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The compiled program of a jitted function, and the seconds that it took."""
    start = time.perf_counter()
    program = function.lower(*arguments).compile()
    return program, time.perf_counter() - start


@contextmanager
def own_compile_cache() -> Iterator[None]:
    """An empty compile cache: times are of a first start, and no program is compiled twice."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)


class Parts(NamedTuple):
    """A run that has played enough to learn, and its compiled programs."""

    run: Run
    params: Any
    rows: Trajectory  # its last rollout
    search: Callable[[], Decision]
    learn: Callable  # (TrainState, replay state) -> both, metrics
    compile_seconds: dict[str, float]


def prepare(config: Config) -> Parts:
    """Makes the run, compiles search and training step, and fills the replay with real games."""
    run = Run(config, PhaseTimers())
    first = run.env.reset()
    params = jax.tree.map(jnp.copy, run.train_state.params)  # the training step donates its own
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
    learn, learn_seconds = compiled(run.train_step, run.train_state, run.replay_state)
    while True:
        rows, _ = run.actor.rollout(params)
        run.miner.end_rollout(rows)
        run.replay_state = run.replay.add_donated(run.replay_state, rows)
        if run.env_steps >= config.replay.min_size and run.replay.can_sample(run.replay_state):
            break
    return Parts(
        run=run,
        params=params,
        rows=rows,
        search=lambda: search(*arguments),
        learn=learn,
        compile_seconds={"search": search_seconds, "training_step": learn_seconds},
    )


def environment_case(config: Config) -> Case:
    """A step of all lanes with random actions."""
    env = make_env(config.env, seed=config.seed + 1)
    env.reset()
    generator = np.random.default_rng(config.seed)

    def case() -> dict[str, float]:
        actions = generator.integers(0, env.spec.num_actions, env.num_envs, dtype=np.int32)
        return {"environment": timed(lambda: env.step(actions))}

    return case


def rollout_case(name: str, actor: Actor, params: Any, length: int, miner: Miner | None) -> Case:
    """A whole rollout, per step of all lanes; with its macros where there is a miner."""

    def work() -> Trajectory:
        rows, _ = actor.rollout(params)
        if miner is not None:
            miner.end_rollout(rows)
        return rows

    work()  # compiles
    return lambda: {name: timed(work) / length}


def macro_case(name: str, parts: Parts, miner: Miner) -> Case:
    """The post-pass of a rollout's steps, per step, and the merge at its end."""
    decision = parts.search()
    length = parts.run.config.rollout.length

    def watch() -> Any:
        for _ in range(length):
            miner.watch(decision)
        return miner.state

    def case() -> dict[str, float]:
        watched = timed(watch) / length
        return {f"{name}_pass": watched, f"{name}_merge": timed(merge)}

    def merge() -> Any:
        miner.end_rollout(parts.rows)
        return miner.state

    case()  # compiles
    return case


def learning_cases(parts: Parts) -> list[Case]:
    """The training step per update, and the replay by itself."""
    run = parts.run
    sample = jax.jit(run.replay.sample)
    key = jax.random.key(run.config.seed)

    def learn() -> Any:
        run.train_state, run.replay_state, metrics = parts.learn(run.train_state, run.replay_state)
        return run.train_state, metrics

    def add() -> Any:
        run.replay_state = run.replay.add_donated(run.replay_state, parts.rows)
        return run.replay_state

    jax.block_until_ready((learn(), add(), sample(run.replay_state, key)))
    updates = run.config.learner.updates_per_dispatch
    return [
        lambda: {"training_step": timed(learn) / updates},
        lambda: {"replay_add": timed(add)},
        lambda: {"replay_sample": timed(lambda: sample(run.replay_state, key))},
    ]


def notebook_config(config: Config) -> Config:
    """The notebook's setting: the `mlp` family 256 wide, 10 simulations; 32 lanes."""
    return dataclasses.replace(
        Config(),
        env=dataclasses.replace(config.env, num_envs=32),
        network=NetworkConfig(family="mlp", embedding_size=256, hidden_size=256),
        search=SearchConfig(num_simulations=10),
        rollout=RolloutConfig(length=min(config.rollout.length, 32)),
        learner=dataclasses.replace(Config().learner, updates_per_env_step=0.0),
        seed=config.seed,
    )


def notebook_case(config: Config, parts: Parts) -> Case:
    """Acting (environment and search) with the notebook's setting."""
    settings = notebook_config(config)
    env = make_env(settings.env, seed=config.seed + 2)
    networks = make_networks(settings.network, parts.run.spec)
    params = jax.jit(networks.init)(jax.random.key(config.seed))
    key = jax.random.key(config.seed + 1)
    decide = make_decide(networks, settings, env.spec, policy="search")
    actor = Actor(env, settings, decide, key, PhaseTimers(), watch=lambda decision: None)
    return rollout_case("notebook", actor, params, settings.rollout.length, None)


def worst_miner(parts: Parts) -> Miner:
    """A miner whose thresholds let every window through."""
    config = parts.run.config
    macro = dataclasses.replace(config.macro, play_threshold=1.0, tree_threshold=1.0)
    shape = jax.eval_shape(lambda: parts.search().embedding).shape[1:]
    worst = dataclasses.replace(config, macro=macro)
    return Miner(worst, parts.run.spec.num_actions, jax.random.key(0), shape)


def measure(config: Config, seconds: float) -> dict[str, Any]:
    """Measures every part.

    Args:
        config: the run whose parts are measured.
        seconds: for each part, without compilation. Below `QUICK_SECONDS` programs come from the
            shared compile cache and the two rows that need programs of their own are left out.

    Returns:
        `seconds` (medians, by part), `speed`, `compile_seconds`, and what they depend on.
    """
    busy = os.getloadavg()[0]
    is_quick = seconds < QUICK_SECONDS
    if is_quick:
        use_compile_cache()
    with contextlib.nullcontext() if is_quick else own_compile_cache():
        parts = prepare(config)
        run, length = parts.run, config.rollout.length
        cases = [
            environment_case(config),
            lambda: {"search": timed(parts.search)},
            rollout_case("rollout", run.actor, parts.params, length, run.miner),
            macro_case("macro", parts, run.miner),
            *learning_cases(parts),
        ]
        if not is_quick:
            cases += [
                macro_case("macro_worst", parts, worst_miner(parts)),
                notebook_case(config, parts),
            ]
        medians = interleave(cases, seconds)
    device = jax.devices()[0]
    return {
        "seconds": medians,
        "speed": speeds(medians, config),
        "compile_seconds": parts.compile_seconds,
        "seconds_per_part": seconds,
        "rounds": ROUNDS,
        "hardware": {
            "device": device.device_kind,
            "backend": device.platform,
            "cpu_cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)),
            "memory_gb": psutil.virtual_memory().total / 1e9,
            "platform": platform.platform(),
            "load_before": busy,
        },
        "versions": versions(),
        "commit": git_commit(),
        "config": to_dict(config),
    }


def speeds(seconds: dict[str, float], config: Config) -> dict[str, float]:
    """What the medians say, per second and relative to each other.

    Args:
        seconds: medians by part; environment, search, rollout and macro pass per step of all lanes.
        config: the run's settings.
    """
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
        notebook = 32 / seconds["notebook"]
        speed["macro_worst_share_of_search"] = share("macro_worst")
        speed["notebook_steps_per_second"] = notebook
        speed["notebook_ratio"] = notebook / NOTEBOOK_STEPS_PER_SECOND
    return speed


def make_table(result: dict[str, Any]) -> Table:
    """The measurement as a table for people.

    Args:
        result: as `measure` gives it, with `preset`.
    """
    config, seconds, speed = result["config"], result["seconds"], result["speed"]
    compiling, hardware = result["compile_seconds"], result["hardware"]
    lanes, simulations = config["env"]["num_envs"], config["search"]["num_simulations"]
    length, batch = config["rollout"]["length"], config["learner"]["batch_size"]

    def ms(name: str) -> str:
        return f"{seconds[name] * 1e3:,.2f} ms"

    table = Table(
        title=f"preset {result['preset']}: {config['network']['family']} network, {lanes} lanes, "
        f"{simulations} simulations",
        caption=f"{hardware['device']}, {hardware['usable_cores']} cores; medians of "
        f"{result['rounds']} interleaved rounds; load before: {hardware['load_before']:.1f}",
    )
    table.add_column("part")
    table.add_column("speed", justify="right")
    table.add_column("time", justify="right")
    rows = [
        ("environment alone", speed["environment_steps_per_second"], "steps/s", "environment"),
        ("search alone", speed["searches_per_second"], "searches/s = steps/s", "search"),
        ("rollout, macros included", speed["rollout_steps_per_second"], "steps/s", "rollout"),
        (
            f"training step, batch {batch}",
            speed["updates_per_second"],
            "updates/s",
            "training_step",
        ),
    ]
    for label, value, unit, name in rows:
        table.add_row(label, f"{value:,.1f} {unit}", ms(name))
    labels = {"macro": "macros", "macro_worst": "macros, every window a candidate"}
    for name, label in labels.items():
        if f"{name}_share_of_search" not in speed:
            continue
        share = f"{speed[f'{name}_share_of_search']:.1%} of search time"
        time_text = f"{ms(f'{name}_pass')} a step, {ms(f'{name}_merge')} a merge"
        table.add_row(label, share, time_text)
    table.add_row(f"replay: add {length} steps of all lanes", "", ms("replay_add"))
    table.add_row(f"replay: sample {batch} windows", "", ms("replay_sample"))
    if "notebook" in seconds:
        table.add_row(
            "acting, notebook's setting, 32 lanes",
            f"{speed['notebook_steps_per_second']:,.0f} steps/s, {speed['notebook_ratio']:.1f} x "
            f"the notebook's {NOTEBOOK_STEPS_PER_SECOND:.0f}",
            ms("notebook"),
        )
    table.add_row("compiling the search", "", f"{compiling['search']:.1f} s")
    table.add_row("compiling the training step", "", f"{compiling['training_step']:.1f} s")
    return table
