"""Atari games: what a step means, on top of a pool of emulators from either library.

The libraries emulate, skip, merge and resize frames, press no-ops and FIRE at a game's start, and
reset a lane whose game is over at its next step. All else is done once for both, in
`LanesVectorEnv`: stacks, lost lives, FIRE after them, reward clipping, the checks of actions.

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
from collections.abc import Callable
from typing import Any

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id
from smz_jax.envs.atari.ale_backend import AlePool, AleScreenPool, seen, spec_of
from smz_jax.envs.atari.emulator_lane import EmulatorLane
from smz_jax.envs.atari.rom_files import games
from smz_jax.envs.protocol import OpenGame, Playable, lane_seeds
from smz_jax.envs.vector import Lanes, LanesVectorEnv, fire_index
from smz_jax.types import Timestep

EMULATOR_HZ = 60
"""Frames of an Atari 2600 in a second."""


def envpool_lanes(config: EnvConfig, seeds: np.ndarray, fire_reset: bool) -> Lanes:
    """Opens one lane of envpool's for each of the seeds `[B]`, in 1..2^31-1."""
    import envpool

    rom = games(config.backend)[config.id]
    pool = envpool.make_gymnasium(
        "".join(part.capitalize() for part in rom.split("_")) + "-v5",
        num_envs=len(seeds),
        seed=seeds,
        num_threads=config.num_threads,
        stack_num=1,
        frame_skip=config.frame_skip,
        # Draws 0..noop_max-1 frames with FIRE, 1..noop_max without; 0 is a segmentation fault.
        noop_max=config.noops + 1 if fire_reset else max(config.noops, 1),
        use_fire_reset=fire_reset,
        repeat_action_probability=config.sticky,
        max_episode_steps=config.max_episode_steps,
        img_height=config.frame_size,
        img_width=config.frame_size,
    )
    return Lanes(pool, seen)


def open_lanes(config: EnvConfig, seed: int, lanes: range, pool: Any = None) -> Any:
    """Opens a vector of Atari games, see `make_env`; `pool` is another class to open them."""
    pool = pool or (envpool_lanes if config.backend == "envpool" else AlePool)
    has_fire = fire_index(config, spec_of(config)) is not None
    return pool(config, lane_seeds(seed, lanes), has_fire)


def open_game(config: EnvConfig, seed: int, screen: bool) -> OpenGame:
    """Opens a game to be watched, with the emulator's own screen if that is wanted."""
    config = dataclasses.replace(config, backend="ale")
    check_env_id(config)
    pool = open_lanes(config, seed, range(1), AleScreenPool if screen else AlePool)
    env = LanesVectorEnv(pool, spec_of(config), config, 1, training=False)
    shown = (lambda: pool.screen) if screen else None
    return OpenGame(env, shown, EMULATOR_HZ / config.frame_skip, "played by ale-py")


def open_playable(config: EnvConfig, seed: int) -> Playable:
    """Opens a game for a person, in an emulator whose states can be cloned."""
    lane = EmulatorLane(config, seed)
    env = LanesVectorEnv(lane, lane.spec, config, 1, training=True)
    rate = EMULATOR_HZ / config.frame_skip
    game = OpenGame(env, lane.screen, rate, "the emulator is ale-py's")

    def begin(number: int) -> Timestep:
        lane.number = number
        return env.restart()

    def bookmark() -> Callable[[], None]:
        backs = lane.bookmark(), env.bookmark()

        def go_back() -> None:
            for back in backs:
                back()

        return go_back

    return Playable(game, begin, bookmark)
