"""The variants that are compared, the sizes of a preset, and the settings of one job. No JAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smz_jax.config.presets import preset_overrides
from smz_jax.config.settings import Config, ConfigError, require
from smz_jax.config.sources import from_dict, suggest

EXPERIMENT = "encoders"

BASE: dict[str, Any] = {
    "env.suite": "atari",
    "env.id": "Breakout",
    "env.noop_max": 0,
    "env.fire_on_life_loss": True,
    "network.encoder_input": "frames",
    "network.encoder_noise": 1.0,
    "network.encoder_noise_end": 0.0,
    "network.decoder_size": 42,
    "replay.priority_exponent": 0.0,  # uniform, drawn the fast way
    "learner.unroll_steps": 1,
    "learner.td_steps": 5,
    "learner.gamma": 0.99,
    "loss.consistency": 0.0,
    "loss.commitment": 0.3,
    "loss.code_entropy": 0.02,
    "loss.reconstruction": 400.0,
}
"""What the variants change: the recipe that FACTS of a prototype named best, without its target."""

COSINE: dict[str, Any] = {
    "network.decoder_size": 0,
    "loss.reconstruction": 0.0,
    "loss.consistency": 2.0,
}
DIFFERENCE: dict[str, Any] = {"network.decoder_target": "difference"}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine-embedding": (
        "cosine consistency alone, the encoder sees the embedding of what followed",
        {
            **COSINE,
            "network.encoder_input": "embedding",
            "network.encoder_noise": 0.3,
            "loss.commitment": 0.1,
            "loss.commitment_start": 0,
        },
    ),
    "cosine-frames": ("cosine consistency alone, the encoder has a torso of its own", COSINE),
    "layer-norm": (
        "next frame standardised; layer norm in place of batch norm",
        {"network.embedding_norm": "layer"},
    ),
    "standardised": ("next frame, each pixel standardised", {}),
    "difference": ("how the next frame differs, in grey values", DIFFERENCE),
    "difference-embedding": (
        "difference, the encoder sees the embedding of what followed",
        {**DIFFERENCE, "network.encoder_input": "embedding"},
    ),
    "recipe": (
        "difference-embedding at an eighth of the weight, as the presets of the Atari games",
        {**DIFFERENCE, "network.encoder_input": "embedding", "loss.reconstruction": 50.0},
    ),
    "difference-cosine": (
        "difference, and cosine consistency",
        {**DIFFERENCE, "loss.consistency": 2.0},
    ),
    "difference-early": (
        "difference, commitment from the start",
        {**DIFFERENCE, "loss.commitment_start": 0},
    ),
    "difference-quiet": (
        "difference, no noise on the codes",
        {**DIFFERENCE, "network.encoder_noise": 0.0},
    ),
    "difference-noisy": (
        "difference, noise stays on",
        {**DIFFERENCE, "network.encoder_noise_end": 1.0},
    ),
    "difference-bonus": (
        "difference, ten times the bonus on the mean code's entropy",
        {**DIFFERENCE, "loss.code_entropy": 0.2},
    ),
    "difference-unroll3": (
        "difference, three unrolled steps",
        {**DIFFERENCE, "learner.unroll_steps": 3},
    ),
    "difference-codes32": (
        "difference, 32 codes",
        {**DIFFERENCE, "network.codebook_size": 32},
    ),
}
"""Name: what it is, and its dotted settings over `BASE`."""


@dataclass(frozen=True)
class Sizes:
    """How much a preset does."""

    lanes: int
    transitions: int  # over all lanes, the held-out tenth included
    updates: int
    eval_every: int  # updates between two rows
    eval_size: int  # held-out transitions of a row, at most
    eval_batch: int
    variants: tuple[str, ...]
    sticky: tuple[float, ...]
    overrides: dict[str, Any]  # dotted settings over `BASE`, under those of a variant


SIZES: dict[str, Sizes] = {
    "tiny": Sizes(
        lanes=4,
        transitions=640,
        updates=8,
        eval_every=4,
        eval_size=64,
        eval_batch=32,
        variants=("difference",),
        sticky=(0.25,),
        overrides={"network.decoder_size": 21},
    ),
    "smoke": Sizes(
        lanes=8,
        transitions=8_000,
        updates=300,
        eval_every=100,
        eval_size=512,
        eval_batch=128,
        variants=("cosine-embedding", "difference"),
        sticky=(0.25,),
        overrides={"learner.batch_size": 32, "network.decoder_size": 42},
    ),
    "laptop": Sizes(
        lanes=16,
        transitions=40_000,
        updates=3_000,
        eval_every=250,
        eval_size=2_048,
        eval_batch=256,
        variants=tuple(VARIANTS),
        sticky=(0.25, 0.0),
        overrides={"learner.batch_size": 96, "network.codebook_size": 8},
    ),
    "gpu": Sizes(
        lanes=64,
        transitions=256_000,
        updates=20_000,
        eval_every=500,
        eval_size=8_192,
        eval_batch=1_024,
        variants=tuple(VARIANTS),
        sticky=(0.25, 0.0),
        overrides={
            "network.family": "light",
            "network.embedding_size": 256,
            "network.torso_channels": 32,
            "network.codebook_size": 8,
            "network.value_support": 10,
            "network.reward_support": 2,
            "network.bfloat16": False,
            "learner.batch_size": 256,
            "learner.updates_per_dispatch": 20,
        },
    ),
}

FIXED: dict[str, str] = {
    "seed": "--seeds",
    "total_env_steps": "--updates and --transitions",
    "env.id": "Breakout",
    "env.num_envs": "--preset",
    "env.mode": "--sticky",
    "env.sticky_prob": "--sticky",
    "env.noop_max": "0",
    "env.frame_skip": "4",
    "env.frame_size": "84",
    "env.fire_on_life_loss": "true",
    "env.max_episode_steps": "27000",
    "rollout.length": "--updates",
    "learner.updates_per_env_step": "--updates",
    "replay.capacity": "--transitions",
    "replay.min_size": "--transitions",
}
"""Settings that are not taken as flags, and what sets them."""


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


def check_explicit(explicit: Mapping[str, Any]) -> None:
    """Raises ConfigError in one line for a setting that is fixed here."""
    for name in explicit:
        if name in FIXED:
            raise ConfigError(f"--{name} is not taken by this experiment: {FIXED[name]} sets it")


def check_variants(names: list[str]) -> None:
    """Raises ConfigError in one line for an unknown variant."""
    for name in names:
        if name not in VARIANTS:
            hint = suggest(name, list(VARIANTS)) or "; there are " + ", ".join(VARIANTS)
            raise ConfigError(f"unknown variant {name!r}{hint}")


def held_out_rows(sizes: Sizes) -> int:
    """Rows of each lane that are kept out of training: its last tenth."""
    return max(sizes.transitions // sizes.lanes // 10, 1)


def job_config(preset: str, sizes: Sizes, job: Job, explicit: Mapping[str, Any]) -> Config:
    """The settings of one job, under which the real training step makes `sizes.updates` updates.

    One "iteration" of them is one row of every lane and one dispatch, so that the learning rate's
    schedule spans the updates.

    Args:
        preset: whose general settings come first.
        sizes: how much is done.
        job: which variant, on what.
        explicit: dotted settings of file and flags; they win over the variant's.

    Raises:
        ConfigError: in one line.
    """
    check_explicit(explicit)
    check_variants([job.variant])
    settings = {
        **preset_overrides(preset, EXPERIMENT),
        "learner.updates_per_dispatch": 1,
        **BASE,
        "learner.schedule_steps": max(1, sizes.updates * 6 // 10),
        "loss.commitment_start": sizes.updates * 3 // 10,
        **sizes.overrides,
        **VARIANTS[job.variant][1],
        **explicit,
    }
    dispatch = int(settings["learner.updates_per_dispatch"])
    allowed = f"a multiple of learner.updates_per_dispatch = {dispatch}"
    require(sizes.updates % dispatch == 0, "updates", sizes.updates, allowed)
    rows = sizes.transitions // sizes.lanes
    fixed = {
        "experiment": EXPERIMENT,
        "seed": job.seed,
        "env.num_envs": sizes.lanes,
        "env.sticky_prob": job.sticky,
        "rollout.length": 1,
        "learner.updates_per_env_step": dispatch / sizes.lanes,
        "total_env_steps": sizes.lanes * (sizes.updates // dispatch),
        "replay.capacity": sizes.lanes * rows,
        "replay.min_size": sizes.lanes * (rows - held_out_rows(sizes)),
    }
    if preset != "gpu":
        fixed["rollout.pools"] = 1
    return from_dict({**settings, **fixed})
