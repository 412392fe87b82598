"""Atari games: what a step means, on top of a pool of emulators from either library.

The libraries emulate, skip, merge and resize frames, press no-ops and FIRE at a game's start, and
reset a lane whose game is over at its next step. All else is done here, once for both: stacks,
lost lives, FIRE after them, reward clipping, the checks of actions.

Where envpool and ale (measured: envpool 1.2.5, ale-py 0.12.1) agree, bit for bit: frames, rewards,
ends, lives, time limits, sticky actions (the same lane seeds give the same repeats), and FIRE at
the start. Time limits count agent steps since the reset; no-ops and FIRE do not count. If limit and
end of the game fall on one step, the end wins. The reset observation is one single frame; all
others are the maximum of the last two of `frame_skip` frames. Where they differ:

- No-op frames at a game's start, for `EnvConfig.noops` = n. With FIRE both are exact for n = 0 and
  else draw 0..n, envpool uniformly, ale with 0 twice as likely. Without FIRE (the game has none, or
  `fire_on_life_loss` is off) envpool draws 1..n and plays one for n = 0 (with none it
  crashes); ale draws 0..n. So games without FIRE start one frame apart. The draws themselves
  differ too.
- The final frame of a game that the emulator ends (not of one that the time limit cuts): the
  libraries merge it with different older frames. No later frame depends on it.
- Sticky draws after a time limit: ale loses one step of that lane to its reset.
- ale has the ROMs that need a second player, which neither can load; they are left out.
"""

import dataclasses

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id
from smz_jax.envs.atari.rom_files import games
from smz_jax.envs.protocol import lane_seeds
from smz_jax.envs.screens import OpenGame
from smz_jax.envs.vector import Lanes, LaneStep, LanesVectorEnv
from smz_jax.types import EnvSpec, Space, Timestep

EMULATOR_HZ = 60
"""Frames of an Atari 2600 in a second."""


class AtariVectorEnv(LanesVectorEnv):
    """B Atari games that share one pool; see `VectorEnv` and `Timestep`.

    After a lost life FIRE is the only valid action (`fire_on_life_loss`).
    """

    def __init__(
        self, pool: Lanes, spec: EnvSpec, config: EnvConfig, num_envs: int, training: bool
    ) -> None:
        """Takes an open pool of `num_envs` lanes that matches `spec`."""
        super().__init__(pool, spec, num_envs)
        self._episodic_life = config.episodic_life and training
        self._clip_rewards = config.clip_rewards and training
        self._fire = fire_index(config, spec.action_names)
        self._lives = np.zeros(num_envs, np.int32)

    def _timestep(self, step: LaneStep) -> Timestep:
        whole = super()._timestep(step)
        assert step.lives is not None
        life_lost = (step.lives < self._lives) & ~whole.is_first & ~whole.terminated
        terminated = whole.terminated | (life_lost & self._episodic_life)
        self._lives = step.lives
        if self._fire is not None:
            must_fire = life_lost & ~whole.game_over
            whole.invalid_actions[must_fire] = 1
            whole.invalid_actions[must_fire, self._fire] = 0
        return whole._replace(
            reward=np.sign(whole.reward) if self._clip_rewards else whole.reward,
            terminated=terminated,
            truncated=whole.truncated & ~terminated,
        )


def open_games(
    config: EnvConfig, *, seed: int, num_envs: int, first_lane: int, training: bool
) -> AtariVectorEnv:
    """Opens a vector of Atari games; see `make_env`."""
    if config.backend == "envpool":
        from smz_jax.envs.atari.envpool_backend import EnvpoolPool as Pool
    else:
        from smz_jax.envs.atari.ale_backend import AlePool as Pool
    spec = spec_of(config)
    fire_reset = fire_index(config, spec.action_names) is not None
    pool = Pool(config, lane_seeds(seed, num_envs, first_lane), fire_reset)
    return AtariVectorEnv(pool, spec, config, num_envs, training)


def open_game(config: EnvConfig, *, seed: int, screen: bool) -> OpenGame:
    """Opens a game to be watched, with the emulator's own screen if that is wanted."""
    from smz_jax.envs.atari.ale_backend import AlePool, AleScreenPool

    config = dataclasses.replace(config, backend="ale")
    check_env_id(config)
    spec = spec_of(config)
    fire_reset = fire_index(config, spec.action_names) is not None
    pool = (AleScreenPool if screen else AlePool)(config, lane_seeds(seed, 1, 0), fire_reset)
    env = AtariVectorEnv(pool, spec, config, 1, training=False)
    shown = (lambda: pool.screen) if isinstance(pool, AleScreenPool) else None
    return OpenGame(env, shown, EMULATOR_HZ / config.frame_skip, "played by ale-py")


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`."""
    from smz_jax.envs.atari.ale_backend import minimal_actions

    names = minimal_actions(games(config.backend)[config.id])
    return EnvSpec(
        name=config.id,
        frame_shape=(config.frame_size, config.frame_size),
        context=config.frame_stack,
        frame_dtype=np.dtype(np.uint8),
        action_space=Space(len(names), names),
        frames_per_step=config.frame_skip,
    )


def fire_index(config: EnvConfig, action_names: tuple[str, ...]) -> int | None:
    """Index of FIRE, or None where it is not to be pressed or the game has none."""
    if not config.fire_on_life_loss or "FIRE" not in action_names:
        return None
    return action_names.index("FIRE")
