"""Rows of play for a data set: the replay of a run, or games played for it, also by a person."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import make_decide
from smz_jax.analysis.load import check_layout, fit_params, load_model
from smz_jax.analysis.person.desk import make_desk
from smz_jax.analysis.person.games import PersonGames, rows_of
from smz_jax.analysis.person.terminal import Terminal, check_terminal
from smz_jax.analysis.person.window import Window, check_window, own_driver
from smz_jax.analysis.requests import PersonWay
from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.envs import GameFault, make_env, make_spec, open_playable
from smz_jax.learning.replay import make_replay
from smz_jax.model.networks import make_networks
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.dataset import INFOS, check_recordable
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.storage.run_dir import git_commit, read_config
from smz_jax.types import (
    TARGETS,
    Array,
    Decision,
    EnvSpec,
    Params,
    SearchOutput,
    Timestep,
    Trajectory,
)


class Recording(NamedTuple):
    """Rows, and where they come from."""

    rows: Trajectory  # [B, T, ...] NumPy, a ring
    about: dict[str, Any]  # for the metadata
    oldest: int = 0  # row that each lane begins with
    raw: np.ndarray | None = None  # [B, T] float32, rewards as scored; None: unknown, of a replay
    left: Collection[int] | None = None  # games left before their end, by number; None: unknown


def read_replay(run_dir: Path) -> Recording:
    """The replay of a run's newest good checkpoint.

    Raises:
        ConfigError: in one line, if the folder holds no run or no good checkpoint with a replay.
    """
    config, store = read_config(run_dir), CheckpointStore(run_dir)
    spec = make_spec(config.env)
    check_recordable(spec)
    ring: Trajectory = jax.eval_shape(make_replay(config, spec).init).experience
    kept = [name for name in TARGETS if name in (*INFOS, "target_step")]
    found = store.restore(
        "last",
        {"targets": {name: getattr(ring, name) for name in kept}},
        experience=ring._replace(**dict.fromkeys(TARGETS)),
        partial=True,
    )
    if found.rows is None:
        raise ConfigError(f"checkpoint {found.step} of {str(run_dir)!r} holds no replay")
    rows: Trajectory = jax.tree.map(np.asarray, found.rows._replace(**found.state["targets"]))
    count, size = int(found.extra["count"]), rows.reward.shape[1]
    if count < size:
        rows = jax.tree.map(lambda x: x[:, :count], rows)
    about = _about(config, spec, f"{run_dir.absolute().name}, {found.step} {config.unit}")
    return Recording(rows, about, count % size if count > size else 0)


def _about(config: Config, spec: EnvSpec, played_by: str) -> dict[str, Any]:
    return {
        "experiment": config.experiment,
        "env": dataclasses.asdict(config.env),
        "action_names": list(spec.action_names),
        "played_by": played_by,
        "commit": git_commit(),
    }


def decide_at_random(
    params: Params,
    rng_key: Array,
    count: Array,
    observation: Array,
    invalid_actions: Array,
    temperature: Array,
    epsilon: Array,
    noise: Array,
) -> Decision:
    """A decision as those of `make_decide`, uniform over the valid actions."""
    key, zeros = jax.random.fold_in(rng_key, count), jnp.zeros(len(invalid_actions), jnp.float32)
    valid = 1.0 - invalid_actions
    weights = valid / jnp.maximum(valid.sum(axis=1, keepdims=True), 1.0)
    action = jax.random.categorical(key, jnp.log(weights)).astype(jnp.int32)
    faults = zeros.astype(jnp.int32)
    search = SearchOutput(action, weights, zeros, None, faults, valid.sum(axis=1) == 0)
    return Decision(search, zeros, zeros + 1.0)


class _Scored:
    """A vector whose raw rewards are noted at each step."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.raw: list[np.ndarray] = []  # [B] of each step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def recv(self) -> Timestep:
        step = self._env.recv()
        self.raw.append(step.raw_reward)
        return step


def record(config: Config, folder: Path | None, should_stop: Callable[[], bool]) -> Recording:
    """Plays `config.total_env_steps` of training games, at random or by a model.

    A model searches, and explores as the settings of the rollout say: its draws are those of a
    run's training.

    Args:
        config: of games, lanes, seed and exploration.
        folder: of a run (its best model, else its last) or of an export; None: at random.
        should_stop: called after each rollout; what was played by then is recorded.

    Raises:
        ConfigError: in one line, if the folder or the game cannot be used.
    """
    spec, params, decide = make_spec(config.env), None, jax.jit(decide_at_random)
    check_recordable(spec)
    if folder is not None:
        model = load_model(folder)
        check_layout(model, spec)
        networks = make_networks(config.network, spec)
        params = fit_params(networks, model.weights)
        decide = make_decide(networks, config, spec, policy=config.rollout.policy)
    env = _Scored(make_env(config.env, seed=config.seed))
    key = jax.random.key(config.seed)
    actor = Actor([env], config, decide, key, PhaseTimers(), lambda *decisions: None)
    length, rows = config.rollout.length, None
    rollouts = max(1, config.total_env_steps // (config.env.num_envs * length))

    def room(x: np.ndarray) -> np.ndarray:
        return np.empty((x.shape[0], rollouts * length, *x.shape[2:]), x.dtype)

    done = 0
    try:
        while done < rollouts * length and not (done and should_stop()):
            part = jax.tree.map(np.asarray, actor.next(params).rows)
            if rows is None:
                rows = jax.tree.map(room, part)
            for into, one in zip(jax.tree.leaves(rows), jax.tree.leaves(part), strict=True):
                into[:, done : done + length] = one
            done += length
    finally:
        actor.close()
    rows = jax.tree.map(lambda x: x[:, :done], rows)
    who = f"the model of {folder.absolute().name}" if folder else "a random policy"
    return Recording(rows, _about(config, spec, who), raw=np.stack(env.raw, axis=1))


def record_person(config: Config, way: PersonWay, should_stop: Callable[[], bool]) -> Recording:
    """A person plays games of training.

    Args:
        config: of games and seed; number i is the first game of lane i - 1.
        way: how it is played.
        should_stop: called again and again; what was played by then is recorded.

    Raises:
        ConfigError: in one line, if the game cannot be played so, or nothing was played.
    """
    (check_terminal if way.terminal else check_window)()
    with own_driver():
        playable = open_playable(config.env, seed=config.seed)
    with contextlib.closing(playable.game.env):
        check_recordable(playable.game.env.spec)
        desk = make_desk(config, way, playable)
        print(f"{desk.title}: {desk.note}", flush=True)
        games = PersonGames(playable, max(1, round(desk.rate)))
        try:
            (Terminal if way.terminal else Window)(games, desk, should_stop).play()
        except GameFault as fault:
            print(f"the game failed, what was played is kept: {fault}")
            games.finish(has_end=False)
        else:
            games.finish()
    require(bool(games.done), "games", 0, "at least one: nothing was played, nothing is written")
    rows, raw = rows_of(games.done)
    left = [number for number, game in enumerate(games.done) if not game.is_whole]
    return Recording(rows, _about(config, games.spec, "a person"), raw=raw, left=left)
