"""Trains the variants one after another with the real training step, and evaluates them meanwhile.

A job (variant, stickiness, seed) has its own folder `jobs/<name>/`: `settings.json`, `rows.jsonl`
(a row per evaluation), `checkpoints/`, and `result.json` once it is finished. A finished job is not
run again; a stopped one continues from its checkpoint.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.encoders.diagnose import intervals, make_probe, probe_all, summarise
from experiments.encoders.frames import (
    Transitions,
    held_out_transitions,
    stored_frames,
    training_rows,
)
from experiments.encoders.variants import Job, Sizes, held_out_rows, job_config
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.envs import make_spec
from smz_jax.learning.learner import init_train_state, make_train_step
from smz_jax.learning.replay import check_memory, make_replay
from smz_jax.model.networks import make_networks
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.files import atomic_write_text, write_json
from smz_jax.storage.metrics import read_metrics
from smz_jax.types import Trajectory

SHOW_EVERY = 25
"""Updates between two moves of the progress bar."""
SAVE_SECONDS = 120.0
"""Least time between two checkpoints of a job that continues."""


@dataclass(frozen=True)
class Plan:
    """What one call is to do."""

    preset: str
    sizes: Sizes
    jobs: tuple[Job, ...]
    explicit: Mapping[str, Any]  # dotted settings of file and flags
    run_dir: Path

    def folder(self, job: Job) -> Path:
        """Where a job is kept."""
        return self.run_dir / "jobs" / job.name


class World(NamedTuple):
    """The frames of one stickiness and seed, shared by its jobs."""

    key: tuple[float, int]
    rows: Trajectory
    held_out: Transitions


OF_LENGTH = {
    "updates",
    "total_env_steps",
    "learner.schedule_steps",
    "loss.commitment_start",
    "learner.updates_per_env_step",
}
"""Settings that follow from the number of updates, which may be raised."""


def settings_of(config: Config, sizes: Sizes) -> dict[str, Any]:
    """What a job's result depends on."""
    own = {name: getattr(sizes, name) for name in ("transitions", "eval_size", "eval_batch")}
    return {**flat_dict(config), **own, "updates": sizes.updates}


def read_result(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a finished job; None where it has to run or continue.

    Raises:
        ConfigError: in one line, if the folder holds a job with other settings. More updates are
            no other settings: the job continues, under a schedule that is stretched.
    """
    path = folder / "settings.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        result = folder / "result.json"
        done = json.loads(result.read_text(encoding="utf-8")) if result.exists() else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is damaged ({error}): remove it") from None
    plain = json.loads(json.dumps(dict(settings)))
    other = [x for x in {**found, **plain} if found.get(x) != plain.get(x) and x not in OF_LENGTH]
    if other or found.get("updates", 0) > settings["updates"]:
        names = ", ".join(other[:3]) or "updates, which may only rise"
        raise ConfigError(
            f"{folder} holds a job with other settings ({names}): use another --run_dir"
        )
    return done if found == plain else None


def prepare(plan: Plan) -> list[tuple[Job, Config, dict[str, Any] | None]]:
    """Settings of every job, and its result where it is finished; raises ConfigError."""
    configs = [job_config(plan.preset, plan.sizes, job, plan.explicit) for job in plan.jobs]
    return [
        (job, config, read_result(plan.folder(job), settings_of(config, plan.sizes)))
        for job, config in zip(plan.jobs, configs, strict=True)
    ]


def compare(plan: Plan) -> int | None:
    """Runs what is not finished; results are written as they come.

    Returns:
        The number of the signal that stopped it, or None.

    Raises:
        ConfigError: in one line, for settings or files that do not fit.
    """
    prepared = prepare(plan)
    waiting = [(job, config) for job, config, result in prepared if result is None]
    world: World | None = None
    with (
        Progress(plan.sizes.updates * max(len(waiting), 1), "encoders") as bar,
        StopSignal() as stop,
    ):
        for number, (job, config) in enumerate(waiting):
            key = (job.sticky, job.seed)
            if world is None or world.key != key:
                world = None  # frees the former frames first
                world = _load_world(plan, config, key, bar)
            before = number * plan.sizes.updates
            _Training(plan, job, config, world, bar, before).run(stop)
            if stop:
                break
        if not waiting:
            bar.status("every job is finished already")
    return stop.number


def _load_world(plan: Plan, config: Config, key: tuple[float, int], bar: Progress) -> World:
    """Reads or collects the frames of one stickiness and seed."""
    sizes = plan.sizes
    path = plan.run_dir / f"frames-sticky{key[0]:g}-seed{key[1]}.npz"
    verb = "reading" if path.exists() else "playing"
    bar.status(f"{verb} {sizes.transitions:,} steps of random play, sticky {key[0]:g}")
    held_out = held_out_rows(sizes)
    stored = stored_frames(path, config, sizes.transitions // sizes.lanes, held_out)
    found = held_out_transitions(
        stored, held_out, frame_stack=config.env.frame_stack, most=sizes.eval_size
    )
    return World(key, training_rows(stored, held_out), found)


class _Training:
    """One job: its state, its rows, its clock.

    `before` counts the updates of the jobs before it.
    """

    def __init__(
        self, plan: Plan, job: Job, config: Config, world: World, bar: Progress, before: int
    ) -> None:
        self._sizes, self._job, self._config, self._bar = plan.sizes, job, config, bar
        self._held_out, self._before = world.held_out, before
        self._folder = plan.folder(job)
        self._store = CheckpointStore(self._folder)
        spec = make_spec(config.env)
        check_memory(config, spec)
        networks = make_networks(config.network, spec)
        replay = make_replay(config, spec)
        self._step = make_train_step(networks, replay, config, spec)
        self._probe = make_probe(networks, config)
        self._state = init_train_state(networks, config, jax.random.key(job.seed))
        self._replay_state = replay.add_donated(replay.init(), world.rows)
        self._rows: list[dict[str, Any]] = []
        self._seconds, self._updates = 0.0, 0

    def run(self, stop: StopSignal) -> None:
        """Trains to the end, or until it is stopped; leaves everything on disk."""
        write_json(self._folder / "settings.json", settings_of(self._config, self._sizes))
        (self._folder / "result.json").unlink(missing_ok=True)
        self._restore()
        if not self._rows:
            self._evaluate({})
        saved, metrics = time.monotonic(), []
        while not self._is_over() and not stop:
            metrics += self._train()
            if self._is_due():
                self._evaluate(_averaged(metrics))
                metrics = []
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()
        if self._is_over():
            self._finish()

    def _is_over(self) -> bool:
        return self._updates >= self._sizes.updates

    def _is_due(self) -> bool:
        return self._updates % self._sizes.eval_every == 0 or self._is_over()

    def _train(self) -> list[Mapping[str, Any]]:
        """Some updates, until the progress is to be shown or a row is due; gives their metrics."""
        start, metrics = time.monotonic(), []
        dispatch = self._config.learner.updates_per_dispatch
        for _ in range(0, SHOW_EVERY, dispatch):
            self._state, self._replay_state, row = self._step(self._state, self._replay_state)
            metrics.append(row)
            self._updates += dispatch
            if self._is_due():
                break
        loss = float(jax.device_get(metrics[-1])["loss/total"])
        self._seconds += time.monotonic() - start
        self._bar.update(self._before + self._updates, {"loss/total": loss})
        return metrics

    def _restore(self) -> None:
        """Continues from the checkpoint, if there is one; later rows are dropped."""
        if not self._store.exists("last"):
            return
        found = self._store.restore("last", self._state)
        self._state, extra = found.state, found.extra
        self._updates, self._seconds = int(extra["updates"]), float(extra["seconds"])
        rows = read_metrics(self._folder / "rows.jsonl")
        self._rows = [row for row in rows if row["updates"] <= self._updates]

    def _save(self) -> None:
        extra = {"updates": self._updates, "seconds": self._seconds}
        self._store.save("last", self._updates, self._state, extra)

    def _seen(self) -> dict[str, np.ndarray]:
        """What the model makes of the held-out transitions now."""
        batch = self._sizes.eval_batch
        return probe_all(self._probe, self._state.params, self._held_out, batch)

    def _evaluate(self, metrics: dict[str, float]) -> None:
        """Adds a row."""
        job = self._job
        found = summarise(self._seen(), self._held_out, self._config.network.codebook_size)
        about = {"variant": job.variant, "sticky": job.sticky, "seed": job.seed}
        row = {**about, "updates": self._updates, "seconds": self._seconds, **found, **metrics}
        # As JSON gives it back: null for what is not finite.
        self._rows.append({k: None if v != v else v for k, v in row.items()})
        text = "".join(json.dumps(row) + "\n" for row in self._rows)
        atomic_write_text(self._folder / "rows.jsonl", text)
        self._bar.message(
            f"{job.name} {self._updates}: ROC {found['roc']:.3f} (open {found['roc_open']:.3f}), "
            f"H {found['entropy_differs']:.3f} / {found['entropy_same']:.3f}, "
            f"perplexity {found['code_perplexity']:.1f}, code gain {found['code_gain']:.2f}"
        )

    def _finish(self) -> None:
        """Writes the result: the last row, its intervals, and what was run."""
        seen, held_out, network = self._seen(), self._held_out, self._config.network
        result = {
            **self._rows[-1],
            **intervals(seen, held_out, network.codebook_size),
            "ms_per_update": 1000 * self._seconds / max(self._updates, 1),
            "transitions_seen": len(seen["entropy"]),
            "share_differs": float(np.mean(held_out.differs)),
            "share_changed": float(np.mean(held_out.changed)),
            "share_open": float(np.mean(held_out.in_open)),
            "embedding_size": network.embedding_size,
            "codebook_size": network.codebook_size,
        }
        write_json(self._folder / "result.json", result)


def _averaged(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the training metrics, under `train/`."""
    rows = jax.device_get(list(metrics))
    return {f"train/{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}
