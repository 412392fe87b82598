"""Games of two players: what a search of one costs, and whole games on the device and the host."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import timing
from experiments.benchmark.timing import ROUNDS, Case, make_case
from smz_jax.acting.agent import make_random_policy
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.envs.pgx.pgx_env import lane_functions
from smz_jax.model.networks import make_networks
from smz_jax.search.root_search import make_search
from smz_jax.types import EnvSpec

GAMES: Mapping[str, int] = {"connect_four": 256, "backgammon": 256}
"""pgx's ids, and the steps of every lane of one measurement."""


def search_case(config: Config, spec: EnvSpec) -> Case:
    """A search of `env.num_envs` roots, random weights, with a head that foresees the discount."""
    networks = make_networks(config.network, spec)
    search = jax.jit(make_search(networks, config, spec))
    params = jax.jit(networks.init)(jax.random.key(0))
    lanes = config.env.num_envs
    observation = np.zeros((lanes, *spec.observation_shape), spec.frame_dtype)
    embedding = networks.representation(params, observation)
    embedding = jax.random.uniform(jax.random.key(1), embedding.shape)
    invalid = jnp.zeros((lanes, spec.num_options), jnp.float32)
    scalars = np.float32(1.0), np.float32(1.0)  # temperature, noise
    key = jax.random.key(2)
    return make_case(lambda: search(params, key, embedding, invalid, *scalars).action)


def host_case(env: EnvConfig, steps: int) -> Case:
    """Random games stepped from the host, as the rollout steps them; seconds a step of all."""
    games, act = make_env(env, seed=0), make_random_policy(0)
    last = games.reset()

    def work() -> Any:
        nonlocal last
        for count in range(steps):
            last = games.step(act(last, count))
        return last.reward

    return make_case(work, steps)


def device_case(env: EnvConfig, steps: int) -> Case:
    """The same games under one `lax.scan`, with nothing that leaves the device."""
    begin, advance = lane_functions(env.id)

    @jax.jit
    def play(lanes: Any, seen: Any, key: Any) -> Any:
        def step(carry: Any, key: Any) -> tuple[Any, None]:
            lanes, seen = carry
            scores = jnp.where(seen.valid_actions, 0.0, -jnp.inf)
            actions = jax.random.categorical(key, scores)
            return jax.vmap(advance)(lanes, actions, seen.terminated), None

        return jax.lax.scan(step, (lanes, seen), jax.random.split(key, steps))[0]

    start = jax.jit(jax.vmap(begin, in_axes=(0, None)))
    lanes, seen = start(jnp.arange(env.num_envs), jax.random.key(0))
    return make_case(lambda: play(lanes, seen, jax.random.key(1))[1].reward, steps)


def measure(config: Config, seconds: float, games: Mapping[str, int] = GAMES) -> dict[str, Any]:
    """Measures searches and games of each board, in turn.

    Args:
        config: gives sizes of networks and searches, and the lanes.
        seconds: for each number.
        games: ids, and steps of a measurement.

    Returns:
        `boards`: for each its `actions`, `one_player` and `two_players` (seconds of a search of all
        lanes, where the same board is given to one player or two), `host` and `device` (seconds of
        a step of all lanes), and `config`; plain JSON.
    """
    cases: dict[str, Case] = {}
    boards: dict[str, dict[str, Any]] = {}
    with timing.show_steps(4 * len(games) * (1 + ROUNDS), "turns") as step:
        for env_id, steps in games.items():
            env = dataclasses.replace(config.env, id=env_id)
            spec = make_spec(env)
            boards[env_id] = {"actions": spec.num_actions}
            own = dataclasses.replace(config, env=env)
            makers = {
                "one_player": lambda own=own, spec=spec: search_case(own, spec._replace(players=1)),
                "two_players": lambda own=own, spec=spec: search_case(own, spec),
                "host": lambda env=env, steps=steps: host_case(env, steps),
                "device": lambda env=env, steps=steps: device_case(env, steps),
            }
            for name, make in makers.items():
                step(f"{env_id}, {name}: compiling")
                cases[f"{env_id} {name}"] = make()
        for case, taken in timing.interleave(cases, seconds, show=step).items():
            env_id, name = case.split()
            boards[env_id][name] = taken
    how = {"seconds_per_part": seconds, "rounds": ROUNDS}
    return {"boards": boards, "config": dataclasses.asdict(config), **how}
