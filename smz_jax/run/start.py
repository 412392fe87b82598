"""The start of a run: fresh, with the parameters of another run, or where it was stopped."""

from pathlib import Path

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import Config
from smz_jax.run.parts import Parts
from smz_jax.run.progress import Progress
from smz_jax.run.state import RunState, fresh_state, load_weights, restore, steps_per_iteration
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.metrics import METRICS_FILE, MetricsWriter, read_metrics
from smz_jax.storage.run_dir import Weights


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
    if resume and store.steps("last"):
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


def check_nothing_lost(config: Config, run_dir: Path) -> None:
    """Raises ConfigError where a run to go on with has no checkpoint but must have had one."""
    path = run_dir / METRICS_FILE
    rows = read_metrics(path) if path.exists() else []
    reached = max((row.get("env_steps") or 0 for row in rows), default=0)
    # A save continues beside the training: the first may not have been complete before the second.
    if reached > 2 * (config.checkpoint_every_env_steps + steps_per_iteration(config)):
        raise ConfigError(
            f"no checkpoint is left in {str(run_dir / 'checkpoints')!r}, though the run came to "
            f"{reached:,} steps: start a new run, or delete {path.name} to start over"
        )


def open_metrics(parts: Parts, state: RunState, run_dir: Path, *, resume: bool) -> MetricsWriter:
    """The run's metrics, cut to where it stands; a summary tells of an end that was none."""
    at = parts.env_steps(state.counters.count)
    ended = resume and at >= parts.config.total_env_steps
    writer = MetricsWriter(run_dir, at if resume else None, end_comes_again=ended)
    (run_dir / "summary.json").unlink(missing_ok=True)
    return writer
