"""A dataset as the source of a run: all of it is in the replay from the start.

The rows of the dataset fill the lanes one after the other. Where they were cut from a game, and the
row before is of another one, they begin a game: nothing is learned across the cut. What is searched
anew in an iteration is also what macros are looked for in, as in play: a window of rows counts in
each pass, and counts are halved once a pass.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.check import ConfigError, require
from smz_jax.config.kept import ALL
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.config.training import MacroConfig
from smz_jax.envs.gym.observations import make_coder
from smz_jax.envs.protocol import first_line
from smz_jax.learning.reanalyse import Reanalysed
from smz_jax.learning.replay import Replay
from smz_jax.storage.dataset import INFOS, PLAYED, Dataset, check_recordable
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Array, EnvSpec, Experience, Params, Trajectory

SMOOTHING = 0.1
"""Share of a target that is spread over the valid actions where an action was played unsearched."""
PIECE_BYTES = 2**24
"""About so much is copied into the ring at once."""
LISTED = 12
"""Numbers of kept games in a line."""


class StoredPlay:
    """The loop's source (`learning.sources`) where a dataset is set.

    Args:
        config: the run's settings.
        spec: of the environment that evaluations play.
        replay: the functions of the replay.
        reanalyse: as `make_reanalyse` gives it.
        timers: phases `replay`, `reanalyse` and `macros` are counted.

    Raises:
        ConfigError: in one line, if the dataset cannot be used with these settings.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        replay: Replay,
        reanalyse: Callable[..., Reanalysed],
        timers: PhaseTimers,
    ) -> None:
        self._config, self._replay = config, replay
        self._reanalyse, self._timers = reanalyse, timers
        self._dataset = dataset = Dataset(Path(os.path.expanduser(config.dataset or "")))
        self.kept = keep_games(dataset, config)
        """What `replay.keep` kept, as `keep_games` gives it."""
        self._read = make_reader(dataset, config, spec)
        self.watch: Callable[..., None] = lambda *decisions: None
        """Called with the `Decision` of each time step that was searched."""
        self.count = dataset.rows // config.env.num_envs
        self._cursor = self._calls = 0
        least, most = config.window_rows + config.rollout.length, self._ring_rows
        rows = f"its {dataset.rows:,} rows in env.num_envs = {config.env.num_envs} lanes: "
        require(
            self.count >= least,
            "dataset",
            config.dataset,
            f"larger, or in fewer lanes, {rows}"
            f"{least} are needed in each (a window and rollout.length)",
        )
        allowed = f"at least {dataset.rows:,}, the rows of the dataset"
        require(self.count <= most, "replay.capacity", config.replay.capacity, allowed)

    @property
    def _ring_rows(self) -> int:
        return self._config.replay.capacity // self._config.env.num_envs

    @property
    def macro_settings(self) -> MacroConfig:
        """Those of the run, with counts halved once a pass."""
        own, rows = self._config.macro, self.count * self._config.env.num_envs
        return replace(own, halve_every=min(own.halve_every or rows, rows))

    @property
    def notes(self) -> list[str]:
        """What the user should know of the dataset, in lines."""
        about = self._dataset.about
        sums = "" if self._dataset.is_verified else "; it has no sums, damage is not noticed"
        found = [f"{self._dataset.rows:,} rows of {about.get('played_by', 'play')}{sums}"]
        found += played_otherwise(self._dataset, self._config.env)
        return found + ([kept_line(self.kept)] if self.kept else [])

    def begin(self, replay_state: Any) -> Any:
        """The replay with the whole dataset in; the state given is consumed.

        Raises:
            ConfigError: in one line, if the dataset is damaged.
        """
        self._cursor = self._calls = 0
        with self._timers("replay"):
            length = self._config.rollout.length
            given = self._dataset, self._read, self.count, length
            return fill(self._replay, replay_state, *given)

    def next(self, params: Params, learner_step: Array | int, replay_state: Any) -> Experience:
        """Searches the next T rows of every lane anew; the replay's state is consumed."""
        with self._timers("reanalyse"):
            found = self._reanalyse(
                params,
                replay_state,
                cursor=self._cursor,
                count=self.count,
                iteration=self._calls,
                step=learner_step,
            )
        parts, after = [], self._cursor
        with self._timers("macros"):
            for block in found.blocks:
                for decision in block.decisions:
                    self.watch(decision)
                first = block.rows.is_first
                if block.first != after:  # what was searched before is not what came before
                    first = first.at[:, 0].set(True)
                parts.append(block.rows._replace(is_first=first))
                after = block.first + len(block.decisions)
            rows = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
        self._cursor, self._calls = found.cursor, self._calls + 1
        return Experience(rows, [], found.metrics, 0, found.replay)

    @property
    def games(self) -> np.ndarray:
        """Where it stands: the row to continue with, and how often `next` was called."""
        return np.array([self._cursor, self._calls], np.int64)

    def restore(self, games: np.ndarray, count: int) -> None:
        """Continues from `games`; raises ConfigError if the dataset has other rows now."""
        allowed = f"{count}, as when the run began"
        require(count == self.count, "rows of a lane of the dataset", self.count, allowed)
        self._cursor, self._calls = map(int, games)

    def close(self) -> None:
        """Nothing is open."""


def keep_games(dataset: Dataset, config: Config) -> dict[str, Any] | None:
    """Leaves out of a dataset all but the whole games that `replay.keep` keeps.

    Returns:
        As `summary.json` has it: `keep`, `of` (episodes of the dataset), `whole` (games among
        them), `games` (numbers of those that are kept, from 0) and their `scores`. None: of `all`
        nothing is left out.

    Raises:
        ConfigError: in one line, if none is kept.
    """
    keep, episodes = config.replay.keep, dataset.episodes
    if keep == ALL:
        return None
    kept, whole = dataset.keep(config.replay.kept)
    numbers, scores = [x.number for x in kept], [x.score for x in kept]
    return {"keep": keep, "of": episodes, "whole": whole, "games": numbers, "scores": scores}


def kept_line(kept: Mapping[str, Any]) -> str:
    """What `keep_games` gave, in a line; of many games the first numbers."""
    games, scores = kept["games"], kept["scores"]
    shown = ", ".join(map(str, games[:LISTED])) + (", ..." if len(games) > LISTED else "")
    parts = kept["of"] - kept["whole"]
    return (
        f"replay.keep = {kept['keep']} keeps {len(games):,} of {kept['of']:,} games "
        f"({parts:,} of them not whole), scores {min(scores):g} to {max(scores):g}: {shown}"
    )


Reader = Callable[[dict[str, Any]], Trajectory]
"""As `make_reader` gives it."""


def fill(
    replay: Replay, state: Any, dataset: Dataset, read: Reader, count: int, length: int
) -> Any:
    """A replay with `count` rows of a dataset in each lane; the state given is consumed.

    `length` is that of a rollout, for which the replay's programs are compiled.

    Raises:
        ConfigError: in one line, if the dataset is damaged.
    """
    lanes = state.experience.reward.shape[0]
    rows = jax.tree.map(
        lambda x: jnp.zeros((lanes, length, *x.shape[2:]), x.dtype), state.experience
    )
    # Pointers and priorities as if that much had been played; then the rows themselves.
    for _ in range(count // length):
        state = replay.add_donated(state, rows)
    if rest := count % length:
        state = replay.add_donated(state, jax.tree.map(lambda x: x[:, :rest], rows))
    ring = state.experience
    row_bytes = sum(x.nbytes for x in jax.tree.leaves(ring)) // ring.reward.size
    piece = min(count, max(1, PIECE_BYTES // row_bytes))
    starts = [(lane, start) for lane in range(lanes) for start in range(0, count, piece)]
    sizes = [min(piece, count - start) for _, start in starts]
    for at, part in zip(starts, cut(_episodes(dataset, read, ring, count), sizes), strict=True):
        ring = _put(ring, part, *map(np.int32, at))
    return state.replace(experience=ring)


def _episodes(dataset: Dataset, read: Reader, ring: Trajectory, count: int) -> Iterator[Trajectory]:
    """The rows of each episode, which begins a game unless it begins a lane."""
    at, wanted = 0, [(x.shape[2:], x.dtype) for x in jax.tree.leaves(ring)]
    for episode in dataset.read():
        try:
            rows = read(episode)
        except (IndexError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise ConfigError(f"the dataset cannot be used: {reason}") from None
        if [(x.shape[1:], x.dtype) for x in jax.tree.leaves(rows)] != wanted:
            raise ConfigError("the dataset is damaged: its fields are not those of a replay")
        rows.is_first[0] |= at % count > 0
        at += len(rows.is_first)
        yield rows


@partial(jax.jit, donate_argnums=0)
def _put(ring: Trajectory, rows: Trajectory, lane: Array, start: Array) -> Trajectory:
    def put(into: Array, part: Array) -> Array:
        at = (lane, start, *[0] * (into.ndim - 2))
        return jax.lax.dynamic_update_slice(into, part[None], at)

    return jax.tree.map(put, ring, rows)


def played_otherwise(dataset: Dataset, ours: EnvConfig) -> list[str]:
    """Settings of its environment that are others than `ours`, a line each."""
    theirs = dataset.about.get("env", {})
    return [
        f"played with env.{name} {theirs[name]!r}, {getattr(ours, name)!r} here"
        for name in PLAYED
        if name in theirs and theirs[name] != getattr(ours, name)
    ]


def cut(parts: Iterator[Trajectory], sizes: Iterable[int]) -> Iterator[Trajectory]:
    """Rows `[R, ...]` of any lengths in pieces of these sizes; what is left over is left out.

    Raises:
        ConfigError: if there are fewer.
    """
    held: list[Trajectory] = []
    for size in sizes:
        while sum(len(x.action) for x in held) < size:
            if (part := next(parts, None)) is None:
                raise ConfigError("the dataset is damaged: it has fewer rows than it says")
            held.append(part)
        rows = held[0]
        if len(held) > 1:
            rows = jax.tree.map(lambda *x: np.concatenate(x), *held)
        yield jax.tree.map(lambda x, end=size: x[:end], rows)
        held = [jax.tree.map(lambda x, end=size: x[end:], rows)]


def make_reader(dataset: Dataset, config: Config, spec: EnvSpec) -> Reader:
    """From an episode to its rows `[R, ...]`, NumPy; the last one is of the final observation.

    Of an episode that was never searched, whose stored values are all 0, targets are those of
    `first_targets`; where none are wanted (`rollout.policy` prior) the policy's are the actions
    that were played. Actions go by their names, where the dataset has them.

    Raises:
        ConfigError: in one line, if observations or actions are not those of the environment.
    """
    check_recordable(spec)
    names, space = dataset.about.get("action_names"), dataset.action_space
    if names:
        allowed = f"among those of {spec.name}: {', '.join(spec.action_names)}"
        require(set(names) <= set(spec.action_names), "actions of the dataset", names, allowed)
        places = np.array([spec.action_names.index(name) for name in names], np.int32)
    else:
        fits = type(space).__name__ == "Discrete" and space.n == spec.num_actions
        allowed = f"Discrete({spec.num_actions}), as in {spec.name}"
        require(fits, "action space of the dataset", str(space), allowed)
        places = np.arange(spec.num_actions, dtype=np.int32)
    coder = None if dataset.about else make_coder(dataset.observation_space, config.env.frame_size)
    of: Any = coder or dataset.observation_space
    shape, kind = (of.frame_shape, of.frame_dtype) if coder else (of.shape, of.dtype)
    bits = (np.bool_, np.int8) if coder else (np.bool_, np.int8, np.uint8)
    is_bits = kind in bits and spec.frame_dtype in bits[:2]
    fits = shape == spec.frame_shape and (kind == spec.frame_dtype or is_bits)
    allowed = f"{spec.frame_dtype} {spec.frame_shape}, as {spec.name} is set here"
    require(fits, "observations of the dataset", f"{kind} {shape}", allowed)
    is_clipped = config.env.suite == "atari" and config.env.clip_rewards
    lacking = np.setdiff1d(np.arange(spec.num_actions), places)

    def read(episode: dict[str, Any]) -> Trajectory:
        infos, seen = episode["infos"] or {}, episode["observations"]
        frame = (coder.encode(seen) if coder else seen).astype(spec.frame_dtype)
        if not set(INFOS) <= set(infos):
            if spec.players > 1:
                raise ConfigError(f"its episodes do not say who moves in {spec.name}")
            infos = plain_infos(episode, len(frame), len(places), getattr(space, "start", 0))
            infos["reward"] = np.sign(infos["reward"]) if is_clipped else infos["reward"]
        action, wide = infos["action"], {}
        if not (np.all(action >= 0) and np.all(action < len(places))):
            raise ConfigError(f"an action is not in 0..{len(places) - 1}")
        for name in ("action_weights", "invalid_actions"):
            wide[name] = np.zeros((len(frame), spec.num_actions), infos[name].dtype)
            wide[name][:, places] = infos[name]
        limited = wide["invalid_actions"].any(axis=1)  # what may be done there is told, by name
        wide["invalid_actions"][np.ix_(limited, lacking)] = 1
        rows = {**infos, **wide, "action": places[action], "frame": frame}
        if not all(np.isfinite(x).all() for x in rows.values() if x.dtype.kind == "f"):
            raise ConfigError("a number is not finite")
        never = {"target_step": np.int32, "search_spread": np.float32}
        rows |= {name: np.zeros(len(frame), kind) for name, kind in never.items()}
        if config.rollout.policy == "prior":
            rows["action_weights"] = one_hot(rows["action"], spec.num_actions)
        elif not rows["search_value"].any():  # never searched
            rows |= first_targets(rows, config.learner.gamma)
        return Trajectory(**{name: rows[name] for name in ("frame", *never, *INFOS)})

    return read


def one_hot(action: np.ndarray, actions: int) -> np.ndarray:
    """`[R]` to `[R, A]` float32."""
    return (np.arange(actions) == action[:, None]).astype(np.float32)


def first_targets(rows: dict[str, np.ndarray], gamma: float) -> dict[str, np.ndarray]:
    """Targets of an episode that was played but never searched, until it is.

    The policy is what was played, a share `SMOOTHING` of it spread over the valid actions; the
    value of a row is the discounted sum of the rewards after it.

    Args:
        rows: by name, `[R, ...]`: `reward`, `discount`, `action_weights`, `invalid_actions`.
        gamma: the discount of a step.
    """
    valid = 1.0 - rows["invalid_actions"]
    spread = valid / np.maximum(valid.sum(axis=1, keepdims=True), 1.0)
    value = np.zeros_like(rows["reward"])
    for t in range(len(value) - 2, -1, -1):
        value[t] = rows["reward"][t] + gamma * rows["discount"][t] * value[t + 1]
    weights = (1 - SMOOTHING) * rows["action_weights"] + SMOOTHING * spread
    return {"action_weights": weights.astype(np.float32), "search_value": value}


def plain_infos(episode: dict[str, Any], rows: int, actions: int, start: int) -> dict[str, Any]:
    """Fields of rows by what any Minari dataset has; the final observation's action is 0."""
    final = lambda x, kind: np.append(np.asarray(x), 0).astype(kind)  # noqa: E731
    action = final(np.asarray(episode["actions"]) - start, np.int32)
    return {
        "action": action,
        "reward": final(episode["rewards"], np.float32),
        "discount": 1 - final(episode["terminations"], np.float32),
        "is_first": np.arange(rows) == 0,
        "invalid_actions": np.zeros((rows, actions), np.uint8),
        "action_weights": one_hot(action, actions),
        "search_value": np.zeros(rows, np.float32),
        "transition_entropy": np.ones(rows, np.float32),
    }
