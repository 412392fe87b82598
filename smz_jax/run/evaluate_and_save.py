"""What happens beside playing and learning: checks, evaluations, baselines, saves; and when."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from smz_jax.acting.agent import Agent
from smz_jax.acting.evaluate import baseline_row, evaluate, evaluate_baselines, evaluation_row
from smz_jax.config.check import ConfigError
from smz_jax.config.seeds import CHECK_KEY, FINAL_SEED, FORESIGHT_KEY, INTERIM_SEED
from smz_jax.config.settings import Config
from smz_jax.envs import GameFault, OpponentFault
from smz_jax.learning.diagnose import calibration, check_row
from smz_jax.learning.learner import acting_params
from smz_jax.macros.precondition.quality import quality
from smz_jax.model.lanes import brought_home
from smz_jax.report.text import cut_line
from smz_jax.run.parts import Parts
from smz_jax.run.processes import alone, cpu_seconds
from smz_jax.run.progress import Progress
from smz_jax.run.signals import StopSignal
from smz_jax.run.state import RunState, save, save_best
from smz_jax.storage.checkpoint import CheckpointStore, Damage
from smz_jax.storage.documents.results_json import BASELINES
from smz_jax.storage.files import by_descriptor, write_json
from smz_jax.storage.metrics import METRICS_FILE, MetricsWriter, read_metrics

T = TypeVar("T")

GREEDY_GAMES = 32
"""At most so many beside an evaluation with noise."""
OnCheck = Callable[[Parts, RunState], dict[str, float]]
"""What an experiment's own check of the model finds: metrics by their full names."""
OnFinish = Callable[[Parts, RunState, Path], dict[str, Any]]
"""What an experiment does at the end of a finished run in its folder: entries of summary.json."""


class Due(NamedTuple):
    """What an iteration is followed by."""

    check: bool  # the model, in the iteration's row
    evaluate: bool
    save: bool
    log: bool
    waits: bool  # a signal that comes meanwhile leaves the row to the resumed run


def find_due(config: Config, row: Mapping[str, Any]) -> Due:
    """What is due after the iteration that a row of metrics is of.

    That is at the first iteration that reaches a multiple of so many environment steps (0: never):
    a matter of the steps alone, so that a resumed run does the same at the same steps.
    """
    now, stride = row["env_steps"], config.iteration_steps

    def reached(every: int) -> bool:
        return bool(every) and now // every > (now - stride) // every

    is_last = now >= config.total_env_steps
    evaluate_now = reached(config.eval.every_env_steps)
    save_now = not is_last and reached(config.checkpoint_every_env_steps)
    waits = evaluate_now or save_now or row["learner_steps"] == config.updates_per_iteration > 0
    log = row["iteration"] % config.log_every == 0 or waits
    return Due(waits and not is_last, evaluate_now, save_now, log, waits)


class FinalScores(NamedTuple):
    """Statistics of the last parameters, as `evaluate` gives them; None: not played."""

    evaluation: dict[str, Any] | None = None  # with the noise of `eval.noise`
    evaluation_greedy: dict[str, Any] | None = None  # only where that is above 0
    evaluation_sticky: dict[str, Any] | None = None  # with sticky actions 0.25 and `eval.noise`
    opponent_fault: str | None = None  # of `eval.opponent`, in a line; what is above may be None


class Session(NamedTuple):
    """What checks, evaluations and saves write to, and who may stop them."""

    parts: Parts
    run_dir: Path
    store: CheckpointStore
    writer: MetricsWriter
    progress: Progress
    stop: StopSignal
    folder: int  # descriptor of `run_dir`, which may get another name while the run goes
    on_check: OnCheck | None = None
    on_finish: OnFinish | None = None

    @property
    def place(self) -> Path:
        """A path to the folder, whatever its name is now."""
        return by_descriptor(self.folder, self.run_dir)

    def follow(self) -> "Session":
        """The session with its folder where that is now."""
        now = self.place.resolve()
        if not now.is_dir() or now == self.store.run_dir.resolve():
            return self
        self.progress.message(f"the run's folder is {now} from here on")
        self.store.move(now)
        return self._replace(run_dir=now)

    def lost(self) -> str | None:
        """Why there is nothing left to write to, in one line; None: the folder is there."""
        now = self.place.resolve()  # as Linux names it
        is_deleted = not now.is_dir() and now.name.endswith(" (deleted)")
        return f"{self.run_dir} was deleted while the run went on" if is_deleted else None

    def stopped(self) -> bool:
        """Whether a signal came."""
        return self.stop.number is not None


def check(parts: Parts, state: RunState) -> dict[str, np.ndarray]:
    """Checks the model on one replayed batch; changes nothing.

    Returns:
        As `make_check` gives it; empty before there is something to learn from.
    """
    config, counters = parts.config, state.counters
    if not learns(config, parts.steps(counters.iteration)):
        return {}
    key = jax.random.fold_in(jax.random.key(config.seed), CHECK_KEY)
    key = jax.random.fold_in(key, counters.iteration)
    found = jax.device_get(brought_home(parts.check(state.train, state.replay, key)))
    head = state.train.head
    if head is not None and config.macro.head_learning_rate > 0:
        known = jax.device_get(quality(head.slots, head.tally))
        found |= {f"precondition/{k}": x for k, x in known.items() if np.isfinite(x)}
    return found


def foresight(parts: Parts, state: RunState) -> dict[str, float]:
    """Metrics of what model and jump foresee of replayed windows, as their checks give it."""
    key = jax.random.fold_in(jax.random.key(parts.config.seed), FORESIGHT_KEY)
    key = jax.random.fold_in(key, state.counters.iteration)
    params = acting_params(state.train, parts.config)
    found = brought_home(parts.foresight(params, state.replay, key))
    row = check_row(jax.device_get(found), "foresight")
    if parts.jump_check:
        found = brought_home(parts.jump_check(params, state.replay, jax.random.fold_in(key, 1)))
        row |= check_row(jax.device_get(found), "jump")
    return row


def learns(config: Config, env_steps: int) -> bool:
    """Whether the replay holds enough to learn from."""
    is_filled = config.dataset is not None or env_steps >= config.replay.min_size
    return is_filled and config.updates_per_iteration > 0


def check_model(session: Session, state: RunState) -> tuple[dict[str, Any], dict[str, float]]:
    """The model checked as it is now: what was found, and a metrics row with the hook's findings.

    Both are empty where checks are turned off, or before there is something to learn from.
    """
    parts, on_check = session.parts, session.on_check
    if not parts.config.eval.check_model:
        return {}, {}
    with parts.timers("evaluation"):
        found = check(parts, state)
        own = by_hook(lambda known: on_check(parts, known), state) if found and on_check else {}
        row = check_row(found) | own
        if found:
            values = calibration(state.replay, parts.config.learner.gamma)
            row |= check_row(values, "calibration") | foresight(parts, state)
        return found, row


def report_cuts(session: Session, row: Mapping[str, Any]) -> None:
    """Says, once for rewards and once for values, that an iteration's targets were cut."""
    network = session.parts.config.network
    for name, support in (("reward", network.reward_support), ("value", network.value_support)):
        if share := row.get(f"learner/{name}s_cut"):
            reach = row[f"learner/{name}_reach"]
            line = cut_line(name, share=share, reach=reach, support=support)
            session.progress.message(line, topic=f"{name}s cut")


def make_player(session: Session, state: RunState, noise: float, seed: int) -> Agent:
    """The agent as it is now.

    Its noise follows from the seed of the games too: what chose a checkpoint does not score it.
    """
    parts = session.parts
    own = parts.config.seed
    params = brought_home(acting_params(state.train, parts.config))
    return parts.agent(params, own + seed if noise else own, noise=noise)


def by_hook(hook: Callable[[RunState], T], state: RunState) -> T:
    """What an experiment's own hook makes of a state, in one process that has all of it."""
    arrays = brought_home((state.train, state.replay, state.macros))
    known = state._replace(**dict(zip(("train", "replay", "macros"), arrays, strict=True)))
    return alone(lambda: hook(known))


def evaluate_interim(session: Session, state: RunState) -> tuple[RunState, dict[str, Any]]:
    """An evaluation during training; keeps the best parameters so far."""
    parts, config, result = session.parts, session.parts.config, None
    with parts.timers("evaluation"):
        act = make_player(session, state, config.eval.noise, INTERIM_SEED)
        seed, games = INTERIM_SEED + config.seed, config.eval.interim_games
        options: Any = {"seed": seed, "num_games": games, "should_stop": session.stopped}
        try:
            result = alone(lambda: evaluate(act, config, **options))
        except GameFault as error:
            session.progress.message(f"an evaluation is left out: {error}")
    if result is None:
        return state, {}
    best = state.counters.best
    if best is None or result["mean"] > best:
        state = state._replace(counters=state.counters._replace(best=result["mean"]))
        keep_best(session, state)
    return state, evaluation_row(result)


def evaluate_final(session: Session, state: RunState) -> FinalScores:
    """The score of the last parameters, with the columns beside it that are set.

    Where the opponent cannot play on, what is not played by then is left out.
    """
    parts, config = session.parts, session.parts.config
    noise, final, greedy, sticky, fault = config.eval.noise, None, None, None, None
    trained = {"cpu_seconds": cpu_seconds(parts.timers)}  # without this evaluation
    options: Any = {"seed": FINAL_SEED + config.seed, "should_stop": session.stopped}
    with parts.timers("evaluation"):
        try:
            act = make_player(session, state, noise, FINAL_SEED)
            final = alone(lambda: evaluate(act, config, **options))
            if noise > 0:
                games = min(GREEDY_GAMES, config.eval.num_games)
                act_greedily = make_player(session, state, 0.0, FINAL_SEED)
                fewer = {"num_games": games, **options}
                greedy = alone(lambda: evaluate(act_greedily, config, **fewer))
            if config.eval.sticky_column:
                sticky = alone(lambda: evaluate(act, config, sticky_prob=0.25, **options))
        except OpponentFault as error:
            fault = f"a score against {config.eval.opponent} is left out: {error}"
    if final is not None:
        env_steps = parts.steps(state.counters.iteration)
        session.writer.write({"env_steps": env_steps, **trained, **evaluation_row(final)})
    return FinalScores(final, greedy, sticky, fault)


def measure_baselines(session: Session, *, resume: bool) -> dict[str, Any] | None:
    """Random and constant policies, once per run; a resumed one reads what was measured."""
    config, writer = session.parts.config, session.writer
    if not config.eval.baselines:
        return None
    first = config.iteration_steps
    if resume:  # what is damaged is measured again
        with contextlib.suppress(ConfigError):
            found = BASELINES.read(session.run_dir)
            rows = read_metrics(session.run_dir / METRICS_FILE)
            if not any("baseline/random" in row for row in rows):
                writer.write({"env_steps": first, **baseline_row(found)})
            return found
    session.progress.status("measuring the random and the constant policies")
    with session.parts.timers("evaluation"):
        try:
            baselines = evaluate_baselines(
                config,
                session.parts.spec,
                seed=FINAL_SEED + config.seed,
                should_stop=session.stopped,
            )
        except GameFault as error:
            session.progress.message(f"no baselines: {error}")
            return {"random": None, "constant": {}}
    if not session.stopped() and not session.lost():
        write_json(session.place / BASELINES.file, baselines)
        # Of the first iteration, whenever they are measured: a resumed run writes the same row.
        writer.write({"env_steps": first, **baseline_row(baselines)})
    return baselines


def save_last(session: Session, state: RunState, *, block: bool) -> bool:
    """Saves a checkpoint; gives whether it could be written, as far as that is known by now.

    A full disk is reported and the training continues: the former checkpoint is whole.
    """
    parts, store = session.parts, session.store
    note_failures(session, store.wait)  # of the save before, which continues beside the training
    return note_failures(session, lambda: save(parts, state, store, session.place, block=block))


def keep_best(session: Session, state: RunState) -> None:
    """Keeps the parameters as the best so far; a full disk is reported as in `save_last`."""
    with session.parts.timers("checkpoint"):
        note_failures(session, session.store.wait)
        note_failures(session, lambda: save_best(session.parts, state, session.store))


def note_failures(session: Session, write: Callable[[], None]) -> bool:
    """Calls `write`, which saves a checkpoint; reports in a line what kept it from that."""
    try:
        write()
    except (OSError, ValueError, Damage) as error:
        reason = (str(error).splitlines() or [""])[0]
        line = f"a checkpoint could not be written ({reason}); the former one is kept"
        session.progress.message(line)
        return False
    return True
