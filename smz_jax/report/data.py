"""Reads what a run left on disk, at any time of its life, and asks simple questions of it."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smz_jax.config.check import ConfigError, require
from smz_jax.storage.documents.forms import Document, is_number
from smz_jax.storage.documents.macro_form import LIBRARY, MAX_ACTIONS, fold, is_macro_list
from smz_jax.storage.documents.results_json import GRID, LADDER, SUMMARY
from smz_jax.storage.documents.verify_json import VERIFICATION
from smz_jax.storage.estimate import Estimate, read_estimate
from smz_jax.storage.metrics import METRICS_FILE, read_metrics

Curve = tuple[list[float], list[float]]
"""Environment steps and the values there."""


@dataclass
class RunData:
    """One run folder; every part but the rows may be missing."""

    path: Path
    label: str
    rows: list[dict[str, Any]]
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    macros: list[dict[str, Any]] = field(default_factory=list)  # of `macros.json` of any schema
    library: dict[str, Any] = field(default_factory=dict)  # `macros.json` if all of it is right
    grid: dict[str, Any] = field(default_factory=dict)
    ladder: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        named = self.config.get("experiment") or self.summary.get("experiment")
        return str(named or self.path.parent.name)

    @property
    def seed(self) -> Any:
        """Seed of the run, or `?`."""
        return self.config.get("seed", self.summary.get("seed", "?"))

    @property
    def game(self) -> str:
        """The environment's name; the experiment's where it is not known."""
        return str(self.setting("env", "id") or self.experiment)

    @property
    def can_have_macros(self) -> bool:
        """Whether its actions are such that macros are looked for, as far as is known."""
        names = self.library.get("action_names")
        return names is None or 0 < len(names) <= MAX_ACTIONS

    @property
    def unit(self) -> str:
        """What the steps of the run are, in words."""
        return "updates" if self.config.get("dataset") else "environment steps"

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase, from the summary or else the newest row that has them."""
        found = self.summary.get("seconds")
        for row in reversed(self.rows):
            found = found or {k[5:]: row[k] for k in row if k.startswith("time/")}
        return {name: value for name, value in (found or {}).items() if is_number(value)}

    def setting(self, section: str, name: str) -> Any:
        """A setting of the resolved config, or None."""
        part = self.config.get(section)
        return part.get(name) if isinstance(part, dict) else None

    def curve(self, key: str) -> Curve:
        """All finite values of a metric over environment steps."""
        points = [
            (row["env_steps"], row[key])
            for row in self.rows
            if is_number(row.get(key)) and is_number(row.get("env_steps"))
        ]
        return [x for x, _ in points], [y for _, y in points]

    def evaluations(self) -> Curve:
        """Mean scores of the evaluations over environment steps, the final one last."""
        steps, scores = self.curve("eval/mean")
        final = self.evaluation()
        if final is not None and (not scores or scores[-1] != final.mean):
            steps.append(self.summary.get("env_steps") or (steps or [0])[-1])
            scores.append(final.mean)
        return steps, scores

    def vectors(self, key: str) -> list[tuple[float, list[float]]]:
        """Environment steps and values of a metric that is logged as `key_0`, `key_1`, ..."""
        found = []
        for row in self.rows:
            entries = (row.get(f"{key}_{i}") for i in itertools.count())
            values = list(itertools.takewhile(is_number, entries))
            if values and is_number(row.get("env_steps")):
                found.append((row["env_steps"], values))
        return found

    def last(self, key: str) -> float | None:
        """Newest finite value of a metric, or None."""
        values = self.curve(key)[1]
        return values[-1] if values else None

    def evaluation(self) -> Estimate | None:
        """The final evaluation, or else the newest one during training."""
        return self._estimate(self.summary.get("evaluation"), "eval/mean")

    def random(self) -> Estimate | None:
        """Estimate of the random policy by the same evaluator."""
        return self._estimate(self.baselines().get("random"), "baseline/random")

    def _estimate(self, measured: Any, key: str) -> Estimate | None:
        """What the summary holds, or else the newest rows."""
        newest = {f"{key}{end}": self.last(f"{key}{end}") for end in ("", "_low", "_high")}
        return read_estimate(measured) or read_estimate(newest, key)

    def constants(self) -> dict[str, Estimate]:
        """Estimate of each constant action, best first."""
        prefix = "baseline/constant/"
        found = {
            key.removeprefix(prefix): Estimate(value)
            for row in self.rows
            for key, value in row.items()
            if key.startswith(prefix) and is_number(value)
        }
        measured = (self.baselines().get("constant") or {}).items()
        found |= {name: known for name, value in measured if (known := read_estimate(value))}
        return dict(sorted(found.items(), key=lambda item: -item[1].mean))

    def best_constant(self) -> tuple[str, Estimate] | None:
        """Name and score of the best constant action."""
        return next(iter(self.constants().items()), None)

    def baselines(self) -> dict[str, Any]:
        """The summary's baselines, possibly empty."""
        return self.summary.get("baselines") or {}


def macro_name(macro: Mapping[str, Any]) -> str:
    """Decoded actions of a macro, repeats folded, as FIRE → RIGHT, three times."""
    raw = macro.get("names") or macro.get("actions") or []
    return fold(raw.split(" → ") if isinstance(raw, str) else [str(name) for name in raw])


def load_run(path: Path) -> RunData:
    """Reads one run folder, in which only `metrics.jsonl` must be there.

    Damaged or missing parts are left empty, damaged ones named in `problems`.

    Raises:
        ConfigError: in one line, if the folder or its `metrics.jsonl` is missing or damaged.
    """
    path = Path(path)
    folder = "the folder of a run: runs/<experiment>/<name>"
    require(path.is_dir() or not path.exists(), "RUN_DIR", str(path), folder)
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder")
    if not (path / METRICS_FILE).is_file():
        inside = sorted(str(found.parent) for found in path.glob(f"*/{METRICS_FILE}"))
        hint = f"did you mean {inside[-1]}?" if inside else "give runs/<experiment>/<name>"
        raise ConfigError(f"{path}: holds no {METRICS_FILE}, so it is no run folder; {hint}")
    run = RunData(path, path.resolve().name, read_metrics(path / METRICS_FILE))
    run.summary = _read(run, "summary.json")
    if wrong := SUMMARY.wrong_parts(run.summary):
        run.summary = {name: run.summary[name] for name in run.summary if name not in wrong}
        run.problems.append(f"summary.json is damaged: {', '.join(wrong)} left out")
    found = _read(run, "macros.json", lambda found: is_macro_list(found.get("macros")))
    run.macros = found.get("macros") or []
    advice = ". Only counts, entropies and rewards of macros are shown"
    run.library = _checked(run, found, LIBRARY, advice)
    run.grid = _read(run, "grid.json", lambda found: not GRID.wrong_parts(found))
    run.ladder = _read(run, "ladder.json", lambda found: not LADDER.wrong_parts(found))
    advice, tried = ": left out; experiments.verify writes it anew", _read(run, "verify.json")
    run.verification = _checked(run, tried, VERIFICATION, advice)
    run.config = _read(run, "config.yaml")
    return run


def _checked(
    run: RunData, found: dict[str, Any], document: Document, advice: str
) -> dict[str, Any]:
    """A document if all of it is as documented; else why it is not is a problem of the run's."""
    try:
        if found:
            document.check(found, document.file)
    except ConfigError as error:
        run.problems.append(f"{error}{advice}")
        return {}
    return found


def _read(
    run: RunData, name: str, is_right: Callable[[dict[str, Any]], bool] = lambda found: True
) -> dict[str, Any]:
    """Reads a JSON or YAML mapping; what is wrong with it goes to the run's problems."""
    try:
        text = (run.path / name).read_text("utf-8")
        value = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        run.problems.append(f"{name} cannot be read ({type(error).__name__}): left out")
        return {}
    except (ValueError, yaml.YAMLError):
        value = None
    if not isinstance(value, dict) or (value and not is_right(value)):
        run.problems.append(f"{name} is damaged: left out")
        return {}
    return value


def load_runs(paths: Iterable[Path]) -> list[RunData]:
    """Reads several run folders, one named twice only once, and gives each its own label.

    Raises:
        ConfigError: as `load_run`, or if no folder is given.
    """
    distinct: dict[Path, Path] = {}
    for path in paths:
        distinct.setdefault(Path(path).resolve(), path)
    runs = [load_run(path) for path in distinct.values()]
    if not runs:
        raise ConfigError("no run folder given")
    names = [run.label for run in runs]
    taken: Counter[str] = Counter()
    for run in runs:
        if names.count(run.label) > 1:
            run.label = f"{run.path.resolve().parent.name}/{run.label}"
        taken[run.label] += 1
        if taken[run.label] > 1:
            run.label += f" ({taken[run.label]})"
    return runs


def group_seeds(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Puts runs together whose settings differ in nothing but the seed, in order."""
    groups: dict[str, list[RunData]] = {}
    for number, run in enumerate(runs):
        settings = {key: value for key, value in run.config.items() if key != "seed"}
        key = json.dumps(settings, sort_keys=True, default=str) if settings else f"run {number}"
        groups.setdefault(key, []).append(run)
    return list(groups.values())
