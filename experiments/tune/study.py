"""A study: a journal file that several workers write, and Optuna's answers to what comes next.

A trial belongs to a worker for as long as that holds the lock of its own file, which the kernel
frees with the process. Trials of a worker that is gone are taken over by the next one that starts.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.tune.space import Axis, Space
from smz_jax.config.check import ConfigError, require

JOURNAL, LOCK, WORKERS = "study.log", ".study.lock", "workers"
"""Files and folder in that of a study."""
STARTUP_TRIALS = 8
"""Trials drawn at random, the default among them, before any is proposed."""
FULL_TRIALS = 4
"""Trials that run on all seeds before one may be pruned."""
BEST_PERCENT = 33.0
"""A trial goes on after a seed if it is among this share of the complete ones after as many."""
NAME = "tune"


def require_optuna() -> Any:
    """Optuna, quiet; raises ConfigError in one line where it is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("experiments.tune needs Optuna: pip install '.[tune]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


class Trial(NamedTuple):
    """One choice of settings, by what the journal holds."""

    number: int
    chosen: dict[str, Any]  # dotted settings
    state: str  # waiting (only the default, at first), running, complete, pruned, failed
    means: tuple[float, ...]  # of the first seed, of the first two, ...
    fault: str = ""  # why it failed

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"trial{self.number:03d}"

    @property
    def value(self) -> float | None:
        """Mean score over the seeds that it ran."""
        return self.means[-1] if self.means else None


@contextlib.contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a lock for as long as the block takes; gives whether it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


class Study:
    """The trials of a folder, shared with the other workers on it: `with Study(...) as study:`.

    Args:
        folder: of the study; made if it is new.
        space: what may be tried.
        seed: of what is proposed.
        prunes: whether a trial may be given up between two of its seeds.

    Raises:
        ConfigError: in one line, if the folder holds a study of something else.
    """

    def __init__(self, folder: Path, space: Space, seed: int = 0, prunes: bool = True) -> None:
        self._optuna = optuna = require_optuna()
        self._folder, self._space, self._seed = folder.absolute(), space, seed
        self._worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._open = contextlib.ExitStack()
        self._prunes = prunes
        about = {**space.document(), "seed": seed, "pruner": "third" if prunes else "none"}
        document = json.dumps(about, sort_keys=True)
        with self._locked():
            self._mend()
            # The lock of the file is a link to its path, which has to be absolute to be followed.
            backend = optuna.storages.journal.JournalFileBackend(str(self._folder / JOURNAL))
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=NAME,
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
            )
            self._keep(document)

    def __enter__(self) -> "Study":
        """Becomes a worker, and takes over the trials of those that are gone."""
        self._open.enter_context(held(self._folder / WORKERS / self._worker))
        with self._locked():
            for trial in self._frozen("running"):
                if not self._is_at_work(trial.user_attrs.get("worker", "")):
                    self._trial(trial.number).set_user_attr("worker", self._worker)
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()
        (self._folder / WORKERS / self._worker).unlink(missing_ok=True)

    def trials(self) -> list[Trial]:
        """All trials in their order."""
        return [self._read(x) for x in self._study.get_trials(deepcopy=False)]

    def own(self) -> list[Trial]:
        """Trials that this worker is at."""
        frozen = self._frozen("running")
        return [self._read(x) for x in frozen if x.user_attrs.get("worker") == self._worker]

    def others(self) -> list[Trial]:
        """Trials that other workers are at."""
        numbers = {trial.number for trial in self.own()}
        return [self._read(x) for x in self._frozen("running") if x.number not in numbers]

    def ask(self, most: int) -> Trial | None:
        """The next trial, this worker's own; None where there are `most` already.

        What is proposed rests on the trials so far and their number, not on this process, so that
        a study that was stopped does not repeat its first draws.
        """
        with self._locked():
            number = sum(x.state != "waiting" for x in self.trials())
            if number >= most:
                return None
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=self._seed * 1_000_003 + number,
                n_startup_trials=STARTUP_TRIALS,
                multivariate=True,
                constant_liar=True,
            )
            axes = {axis.name: self._distribution(axis) for axis in self._space.axes}
            trial = self._study.ask(axes)
            self._study.sampler = self._optuna.samplers.RandomSampler()  # a handle draws nothing
            trial.set_user_attr("worker", self._worker)
        return self._read(self._study.get_trials(deepcopy=False)[trial.number])

    def report(self, number: int, scores: list[float]) -> str:
        """Takes the scores of a trial's first seeds; gives its state after them.

        The mean so far is reported after each seed. A run is never cut short for it, for what
        depends on a run's length would be another thing then.
        """
        trial = self._trial(number)
        known = self._read(self._study.get_trials(deepcopy=False)[number]).means
        for place in range(len(known), len(scores)):
            trial.report(sum(scores[: place + 1]) / (place + 1), step=place)
        states = self._optuna.trial.TrialState
        if len(scores) == len(self._space.seeds):
            self._study.tell(number, sum(scores) / len(scores), states.COMPLETE)
            return "complete"
        if scores and self._prunes and self._is_behind(scores):
            self._study.tell(number, state=states.PRUNED)
            return "pruned"
        return "running"

    def _is_behind(self, scores: list[float]) -> bool:
        """Whether their mean is not among the best of the complete trials after as many seeds."""
        complete = [x.means[len(scores) - 1] for x in self.trials() if x.state == "complete"]
        if len(complete) < FULL_TRIALS:
            return False
        return bool(np.mean(scores) < np.percentile(complete, 100 - BEST_PERCENT))

    def fail(self, number: int, fault: str) -> None:
        """Gives a trial up, with the reason in one line."""
        self._trial(number).set_user_attr("fault", fault)
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """How much each setting matters for being among the best quarter; sums to 1.

        By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), over complete and pruned trials, the
        latter by their mean so far; empty where there are too few.
        """
        trials = [x for x in self._study.get_trials(deepcopy=False) if x.intermediate_values]
        trials = [x for x in trials if x.state.is_finished()]
        if len(trials) < STARTUP_TRIALS:
            return {}
        copy = self._optuna.create_study(direction="maximize")
        for x in trials:
            value = x.intermediate_values[max(x.intermediate_values)]
            parts = {"params": x.params, "distributions": x.distributions, "value": value}
            copy.add_trial(self._optuna.trial.create_trial(**parts))
        evaluator = self._optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return self._optuna.importance.get_param_importances(copy, evaluator=evaluator)

    def _keep(self, document: str) -> None:
        """Begins a new study with the default; refuses one of something else."""
        kept = self._study.user_attrs.get("about")
        if kept is None:
            self._study.set_user_attr("about", document)
            default = self._space.default()
            if not self.missing(default):
                self._study.enqueue_trial(default)
            return
        old, new = json.loads(kept), json.loads(document)
        for name in new:
            allowed = f"that of the study in {self._folder}, {old.get(name)}, or give --run_dir"
            require(new[name] == old.get(name), name, new[name], allowed)

    def missing(self, default: dict[str, Any]) -> list[str]:
        """Settings whose default is not among what may be tried."""
        return [axis.name for axis in self._space.axes if not axis.holds(default[axis.name])]

    def _distribution(self, axis: Axis) -> Any:
        of = self._optuna.distributions
        if axis.choices:
            return of.CategoricalDistribution(axis.choices)
        if axis.is_whole:
            step = int(axis.step or 1)
            return of.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
        return of.FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)

    def _read(self, found: Any) -> Trial:
        state = "failed" if found.state.name == "FAIL" else str(found.state.name).lower()
        means = tuple(found.intermediate_values[x] for x in sorted(found.intermediate_values))
        fault = found.user_attrs.get("fault", "")
        return Trial(found.number, dict(found.params), state, means, fault)

    def _frozen(self, state: str) -> list[Any]:
        states = (self._optuna.trial.TrialState[state.upper()],)
        return self._study.get_trials(deepcopy=False, states=states)

    def _trial(self, number: int) -> Any:
        found = self._study.get_trials(deepcopy=False)[number]
        return self._optuna.trial.Trial(self._study, found._trial_id)

    def _is_at_work(self, worker: str) -> bool:
        path = self._folder / WORKERS / worker
        if not worker or not path.is_file():
            return False
        with held(path, wait=False) as is_free:
            return not is_free

    def _locked(self) -> contextlib.AbstractContextManager[bool]:
        return held(self._folder / LOCK)

    def _mend(self) -> None:
        """Takes off a last line that a killed worker, or a full disk, left half written."""
        path = self._folder / JOURNAL
        names = os.listdir(self._folder / WORKERS) if (self._folder / WORKERS).is_dir() else []
        if path.is_file() and not any(map(self._is_at_work, names)):
            whole = path.read_bytes()
            if whole and not whole.endswith(b"\n"):
                os.truncate(path, whole.rfind(b"\n") + 1)


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial with the highest mean over all seeds; the earliest of equals."""
    complete = [trial for trial in trials if trial.state == "complete"]
    key: Callable[[Trial], float] = lambda trial: trial.means[-1]  # noqa: E731
    return max(complete, key=key, default=None)
