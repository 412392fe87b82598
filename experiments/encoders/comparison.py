"""Trains the variants one after another with the real training step, and evaluates them meanwhile.

A job (variant, stickiness, seed) has its own folder `jobs/<name>/`: `settings.json`, `rows.jsonl`
(a row per evaluation), `checkpoints/`, and `result.json` once it is finished. A finished job is not
run again; a stopped one continues from its checkpoint.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.encoders import stored_frames as frames
from experiments.encoders.diagnostics import intervals, make_probe, probe_all, summarise
from experiments.encoders.variants import Job, Plan, job_config
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.envs import make_spec
from smz_jax.learning.learner import TrainStep, init_train_state
from smz_jax.learning.replay import check_memory, make_replay
from smz_jax.model.networks import make_networks
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.files import atomic_write_text, plain, read_json, write_json
from smz_jax.storage.metrics import read_metrics
from smz_jax.types import Trajectory

SHOW_EVERY = 25  # updates between two moves of the progress bar
SAVE_SECONDS = 120.0  # least time between two checkpoints of a job that continues
OF_LENGTH = {
    *("updates", "total_env_steps", "loss.commitment_start"),
    *("learner.schedule_steps", "learner.updates_per_env_step"),
}
"""Settings that follow from the number of updates, which may be raised."""

World = tuple[Trajectory, frames.Transitions]
"""Rows to learn from and held-out transitions of one stickiness and seed, shared by its jobs."""


def settings_of(plan: Plan, config: Config) -> dict[str, Any]:
    """What a job's result depends on."""
    names = ("transitions", "eval_size", "eval_batch", "updates")
    return {**flat_dict(config), **{name: getattr(plan.sizes, name) for name in names}}


def is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a job has its result; else it has to run or continue.

    Raises:
        ConfigError: in one line, if the folder is damaged or holds a job with other settings. More
            updates are no other settings: the job continues, under a schedule that is stretched.
    """
    if not (folder / "settings.json").exists():
        return False
    advice, has_result = f": remove {folder}", (folder / "result.json").exists()
    found, wanted = read_json(folder / "settings.json", advice=advice), plain(settings)
    if has_result:
        read_json(folder / "result.json", advice=advice)
    other = [x for x in {**found, **wanted} if found.get(x) != wanted.get(x) and x not in OF_LENGTH]
    if other or found.get("updates", 0) > wanted["updates"]:
        names = ", ".join(other[:3]) or "updates, which may only rise"
        other_job = f"{folder} holds a job with other settings ({names})"
        raise ConfigError(f"{other_job}: use another --run_dir")
    return has_result and found == wanted


def unfinished(plan: Plan) -> list[tuple[Job, Config]]:
    """The jobs that are left to do, with their settings; raises ConfigError."""
    jobs = [(job, job_config(plan, job)) for job in plan.jobs]
    return [x for x in jobs if not is_finished(plan.folder(x[0]), settings_of(plan, x[1]))]


def compare(plan: Plan) -> int | None:
    """Runs what is not finished; results are written as they come.

    Returns:
        The number of the signal that stopped it, or None.

    Raises:
        ConfigError: in one line, for settings or files that do not fit.
    """
    left, sizes = unfinished(plan), plan.sizes
    key = world = None
    total = sizes.updates * max(len(left), 1)
    with Progress(total, "encoders") as bar, StopSignal() as stop:
        for number, (job, config) in enumerate(left):
            if world is None or key != (job.sticky, job.seed):
                key, world = (job.sticky, job.seed), None  # frees the former frames first
                path = plan.run_dir / f"frames-sticky{job.sticky:g}-seed{job.seed}.npz"
                verb = "reading" if path.exists() else "playing"
                steps = f"{sizes.transitions:,} steps of random play, sticky {job.sticky:g}"
                bar.status(f"{verb} {steps}")
                world = _world(path, config, plan)
            _Training(plan, job, config, world, bar, number * sizes.updates).run(stop)
            if stop:
                break
        if not left:
            bar.status("every job is finished already")
    return stop.number


def _world(path: Path, config: Config, plan: Plan) -> World:
    """What the frames in `path` give to the jobs that share them."""
    held_out = plan.sizes.held_out
    stored = frames.stored_frames(path, config, plan.sizes.rows, held_out)
    most = plan.sizes.eval_size
    probed = frames.held_out_transitions(stored, held_out, config.env.frame_stack, most)
    return frames.training_rows(stored, held_out), probed


class _Training:
    """One job: its state, its rows, its clock; `before` counts the updates of the jobs before."""

    def __init__(
        self, plan: Plan, job: Job, config: Config, world: World, bar: Progress, before: int
    ) -> None:
        self._sizes, self._job, self._config, self._bar = plan.sizes, job, config, bar
        rows, self._held_out = world
        self._before = before
        self._folder, self._settings = plan.folder(job), settings_of(plan, config)
        self._store = CheckpointStore(self._folder)
        spec = make_spec(config.env)
        check_memory(config, spec)
        networks, replay = make_networks(config.network, spec), make_replay(config, spec)
        self._step = TrainStep(networks, replay, config, spec)
        self._probe = make_probe(networks, config)
        self._state = init_train_state(networks, config, jax.random.key(job.seed))
        self._replay_state = replay.add_donated(replay.init(), rows)
        self._rows: list[dict[str, Any]] = []
        self._seconds, self._updates = 0.0, 0

    def run(self, stop: StopSignal) -> None:
        """Trains to the end, or until it is stopped; leaves everything on disk."""
        write_json(self._folder / "settings.json", self._settings)
        (self._folder / "result.json").unlink(missing_ok=True)
        if self._store.steps("last"):  # later rows are dropped
            found = self._store.restore("last", self._state)
            self._state, extra = found.state, found.extra
            self._updates, self._seconds = int(extra["updates"]), float(extra["seconds"])
            rows = read_metrics(self._folder / "rows.jsonl")
            self._rows = [row for row in rows if row["updates"] <= self._updates]
        if not self._rows:
            self._evaluate([])
        saved, metrics = time.monotonic(), []
        while self._updates < self._sizes.updates and not stop:
            metrics += self._train()
            if self._is_due():
                self._evaluate(metrics)
                metrics = []
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()
        if self._updates >= self._sizes.updates:
            self._finish()

    def _is_due(self) -> bool:
        sizes = self._sizes
        return self._updates % sizes.eval_every == 0 or self._updates >= sizes.updates

    def _train(self) -> list[Mapping[str, Any]]:
        """Some updates, until the progress is to be shown or a row is due; gives their metrics."""
        start, metrics = time.monotonic(), []
        dispatch = self._config.learner.updates_per_dispatch
        for _ in range(0, SHOW_EVERY, dispatch):
            # Told the updates, no update waits for the one before it.
            self._state, self._replay_state, row = self._step(
                self._state, self._replay_state, done=self._updates
            )
            metrics.append(row)
            self._updates += dispatch
            if self._is_due():
                break
        loss = float(jax.device_get(metrics[-1])["loss/total"])
        self._seconds += time.monotonic() - start
        self._bar.update(self._before + self._updates, {"loss/total": loss})
        return metrics

    def _save(self) -> None:
        extra = {"updates": self._updates, "seconds": self._seconds}
        self._store.save("last", self._updates, self._state, extra)

    def _seen(self) -> dict[str, np.ndarray]:
        """What the model makes of the held-out transitions now."""
        batch = self._sizes.eval_batch
        return probe_all(self._probe, self._state.params, self._held_out, batch)

    def _evaluate(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Adds a row, with the means of the training metrics since the one before."""
        job, read = self._job, jax.device_get(list(metrics))
        found = summarise(self._seen(), self._held_out, self._config.network.codebook_size)
        row = {**dataclasses.asdict(job), "updates": self._updates, "seconds": self._seconds}
        means = {name: float(np.mean([x[name] for x in read])) for name in next(iter(read), ())}
        row |= {**found, **{f"train/{name}": mean for name, mean in means.items()}}
        self._rows.append(plain(row))
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
        kinds = {"differs": held_out.differs, "changed": held_out.changed, "open": held_out.in_open}
        result = {
            **self._rows[-1],
            **intervals(seen, held_out, network.codebook_size),
            "ms_per_update": 1000 * self._seconds / max(self._updates, 1),
            "transitions_seen": len(seen["entropy"]),
            **{f"share_{kind}": float(np.mean(where)) for kind, where in kinds.items()},
            "embedding_size": network.embedding_size,
            "codebook_size": network.codebook_size,
        }
        write_json(self._folder / "result.json", result)
