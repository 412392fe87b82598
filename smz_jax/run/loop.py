"""The loop of a run: play, look for macros, remember, learn, report; then evaluate."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax.config.settings import Config, ConfigError
from smz_jax.config.sources import flat_dict
from smz_jax.envs import GameFault
from smz_jax.macros.mine.miner import MacroState, mining_row
from smz_jax.macros.precondition.head import Known
from smz_jax.run.events import (
    OnCheck,
    OnFinish,
    Session,
    check_model,
    evaluate_final,
    evaluate_interim,
    keep_best,
    learns,
    make_schedule,
    measure_baselines,
    note_failures,
    save_last,
    steps_per_iteration,
)
from smz_jax.run.parts import Parts, make_parts
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.run.state import RunState, fresh_state, library, load_weights, restore
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.metrics import (
    METRICS_FILE,
    MetricsWriter,
    PhaseTimers,
    RunningScores,
    read_metrics,
)
from smz_jax.storage.run_dir import Weights, versions
from smz_jax.types import MacroStats, Trajectory

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Outcome(NamedTuple):
    """How a run ended."""

    finished: bool
    signal_number: int | None  # what stopped it
    saved: bool  # the last checkpoint could be written
    fault: str | None  # why the run stopped by itself
    evaluation: dict[str, Any] | None
    evaluation_sticky: dict[str, Any] | None
    baselines: dict[str, Any] | None
    model_check: dict[str, Any]  # of the last parameters, as `events.check`
    findings: dict[str, Any]  # what the experiment's own `on_finish` gave
    library: dict[str, Any]  # as macros.json
    seconds: dict[str, float]
    env_steps: int
    learner_steps: int


def train(
    config: Config,
    run_dir: Path,
    *,
    resume: bool = False,
    weights: Weights | None = None,
    on_check: OnCheck | None = None,
    on_finish: OnFinish | None = None,
) -> Outcome:
    """Runs an experiment to its end, or to a signal.

    Args:
        config: the run's settings.
        run_dir: its folder; metrics, macros and checkpoints go there.
        resume: go on from the folder's newest good checkpoint.
        weights: folder, kind and step of a checkpoint whose parameters a run begins with; not read
            where the run goes on from a checkpoint of its own.
        on_check: called at each check of the model; its metrics go into the same row.
        on_finish: called after the final evaluation.

    Raises:
        ConfigError: if something does not fit (memory, an unknown game, no checkpoint).
    """
    timers, start = PhaseTimers(), time.perf_counter()
    count_compilation(timers)
    with Progress(config.total_env_steps, config.experiment) as progress, StopSignal() as stop:
        progress.status("opening the games and making the networks")
        parts, store = make_parts(config, timers), make_store(config, run_dir)
        state = begin(parts, store, run_dir, progress, resume=resume, weights=weights)
        start -= sum((state.counters.seconds or {}).values())  # that the run took before
        writer = open_metrics(parts, state, run_dir, resume=resume)
        session = Session(parts, run_dir, store, writer, progress, stop, on_check, on_finish)
        schedule, baselines, fault = make_schedule(config), None, None
        progress.status("compiling search and training step (cached for the next start)")
        while not (stop or fault) and is_unfinished(parts, state):
            try:
                state, row = take_unfinished(state) or iterate(parts, state)
            except GameFault as error:
                fault = f"{error}; the last good checkpoint is kept"
                break
            fault = skipped_too_many(config, state)
            row["wall_seconds"] = time.perf_counter() - start
            row |= {f"time/{phase}": seconds for phase, seconds in timers.seconds.items()}
            due = schedule.due(row)
            if due.check and not stop:
                row |= check_model(session, state)[1]
            if due.evaluate:
                state, found = evaluate_interim(session, state)
                row |= found
            if due.waits and stop:  # its evaluation is made when the run goes on
                state = with_counters(state, unfinished=row)
                break
            if due.log:
                writer.write(row)
            progress.update(row["env_steps"], row)
            if baselines is None and not stop:  # after the first sign of life, for the user's sake
                baselines = measure_baselines(session, resume=resume)
            if due.save:
                writer.flush()
                save_last(session, state, block=False)
        if baselines is None and not stop:  # a finished run, resumed
            baselines = measure_baselines(session, resume=resume)
        outcome = conclude(session, state, fault)._replace(baselines=baselines)
    timers.add("other", time.perf_counter() - start - timers.total)
    return outcome._replace(seconds=timers.seconds)


def iterate(parts: Parts, state: RunState) -> tuple[RunState, dict[str, Any]]:
    """One rollout, its macros, and the updates that are due; gives a metrics row."""
    counters, timers, start = state.counters, parts.timers, time.perf_counter()
    parts.miner.begin(state.macros, counters.count)
    played = parts.source.next(state.train.params)
    with timers("macros"):
        macros, counts, entropy = parts.miner.end_rollout(played.rows)
        totals = MacroStats(*map(sum, zip(counters.macro_totals, counts, strict=True)))
        found = mining_row(macros.table, totals, parts.config.macro)
    with timers("replay"):
        replay = parts.replay.add_donated(state.replay, played.rows)
    scores = RunningScores(counters.games)
    for score, length in played.games:
        scores.add(score, length)
    env_steps, before = map(parts.env_steps, (parts.source.count, counters.count))
    state = state._replace(replay=replay, macros=macros)
    state = with_counters(
        state,
        count=parts.source.count,
        iteration=counters.iteration + 1,
        games=scores.games,
        restarts=counters.restarts + played.restarts,
        macro_totals=totals,
    )
    learned: dict[str, Any] = {}
    if learns(parts.config, env_steps):
        with timers("learning"):
            state, learned = learn(parts, state)
        with timers("macros"):
            state = settle_macros(parts, state)
    return state, {
        "iteration": state.counters.iteration,
        "env_steps": env_steps,
        "env_frames": env_steps * parts.spec.frames_per_step,
        "learner_steps": int(state.train.step),
        "speed/env_steps_per_second": (env_steps - before) / (time.perf_counter() - start),
        "rollout/restarts": state.counters.restarts,
        **scores.row(),
        **searched(played.rows),
        **{name: int(count) for name, count in jax.device_get(played.metrics).items()},
        **found,
        "search/tree_entropy": entropy,
        **learned,
    }


def learn(parts: Parts, state: RunState) -> tuple[RunState, dict[str, float]]:
    """The updates of one iteration; their metrics, averaged."""
    config, known = parts.config, known_macros(state.macros)
    train_state, replay, several = state.train, state.replay, []
    for _ in range(config.updates_per_iteration // config.learner.updates_per_dispatch):
        train_state, replay, metrics = parts.train_step(train_state, replay, known)
        several.append(metrics)
    rows = jax.device_get(several)
    skipped = state.counters.skipped
    skipped += int(sum(np.sum(row.pop("learner/skipped")) for row in rows))
    averaged = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    state = with_counters(state._replace(train=train_state, replay=replay), skipped=skipped)
    return state, {**averaged, "learner/skipped": skipped}


def known_macros(macros: MacroState) -> Known:
    """What the training step counts evidence of."""
    return Known(macros.table.actions, macros.buckets)


def settle_macros(parts: Parts, state: RunState) -> RunState:
    """What the updates showed of the macros goes into the table; stays on the device."""
    head, table = parts.settle(state.train.head, state.macros.table)
    return state._replace(
        train=state.train._replace(head=head), macros=state.macros._replace(table=table)
    )


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


def with_counters(state: RunState, **changed: Any) -> RunState:
    """The state with other counters."""
    return state._replace(counters=state.counters._replace(**changed))


def take_unfinished(state: RunState) -> tuple[RunState, dict[str, Any]] | None:
    """The row of an iteration that a signal left without its checks; None: there is none."""
    row = state.counters.unfinished
    return (with_counters(state, unfinished=None), dict(row)) if row else None


def is_unfinished(parts: Parts, state: RunState) -> bool:
    """Whether there is an iteration to make, or to end."""
    at = parts.env_steps(state.counters.count)
    return bool(state.counters.unfinished) or at < parts.config.total_env_steps


def skipped_too_many(config: Config, state: RunState) -> str | None:
    """Why the run must not go on, in one line; None: it may."""
    skipped, most = state.counters.skipped, config.learner.max_skipped
    if skipped <= most:
        return None
    return (
        f"{skipped} updates were skipped because their loss or gradient was not finite "
        f"(learner.max_skipped = {most}); the last good checkpoint is kept"
    )


def begin(
    parts: Parts,
    store: CheckpointStore,
    run_dir: Path,
    progress: Progress,
    *,
    resume: bool,
    weights: Weights | None,
) -> RunState:
    """The state that a run begins or goes on with; see `train`."""
    if resume and store.exists("last"):
        state, notes = restore(parts, store)
        env_steps = parts.env_steps(state.counters.count)
        store.set_aside("last", env_steps)
        for line in [*notes, f"resumed at {env_steps:,} environment steps"]:
            progress.message(line)
        return state
    if resume:
        check_nothing_lost(parts.config, run_dir)
        progress.message("no checkpoint had been written: starting over")
    state = fresh_state(parts)
    if weights is not None:
        state, line = load_weights(parts, state, *weights)
        progress.message(line)
    return state


def open_metrics(parts: Parts, state: RunState, run_dir: Path, *, resume: bool) -> MetricsWriter:
    """The run's metrics, cut to where it stands; a summary tells of an end that was none."""
    at = parts.env_steps(state.counters.count)
    ended = resume and at >= parts.config.total_env_steps
    writer = MetricsWriter(run_dir, at if resume else None, end_comes_again=ended)
    (run_dir / "summary.json").unlink(missing_ok=True)
    return writer


def conclude(session: Session, state: RunState, fault: str | None) -> Outcome:
    """Saves, and evaluates a run that came to its end; seconds are still to come."""
    parts, writer, stop = session.parts, session.writer, session.stop
    env_steps = parts.env_steps(state.counters.count)
    session.progress.status("saving a checkpoint")
    writer.flush()
    note_failures(session, session.store.wait)
    # What went wrong is kept out of the checkpoints: the last good one stays the newest.
    saved = not fault and save_last(session, state, block=True)
    final, sticky, model, findings = None, None, {}, {}
    if not stop and not fault:
        session.progress.status("final evaluation: whole games, greedy, unseen seeds")
        model, row = check_model(session, state)
        if row:
            writer.write({"env_steps": env_steps, **row})
        if not session.store.exists("best"):
            keep_best(session, state)
        try:
            final, sticky = evaluate_final(session, state)
        except GameFault as error:
            fault = str(error)
        if final is not None and session.on_finish and not stop:
            with parts.timers("evaluation"):
                findings = session.on_finish(parts, state, session.run_dir)
    writer.close()
    parts.source.close()
    return Outcome(
        finished=final is not None and not stop,
        signal_number=stop.number,
        saved=saved,
        fault=fault,
        evaluation=final,
        evaluation_sticky=sticky,
        baselines=None,
        model_check=model,
        findings=findings,
        library=library(parts, state),
        seconds={},
        env_steps=env_steps,
        learner_steps=int(state.train.step),
    )


def count_compilation(timers: PhaseTimers) -> None:
    """Books XLA's compile time (also loading from the cache) under its own phase."""

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            timers.add("compilation", duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)


def make_store(config: Config, run_dir: Path) -> CheckpointStore:
    """The checkpoints of a run; each says what run it is of."""
    about = {"config": flat_dict(config), "versions": versions()}
    return CheckpointStore(
        run_dir,
        about=about,
        keep_every=config.keep_checkpoint_every_env_steps,
        stride=steps_per_iteration(config),
    )


def check_nothing_lost(config: Config, run_dir: Path) -> None:
    """Raises ConfigError where a run to go on with has no checkpoint but must have had one."""
    path = run_dir / METRICS_FILE
    rows = read_metrics(path) if path.exists() else []
    reached = max((row.get("env_steps") or 0 for row in rows), default=0)
    # A save goes on beside the training: the first may not have been complete before the second.
    if reached > 2 * (config.checkpoint_every_env_steps + steps_per_iteration(config)):
        raise ConfigError(
            f"no checkpoint is left in {str(run_dir / 'checkpoints')!r}, though the run came to "
            f"{reached:,} steps: start a new run, or delete {path.name} to start over"
        )
