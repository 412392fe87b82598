"""Games played for training: environment and search in turn, B lanes in step.

The lanes may be split into two pools, so that the games of one step while the device searches for
the other. Who waits for whom is fixed, never a matter of who is ready first:

    search X | receive Y, which stepped meanwhile | fetch X's actions, send them | search Y | ...

Actions are sent before the next search is dispatched, since an accelerator may hold the host until
a search with loops of unknown length is done.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smz_jax.acting.agent import exploration
from smz_jax.acting.plans import goes_on, no_plans
from smz_jax.config.settings import Config
from smz_jax.envs.rebuilt import GamesState, join_states, own_state
from smz_jax.model.lanes import count_processes, from_own, of_all_processes, to_own
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Array, Decision, Experience, Params, Timestep, Trajectory


class GameScores:
    """Raw scores and lengths of the games in progress and of those that ended.

    Of more than two players the scores are those of one `seat`.
    """

    def __init__(self, num_envs: int, seat: int = 0) -> None:
        self._seat = seat
        self.score = np.zeros(num_envs, np.float64)
        self.length = np.zeros(num_envs, np.int64)

    def add(
        self, timestep: Timestep, cut: np.ndarray | None = None
    ) -> list[tuple[int, float, int, bool]]:
        """Counts one step; returns (lane, score, length, truncated) of games that ended.

        But for those of `cut` `[B]` bool, which ended for no reason of their own (`RebuiltEnv`).
        """
        counts, raw = ~timestep.is_first, timestep.raw_reward
        self.score += np.where(counts, raw if raw.ndim == 1 else raw[:, self._seat], 0.0)
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
    """One vector of games, and what it did since the rollout began."""

    def __init__(self, env: Any, rng_key: Array) -> None:
        self.env, self.rng_key, self.scores = env, rng_key, GameScores(env.num_envs)
        self.steps: list[Timestep] = []  # the last one is where it stands; none before a reset
        self.decisions: list[Decision] = []  # of each action sent; without trees
        self.plans: Any = None  # [B, L] of the macros that are played; None: none is


class Actor:
    """Plays `config.rollout.length` steps at a time: the loop's source (`learning.sources`).

    Args:
        envs: the games, a `VectorEnv` for each pool; all of the same number of lanes. To be saved
            and restored they must be `RebuiltEnv`s.
        config: the run's settings.
        decide: as `make_decide` gives it.
        rng_key: of the whole run's acting; step `count` folds its number into it. Two pools split
            it, so that they share no randomness.
        timers: phases `environment` and `search` are counted. Each is the time that the host was
            held up by it: with two pools, what the other one hides does not count.
        watch: called with the `Decision` of each pool after each step (the macro post-pass).
        add: `Replay.add_donated`; None: rows are given and not kept, and so without a replay.
        mesh: of the run's devices; if they are of several processes, `envs` have the lanes of this
            one, and all processes play together.
        follow: as `make_follow` gives it; None: macros are not played to their end.
    """

    def __init__(
        self,
        envs: Sequence[Any],
        config: Config,
        decide: Callable[..., Decision],
        rng_key: Array,
        timers: PhaseTimers,
        watch: Callable[..., None],
        add: Callable[[Any, Trajectory], Any] | None = None,
        mesh: Mesh | None = None,
        follow: Callable[..., tuple[Decision, Any]] | None = None,
    ) -> None:
        self._follow = follow
        self._mesh, self._shares = mesh, count_processes(mesh)
        self.envs, self._config, self._decide, self._add = envs, config, decide, add
        self._timers, self._watch = timers, watch
        keys = [rng_key] if len(envs) == 1 else jax.random.split(rng_key, len(envs))
        self._pools = [_Pool(env, key) for env, key in zip(envs, keys, strict=True)]
        self._num_lanes = sum(env.num_envs for env in envs) * self._shares
        self.count = 0  # steps of every lane so far; a resumed run sets it

    def begin(self, replay_state: Any) -> Any:
        """The replay's state as it is: nothing was played yet."""
        return replay_state

    def next(
        self, params: Params, learner_step: Array | int = 0, replay_state: Any = None
    ) -> Experience:
        """Plays T steps; the rows' lanes are in the order of the pools.

        `learner_step` is that of the parameters: the rows' `target_step`. The replay's state is
        consumed.

        Raises:
            GameFault: if there can be no more.
        """
        config, timers, pools = self._config, self._timers, self._pools
        progress = self.count * self._num_lanes / config.total_env_steps
        settings = [np.float32(x) for x in exploration(config.rollout, progress)]
        games: list[tuple[float, int]] = []
        before = self._restarts
        for pool in pools:
            pool.steps, pool.decisions = pool.steps[-1:], []
            if self._follow:
                lanes = pool.env.num_envs * self._shares
                pool.plans = no_plans(lanes, config.network.jump_length, self._mesh)
        for _ in range(config.rollout.length):
            decisions = []
            for pool, other in zip(pools, pools[1:] + pools[:1], strict=True):
                self._receive(pool, games)
                now = pool.steps[-1]
                invalid = from_own([now.invalid_actions], self._mesh)
                with timers("search"):  # where the device is asynchronous it runs on
                    decision = self._decide(
                        params,
                        pool.rng_key,
                        np.int32(self.count),
                        from_own([now.observation], self._mesh),
                        invalid,
                        *settings,
                        np.float32(1.0),
                    )
                    if self._follow:
                        given = decision, invalid, from_own([goes_on(now)], self._mesh)
                        decision, pool.plans = self._follow(params, pool.plans, *given)
                self._receive(other, games)
                with timers("search"):
                    action = to_own(decision.search.action, self._mesh)
                with timers("environment"):
                    pool.env.send(action)
                search = decision.search._replace(tree=None)
                pool.decisions.append(decision._replace(search=search, embedding=None))
                decisions.append(decision)
            with timers("macros"):
                self._watch(*decisions)
            self.count += 1
        for pool in pools:
            self._receive(pool, games)
        with timers("replay"):
            played = _stack([pool.decisions for pool in pools])
            metrics = {
                "search/faults": jnp.sum(played.search.faults),
                "search/all_invalid": jnp.sum(played.search.all_invalid),
            }
            done = played.search.usage or {}
            metrics |= {f"search/{name}": jnp.mean(x) for name, x in done.items()}
            if self._follow:
                metrics["rollout/macro_steps"] = jnp.mean(played.follows, dtype=jnp.float32)
            steps = [pool.steps for pool in pools]
            rows = join_rows(steps, played, learner_step, self._mesh)
            replay = (
                self._add(replay_state, rows) if self._add and replay_state is not None else None
            )
        return Experience(rows, games, metrics, self._restarts - before, replay, played.follows)

    @property
    def _restarts(self) -> int:
        return sum(getattr(env, "restarts", 0) for env in self.envs)

    def close(self) -> None:
        """Closes the games; may be called twice."""
        for env in self.envs:
            env.close()

    @property
    def games(self) -> list[PoolState]:
        """Where the games of each pool stand between two rollouts: NumPy arrays of fixed shapes.

        Those of all processes, who all ask for it.
        """
        own = [
            PoolState(pool.env.state, pool.scores.score.copy(), pool.scores.length.copy())
            for pool in self._pools
        ]
        if self._shares == 1:
            return own
        every = self._config.env.rebuild_every
        return [_join_pool(jax.tree.map(of_all_processes, pool), every) for pool in own]

    def restore(self, games: Sequence[PoolState], count: int) -> None:
        """Continues `games` as the property gave them, of as many pools, after `count` steps."""
        if self._shares > 1:
            games = [self._own_part(state) for state in games]
        for pool, state in zip(self._pools, games, strict=True):
            pool.steps = [pool.env.restore(state.env)]
            pool.scores.score, pool.scores.length = state.score.copy(), state.length.copy()
        self.count = count

    def _own_part(self, pool: PoolState) -> PoolState:
        """What this process continues of a pool of all processes."""
        size = len(pool.score) // self._shares
        own = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
        return PoolState(own_state(pool.env, own), pool.score[own], pool.length[own])

    def _receive(self, pool: _Pool, games: list[tuple[float, int]]) -> None:
        """Waits for a pool's step, if one is on its way; at first, starts its games."""
        with self._timers("environment"):
            if not pool.steps:
                pool.steps.append(pool.env.reset())
            elif len(pool.steps) == len(pool.decisions):
                pool.steps.append(pool.env.recv())
                cut = getattr(pool.env, "cut", None)
                games += [game[1:3] for game in pool.scores.add(pool.steps[-1], cut)]


def _join_pool(parts: PoolState, every: int) -> PoolState:
    """A pool of all processes of its parts, whose arrays are `[processes, ...]`."""
    env = join_states(parts.env, every)
    return PoolState(env, parts.score.reshape(-1), parts.length.reshape(-1))


@jax.jit
def _stack(pools: list[list[Decision]]) -> Decision:
    stacked = [jax.tree.map(lambda *x: jnp.stack(x, axis=1), *played) for played in pools]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *stacked)


def join_rows(
    pools: Sequence[Sequence[Timestep]],
    played: Decision,
    learner_step: Array | int,
    mesh: Mesh | None = None,
) -> Trajectory:
    """Joins the T + 1 steps of each pool into rows: what was seen, and what followed the action.

    The decisions `played` and the `Trajectory` are `[B, T, ...]`, lanes in the order of the pools;
    on a `mesh` of several processes those of all, of which each gives the steps of its own.
    """

    def joined(read: Callable[[Timestep, Timestep], np.ndarray]) -> Array:
        pairs = [list(itertools.pairwise(pool)) for pool in pools]
        parts = [np.stack([read(*pair) for pair in pool], axis=1) for pool in pairs]
        return jnp.asarray(from_own(parts, mesh))

    def discount(seen: Timestep, followed: Timestep) -> np.ndarray:
        same = followed.player == seen.player
        return np.where(followed.terminated, 0, np.where(same, 1, -1)).astype(np.float32)

    search = played.search
    spread = jnp.zeros_like(search.value) if search.spread is None else search.spread
    player = rewards = None
    if search.values is not None:
        player = joined(lambda seen, _: seen.player)
        rewards = joined(lambda _, followed: followed.raw_reward)
    return Trajectory(
        frame=joined(lambda seen, _: seen.observation[:, -1]),
        action=search.action,
        reward=joined(lambda _, followed: followed.reward),
        discount=joined(discount),
        is_first=joined(lambda seen, _: seen.is_first),
        invalid_actions=joined(lambda seen, _: seen.invalid_actions.astype(np.uint8)),
        action_weights=search.action_weights,
        search_value=search.value,
        search_spread=spread,
        transition_entropy=played.transition_entropy,
        target_step=jnp.full(search.action.shape, learner_step, jnp.int32),
        player=player,
        rewards=rewards,
        values=search.values,
    )
