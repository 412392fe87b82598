"""Trials as jobs of the sweep's runner: one seed after the other, a new trial after each end."""

from collections.abc import Callable
from pathlib import Path

from experiments.sweep.jobs import Job, Result, check_all, check_same
from experiments.tune.space import Space
from experiments.tune.study import Study, Trial
from smz_jax.config.check import ConfigError
from smz_jax.report.verdict import number_text
from smz_jax.storage.estimate import read_estimate
from smz_jax.storage.run_dir import CONFIG_NAME

MOST_FAILED = 5
"""Trials that may fail before any has a score: then something else is wrong."""


class Tuner:
    """Gives the runner the next seed of a trial, or the first one of a new trial.

    Args:
        study: asked and told.
        space: what is tried.
        folder: of the trials.
        most: trials of the whole study.
        tell: shows a line to the user.
    """

    def __init__(
        self, study: Study, space: Space, folder: Path, most: int, tell: Callable[[str], object]
    ) -> None:
        self._study, self._space, self._folder = study, space, folder
        self._most, self._tell = most, tell

    def finished(self) -> list[Job]:
        """The runs that were done before."""
        trials = self._study.trials()
        jobs = [x for trial in trials for x in trial_jobs(self._space, trial, self._folder)]
        return [x for x in jobs if x.is_finished()]

    def begin(self, slots: int) -> list[Job]:
        """The first jobs: of trials that were left in the middle, then of new ones."""
        jobs = [job for trial in self._study.own() if (job := self._next(trial))]
        while len(jobs) < slots and (job := self._ask()):
            jobs.append(job)
        return jobs

    def follow(self, ended: Result) -> list[Job]:
        """What comes after a job."""
        if ended.kind == "stopped":
            return []
        trial = next(x for x in self._study.own() if x.name == ended.job.variant.name)
        job = None
        if ended.kind == "failed":
            self._fail(trial, f"{ended.job.name}: {ended.reason}")
        else:
            job = self._next(trial)
        job = job or self._ask()
        return [job] if job else []

    def _next(self, trial: Trial) -> Job | None:
        """The next run of a trial, by the folders of its seeds; None: there is none."""
        scores = []
        for job in trial_jobs(self._space, trial, self._folder):
            if not job.is_finished():
                break
            score = read_estimate(job.result().get("evaluation"))
            if score is None:
                self._fail(trial, f"{job.name} has no evaluation")
                return None
            scores.append(score.mean)
        state = self._study.report(trial.number, scores)
        if state == "running":
            return trial_jobs(self._space, trial, self._folder)[len(scores)]
        seeds = f"{len(scores)} of {len(self._space.seeds)} seeds"
        mean = number_text(sum(scores) / len(scores))
        self._tell(f"{trial.name} is {state} after {seeds}, mean score {mean}")
        return None

    def _ask(self) -> Job | None:
        """The first run of the next trial whose settings go together; None: there are enough."""
        while trial := self._study.ask(self._most):
            jobs = trial_jobs(self._space, trial, self._folder)
            try:
                check_all(jobs[:1])
                for job in (job for job in jobs if (job.run_dir / CONFIG_NAME).exists()):
                    check_same(job)
            except ConfigError as error:
                self._fail(trial, str(error))
            else:
                return self._next(trial)
        return None

    def _fail(self, trial: Trial, fault: str) -> None:
        self._study.fail(trial.number, fault)
        self._tell(f"{trial.name} failed: {fault}")
        trials = self._study.trials()
        failed = [x for x in trials if x.state == "failed"]
        if len(failed) >= MOST_FAILED and not any(x.means for x in trials):
            message = f"the first {len(failed)} trials failed, the last one for this: {fault}"
            raise ConfigError(message)


def trial_jobs(space: Space, trial: Trial, folder: Path) -> list[Job]:
    """The runs of a trial, seed by seed, in `folder/trial<number>/seed<seed>`."""
    variant = space.variant(trial.name, trial.chosen)
    return [space.job(variant, seed, folder) for seed in space.seeds]
