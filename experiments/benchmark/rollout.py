"""Speed of acting: environment alone, search alone, both in turn, both overlapped."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.plan import Figure
from experiments.benchmark.timing import (
    QUICK_SECONDS,
    ROUNDS,
    Case,
    compile_cache,
    interleave,
    show_steps,
    surroundings,
    timed,
)
from smz_jax.acting.actor import Actor
from smz_jax.acting.decide import make_decide
from smz_jax.config.settings import Config, NetworkConfig, SearchConfig
from smz_jax.config.sources import to_dict
from smz_jax.config.training import RolloutConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.model.networks import make_networks
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, Params

NOTEBOOK_STEPS_PER_SECOND = 66.0
"""Environment steps per second of the original PyTorch notebook, 10 simulations, 2 CPU cores."""
NOTEBOOK_LANES = 32
NOTEBOOK_RATIO = 22.0
"""What acting with its setting should reach, times the notebook's own speed."""
TURN_SHARE = 0.9
"""Acting in turn should reach this share of 1 / (t_environment + t_search)."""
OVERLAP_SHARE = 0.95
"""Overlapping should reach this share of the speed in turn where nothing can be won by it."""
PARTS = ("environment", "search", "in_turn", "overlapped")


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


class Agent(NamedTuple):
    """An untrained model and its jitted decision."""

    params: Params
    decide: Callable[..., Decision]


def make_agent(config: Config) -> Agent:
    """Makes the model of `config` with random weights; nothing is compiled but the weights."""
    spec = make_spec(config.env)
    networks = make_networks(config.network, spec)
    params = jax.jit(networks.init)(jax.random.key(config.seed))
    return Agent(params, make_decide(networks, config, spec, policy="search"))


def environment_case(config: Config) -> Case:
    """A step of all lanes with random actions."""
    env = make_env(config.env, seed=config.seed + 1)
    env.reset()
    generator = np.random.default_rng(config.seed)

    def case() -> float:
        actions = generator.integers(0, env.spec.num_actions, env.num_envs, dtype=np.int32)
        return timed(lambda: env.step(actions))

    return case


def search_case(config: Config, agent: Agent) -> Case:
    """One decision for all lanes, representation included, on the games' first observations."""
    env = make_env(config.env, seed=config.seed + 1)
    first = env.reset()
    env.close()
    key = jax.random.key(config.seed)

    def decide() -> Decision:
        one = np.float32(1)
        settings = (one, np.float32(0), one)
        return agent.decide(
            agent.params, key, np.int32(0), first.observation, first.invalid_actions, *settings
        )

    jax.block_until_ready(decide())  # compiles
    return lambda: timed(decide)


def acting_case(config: Config, agent: Agent, *, pools: int) -> Case:
    """A rollout without macros, per step of all lanes.

    With two pools of lanes one steps while the other one searches.
    """
    lanes = config.env.num_envs // pools
    envs = [
        make_env(config.env, seed=config.seed + 2, num_envs=lanes, first_lane=lanes * pool)
        for pool in range(pools)
    ]
    settings = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, pools=pools))
    key = jax.random.key(config.seed + 1)
    actor = Actor(envs, settings, agent.decide, key, PhaseTimers(), watch=lambda *decisions: None)
    actor.rollout(agent.params)  # compiles
    return lambda: timed(lambda: actor.rollout(agent.params)) / config.rollout.length


def figures(name: str, seconds: dict[str, float], lanes: int) -> list[Figure]:
    """The ratios of one setting, beside their targets.

    `seconds` are by part, for a step of all lanes; `overlapped` may be missing.
    """
    apart = seconds["environment"] + seconds["search"]
    is_notebook = name == "notebook"
    what = "in turn, x 1 / (t_environment + t_search)"
    target = TURN_SHARE if is_notebook else None
    found = [Figure(name, what, apart / seconds["in_turn"], target, True)]
    if "overlapped" in seconds:
        gain = seconds["in_turn"] / seconds["overlapped"]
        found.append(Figure(name, "overlapped, x in turn", gain, OVERLAP_SHARE, True))
    if is_notebook:
        ratio = lanes / seconds["in_turn"] / NOTEBOOK_STEPS_PER_SECOND
        what = f"in turn, x the notebook's {NOTEBOOK_STEPS_PER_SECOND:.0f} steps/s"
        found.insert(0, Figure(name, what, ratio, NOTEBOOK_RATIO, True))
    return found


def setting_cases(name: str, config: Config) -> dict[str, Case]:
    """All parts of one setting by `name/part`; compiles them."""
    agent = make_agent(config)
    cases = [
        environment_case(config),
        search_case(config, agent),
        acting_case(config, agent, pools=1),
    ]
    if config.env.num_envs % 2 == 0:
        cases.append(acting_case(config, agent, pools=2))
    return {f"{name}/{part}": case for part, case in zip(PARTS, cases, strict=False)}


def measure(config: Config, seconds: float, preset: str) -> dict[str, Any]:
    """Measures acting with the settings given and with the notebook's.

    Args:
        config: the settings given.
        seconds: for each part, without compilation. Below `QUICK_SECONDS` the notebook's setting,
            which has programs of its own, is left out.
        preset: name of the settings given.

    Returns:
        `settings` (for each its `config`, `seconds` of a step of all lanes and
        `steps_per_second`, both by part) and `figures`, and what they depend on; plain JSON.
    """
    around = surroundings()
    is_quick = seconds < QUICK_SECONDS
    settings = {preset: config}
    if not is_quick:
        settings["notebook"] = notebook_config(config)
    steps = len(settings) * (1 + len(PARTS) * ROUNDS)
    with compile_cache(own=not is_quick), show_steps(steps, "rollout") as step:
        cases: dict[str, Case] = {}
        for name, chosen in settings.items():
            step(f"{name}: compiling")
            cases |= setting_cases(name, chosen)

        medians = interleave(cases, seconds, show=step)
    result: dict[str, Any] = {"settings": {}, "figures": []}
    for name, chosen in settings.items():
        lanes = chosen.env.num_envs
        own = {part: medians[f"{name}/{part}"] for part in PARTS if f"{name}/{part}" in medians}
        result["settings"][name] = {
            "seconds": own,
            "steps_per_second": {part: lanes / value for part, value in own.items()},
            "config": to_dict(chosen),
        }
        result["figures"] += [figure.plain() for figure in figures(name, own, lanes)]
    return {**result, "seconds_per_part": seconds, "rounds": ROUNDS, **around}
