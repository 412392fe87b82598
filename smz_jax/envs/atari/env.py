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
  `fire_on_life_loss` is off) envpool draws 1..n and plays one for n = 0 (asked for none it
  crashes); ale draws 0..n. So games without FIRE start one frame apart. The draws themselves
  differ too.
- The final frame of a game that the emulator ends (not of one that the time limit cuts): the
  libraries merge it with different older frames. No later frame depends on it.
- Sticky draws after a time limit: ale loses one step of that lane to its reset.
- ale has the ROMs that need a second player, which neither can load; they are left out.
"""

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.games import games
from smz_jax.envs.atari.pool import Pool, PoolArgs, PoolStep
from smz_jax.envs.frames import FrameStacker
from smz_jax.envs.protocol import check_actions, lane_seeds
from smz_jax.types import EnvSpec, Space, Timestep


class AtariVectorEnv:
    """B Atari games that share one pool; see `VectorEnv` and `Timestep`."""

    def __init__(self, pool: Pool, spec: EnvSpec, config: EnvConfig, num_envs: int, training: bool):
        """Takes an open pool of `num_envs` lanes that matches `spec`."""
        self.spec = spec
        self.num_envs = num_envs
        self._pool: Pool | None = pool
        self._episodic_life = config.episodic_life and training
        self._clip_rewards = config.clip_rewards and training
        self._fire = _fire_index(config, spec.action_names)
        self._started = False
        self._in_flight = False

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        _require(not self._in_flight, "reset() before the step sent was received")
        self._stacker = FrameStacker(self.spec.context)
        self._lives = np.zeros(self.num_envs, np.int32)
        self._must_fire = np.zeros(self.num_envs, np.bool_)
        self._game_over = np.ones(self.num_envs, np.bool_)
        self._started = True
        return self._timestep(self._open_pool().reset())

    def step(self, actions: np.ndarray) -> Timestep:
        """Steps every lane; see `VectorEnv.step`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane; see `VectorEnv.send`.

        In the step after a lost life the action given is replaced by FIRE, the only valid one
        (`fire_on_life_loss`).
        """
        pool = self._open_pool()
        _require(self._started, "send() before reset()")
        _require(not self._in_flight, "send() before the step sent was received")
        actions = check_actions(actions, self.num_envs, self.spec.num_actions)
        if self._fire is not None:
            actions[self._must_fire] = self._fire
        pool.send(actions)
        self._in_flight = True

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        pool = self._open_pool()
        _require(self._in_flight, "recv() without send()")
        self._in_flight = False
        return self._timestep(pool.recv())

    def close(self) -> None:
        """Frees the emulators; see `VectorEnv.close`."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("the environment is closed")
        return self._pool

    def _timestep(self, raw: PoolStep) -> Timestep:
        is_first = self._game_over
        life_lost = (raw.lives < self._lives) & ~is_first & ~raw.ended
        terminated = raw.ended | (life_lost & self._episodic_life)
        game_over = raw.ended | raw.limit
        raw_reward = np.where(is_first, np.float32(0), raw.reward)
        invalid_actions = np.zeros((self.num_envs, self.spec.num_actions), np.float32)
        self._must_fire = life_lost & ~game_over
        if self._fire is not None:
            invalid_actions[self._must_fire] = 1
            invalid_actions[self._must_fire, self._fire] = 0
        self._lives, self._game_over = raw.lives, game_over
        return Timestep(
            observation=self._stacker.push(raw.frame, is_first),
            reward=np.sign(raw_reward) if self._clip_rewards else raw_reward,
            raw_reward=raw_reward,
            terminated=terminated,
            truncated=raw.limit & ~terminated,
            game_over=game_over.copy(),
            is_first=is_first,
            invalid_actions=invalid_actions,
        )


def _require(condition: bool, message: str) -> None:
    """Some libraries hang where calls come in a wrong order."""
    if not condition:
        raise RuntimeError(message)


def open_games(
    config: EnvConfig, *, seed: int, num_envs: int, first_lane: int, training: bool
) -> AtariVectorEnv:
    """Opens a vector of Atari games; see `make_env`."""
    spec = spec_of(config)
    args = pool_args(config, spec, lane_seeds(seed, num_envs, first_lane))
    if config.backend == "envpool":
        from smz_jax.envs.atari.envpool_backend import EnvpoolPool

        return AtariVectorEnv(EnvpoolPool(args), spec, config, num_envs, training)
    from smz_jax.envs.atari.ale_backend import AlePool

    return AtariVectorEnv(AlePool(args), spec, config, num_envs, training)


def pool_args(config: EnvConfig, spec: EnvSpec, seeds: np.ndarray) -> PoolArgs:
    """What a backend needs to open the games of `config` in lanes of the given seeds."""
    return PoolArgs(
        rom=games(config.backend)[config.id],
        seeds=seeds,
        noops=config.noops,
        fire_reset=_fire_index(config, spec.action_names) is not None,
        sticky=config.sticky,
        frame_skip=config.frame_skip,
        frame_size=config.frame_size,
        max_episode_steps=config.max_episode_steps,
        num_threads=config.num_threads,
    )


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


def _fire_index(config: EnvConfig, action_names: tuple[str, ...]) -> int | None:
    """Index of FIRE, or None where it is not to be pressed or the game has none."""
    if not config.fire_on_life_loss or "FIRE" not in action_names:
        return None
    return action_names.index("FIRE")
