"""The loop of a run: play, look for macros, remember, learn, report; then evaluate."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from smz_jax.acting.evaluate import baseline_row, evaluate, evaluate_baselines, evaluation_row
from smz_jax.config.seeds import FINAL_SEED, INTERIM_SEED
from smz_jax.config.settings import Config, ConfigError
from smz_jax.config.sources import flat_dict
from smz_jax.envs import GameFault
from smz_jax.learning.diagnose import check_row
from smz_jax.macros.precondition.head import model_part
from smz_jax.run.parts import Run
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.storage.checkpoint import CheckpointStore, Damage
from smz_jax.storage.files import write_json
from smz_jax.storage.metrics import METRICS_FILE, MetricsWriter, PhaseTimers, read_metrics
from smz_jax.storage.run_dir import Weights, versions

OnCheck = Callable[[Run], dict[str, float]]
"""What an experiment's own check of the model finds: metrics by their full names."""
OnFinish = Callable[[Run, Path], dict[str, Any]]
"""What an experiment does at the end of a finished run in its folder: entries of summary.json."""
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
    model_check: dict[str, Any]  # of the last parameters, as `Run.check`
    findings: dict[str, Any]  # what the experiment's own `on_finish` gave
    library: dict[str, Any]  # as macros.json
    seconds: dict[str, float]
    env_steps: int
    learner_steps: int


def count_compilation(timers: PhaseTimers) -> None:
    """Books XLA's compile time (also loading from the cache) under its own phase."""

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            timers.add("compilation", duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)


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

    Returns:
        How it ended.

    Raises:
        ConfigError: if something does not fit (memory, an unknown game, no checkpoint).
    """
    start = time.perf_counter()
    timers = PhaseTimers()
    count_compilation(timers)
    with Progress(config.total_env_steps, config.experiment) as progress, StopSignal() as stop:
        progress.status("opening the games and making the networks")
        run, store = Run(config, timers), make_store(config, run_dir)
        before, goes_on = 0.0, resume and store.exists("last")
        if goes_on:
            before, notes = run.restore(store)
            for line in notes:
                progress.message(line)
            store.set_aside("last", run.env_steps)
            progress.message(f"resumed at {run.env_steps:,} environment steps")
        elif resume:
            check_nothing_lost(config, run_dir)
            progress.message("no checkpoint had been written: starting over")
        if weights is not None and not goes_on:
            progress.message(run.load_weights(*weights))
        writer = MetricsWriter(
            run_dir,
            run.env_steps if resume else None,
            end_comes_again=resume and run.env_steps >= config.total_env_steps,
        )
        (run_dir / "summary.json").unlink(missing_ok=True)  # it tells of an end that was none
        baselines = None
        progress.status("compiling search and training step (cached for the next start)")
        fault = None
        while not (stop or fault) and (run.unfinished or run.env_steps < config.total_env_steps):
            try:
                row = run.unfinished or run.iterate()
            except GameFault as error:
                fault = f"{error}; the last good checkpoint is kept"
                break
            fault = run.fault
            row["wall_seconds"] = before + time.perf_counter() - start
            row |= {f"time/{phase}": seconds for phase, seconds in timers.seconds.items()}
            evaluation_due = is_due(config, run.env_steps, config.eval.every_env_steps)
            is_last = run.env_steps >= config.total_env_steps
            save_due = not is_last and is_due(
                config, run.env_steps, config.checkpoint_every_env_steps
            )
            first_updates = row["learner_steps"] == config.updates_per_iteration > 0
            noted = evaluation_due or save_due or first_updates
            if noted and not is_last and not stop:
                row |= check_model(run, on_check)[1]
            if evaluation_due:
                row |= interim_evaluation(run, store, progress, stop)
            if noted and stop:
                run.unfinished = row  # its evaluation is made when the run goes on
                break
            run.unfinished = None
            if run.iteration % config.log_every == 0 or noted:
                writer.write(row)
            progress.update(run.env_steps, row)
            if baselines is None and not stop:  # after the first sign of life, for the user's sake
                baselines = measure_baselines(run, run_dir, writer, progress, stop, resume)
            if save_due:
                writer.flush()
                save(run, store, run_dir, progress, block=False)
        if baselines is None and not stop:  # a finished run, resumed
            baselines = measure_baselines(run, run_dir, writer, progress, stop, resume)
        progress.status("saving a checkpoint")
        writer.flush()
        note_failures(progress, store.wait)
        # What went wrong is kept out of the checkpoints: the last good one stays the newest.
        saved = not fault and save(run, store, run_dir, progress, block=True)
        final, sticky, model, findings = None, None, {}, {}
        if not stop and not fault:
            progress.status("final evaluation: whole games, greedy, unseen seeds")
            model, row = check_model(run, on_check)
            if row:
                writer.write({"env_steps": run.env_steps, **row})
            if not store.exists("best"):
                save_best(run, store, progress)
            try:
                final, sticky = final_evaluation(run, writer, stop)
            except GameFault as error:
                fault = str(error)
            if final is not None and on_finish and not stop:
                with timers("evaluation"):
                    findings = on_finish(run, run_dir)
        writer.close()
        run.close_games()
    timers.add("other", before + time.perf_counter() - start - timers.total)
    return Outcome(
        finished=final is not None and not stop,
        signal_number=stop.number,
        saved=saved,
        fault=fault,
        evaluation=final,
        evaluation_sticky=sticky,
        baselines=baselines,
        model_check=model,
        findings=findings,
        library=run.library(),
        seconds=timers.seconds,
        env_steps=run.env_steps,
        learner_steps=int(run.train_state.step),
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


def make_store(config: Config, run_dir: Path) -> CheckpointStore:
    """The checkpoints of a run; each says what run it is of."""
    about = {"config": flat_dict(config), "versions": versions()}
    return CheckpointStore(
        run_dir,
        about=about,
        keep_every=config.keep_checkpoint_every_env_steps,
        stride=steps_per_iteration(config),
    )


def steps_per_iteration(config: Config) -> int:
    """Environment steps of one iteration."""
    return config.env.num_envs * config.rollout.length


def is_due(config: Config, env_steps: int, every: int) -> bool:
    """Whether the last iteration went past a multiple of `every` environment steps; 0: never.

    A matter of the steps alone, so that a resumed run does the same at the same steps.
    """
    before = env_steps - steps_per_iteration(config)
    return bool(every) and env_steps // every > before // every


def save(
    run: Run, store: CheckpointStore, run_dir: Path, progress: Progress, *, block: bool
) -> bool:
    """Saves a checkpoint; gives whether it could be written, as far as that is known by now.

    A full disk is reported and the training goes on: the former checkpoint is whole.
    """
    note_failures(progress, store.wait)  # of the save before, which goes on beside the training
    return note_failures(progress, lambda: run.save(store, run_dir, block=block))


def note_failures(progress: Progress, write: Callable[[], None]) -> bool:
    """Calls `write`, which saves a checkpoint; reports in a line what kept it from that."""
    try:
        write()
    except (OSError, ValueError, Damage) as error:
        reason = (str(error).splitlines() or [""])[0]
        progress.message(f"a checkpoint could not be written ({reason}); the former one is kept")
        return False
    return True


def measure_baselines(
    run: Run,
    run_dir: Path,
    writer: MetricsWriter,
    progress: Progress,
    stop: StopSignal,
    resume: bool,
) -> dict[str, Any] | None:
    """Random and constant policies, once per run; a resumed one reads what was measured."""
    if not run.config.eval.baselines:
        return None
    path, first = run_dir / "baselines.json", steps_per_iteration(run.config)
    if resume:  # what is damaged is measured again
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            found = json.loads(path.read_text(encoding="utf-8"))
            row = baseline_row(found)
            if not any("baseline/random" in row for row in read_metrics(run_dir / METRICS_FILE)):
                writer.write({"env_steps": first, **row})
            return found
    progress.status("measuring the random and the constant policies")
    with run.timers("evaluation"):
        seed = FINAL_SEED + run.config.seed
        try:
            baselines = evaluate_baselines(
                run.config, run.spec, seed=seed, should_stop=lambda: bool(stop)
            )
        except GameFault as error:
            progress.message(f"no baselines: {error}")
            return {"random": None, "constant": {}}
    if not stop:
        write_json(path, baselines)
        # Of the first iteration, whenever they are measured: a resumed run writes the same row.
        writer.write({"env_steps": first, **baseline_row(baselines)})
    return baselines


def check_model(run: Run, on_check: OnCheck | None) -> tuple[dict[str, Any], dict[str, float]]:
    """The model checked as it is now: what was found, and a metrics row with the hook's findings.

    Both are empty where checks are turned off, or before there is something to learn from.
    """
    if not run.config.eval.check_model:
        return {}, {}
    with run.timers("evaluation"):
        found = run.check()
        own = on_check(run) if found and on_check else {}
        return found, check_row(found) | own


def interim_evaluation(
    run: Run, store: CheckpointStore, progress: Progress, stop: StopSignal
) -> dict[str, Any]:
    """An evaluation during training; keeps the best parameters so far."""
    result = None
    with run.timers("evaluation"):
        try:
            result = evaluate(
                run.agent(run.train_state.params, run.config.seed),
                run.config,
                seed=INTERIM_SEED + run.config.seed,
                num_games=run.config.eval.interim_games,
                should_stop=lambda: bool(stop),
            )
        except GameFault as error:
            progress.message(f"an evaluation is left out: {error}")
    if result is None:
        return {}
    if result["mean"] > run.best:
        run.best = result["mean"]
        save_best(run, store, progress)
    return evaluation_row(result)


def save_best(run: Run, store: CheckpointStore, progress: Progress) -> None:
    """Keeps the parameters as the best so far; a full disk is reported as in `save`."""
    head = model_part(run.train_state.head, run.config.macro)
    state = {"params": run.train_state.params, "head": head}
    with run.timers("checkpoint"):
        note_failures(progress, store.wait)
        note_failures(progress, lambda: store.save("best", run.env_steps, state, run.counters))


def final_evaluation(
    run: Run, writer: MetricsWriter, stop: StopSignal
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The score of the last parameters, and with sticky actions 0.25 where that is asked for."""
    sticky = None
    with run.timers("evaluation"):
        act = run.agent(run.train_state.params, run.config.seed)
        seed = FINAL_SEED + run.config.seed
        final = evaluate(act, run.config, seed=seed, should_stop=lambda: bool(stop))
        if run.config.eval.sticky_column:
            sticky = evaluate(
                act, run.config, seed=seed, sticky_prob=0.25, should_stop=lambda: bool(stop)
            )
    if final is not None:
        writer.write({"env_steps": run.env_steps, **evaluation_row(final)})
    return final, sticky
