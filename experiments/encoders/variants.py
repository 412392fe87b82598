"""What variants.yaml holds, what one call is to do, and the settings of one job. No JAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from smz_jax.config.check import ConfigError, require
from smz_jax.config.experiment import Experiment, preset_overrides
from smz_jax.config.settings import Config
from smz_jax.config.sources import from_dict, require_known


@dataclass(frozen=True)
class Sizes:
    """How much a preset does."""

    lanes: int
    transitions: int  # over all lanes, the held-out tenth included
    updates: int
    eval_every: int  # updates between two rows
    eval_size: int  # held-out transitions of a row, at most
    eval_batch: int
    sticky: list[float]
    overrides: dict[str, Any]  # dotted settings over `BASE`, under those of a variant
    variants: list[str]

    @property
    def rows(self) -> int:
        """Rows of each lane."""
        return self.transitions // self.lanes

    @property
    def held_out(self) -> int:
        """Rows of each lane that are kept out of training: its last tenth."""
        return max(self.rows // 10, 1)


class Variant(NamedTuple):
    """One of the models that are compared."""

    about: str
    settings: dict[str, Any]  # dotted, over `BASE`


@dataclass(frozen=True)
class Job:
    """One training: a variant on the frames of one world and seed."""

    variant: str
    sticky: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the job's folder."""
        return f"{self.variant}-sticky{self.sticky:g}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What one call is to do."""

    preset: str
    sizes: Sizes
    jobs: tuple[Job, ...]  # those that share frames together
    explicit: Mapping[str, Any]  # dotted settings of file and flags; they win over a variant's
    run_dir: Path

    def folder(self, job: Job) -> Path:
        """Where a job is kept."""
        return self.run_dir / "jobs" / job.name


_DATA = yaml.safe_load(Path(__file__).with_name("variants.yaml").read_text(encoding="utf-8"))
BASE: dict[str, Any] = _DATA["base"]
VARIANTS = {name: Variant(**found) for name, found in _DATA["variants"].items()}
SIZES = {
    name: Sizes(**{"variants": list(VARIANTS), **found}) for name, found in _DATA["sizes"].items()
}
EXPERIMENT = Experiment(
    "encoders", base={name: BASE[name] for name in ("env.id", "network.decoder_size")}
)
FIXED: dict[str, str] = _DATA["fixed"]  # settings that are not taken as flags, and what sets them


def job_config(plan: Plan, job: Job) -> Config:
    """The settings of one job, under which the real training step makes `sizes.updates` updates.

    One "iteration" of them is one row of every lane and one dispatch, so that the learning rate's
    schedule spans the updates.

    Raises:
        ConfigError: in one line, for an unknown variant, or a setting that is fixed here or wrong.
    """
    sizes = plan.sizes
    for name in plan.explicit:
        if name in FIXED:
            raise ConfigError(f"--{name} is not taken by this experiment: {FIXED[name]} sets it")
    require_known("variant", job.variant, VARIANTS)
    settings = {
        **preset_overrides(plan.preset),
        "learner.updates_per_dispatch": 1,
        **BASE,
        "learner.schedule_steps": max(1, sizes.updates * 6 // 10),
        "loss.commitment_start": sizes.updates * 3 // 10,
        **sizes.overrides,
        **VARIANTS[job.variant].settings,
        **plan.explicit,
    }
    dispatch = int(settings["learner.updates_per_dispatch"])
    allowed = f"a multiple of learner.updates_per_dispatch = {dispatch}"
    require(sizes.updates % dispatch == 0, "updates", sizes.updates, allowed)
    fixed = {
        "experiment": EXPERIMENT.name,
        "seed": job.seed,
        "env.num_envs": sizes.lanes,
        "env.sticky_prob": job.sticky,
        "rollout.length": 1,
        "learner.updates_per_env_step": dispatch / sizes.lanes,
        "total_env_steps": sizes.lanes * (sizes.updates // dispatch),
        "replay.capacity": sizes.lanes * sizes.rows,
        "replay.min_size": sizes.lanes * (sizes.rows - sizes.held_out),
    }
    if plan.preset != "gpu":
        fixed["rollout.pools"] = 1
    config = from_dict({**settings, **fixed})
    allowed = "one that reads no sequence"
    require(not config.env.mark_start, "network.family", config.network.family, allowed)
    return config
