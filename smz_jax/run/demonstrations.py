"""Demonstrations: a dataset in a ring of its own, which a share of every batch is drawn from.

Its rows are never overwritten. Where stored targets are searched anew (`reanalyse.ratio`), so
are these, as many as their share of the batches asks for.
"""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.learning.reanalyse import Reanalysed, make_reanalyse
from smz_jax.learning.replay import Replay, check_memory, make_replay
from smz_jax.run.stored_play import fill, keep_games, kept_line, make_reader, played_otherwise
from smz_jax.storage.dataset import Dataset
from smz_jax.types import TARGETS, Array, EnvSpec, Networks, Params

LEAST_WINDOWS = 20
"""Lengths of a window in a lane of the ring, where there are several lanes."""


def ring_settings(config: Config, rows: int) -> Config:
    """A run's settings with those of a ring that holds so many rows, drawn from uniformly.

    Raises:
        ConfigError: if they are too few for one window.
    """
    least = config.window_rows + 1
    require(rows >= least, "demonstrations", config.demonstrations, f"of {least} rows or more")
    # A window lies within a lane: few rows in many short lanes would be drawn from in few places.
    lanes = max(1, min(config.env.num_envs, rows // (LEAST_WINDOWS * least)))
    searched = math.ceil(config.reanalyse.ratio * config.env.num_envs * config.rollout.length)
    searched = math.ceil(searched * config.replay.demonstration_share)
    return replace(
        config,
        env=replace(config.env, num_envs=lanes),
        rollout=replace(config.rollout, length=1, pools=1),
        learner=replace(config.learner, updates_per_env_step=0.0, updates_per_dispatch=1),
        replay=replace(
            config.replay,
            capacity=rows // lanes * lanes,
            min_size=lanes * config.window_rows,
            prioritised=False,
            view="none",
        ),
        # Of one step of each lane, which is all that this ring's iteration has.
        reanalyse=replace(config.reanalyse, ratio=searched / lanes, mode="ratio"),
    )


class Demonstrations:
    """The ring's functions; its state is the run's.

    Args:
        config: the run's settings, with `demonstrations`.
        spec: of its environment.
        networks: of the model that searches rows anew.

    Raises:
        ConfigError: in one line, if the dataset cannot be used with these settings.
    """

    def __init__(self, config: Config, spec: EnvSpec, networks: Networks) -> None:
        self._config = config
        self._dataset = Dataset(Path(os.path.expanduser(config.demonstrations or "")))
        self.sum = self._dataset.sum
        """SHA-256 of the dataset: the rows of a run that continues are read from it again."""
        self.kept = keep_games(self._dataset, config)
        """What `replay.keep` kept, as `keep_games` gives it."""
        settings = ring_settings(config, self._dataset.rows)
        check_memory(settings, spec)
        self._read = make_reader(self._dataset, config, spec)
        self._count = settings.replay.capacity // settings.env.num_envs
        self.replay: Replay = make_replay(settings, spec)
        """Draws windows of the ring."""
        self._reanalyse = make_reanalyse(networks, settings, spec)
        self._is_reanalysed = settings.reanalyse_steps > 0

    @property
    def note(self) -> str:
        """What they are, in a line."""
        who = self._dataset.about.get("played_by", "play")
        found = f"{self._dataset.episodes:,} games, {self._dataset.rows:,} rows of {who}"
        kept = [kept_line(self.kept)] if self.kept else []
        return "; ".join([found, *kept, *played_otherwise(self._dataset, self._config.env)])

    def begin(self) -> Any:
        """The ring with the whole dataset in; raises ConfigError if that is damaged."""
        return fill(self.replay, self.replay.init(), self._dataset, self._read, self._count, 1)

    @property
    def shapes(self) -> Any:
        """The ring in shapes and types."""
        return jax.eval_shape(self.replay.init)

    def reanalyse(
        self, params: Params, state: Any, *, cursor: int, iteration: int, step: Array
    ) -> Reanalysed:
        """Searches the next rows anew, from the row `cursor` on; the state is consumed."""
        if not self._is_reanalysed:
            return Reanalysed(state, cursor, {})
        at = {"cursor": cursor, "count": self._count, "iteration": iteration, "step": step}
        found = self._reanalyse(params, state, **at)
        metrics = {f"demonstrations/{x}": y for x, y in found.metrics.items()}
        return found._replace(metrics=metrics)


def held(state: Any) -> dict[str, Any]:
    """What changes of a ring's state; the rest comes from the dataset again."""
    return {name: getattr(state.experience, name) for name in TARGETS}


def with_held(state: Any, targets: dict[str, Any]) -> Any:
    """The ring with the targets that `held` gave."""
    return state.replace(experience=state.experience._replace(**targets))
