"""Presets: named sets of overrides, from a run of seconds to one of hours.

A preset holds dotted overrides of the defaults in `smz_jax/config/settings.py`; an experiment may
add its own to a preset through `EXPERIMENT_PRESETS`. Imports nothing, so that `--help` is instant.
"""

from typing import Any

PRESET_NAMES = ("tiny", "smoke", "laptop", "gpu")

PRESETS: dict[str, dict[str, Any]] = {
    # Every part runs once, for tests: at most 20 s with compilation.
    "tiny": {
        "total_env_steps": 128,
        "checkpoint_every_env_steps": 64,
        "env.num_envs": 4,
        "network.embedding_size": 16,
        "network.hidden_size": 16,
        "network.torso_channels": 4,
        "network.codebook_size": 4,
        "network.value_support": 10,
        "network.reward_support": 10,
        "search.num_simulations": 4,
        "rollout.length": 8,
        "replay.capacity": 2_048,
        "replay.min_size": 64,
        "learner.batch_size": 4,
        "learner.unroll_steps": 2,
        "learner.td_steps": 2,
        "learner.updates_per_env_step": 0.1,
        "learner.warmup_steps": 2,
        "learner.target_update_period": 4,
        "learner.schedule_steps": 8,
        "macro.max_length": 3,
        "macro.capacity": 64,
        "macro.slots": 8,
        "macro.head_size": 16,
        "macro.bucket_warmup_steps": 96,
        "eval.num_games": 4,
        "eval.num_envs": 4,
        "eval.max_steps": 40,
        "eval.interim_games": 4,
    },
    # A whole run with a readable report, under 2 minutes on 2 cores.
    "smoke": {
        "total_env_steps": 4_096,
        "checkpoint_every_env_steps": 2_048,
        "env.num_envs": 16,
        "network.embedding_size": 64,
        "network.hidden_size": 64,
        "network.torso_channels": 8,
        "network.codebook_size": 8,
        "network.value_support": 10,
        "network.reward_support": 2,
        "network.encoder_input": "embedding",
        "search.num_simulations": 8,
        "search.q_epsilon": 0.1,
        "rollout.length": 16,
        "replay.capacity": 8_192,
        "replay.min_size": 512,
        "learner.batch_size": 32,
        "learner.unroll_steps": 3,
        "learner.td_steps": 5,
        "learner.gamma": 0.99,
        "learner.warmup_steps": 20,
        "learner.target_update_period": 50,
        "learner.schedule_steps": 150,
        "macro.capacity": 256,
        "macro.bucket_warmup_steps": 1_024,
        "eval.num_games": 32,
        "eval.num_envs": 32,
        "eval.max_steps": 500,
    },
    # The default on a CPU: about 15 minutes on 2 cores, under 6 GB.
    "laptop": {
        "total_env_steps": 245_760,
        "checkpoint_every_env_steps": 61_440,
        "env.num_envs": 32,
        "env.noop_max": 30,  # as in evaluation: else one opening alone would be known
        # With the step that rebuilds, every 1,920: a checkpoint then has no actions to play again.
        "env.rebuild_every": 1_919,
        "network.codebook_size": 8,
        "network.encoder_input": "embedding",
        "network.encoder_noise": 0.3,
        "network.value_support": 10,  # the transform of 300 is 16, of 120 is 10
        "network.reward_support": 2,
        "search.num_simulations": 16,
        "search.q_epsilon": 0.1,
        "rollout.length": 32,
        "rollout.temperature": 0.5,
        "rollout.temperature_end": 0.1,
        "replay.capacity": 245_760,
        "replay.min_size": 2_000,
        "learner.batch_size": 64,
        "learner.unroll_steps": 3,
        "learner.td_steps": 10,
        "learner.gamma": 0.99,  # minutes, not days: a shorter horizon is learned sooner
        "learner.updates_per_env_step": 0.078125,
        "macro.bucket_warmup_steps": 61_440,
        "eval.max_steps": 3_000,
        "eval.every_env_steps": 61_440,
        "eval.interim_games": 32,
    },
    # The default where JAX sees an accelerator: the papers' sizes, hours.
    "gpu": {
        "total_env_steps": 10_000_000,
        "checkpoint_every_env_steps": 500_000,
        "env.num_envs": 128,
        "network.family": "resnet",
        "network.embedding_size": 64,
        "network.num_blocks": 2,
        "network.torso_channels": 32,
        "network.codebook_size": 32,
        "network.value_support": 300,
        "network.reward_support": 300,
        "network.bfloat16": True,
        "search.num_simulations": 50,
        "rollout.length": 32,
        "replay.capacity": 1_000_000,
        "replay.min_size": 20_000,
        "learner.batch_size": 256,
        "learner.updates_per_env_step": 0.0625,
        "learner.updates_per_dispatch": 16,
        "learner.warmup_steps": 1_000,
        "learner.schedule_steps": 50_000,
        "macro.capacity": 4_096,
        "macro.bucket_warmup_steps": 1_000_000,
        "eval.num_envs": 64,
        "eval.num_games": 64,
        "eval.max_steps": 27_000,
    },
}

VECTOR: dict[str, Any] = {
    "env.frame_stack": 1,
    "network.family": "mlp",
    "network.embedding_size": 64,
    "network.hidden_size": 128,
    "network.codebook_size": 8,
    "network.encoder_input": "frames",
}
"""Base of the experiments whose observations are vectors; presets win over it."""

BOARD: dict[str, Any] = {
    **VECTOR,
    "network.family": "board",
    "network.input_norm": False,
    # The move settles the reward. By regression on 150,000 moves of 2048 (4,000 batches of 128) it
    # was off by 3.6 on average when read from the next state, by 1.5 from the afterstate.
    "network.reward_sees_afterstate": True,
}
"""Base of the experiments whose observations are boards of cells with one-hot contents."""

_GUMBEL: dict[str, Any] = {"search.root": "gumbel", "search.interior": "gumbel"}
"""Sequential halving and completed Q-values. On seed 0 of CartPole the evaluation reached 500 after
15,000 steps where PUCT's stood at 150 until 41,000; on the slippery grid PUCT settled on walking
into a wall where a fifth of the starts are (0.70 to 0.79 in four runs; 0.87 with Gumbel)."""

_VECTOR_LAPTOP: dict[str, Any] = {
    **VECTOR,
    "env.num_envs": 16,
    "env.noop_max": 0,
    "network.encoder_noise": 1.0,
    "search.num_simulations": 32,
    "rollout.length": 32,
    "rollout.temperature": 1.0,
    "rollout.temperature_end": 0.25,
    "learner.batch_size": 128,
    "learner.unroll_steps": 5,
    "learner.td_steps": 10,
    "learner.gamma": 0.997,
    # One CartPole run each: with stored search values the score stood still at 112, with the target
    # network's (and more updates, an earlier target copy) it reached 500.
    "learner.bootstrap": "target",
    "learner.target_update_period": 100,
    "eval.num_games": 100,
    "eval.num_envs": 50,
    "eval.interim_games": 50,
}

_CARTPOLE: dict[str, dict[str, Any]] = {
    # Each second counts at tiny: most go to compilation.
    "tiny": {
        "network.value_support": 20,
        "learner.unroll_steps": 1,
        "macro.head_learning_rate": 0.0,
        "eval.check_model": False,
    },
    "smoke": {
        **VECTOR,
        **_GUMBEL,
        "network.value_support": 20,
        "search.q_epsilon": 1e-8,
        "search.num_simulations": 16,
        "learner.unroll_steps": 5,
        "learner.gamma": 0.997,
        "learner.bootstrap": "target",
        "learner.updates_per_env_step": 0.25,
        "learner.schedule_steps": 1_000,
        "learner.batch_size": 64,
    },
    "laptop": {
        **_VECTOR_LAPTOP,
        **_GUMBEL,
        # Once all games last to the limit, failures leave the replay and the score falls again.
        "total_env_steps": 40_960,
        "checkpoint_every_env_steps": 10_240,
        "network.value_support": 20,  # the transform of 333, the most that gamma lets add up, is 18
        "network.reward_support": 2,
        # A few steps' worth. Stretched from nothing, noise decided between two actions and became
        # the policy target: 334 on seed 0 with 1e-8, 500 from 20,000 steps on with 2.
        "search.q_epsilon": 2.0,
        "macro.value_delta": 4.0,
        "replay.capacity": 40_960,
        "learner.updates_per_env_step": 0.25,
        "macro.bucket_warmup_steps": 10_240,
        "eval.every_env_steps": 10_240,
    },
    "gpu": {
        **_VECTOR_LAPTOP,
        **_GUMBEL,
        "total_env_steps": 500_000,
        "checkpoint_every_env_steps": 100_000,
        "env.num_envs": 64,
        "network.value_support": 20,
        "network.reward_support": 2,
        "network.bfloat16": False,
        "search.num_simulations": 50,
        "search.q_epsilon": 2.0,
        "macro.value_delta": 4.0,
        "replay.capacity": 500_000,
        "learner.batch_size": 256,
        "learner.updates_per_env_step": 0.125,
        "learner.updates_per_dispatch": 16,
        "macro.bucket_warmup_steps": 50_000,
        "eval.every_env_steps": 50_000,
    },
}

_TWENTY48: dict[str, dict[str, Any]] = {
    "tiny": {
        "network.value_support": 60,
        "network.reward_support": 20,
        "network.family": "mlp",  # compiles faster
        "network.encoder_input": "embedding",
        "learner.unroll_steps": 1,
        "macro.max_length": 2,
        "macro.head_learning_rate": 0.0,
        "eval.baselines": False,
        "eval.check_model": False,
    },
    "smoke": {
        **BOARD,
        "network.embedding_size": 32,
        "network.value_support": 120,
        "network.reward_support": 40,
        "search.q_epsilon": 1e-8,
        "search.num_simulations": 16,
        "learner.gamma": 0.997,
        "learner.schedule_steps": 500,
        "learner.batch_size": 64,
        "eval.max_steps": 2_000,
    },
    "laptop": {
        **_VECTOR_LAPTOP,
        **BOARD,
        "total_env_steps": 204_800,
        "checkpoint_every_env_steps": 51_200,
        "env.num_envs": 64,
        "network.embedding_size": 32,
        "network.codebook_size": 32,  # 16 cells, two kinds of tiles
        "network.value_support": 60,
        "network.reward_support": 64,  # of 2,048: 46
        "search.q_epsilon": 10.0,  # a few tiles' worth: less is noise of the values
        "macro.value_delta": 20.0,
        "rollout.temperature": 0.5,
        "learner.unroll_steps": 2,
        "learner.td_steps": 3,
        # Short of sight: with the paper's 0.999 the value of the far future drowned what a move
        # changes, and nothing was learned (61,000 steps, seed 0).
        "learner.gamma": 0.97,
        # Many small updates. On seed 1 games scored 2,100 after 61,000 steps with half as many of
        # 64 windows (and gamma 0.95, the reward from the next state alone), 3,290 after 57,000
        # with these.
        "learner.updates_per_env_step": 0.140625,
        "learner.batch_size": 32,
        "learner.learning_rate": 1.5e-3,
        "loss.chance": 0.3,
        "replay.capacity": 204_800,
        "macro.bucket_warmup_steps": 51_200,
        "eval.num_games": 64,
        "eval.num_envs": 64,
        "eval.interim_games": 64,
        "eval.max_steps": 10_000,
        "eval.every_env_steps": 40_960,
    },
    "gpu": {
        **_VECTOR_LAPTOP,
        **BOARD,
        "env.num_envs": 256,
        "network.embedding_size": 64,
        "network.hidden_size": 512,
        "network.num_blocks": 2,
        "network.codebook_size": 32,
        "network.value_support": 300,
        "network.reward_support": 64,
        "search.num_simulations": 100,  # as the paper
        "macro.value_delta": 100.0,
        "learner.gamma": 0.999,  # Antonoglou et al. 2022, appendix
        "learner.batch_size": 1_024,
        "learner.updates_per_env_step": 0.03125,
        "learner.updates_per_dispatch": 16,
        "eval.num_games": 64,
        "eval.num_envs": 64,
        "eval.max_steps": 27_000,
        "eval.every_env_steps": 1_000_000,
    },
}
# Any environment: returns of an unknown size, so that the supports are wide.
_GYM: dict[str, dict[str, Any]] = {
    name: {
        **overrides,
        "network.value_support": 60,
        "network.reward_support": 30,
        "search.q_epsilon": 1e-8,
    }
    for name, overrides in _CARTPOLE.items()
}

_GRID_ALL: dict[str, Any] = {
    "network.value_support": 2,
    "network.reward_support": 2,
    "learner.gamma": 0.95,  # the policy best at 0.85 to 0.99 is the same; a step counts for more
    "macro.value_delta": 0.1,
    "eval.max_steps": 60,
}
"""The grid world: returns in [-1, 1], games of 60 steps at most."""
_GRID_LAPTOP: dict[str, Any] = {
    **VECTOR,
    **_GRID_ALL,
    "total_env_steps": 163_840,
    "checkpoint_every_env_steps": 65_536,
    "env.noop_max": 0,
    "network.codebook_size": 32,
    "network.encoder_noise": 0.0,
    "network.decoder_size": 1,
    "search.num_simulations": 48,
    "search.q_epsilon": 1e-8,
    **_GUMBEL,
    "search.gumbel_considered": 4,
    "rollout.length": 16,
    "replay.min_size": 16_384,  # random play first: seed 2 stood still for 65,000 steps without
    # Part of the run: with all of it old policy targets held the prior back (0.88 of 0.92, seed
    # 1), with 32,768 steps (0.915) rare pairs were forgotten (ROC area 0.974 against 0.994).
    "replay.capacity": 65_536,
    "learner.batch_size": 128,
    "learner.td_steps": 5,
    "learner.bootstrap": "target",
    "learner.updates_per_env_step": 0.125,
    "loss.value": 1.0,
    "loss.code_entropy": 0.1,
    "loss.reconstruction": 2.0,
    "macro.bucket_warmup_steps": 16_384,
    # Of ln 32: a slip beside a wall has two outcomes and 0.18.
    "macro.play_threshold": 0.1,
    "macro.tree_threshold": 0.15,
    "eval.num_games": 512,
    "eval.num_envs": 64,
    "eval.every_env_steps": 16_384,
    "eval.interim_games": 128,
}
_GRID: dict[str, dict[str, Any]] = {
    "tiny": {
        **_GRID_ALL,
        "macro.head_learning_rate": 0.0,
        "eval.max_steps": 40,
        "eval.check_model": False,
    },
    "smoke": {**VECTOR, **_GRID_ALL},
    "laptop": _GRID_LAPTOP,
    "gpu": {
        **_GRID_LAPTOP,
        "total_env_steps": 393_216,
        "env.num_envs": 128,
        "network.bfloat16": False,
        "network.hidden_size": 256,
        "macro.bucket_warmup_steps": 65_536,
    },
}

_FRAMES_MODEL: dict[str, Any] = {
    "network.encoder_noise": 1.0,
    "network.encoder_noise_end": 0.0,
    "network.decoder_size": 42,
    "network.decoder_target": "difference",
    # EfficientZero's weight (Ye et al. 2021). Macros are verified by where the model foresees that
    # they end: 1.0 held less often in Breakout (one run each, 89 against 95 % on greedy play).
    "loss.consistency": 2.0,
    "loss.commitment": 0.3,
    "loss.code_entropy": 0.02,
    "loss.reconstruction": 50.0,
}
"""Codes that stay alive on frames: docs/encoders.md. On seed 0 of Breakout games scored 6.2 after
100,000 steps and H(sigma) was 0.05 of ln C; with the cosine consistency alone 3.6 and 0.8 (86,000
steps); with a weight of 400, the offline comparison's, other losses starved (1.5 after 64,000).
Without any consistency an unrolled embedding is no nearer to the real one than chance."""

_ATARI: dict[str, dict[str, Any]] = {
    "laptop": {
        **_FRAMES_MODEL,
        # With PUCT seed 1 of Breakout settled on a policy that scored 2.6 after 117,000 steps; with
        # Gumbel roots games scored 5.7 then.
        **_GUMBEL,
        "search.gumbel_considered": 4,
        "learner.schedule_steps": 2_000,
        "loss.commitment_start": 1_000,
    },
    "gpu": {**_FRAMES_MODEL, "learner.schedule_steps": 20_000, "loss.commitment_start": 10_000},
}

EXPERIMENT_PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    (experiment, preset): overrides
    for experiment, presets in (
        ("cartpole", _CARTPOLE),
        ("twenty48", _TWENTY48),
        ("gym", _GYM),
        ("gridworld", _GRID),
        *((name, _ATARI) for name in ("atari", "breakout", "pong", "space_invaders")),
    )
    for preset, overrides in presets.items()
}
"""Overrides that one experiment adds to one preset, by (experiment, preset)."""


def preset_overrides(preset: str, experiment: str) -> dict[str, Any]:
    """Dotted overrides of `preset` for `experiment`; raises KeyError for an unknown preset."""
    return {**PRESETS[preset], **EXPERIMENT_PRESETS.get((experiment, preset), {})}
