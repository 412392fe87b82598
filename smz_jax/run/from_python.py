"""A run that is called from Python, in a script or a notebook: what `smz_jax.train` does."""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from smz_jax.config.cli import RunRequest, invoke
from smz_jax.config.experiment import Experiment, find_experiment
from smz_jax.config.settings import Config
from smz_jax.config.sources import flatten
from smz_jax.run import launch
from smz_jax.storage.documents.results_json import SUMMARY
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.run_dir import read_config


class Run(NamedTuple):
    """A run in its folder, which may be unfinished; `smz_jax.load` takes the folder."""

    run_dir: Path

    @property
    def config(self) -> Config:
        """Its settings."""
        return read_config(self.run_dir)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says: scores, baselines, macros, times (`docs/files.md`)."""
        return SUMMARY.read(self.run_dir)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.run_dir / "metrics.jsonl")

    def course(self, name: str) -> tuple[list[int], list[float]]:
        """Steps at which a metric was measured, and its values: `run.course("eval/mean")`."""
        found = [(row["env_steps"], row[name]) for row in self.metrics if name in row]
        return [steps for steps, _ in found], [value for _, value in found]

    @property
    def figures(self) -> dict[str, Path]:
        """The figures of its report, by name."""
        return {path.stem: path for path in sorted((self.run_dir / "figures").glob("*.png"))}


def train(
    experiment: str | Experiment,
    settings: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    quiet: bool = False,
    **more: Any,
) -> Run:
    """Plays, searches, learns, finds macros, evaluates and reports, as a command does.

    Ctrl-C, or a notebook's stop button, saves a checkpoint; the run is then unfinished, and what
    continues it is printed.

    Args:
        experiment: the name of a command (`"cartpole"`), or an `Experiment` of one's own.
        settings: settings by their dotted names, or nested:
            `{"search.num_simulations": 8, "env": {"id": "CartPole-v1"}}`.
        preset: tiny, smoke, laptop or gpu; unset: gpu where JAX sees an accelerator, else laptop.
        run_dir: folder of the run; unset: `runs/<experiment>/<time>-seed<seed>`.
        resume: continue the run in `run_dir`, with its own settings.
        init_from: a run, `RUN@STEP`, `RUN@best`, or an export: begin with these weights.
        quiet: print nothing.
        **more: settings without a dot: `seed=1, total_env_steps=20_000`.

    Raises:
        ConfigError: in one line, if a setting or a folder cannot be used.
        RuntimeError: in one line, if the run stopped by itself.
        KeyboardInterrupt: if it was interrupted twice, or before it had anything to save.
    """
    named = find_experiment(experiment) if isinstance(experiment, str) else experiment
    flags = flatten({**(settings or {}), **more}, "the settings of train()")
    # Options of a game are text in a file, too.
    flags = {name: json.dumps(x) if isinstance(x, Mapping) else x for name, x in flags.items()}
    given = {"preset": preset, "run_dir": run_dir, "resume": resume, "init_from": init_from}
    wanted = RunRequest(
        preset=preset,  # pyright: ignore[reportArgumentType]
        run_dir=None if run_dir is None else Path(run_dir).expanduser(),
        resume=resume,
        init_from=None if init_from is None else str(init_from),
    )
    words = [repr(named.name)]
    words += [f"{name}={value!r}" for name, value in {**given, **flags}.items() if value]
    command = f"smz_jax.train({', '.join(words)})"
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        ended = launch.run(invoke(named, wanted, flags, command=command))
    if ended.fault:
        raise RuntimeError(ended.fault)
    return Run(ended.run_dir)
