"""What a run carries from one iteration to the next: where it begins, and what a save holds."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.config.sources import flat_dict
from smz_jax.learning.learner import acting_params
from smz_jax.macros.library.summary import summarise
from smz_jax.macros.mine.miner import MacroState
from smz_jax.macros.precondition.quality import slot_entries
from smz_jax.macros.precondition.updates import model_part
from smz_jax.model import lanes
from smz_jax.model.lanes import LANES, brought_home
from smz_jax.run.demonstrations import held, with_held
from smz_jax.run.parts import Parts, laid
from smz_jax.run.processes import alone, beside, cpu_seconds, gather, is_first
from smz_jax.run.progress import Progress
from smz_jax.run.weights import differing, load_weights
from smz_jax.storage.checkpoint import CheckpointStore, SavedRows, take_rows
from smz_jax.storage.documents.macro_form import write_macros_json
from smz_jax.storage.files import plain
from smz_jax.storage.metrics import (
    METRICS_FILE,
    MetricsWriter,
    NoMetrics,
    newest_games,
    read_metrics,
)
from smz_jax.storage.run_dir import MAY_DIFFER, Weights, versions
from smz_jax.types import TARGETS, MacroStats, TrainState, Trajectory


class Counters(NamedTuple):
    """The host's numbers; JSON of the same names in a checkpoint."""

    count: int = 0  # steps of every lane; of a dataset, its rows
    iteration: int = 0
    cursor: int = 0  # the row whose targets are reanalysed next, in steps of every lane
    shown_cursor: int = 0  # likewise of the demonstrations
    shown_sum: str | None = None  # SHA-256 of their dataset; None: not known, or there are none
    best: float | None = None  # mean score of the best evaluation so far
    games: list[tuple[float, int]] | tuple[()] = ()  # score and length of the newest ones
    skipped: int = 0  # updates whose loss or gradient was not finite
    restarts: int = 0  # how often games that failed were opened anew
    unfinished: dict[str, Any] | None = None  # row of an iteration that waits for its checks
    macro_totals: MacroStats = MacroStats(*([0] * len(MacroStats._fields)))
    seconds: dict[str, float] | None = None  # of each phase, until the save
    cpu_seconds: float | None = None  # until the save; None: not known

    @staticmethod
    def from_json(extra: dict[str, Any]) -> "Counters":
        """As saved; raises LookupError, TypeError or AttributeError where they were forged."""
        extra = {"cpu_seconds": None, "shown_cursor": 0, "shown_sum": None, **extra}  # of 2026
        found = Counters(**{name: extra[name] for name in Counters._fields})
        totals = MacroStats(*extra["macro_totals"])
        games = newest_games(extra["games"])
        seconds = dict(extra["seconds"].items())
        cpu = None if extra["cpu_seconds"] is None else extra["cpu_seconds"] + 0.0
        return found._replace(macro_totals=totals, games=games, seconds=seconds, cpu_seconds=cpu)


class RunState(NamedTuple):
    """All that a run continues with; the learner's step and the replay's `add` consume theirs."""

    train: TrainState
    replay: Any
    macros: MacroState
    games: Any  # where the source stands, as at the last save
    counters: Counters
    shown: Any = None  # the demonstrations' ring, whose rows stay as they are; None: there are none

    @property
    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds beside the replay's rows and the counters."""
        beside = {} if self.shown is None else {"shown": held(self.shown)}
        return beside | {
            "train": self.train,
            # Its rows are saved apart, in files written once, but for what a reanalysis changes.
            "replay": self.replay.replace(experience=None),
            "targets": {name: getattr(self.replay.experience, name) for name in TARGETS},
            "macros": self.macros,
            "games": self.games,
        }


def played_part(rows: Trajectory) -> Trajectory:
    """The fields that never change once they were played; the others are None."""
    return rows._replace(**dict.fromkeys(TARGETS))


def make_store(config: Config, run_dir: Path) -> CheckpointStore:
    """The checkpoints of a run; each says what run it is of."""
    about = {"config": flat_dict(config), "versions": versions()}
    return CheckpointStore(
        run_dir,
        about=about,
        keep_every=config.keep_checkpoint_every_env_steps,
        stride=config.iteration_steps,
    )


def fresh_state(parts: Parts) -> RunState:
    """The state of a run that begins."""
    train, replay, macros = parts.init()
    if parts.transfer:
        train, macros = parts.transfer.begin(train, macros)
    replay = parts.source.begin(replay)
    given = parts.demonstrations
    counters = Counters(count=parts.source.count, shown_sum=given and given.sum)
    shown = given and given.begin()
    return RunState(train, replay, macros, parts.source.games, counters, shown)


def abstract_state(parts: Parts) -> RunState:
    """The same in shapes and types; nothing is allocated, but what the source holds on the host.

    Of several processes the rows of the replay lie with those who play them.
    """
    train, replay, macros = jax.eval_shape(parts.init)
    if parts.mesh.is_multi_process:
        cut = NamedSharding(parts.mesh, LANES)
        rows = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut), replay.experience
        )
        replay = replay.replace(experience=rows)
    shown = parts.demonstrations and parts.demonstrations.shapes
    return RunState(train, replay, macros, parts.source.games, Counters(), shown)


def placed(parts: Parts, state: RunState) -> RunState:
    """The state with every array where it lies on the run's devices."""
    if parts.mesh.size == 1:
        return state
    arrays = state.train, state.replay, state.macros
    train, replay, macros = lanes.placed(arrays, laid(parts.mesh, *arrays), parts.mesh)
    return state._replace(train=train, replay=replay, macros=macros)


def library(parts: Parts, state: RunState) -> dict[str, Any]:
    """The macros found so far, as macros.json holds them."""
    head, config = state.train.head, parts.config.macro
    slots = None
    if head is not None and config.head_learning_rate > 0:
        slots = slot_entries(head.slots, head.tally)
    document = summarise(
        jax.device_get(state.macros.table),
        state.counters.macro_totals,
        config,
        parts.spec.action_names,
        slots,
        played="dataset" if parts.config.dataset else "play",
    )
    if parts.transfer:
        parts.transfer.mark(document)
    return document


def save(
    parts: Parts, state: RunState, store: CheckpointStore, run_dir: Path, *, block: bool = True
) -> None:
    """Saves everything that the run needs to go on, and the macro library.

    The source of the parts stands where the state does. `block` waits for the disk; else what is
    still to do continues beside the training.

    Raises:
        OSError, ValueError: if this save or the one before it could not be written.
    """
    with parts.timers("checkpoint"):
        store.wait()
        count = state.counters.count
        step = parts.steps(state.counters.iteration)
        state = state._replace(games=parts.source.games)
        mesh, among = parts.mesh, beside()
        processes = {"parts": lanes.count_processes(mesh), "part": jax.process_index()}
        former = store.saved_rows(step, processes["parts"]) if is_first() else None
        told: dict[str, Any] = alone(
            lambda: {"turn": store.turn, "rows": former and former.as_json()}
        )
        former = SavedRows.from_json(told["rows"]) if told["rows"] else None
        rows = played_part(state.replay.experience)
        chunks = take_rows(rows, count, former, partial(lanes.to_own, mesh=mesh), **processes)
        arrays, counters = brought_home(state.arrays), _counters_json(parts, state)
        if is_first():
            store.save("last", step, arrays, counters, chunks, block=block, among=among)
            write_macros_json(run_dir, library(parts, state))
        else:
            store.save_part(told["turn"], chunks, among, block=block)


def save_best(parts: Parts, state: RunState, store: CheckpointStore) -> None:
    """Saves the parameters as the best so far, with what is known of preconditions."""
    train, counters = brought_home(state.train), _counters_json(parts, state)
    params = acting_params(train, parts.config)
    saved = {"params": params, "head": model_part(train.head, parts.config.macro)}
    if is_first():
        store.save("best", parts.steps(state.counters.iteration), saved, counters)


def _counters_json(parts: Parts, state: RunState) -> dict[str, Any]:
    counters = state.counters
    counters = counters._replace(
        unfinished=plain(counters.unfinished),
        seconds=parts.timers.seconds,
        cpu_seconds=cpu_seconds(parts.timers),
    )
    return {**counters._asdict(), "macro_totals": list(counters.macro_totals)}


def restore(parts: Parts, store: CheckpointStore) -> tuple[RunState, list[str]]:
    """Continues from the newest good checkpoint, as if the run had never been stopped.

    Returns:
        The state, and what the user should know, in lines: newer checkpoints that are damaged,
        libraries that have other versions now.

    Raises:
        ConfigError: in one line, if there is none, or it is of another run.
    """
    ours = flat_dict(parts.config)

    def check_fit(manifest: dict[str, Any]) -> None:
        theirs = manifest.get("config")
        every = {name: None for name in theirs} if isinstance(theirs, dict) else {}
        wanted = {name: x for name, x in {**every, **ours}.items() if name not in MAY_DIFFER}
        if other := differing(theirs, wanted):
            raise ConfigError(f"the checkpoint is of a run with other settings: {other}")

    wanted = abstract_state(parts)
    found = store.restore(
        "last",
        wanted.arrays,
        experience=played_part(wanted.replay.experience),
        fits=check_fit,
    )
    notes = [f"{line}: going on from the one before it" for line in found.damaged]
    if other := differing(found.manifest.get("versions"), versions()):
        notes.append(f"not bit for bit, the checkpoint is of other versions: {other}")
    known = found.manifest.get("config")
    dealt = known.get("processes", 1) if isinstance(known, dict) else 1
    if dealt != parts.config.processes:
        notes.append(f"lanes and rings of {dealt} processes are dealt to {parts.config.processes}")
    arrays = found.state
    try:
        counters = Counters.from_json(found.extra)
        for phase, seconds in (counters.seconds or {}).items():
            parts.timers.add(phase, seconds)
        parts.timers.cpu_before = counters.cpu_seconds if is_first() else 0.0
        parts.source.restore(arrays["games"], counters.count)
    except (LookupError, TypeError, AttributeError) as error:  # its sums are right: forged
        what = f"the counters of checkpoint {found.step} are wrong"
        text = f"{type(error).__name__} {error}".splitlines()[0][:200]
        raise ConfigError(f"{what}: {text}") from None
    own = parts.demonstrations and parts.demonstrations.sum
    allowed = "the dataset that the run began with: this one has another SHA-256"
    is_own = counters.shown_sum in (None, own)
    require(is_own, "demonstrations", parts.config.demonstrations, allowed)
    rows = found.rows and found.rows._replace(**arrays["targets"])
    replay = arrays["replay"].replace(experience=rows)
    shown = parts.demonstrations and with_held(parts.demonstrations.begin(), arrays["shown"])
    state = RunState(arrays["train"], replay, arrays["macros"], arrays["games"], counters, shown)
    return state, notes


def check_unused(run_dir: Path) -> None:
    """Raises ConfigError where a new run would go on in the folder of another."""
    metrics = run_dir / METRICS_FILE
    is_used = (run_dir / "checkpoints").exists() or (metrics.exists() and metrics.stat().st_size)
    allowed = "a new folder, or resume=True: it holds a run"
    require(not is_used, "run_dir", str(run_dir), allowed)


def begin(
    parts: Parts,
    store: CheckpointStore,
    run_dir: Path,
    progress: Progress,
    *,
    resume: bool,
    weights: Weights | None,
) -> RunState:
    """The state that a run begins or continues with; see `train`."""
    if resume and alone(lambda: store.steps("last")):
        state, notes = restore(parts, store)
        env_steps = parts.steps(state.counters.iteration)
        steps = gather(env_steps)
        allowed = f"the same on all processes, which find checkpoints {steps}"
        require(len(set(steps)) == 1, "run_dir", str(run_dir), allowed)
        if is_first():
            store.set_aside("last", env_steps)
        for line in [*notes, f"resumed at {env_steps:,} {parts.config.unit}"]:
            progress.message(line)
        return placed(parts, state)
    if resume:
        check_nothing_lost(parts.config, run_dir)
        progress.message("no checkpoint had been written: starting over")
    state = fresh_state(parts)
    if weights is not None:
        train, line = load_weights(parts.config, state.train, *weights)
        state = state._replace(train=train)
        progress.message(line)
    return placed(parts, state)


def check_nothing_lost(config: Config, run_dir: Path) -> None:
    """Raises ConfigError where a run to go on with has no checkpoint but must have had one."""
    path = run_dir / METRICS_FILE
    rows = read_metrics(path) if path.exists() else []
    reached = max((row.get("env_steps") or 0 for row in rows), default=0)
    # A save continues beside the training: the first may not have been complete before the second.
    if reached > 2 * (config.checkpoint_every_env_steps + config.iteration_steps):
        raise ConfigError(
            f"no checkpoint is left in {str(run_dir / 'checkpoints')!r}, though the run came to "
            f"{reached:,} steps: start a new run, or delete {path.name} to start over"
        )


def open_metrics(parts: Parts, state: RunState, run_dir: Path, *, resume: bool) -> MetricsWriter:
    """The run's metrics, cut to where it stands; a summary tells of an end that was none."""
    if not is_first():
        return NoMetrics()
    at = parts.steps(state.counters.iteration)
    ended = resume and at >= parts.config.total_env_steps
    writer = MetricsWriter(run_dir, at if resume else None, end_comes_again=ended)
    (run_dir / "summary.json").unlink(missing_ok=True)
    return writer
