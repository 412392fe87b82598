"""The parts of a run and all state that they carry, from a fresh start or a checkpoint."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smz_jax import macros
from smz_jax.checkpoint import CheckpointStore
from smz_jax.config import Config
from smz_jax.envs import make_env, make_spec
from smz_jax.evaluate import make_agent
from smz_jax.learner import init_train_state, make_train_step
from smz_jax.metrics import PhaseTimers, RunningScores
from smz_jax.mining import Miner
from smz_jax.model_check import make_check
from smz_jax.networks import make_networks
from smz_jax.replay import check_memory, make_replay
from smz_jax.rollout import Actor, make_decide
from smz_jax.types import EnvSpec, Trajectory

RESUMED_SEED = 4_000_000_007
"""Games after a resume never repeat those of a seed's start or of an evaluation."""
CHECK_KEY = 3_000_003
"""Checks of the model have randomness of their own: a run is the same with and without them."""


def optimised(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles at XLA's usual level even where the rest of a run is not (`launch`, preset tiny).

    At level 0 XLA may compute the operand of a maximum twice, with different roundings: no entry
    equals the maximum then, and its gradient is 0 / 0.
    """
    level = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    return jax.jit(function, compiler_options=level, **options)


class Run:
    """The parts of a run and the state that they carry; made once, before the loop."""

    def __init__(self, config: Config, timers: PhaseTimers) -> None:
        self.config, self.timers = config, timers
        self.spec: EnvSpec = make_spec(config.env)
        check_memory(config, self.spec)
        keys = jax.random.split(jax.random.key(config.seed), 3)
        self.networks = make_networks(config.network, self.spec)
        self.replay = make_replay(config, self.spec)
        self.train_step = optimised(
            make_train_step(self.networks, self.replay, config, self.spec), donate_argnums=(0, 1)
        )
        self.decide = make_decide(self.networks, config, self.spec, policy="search")
        self.agent = make_agent(self.decide)
        self.check_batch = optimised(make_check(self.networks, self.replay, config, self.spec))
        self.train_state = init_train_state(self.networks, config, keys[0])
        self.replay_state = self.replay.init()
        embedding = jax.eval_shape(
            self.networks.representation,
            self.train_state.params,
            np.zeros((1, *self.spec.observation_shape), self.spec.frame_dtype),
        )
        self.miner = Miner(config, self.spec.num_actions, keys[1], embedding.shape[1:])
        self._acting_key = keys[2]
        self.open_games(config.seed)
        self.scores = RunningScores()
        self.best = -float("inf")
        self.iteration = 0

    def open_games(self, seed: int) -> None:
        """Opens the training games, one vector for each pool, and an actor that plays them."""
        total, pools = self.config.env.num_envs, self.config.rollout.pools
        self.envs = [
            make_env(self.config.env, seed=seed, num_envs=total // pools, first_lane=lane)
            for lane in range(0, total, total // pools)
        ]
        decide = self.decide
        if self.config.rollout.policy == "prior":
            decide = make_decide(self.networks, self.config, self.spec, policy="prior")
        self.actor = Actor(
            self.envs,
            self.config,
            decide,
            self._acting_key,
            self.timers,
            watch=self.miner.watch,
        )

    def close_games(self) -> None:
        """Frees the emulators of the training games; may be called twice."""
        for env in self.envs:
            env.close()

    @property
    def env_steps(self) -> int:
        """Environment steps of the run so far, over all lanes."""
        return self.actor.count * self.config.env.num_envs

    @property
    def arrays(self) -> dict[str, Any]:
        """The device state that a checkpoint holds."""
        return {
            "train": self.train_state,
            "replay": self.replay_state,
            "macros": self.miner.state,
        }

    @property
    def counters(self) -> dict[str, Any]:
        """The host state that a checkpoint holds; plain JSON."""
        return {
            "count": self.actor.count,
            "iteration": self.iteration,
            "best": self.best if np.isfinite(self.best) else None,
            "games": self.scores.games,
            "macro_totals": list(self.miner.totals),
            "seconds": self.timers.seconds,
        }

    def restore(self, store: CheckpointStore) -> float:
        """Goes on from the last checkpoint; games begin anew, replay and the rest continue.

        Returns:
            Seconds that the run took before.
        """
        arrays, counters = store.restore("last", self.arrays)
        self.train_state, self.replay_state = arrays["train"], arrays["replay"]
        self.miner.state = arrays["macros"]
        # Other games than those that the run began with.
        self.close_games()
        self.open_games(RESUMED_SEED + self.config.seed * 2**20 + counters["count"])
        self.miner.totals = type(self.miner.totals)(*counters["macro_totals"])
        self.actor.count = self.miner.steps = counters["count"]
        self.iteration = counters["iteration"]
        self.best = -float("inf") if counters["best"] is None else counters["best"]
        self.scores = RunningScores(counters["games"])
        for phase, seconds in counters["seconds"].items():
            self.timers.add(phase, seconds)
        return sum(counters["seconds"].values())

    @property
    def learns(self) -> bool:
        """Whether the replay holds enough to learn from."""
        return self.env_steps >= self.config.replay.min_size and bool(
            self.config.updates_per_iteration
        )

    def check(self) -> dict[str, np.ndarray]:
        """Checks the model on one replayed batch; changes nothing.

        Returns:
            As `make_check` gives it; empty before there is something to learn from.
        """
        if not self.learns:
            return {}
        key = jax.random.fold_in(jax.random.key(self.config.seed), CHECK_KEY)
        key = jax.random.fold_in(key, self.iteration)
        return jax.device_get(self.check_batch(self.train_state, self.replay_state, key))

    def learn(self) -> dict[str, float]:
        """The updates of one iteration; their metrics, averaged."""
        several = []
        for _ in range(
            self.config.updates_per_iteration // self.config.learner.updates_per_dispatch
        ):
            self.train_state, self.replay_state, metrics = self.train_step(
                self.train_state, self.replay_state
            )
            several.append(metrics)
        rows = jax.device_get(several)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def iterate(self) -> dict[str, Any]:
        """One rollout, its macros, and the updates that are due; gives a metrics row."""
        timers = self.timers
        first_step, start = self.env_steps, time.perf_counter()
        rows, games = self.actor.rollout(self.train_state.params)
        for score, length in games:
            self.scores.add(score, length)
        with timers("macros"):
            found = self.miner.end_rollout(rows)
        with timers("replay"):
            self.replay_state = self.replay.add_donated(self.replay_state, rows)
        learned: dict[str, Any] = {}
        if self.learns:
            with timers("learning"):
                learned = self.learn()
        self.iteration += 1
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "env_frames": self.env_steps * self.spec.frames_per_step,
            "learner_steps": int(self.train_state.step),
            "speed/env_steps_per_second": (self.env_steps - first_step)
            / (time.perf_counter() - start),
            **self.scores.row(),
            **searched(rows),
            **{name: int(count) for name, count in jax.device_get(self.actor.faults).items()},
            **found,
            **learned,
        }

    def library(self) -> dict[str, Any]:
        """The macros found so far, as macros.json holds them."""
        return macros.summarise(
            jax.device_get(self.miner.state.table),
            self.miner.totals,
            self.config.macro,
            self.spec.action_names,
        )

    def save(self, store: CheckpointStore, run_dir: Path) -> None:
        """Saves everything that the run needs to go on, and the macro library."""
        with self.timers("other"):
            store.save("last", self.arrays, self.counters)
            macros.write_macros_json(run_dir / "macros.json", self.library())


def searched(rows: Trajectory) -> dict[str, float]:
    """What the rollout's searches say, averaged over it."""
    entropy, value, weights, reward = jax.device_get(
        (rows.transition_entropy, rows.search_value, rows.action_weights, rows.reward)
    )
    spread = -np.sum(weights * np.log(np.maximum(weights, 1e-9)), axis=-1)
    return {
        "search/transition_entropy": float(entropy.mean()),
        "search/value": float(value.mean()),
        "search/policy_entropy": float(spread.mean()),
        "rollout/reward_per_step": float(reward.mean()),
    }
