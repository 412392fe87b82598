"""The loop of a run: play, look for macros, remember, learn, report; then evaluate."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config
from smz_jax.envs import GameFault
from smz_jax.learning.learner import acting_params
from smz_jax.learning.update_metrics import over_updates
from smz_jax.macros.mine.keys import why_no_macros
from smz_jax.macros.mine.miner import mining_row
from smz_jax.macros.precondition.updates import Known
from smz_jax.model.lanes import brought_home
from smz_jax.run.devices import count_compilation
from smz_jax.run.ending import Outcome, conclude
from smz_jax.run.evaluate_and_save import (
    OnCheck,
    OnFinish,
    Session,
    check_model,
    evaluate_interim,
    find_due,
    learns,
    measure_baselines,
    report_cuts,
    save_last,
)
from smz_jax.run.parts import Parts, make_parts
from smz_jax.run.processes import AgreedStop, alone, cpu_seconds, gather
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.run.state import RunState, begin, check_unused, make_store, open_metrics
from smz_jax.storage.files import opened
from smz_jax.storage.metrics import PhaseTimers, newest_games, score_row
from smz_jax.storage.run_dir import Weights
from smz_jax.types import Experience, MacroStats, Trajectory


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
            where the run continues from a checkpoint of its own.
        on_check: called at each check of the model; its metrics go into the same row.
        on_finish: called after the final evaluation.

    Raises:
        ConfigError: if something does not fit (memory, an unknown game, no checkpoint).
    """
    timers, start, run_dir = PhaseTimers(), time.perf_counter(), Path(run_dir)
    if not resume:
        alone(lambda: check_unused(run_dir))
    run_dir.mkdir(parents=True, exist_ok=True)
    count_compilation(timers)
    with (
        Progress(config.total_env_steps, config.experiment, unit=config.unit) as progress,
        AgreedStop(progress.stopping) as stop,
        opened(run_dir) as folder,
    ):
        progress.status("opening the games and making the networks")
        parts, store = make_parts(config, timers), make_store(config, run_dir)
        tell_limits(parts, progress, stop)
        state = begin(parts, store, run_dir, progress, resume=resume, weights=weights)
        start -= sum((state.counters.seconds or {}).values())  # that the run took before
        writer = open_metrics(parts, state, run_dir, resume=resume)
        hooks = {"on_check": on_check, "on_finish": on_finish}
        session = Session(parts, run_dir, store, writer, progress, stop, folder, **hooks)
        baselines, fault = None, None
        progress.status("compiling search and training step (cached for the next start)")
        while not (stop or fault) and is_unfinished(parts, state):
            try:
                state, row = take_unfinished(state) or iterate(parts, state)
            except GameFault as error:
                fault = str(error)
                break
            fault = skipped_too_many(config, state)
            report_cuts(session, row)
            row["wall_seconds"] = time.perf_counter() - start
            row["cpu_seconds"] = cpu_seconds(timers)
            row |= {f"time/{phase}": seconds for phase, seconds in timers.seconds.items()}
            due = find_due(config, row)
            if due.check and not stop:
                row |= check_model(session, state)[1]
            if due.evaluate:
                state, found = evaluate_interim(session, state)
                row |= found
            if due.waits and stop:  # its evaluation is made when the run continues
                state = with_counters(state, unfinished=row)
                break
            if due.log:
                writer.write(row)
            progress.update(row["env_steps"], row)
            if baselines is None and not stop:  # after the first sign of life, for the user's sake
                baselines = alone(partial(measure_baselines, session, resume=resume))
            session = session.follow()
            if alone(session.lost):
                break
            if due.save:
                writer.flush()
                save_last(session, state, block=False)
        if baselines is None and not stop:  # a finished run, resumed
            baselines = alone(partial(measure_baselines, session, resume=resume))
        session = session.follow()
        outcome = conclude(session, state, fault or alone(session.lost))
    timers.add("other", time.perf_counter() - start - timers.total)
    return outcome._replace(seconds=timers.seconds, baselines=baselines)


def tell_limits(parts: Parts, progress: Progress, stop: StopSignal) -> None:
    """Says what this run cannot do, in a line each."""
    if not stop.is_handling:
        progress.message("not in the main thread: Ctrl-C and SIGTERM do not save this run")
    for line in getattr(parts.source, "notes", ()):
        progress.message(f"dataset: {line}")
    if parts.demonstrations:
        progress.message(f"demonstrations: {parts.demonstrations.note}")
    if parts.transfer:
        progress.message(f"macros: {parts.transfer.note}")
    space, wanted = parts.spec.action_space, parts.config.search.sampled_actions
    if why := why_no_macros(space):
        progress.message(f"no macros: {why}")
    if wanted is not None and wanted > space.size:
        progress.message(
            f"search.sampled_actions = {wanted}: all {space.size} actions are searched"
        )


def iterate(parts: Parts, state: RunState) -> tuple[RunState, dict[str, Any]]:
    """One rollout, its macros, and the updates that are due; gives a metrics row."""
    counters, timers, start = state.counters, parts.timers, time.perf_counter()
    parts.miner.begin(state.macros, counters.iteration * parts.config.rollout.length)
    params = acting_params(state.train, parts.config)
    played = together(lambda: parts.source.next(params, state.train.step, state.replay))
    with timers("macros"):
        macros, counts, entropy = parts.miner.end_rollout(played.rows, played.follows)
        totals = MacroStats(*map(sum, zip(counters.macro_totals, counts, strict=True)))
        found = mining_row(macros.table, totals, parts.config.macro)
    env_steps, before = map(parts.steps, (counters.iteration + 1, counters.iteration))
    state = state._replace(replay=played.replay, macros=macros)
    state = with_counters(
        state,
        count=parts.source.count,
        iteration=counters.iteration + 1,
        games=newest_games(counters.games, played.games),
        restarts=counters.restarts + played.restarts,
        macro_totals=totals,
    )
    learned: dict[str, Any] = {}
    if learns(parts.config, env_steps):
        with timers("reanalyse"):
            state, reanalysed = reanalyse(parts, state)
        with timers("learning"):
            state, learned = learn(parts, state)
        learned |= reanalysed
        if state.train.head is not None:
            with timers("macros"):  # what the updates showed of them goes into the table
                head, table = parts.settle(state.train.head, macros.table)
                train, macros = state.train._replace(head=head), macros._replace(table=table)
                state = state._replace(train=train, macros=macros)
    return state, {
        "iteration": state.counters.iteration,
        "env_steps": env_steps,
        "env_frames": env_steps * parts.config.frames_per_step,
        "learner_steps": int(state.train.step),
        "speed/env_steps_per_second": (env_steps - before) / (time.perf_counter() - start),
        "rollout/restarts": state.counters.restarts,
        **score_row(state.counters.games),
        **searched(played.rows),
        **{name: np.asarray(x).item() for name, x in jax.device_get(played.metrics).items()},
        **found,
        **(parts.transfer.row(macros.table) if parts.transfer else {}),
        "search/tree_entropy": entropy,
        **learned,
    }


def together(play: Callable[[], Experience]) -> Experience:
    """A rollout with the games of all processes.

    Raises:
        GameFault: in one line, if there can be no more; of several processes in all of them, if the
            games of one had to be opened anew: it is not where the others are.
        ConfigError: in the process of several whose games fail: it cannot go on with the others.
    """
    try:
        played = play()
    except GameFault as error:
        if jax.process_count() == 1:
            raise
        kept = "the last good checkpoint is kept"
        raise ConfigError(f"process {jax.process_index()}: {error}; {kept}") from error
    found = gather((played.games, played.restarts))
    for index, (_, restarts) in enumerate(found):
        if restarts and len(found) > 1:
            raise GameFault(f"the games of process {index} failed")
    return played._replace(games=[game for games, _ in found for game in games])


def reanalyse(parts: Parts, state: RunState) -> tuple[RunState, dict[str, float]]:
    """Stored targets searched anew; how many, how they changed, and how old all of them are."""
    at = state.counters
    replay, cursor, metrics, _ = parts.reanalyse(
        acting_params(state.train, parts.config),
        state.replay,
        cursor=at.cursor,
        count=at.count,
        iteration=at.iteration,
        step=state.train.step,
    )
    state = with_counters(state._replace(replay=replay), cursor=cursor)
    if parts.demonstrations:
        shown = parts.demonstrations.reanalyse(
            acting_params(state.train, parts.config),
            state.shown,
            cursor=at.shown_cursor,
            iteration=at.iteration,
            step=state.train.step,
        )
        metrics |= shown.metrics
        state = with_counters(state._replace(shown=shown.replay), shown_cursor=shown.cursor)
    return state, metrics


def learn(parts: Parts, state: RunState) -> tuple[RunState, dict[str, float]]:
    """The updates of one iteration; their metrics, averaged."""
    config, (table, buckets, _) = parts.config, state.macros
    known = Known(table.actions, table.play_count, buckets)
    train_state, replay, several = state.train, state.replay, []
    first = int(train_state.step)
    for number in range(0, config.updates_per_iteration, config.learner.updates_per_dispatch):
        train_state, replay, metrics = parts.train_step(
            train_state, replay, known, first + number, state.shown
        )
        several.append(metrics)
    rows = jax.device_get(several)
    skipped = state.counters.skipped
    skipped += int(sum(np.sum(row.pop("learner/skipped")) for row in rows))
    names = dict.fromkeys(name for row in rows for name in row)  # a jump is not learned in each
    by_name = {name: [row[name] for row in rows if name in row] for name in names}
    averaged = {name: float(x) for name, x in over_updates(by_name, np).items()}
    state = with_counters(state._replace(train=train_state, replay=replay), skipped=skipped)
    return state, {**averaged, "learner/skipped": skipped}


def searched(rows: Trajectory) -> dict[str, float]:
    """What the rollout's searches say, averaged over it."""
    fields = rows.transition_entropy, rows.search_value, rows.action_weights, rows.reward
    entropy, value, weights, reward = jax.device_get(brought_home(fields))
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
    at = parts.steps(state.counters.iteration)
    return bool(state.counters.unfinished) or at < parts.config.total_env_steps


def skipped_too_many(config: Config, state: RunState) -> str | None:
    """Why the run must not go on, in one line; None: it may."""
    skipped, most = state.counters.skipped, config.learner.max_skipped
    if skipped <= most:
        return None
    return (
        f"{skipped} updates were skipped because their loss or gradient was not finite "
        f"(learner.max_skipped = {most})"
    )
