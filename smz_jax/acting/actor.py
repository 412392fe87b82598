"""Games played for training: environment and search in turn, B lanes in step.

The lanes may be split into two pools, so that the games of one step while the device searches for
the other. Who waits for whom is fixed, never a matter of who is ready first:

    search X | receive Y, which stepped meanwhile | fetch X's actions, send them | search Y | ...

Actions are sent before the next search is dispatched, since an accelerator may hold the host until
a search with loops of unknown length is done.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.acting.decide import exploration
from smz_jax.config.settings import Config
from smz_jax.envs import VectorEnv
from smz_jax.envs.rebuilt import GamesState
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import (
    Array,
    Decision,
    Params,
    Timestep,
    Trajectory,
)


class Rows(NamedTuple):
    """The searched part of a rollout's rows, one entry per step."""

    action: Array  # [B] int32
    action_weights: Array  # [B, A]
    search_value: Array  # [B]
    transition_entropy: Array  # [B]
    faults: Array  # [B] int32
    all_invalid: Array  # [B] bool


class GameScores:
    """Raw scores and lengths of the games in progress and of those that ended."""

    def __init__(self, num_envs: int) -> None:
        self.score = np.zeros(num_envs, np.float64)
        self.length = np.zeros(num_envs, np.int64)

    def add(
        self, timestep: Timestep, cut: np.ndarray | None = None
    ) -> list[tuple[int, float, int, bool]]:
        """Counts one step; returns (lane, score, length, truncated) of games that ended.

        Args:
            timestep: the step.
            cut: `[B]` bool, games that ended for no reason of their own (`RebuiltEnv`): they are
                not returned.
        """
        counts = ~timestep.is_first
        self.score += np.where(counts, timestep.raw_reward, 0.0)
        self.length += counts
        ended = np.flatnonzero(timestep.game_over)
        games = [
            (int(i), float(self.score[i]), int(self.length[i]), bool(timestep.truncated[i]))
            for i in ended
            if cut is None or not cut[i]
        ]
        self.score[ended] = 0.0
        self.length[ended] = 0
        return games


class PoolState(NamedTuple):
    """Where the games of a pool stand; NumPy."""

    env: GamesState
    score: np.ndarray  # [B] float64, of the games in progress
    length: np.ndarray  # [B] int64


class _Pool:
    """One vector of games: where it stands, and what it did since the rollout began."""

    def __init__(self, env: VectorEnv, rng_key: Array) -> None:
        self.env, self.rng_key = env, rng_key
        self.scores = GameScores(env.num_envs)
        self.timestep: Timestep | None = None
        self.clear()

    def clear(self) -> None:
        self.seen: list[Timestep] = []
        self.followed: list[Timestep] = []
        self.rows: list[Rows] = []

    def note(self, decision: Decision) -> None:
        self.rows.append(
            Rows(
                action=decision.search.action,
                action_weights=decision.search.action_weights,
                search_value=decision.search.value,
                transition_entropy=decision.transition_entropy,
                faults=decision.search.faults,
                all_invalid=decision.search.all_invalid,
            )
        )


class Actor:
    """Plays `config.rollout.length` steps at a time.

    Args:
        envs: the games, one vector for each pool; all of the same number of lanes.
        config: the run's settings.
        decide: as `make_decide` gives it.
        rng_key: of the whole run's acting; step `count` folds its number into it. Two pools split
            it, so that they share no randomness.
        timers: phases `environment` and `search` are counted. Each is the time that the host was
            held up by it: with two pools, what the other one hides does not count.
        watch: called with the `Decision` of each pool after each step (the macro post-pass).
    """

    def __init__(
        self,
        envs: Sequence[VectorEnv],
        config: Config,
        decide: Callable[..., Decision],
        rng_key: Array,
        timers: PhaseTimers,
        watch: Callable[..., None],
    ) -> None:
        self._config, self._decide, self._timers, self._watch = config, decide, timers, watch
        keys = [rng_key] if len(envs) == 1 else jax.random.split(rng_key, len(envs))
        self._pools = [_Pool(env, key) for env, key in zip(envs, keys, strict=True)]
        self._num_lanes = sum(env.num_envs for env in envs)
        self.count = 0  # steps of every lane so far; a resumed run sets it
        self.faults: dict[str, Array] = {}  # of the last rollout, for the metrics

    def rollout(self, params: Params) -> tuple[Trajectory, list[tuple[float, int]]]:
        """Plays T steps.

        Args:
            params: the model's parameters.

        Returns:
            The `Trajectory` `[B, T, ...]`, lanes in the order of the pools, and (raw score, length)
            of each game that ended.
        """
        config, timers, pools = self._config, self._timers, self._pools
        progress = self.count * self._num_lanes / config.total_env_steps
        settings = [np.float32(x) for x in exploration(config.rollout, progress)]
        games: list[tuple[float, int]] = []
        for pool in pools:
            pool.clear()
        for _ in range(config.rollout.length):
            decisions = []
            for pool, other in zip(pools, pools[1:] + pools[:1], strict=True):
                self._receive(pool, games)
                decision = self._search(pool, params, settings)
                self._receive(other, games)
                with timers("search"):
                    action = np.asarray(decision.search.action)
                with timers("environment"):
                    pool.env.send(action)
                pool.note(decision)
                decisions.append(decision)
            with timers("macros"):
                self._watch(*decisions)
            self.count += 1
        for pool in pools:
            self._receive(pool, games)
        with timers("replay"):
            rows = _stack([pool.rows for pool in pools])
            self.faults = {
                "search/faults": jnp.sum(rows.faults),
                "search/all_invalid": jnp.sum(rows.all_invalid),
            }
            return join_rows(pools, rows), games

    @property
    def games(self) -> list[PoolState]:
        """Where the games of each pool stand, which are `RebuiltEnv`s; between two rollouts."""
        return [
            PoolState(pool.env.state, pool.scores.score.copy(), pool.scores.length.copy())  # type: ignore[attr-defined]
            for pool in self._pools
        ]

    def restore(self, games: Sequence[PoolState], count: int) -> None:
        """Goes on with games where they stood.

        Args:
            games: as `games` gave them, of as many pools.
            count: steps of every lane so far.
        """
        for pool, state in zip(self._pools, games, strict=True):
            pool.timestep = pool.env.restore(state.env)  # type: ignore[attr-defined]
            pool.scores.score, pool.scores.length = state.score.copy(), state.length.copy()
        self.count = count

    def _search(self, pool: _Pool, params: Params, settings: list[np.float32]) -> Decision:
        """Dispatches a pool's search; where the device is asynchronous it runs on."""
        now = pool.timestep
        assert now is not None, "_receive comes first"
        pool.seen.append(now)
        with self._timers("search"):
            return self._decide(
                params,
                pool.rng_key,
                np.int32(self.count),
                now.observation,
                now.invalid_actions,
                *settings,
                np.float32(1.0),
            )

    def _receive(self, pool: _Pool, games: list[tuple[float, int]]) -> None:
        """Waits for a pool's step, if one is on its way; at first, starts its games."""
        with self._timers("environment"):
            if pool.timestep is None:
                pool.timestep = pool.env.reset()
            elif len(pool.followed) < len(pool.rows):
                pool.timestep = pool.env.recv()
                pool.followed.append(pool.timestep)
                cut = getattr(pool.env, "cut", None)
                games += [game[1:3] for game in pool.scores.add(pool.timestep, cut)]


@jax.jit
def _stack(pools: list[list[Rows]]) -> Rows:
    stacked = [jax.tree.map(lambda *x: jnp.stack(x, axis=1), *rows) for rows in pools]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *stacked)


def join_rows(pools: Sequence[_Pool], rows: Rows) -> Trajectory:
    """Joins the pools' T steps into rows: what was seen at t, and what followed the action at t.

    Args:
        pools: after T steps.
        rows: what the searches said, `[B, T, ...]`.

    Returns:
        `Trajectory` `[B, T, ...]`, lanes in the order of the pools.
    """

    def joined(steps: list[list[Timestep]], read: Callable[[Timestep], np.ndarray]) -> np.ndarray:
        parts = [np.stack([read(step) for step in pool], axis=1) for pool in steps]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    seen, followed = [pool.seen for pool in pools], [pool.followed for pool in pools]
    over = joined(followed, lambda step: step.terminated)
    invalid = joined(seen, lambda step: step.invalid_actions)
    return Trajectory(
        frame=jnp.asarray(joined(seen, lambda step: step.observation[:, -1])),
        action=rows.action,
        reward=jnp.asarray(joined(followed, lambda step: step.reward)),
        discount=jnp.asarray(np.where(over, np.float32(0), np.float32(1))),
        is_first=jnp.asarray(joined(seen, lambda step: step.is_first)),
        invalid_actions=jnp.asarray(invalid.astype(np.uint8)),
        action_weights=rows.action_weights,
        search_value=rows.search_value,
        transition_entropy=rows.transition_entropy,
    )
