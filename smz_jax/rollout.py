"""Games played for training: environment and search in turn, B lanes in step."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config import Config, RolloutConfig
from smz_jax.envs import VectorEnv
from smz_jax.metrics import PhaseTimers
from smz_jax.search import make_prior_policy, make_search
from smz_jax.search.model_functions import normalised_entropy
from smz_jax.types import Array, EnvSpec, Networks, Params, SearchOutput, Timestep, Trajectory


class Decision(NamedTuple):
    """What one jitted call decides for all lanes; stays on the device but for the action."""

    search: SearchOutput
    embedding: Array  # [B, ...] of the root
    transition_entropy: Array  # [B] normalised H(sigma) of the chosen action


class Rows(NamedTuple):
    """The searched part of a rollout's rows, one entry per step."""

    action: Array  # [B] int32
    action_weights: Array  # [B, A]
    search_value: Array  # [B]
    transition_entropy: Array  # [B]


def scheduled(start: float, end: float, progress: float, kind: str) -> float:
    """A schedule's value.

    Args:
        start: value at the start, at least 0.
        end: value at the end.
        progress: share of the schedule that is over; clipped to [0, 1].
        kind: `linear`, or `exponential` (a constant factor; an end of 0 counts as 0.001).
    """
    progress = min(max(progress, 0.0), 1.0)
    if kind == "exponential" and start > 0:
        return start * (max(end, 1e-3) / start) ** progress
    return start + progress * (end - start)


def exploration(settings: RolloutConfig, progress: float) -> tuple[float, float]:
    """Temperature and epsilon after `progress` (0..1) of the run."""
    share = progress / settings.schedule_fraction
    return (
        scheduled(settings.temperature, settings.temperature_end, share, settings.schedule),
        scheduled(settings.epsilon, settings.epsilon_end, share, settings.schedule),
    )


def make_decide(
    networks: Networks, config: Config, spec: EnvSpec, *, policy: Literal["search", "prior"]
) -> Callable[..., Decision]:
    """The jitted decision for all lanes.

    Args:
        networks: the model.
        config: the run's settings.
        spec: the environment.
        policy: by the tree, or by the bare policy head.

    Returns:
        `(params, rng_key, count, observation, invalid_actions, temperature, epsilon, noise)
        -> Decision`; `count` is folded into the key, so that the caller keeps one key for the
        whole run. Training and evaluation share one compilation: `noise` is 1 or 0.
    """
    search = make_search(networks, config, spec)
    prior_policy = make_prior_policy(networks, config.search.q_epsilon)

    def decide(
        params: Params,
        rng_key: Array,
        count: Array,
        observation: Array,
        invalid_actions: Array,
        temperature: Array,
        epsilon: Array,
        noise: Array,
    ) -> Decision:
        key = jax.random.fold_in(rng_key, count)
        embedding = networks.representation(params, observation)
        if policy == "prior":
            output = prior_policy(params, key, embedding, invalid_actions, temperature, epsilon)
        else:
            output = search(params, key, embedding, invalid_actions, temperature, noise)
        # Of the model itself, since the search may never have expanded the action that was drawn.
        afterstate = networks.afterstate_dynamics(params, embedding, output.action)
        chance_logits, _ = networks.afterstate_prediction(params, afterstate)
        return Decision(output, embedding, normalised_entropy(chance_logits))

    return jax.jit(decide)


class GameScores:
    """Raw scores and lengths of the games in progress and of those that ended."""

    def __init__(self, num_envs: int) -> None:
        self.score = np.zeros(num_envs, np.float64)
        self.length = np.zeros(num_envs, np.int64)

    def add(self, timestep: Timestep) -> list[tuple[int, float, int, bool]]:
        """Counts one step; returns (lane, score, length, truncated) of games that ended."""
        counts = ~timestep.is_first
        self.score += np.where(counts, timestep.raw_reward, 0.0)
        self.length += counts
        ended = np.flatnonzero(timestep.game_over)
        games = [
            (int(i), float(self.score[i]), int(self.length[i]), bool(timestep.truncated[i]))
            for i in ended
        ]
        self.score[ended] = 0.0
        self.length[ended] = 0
        return games


class Actor:
    """Plays `config.rollout.length` steps at a time in one vector of games.

    Args:
        env: the games.
        config: the run's settings.
        decide: as `make_decide` gives it.
        rng_key: of the whole run's acting; step `count` folds its number into it.
        timers: phases `environment` and `search` are counted.
        watch: called with each step's `Decision` (the macro post-pass).
    """

    def __init__(
        self,
        env: VectorEnv,
        config: Config,
        decide: Callable[..., Decision],
        rng_key: Array,
        timers: PhaseTimers,
        watch: Callable[[Decision], None],
    ) -> None:
        self._env, self._config, self._timers, self._watch = env, config, timers, watch
        self._decide = decide
        self._rng_key = rng_key
        self._scores = GameScores(env.num_envs)
        self._timestep: Timestep | None = None
        self.count = 0  # steps of every lane so far; a resumed run sets it

    def rollout(self, params: Params) -> tuple[Trajectory, list[tuple[float, int]]]:
        """Plays T steps.

        Args:
            params: the model's parameters.

        Returns:
            The `Trajectory` `[B, T, ...]` and (raw score, length) of each game that ended.
        """
        config, timers = self._config, self._timers
        progress = self.count * self._env.num_envs / config.total_env_steps
        temperature, epsilon = (np.float32(x) for x in exploration(config.rollout, progress))
        if self._timestep is None:
            with timers("environment"):
                self._timestep = self._env.reset()
        seen: list[Timestep] = []
        followed: list[Timestep] = []
        rows: list[Rows] = []
        games: list[tuple[float, int]] = []
        for _ in range(config.rollout.length):
            now = self._timestep
            with timers("search"):
                decision = self._decide(
                    params,
                    self._rng_key,
                    np.int32(self.count),
                    now.observation,
                    now.invalid_actions,
                    temperature,
                    epsilon,
                    np.float32(1.0),
                )
                action = np.asarray(decision.search.action)
            with timers("macros"):
                self._watch(decision)
            with timers("environment"):
                self._timestep = self._env.step(action)
                games += [game[1:3] for game in self._scores.add(self._timestep)]
            seen.append(now)
            followed.append(self._timestep)
            rows.append(
                Rows(
                    action=decision.search.action,
                    action_weights=decision.search.action_weights,
                    search_value=decision.search.value,
                    transition_entropy=decision.transition_entropy,
                )
            )
            self.count += 1
        with timers("replay"):
            return join_rows(seen, followed, rows), games


@jax.jit
def _stack(rows: list[Rows]) -> Rows:
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *rows)


def join_rows(seen: list[Timestep], followed: list[Timestep], rows: list[Rows]) -> Trajectory:
    """Joins T steps into rows: what was seen at t, and what followed the action at t.

    Args:
        seen: T timesteps that were acted on.
        followed: T timesteps that the actions led to.
        rows: T searched rows.

    Returns:
        `Trajectory` `[B, T, ...]`.
    """
    stacked = _stack(rows)
    over = np.stack([step.terminated for step in followed], axis=1)
    invalid = np.stack([step.invalid_actions for step in seen], axis=1)
    return Trajectory(
        frame=jnp.asarray(np.stack([step.observation[:, -1] for step in seen], axis=1)),
        action=stacked.action,
        reward=jnp.asarray(np.stack([step.reward for step in followed], axis=1)),
        discount=jnp.asarray(np.where(over, np.float32(0), np.float32(1))),
        is_first=jnp.asarray(np.stack([step.is_first for step in seen], axis=1)),
        invalid_actions=jnp.asarray(invalid.astype(np.uint8)),
        action_weights=stacked.action_weights,
        search_value=stacked.search_value,
        transition_entropy=stacked.transition_entropy,
    )
