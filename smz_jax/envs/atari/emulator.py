"""One Atari emulator whose states can be cloned; its games are those of the vector environments.

envpool clones nothing, so that what would happen is tried out in ale-py's single emulator. What an
agent sees here is what it sees in a lane of the same seed, bit for bit (`training=False`, backend
envpool): frames, stacks, rewards, lives, ends, FIRE at the start and after a lost life, and sticky
actions. There is no time limit.

Sticky actions are drawn here; ale-py's own stay off. Its generator is seeded only where a ROM is
loaded, which takes longer than playing hundreds of steps, and the action that may be repeated is
no part of its states. ALE draws from a Mersenne twister of the seed, twice a frame (the second time
for a player who is not there), and so does this.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ale_py
import numpy as np

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.ale_backend import open_emulator, spec_of
from smz_jax.envs.atari.rom_files import check_id, games
from smz_jax.envs.frames import push_frame, resize_area
from smz_jax.envs.protocol import check_actions
from smz_jax.envs.vector import fire_index


class Step(NamedTuple):
    """Where a game stands after `reset` or `step`; see `Timestep` for the names."""

    observation: np.ndarray  # [F, H, W] uint8 stack, newest last; read-only
    reward: float  # raw
    lives: int
    terminated: bool  # the game is over
    env_frames: int  # emulator frames since the game's start, no-ops and FIRE among them
    invalid_actions: np.ndarray  # [A] float32, 1 = invalid: after a lost life all but FIRE

    @property
    def frame(self) -> np.ndarray:
        """The newest frame, `[H, W]` uint8."""
        return self.observation[-1]


class EmulatorState(NamedTuple):
    """What `Emulator.restore` needs; about 180 kB. Opaque."""

    rom: str
    ale: ale_py.ALEState
    step: Step
    screen: np.ndarray  # [210, 160, 3] uint8: ale-py draws none until the next frame
    merged: np.ndarray  # [210, 160] uint8, the grey screen that is the newest frame
    draws: np.random.RandomState
    last_action: ale_py.Action  # what a sticky frame repeats


class Emulator:
    """One whole game with raw rewards; call `reset` first."""

    def __init__(self, config: EnvConfig) -> None:
        """Opens the emulator; `config.backend` does not matter.

        Raises:
            ConfigError: in one line, if ale-py does not have the game (names close ones) or the
                frames would be larger than its screen.
        """
        allowed = "atari: only ale-py clones states, of games such as Breakout or SpaceInvaders"
        require(config.suite == "atari", "env.suite", config.suite, allowed)
        size = config.frame_size
        require(size <= 160, "env.frame_size", size, "at most 160, the width of the screen")
        self._config = dataclasses.replace(config, backend="ale")
        check_id(self._config)
        self.spec = spec_of(self._config)
        self._rom = games("ale")[config.id]
        self._fire = fire_index(config, self.spec)
        self._ale = open_emulator(self._rom)
        self._actions = list(self._ale.getMinimalActionSet())
        self._screen: np.ndarray | None = None
        self._step: Step | None = None

    def reset(self, seed: int, noops: int = 0) -> Step:
        """Starts a new game.

        Args:
            seed: of the sticky actions, in 0..2^32 - 1; a lane's for the game of that lane.
            noops: frames of NOOP before it (envpool plays one where a game has no FIRE).

        Returns:
            The first step, of reward 0.
        """
        require(0 <= noops <= 1000, "noops", noops, "in 0..1000")
        self._draws = _generator(seed)
        self._last_action = ale_py.Action.NOOP
        self._ale.reset_game()
        for _ in range(noops):
            self._act(ale_py.Action.NOOP)
        if self._fire is not None:
            self._act(ale_py.Action.FIRE)
        self._merged = self._ale.getScreenGrayscale()
        return self._look(0.0, None)

    def step(self, action: int) -> Step:
        """Plays `frame_skip` frames, fewer where the game ends in between.

        Args:
            action: in 0..A-1; in the step after a lost life FIRE is played instead, as in the
                vector environments (`fire_on_life_loss`).

        Raises:
            ConfigError: if the action is none; the emulator sees nothing of it.
            RuntimeError: before `reset`, or where the game is over.
        """
        before, skip = self.now, self._config.frame_skip
        index = int(check_actions(np.asarray([action]), 1, self.spec.num_actions)[0])
        if before.terminated:
            raise RuntimeError("step() after the game's end: reset() or restore() first")
        if self._fire is not None and before.invalid_actions.any():
            index = self._fire
        reward, left = 0, skip
        while left and not self._ale.game_over():
            reward += self._act(self._actions[index])
            left -= 1
            if left < 2:  # a game that ends before leaves the last step's frame, as in envpool
                screen = self._ale.getScreenGrayscale()
                both = left == 0 and skip > 1
                self._merged = np.maximum(self._merged, screen) if both else screen
        return self._look(float(reward), before)

    def clone(self) -> EmulatorState:
        """The state as it is, which later steps do not change."""
        step, draws = self.now, copy.deepcopy(self._draws)
        ale, screen = self._ale.cloneState(), self.screen()
        return EmulatorState(self._rom, ale, step, screen, self._merged, draws, self._last_action)

    def restore(self, state: EmulatorState, *, seed: int | None = None) -> Step:
        """Goes back to a state, also of another emulator of the same settings.

        Args:
            state: from `clone`.
            seed: of the sticky actions from here on, in 0..2^32 - 1; None: chance continues as it
                did after the state, the same each time.

        Returns:
            The step that led to the state.

        Raises:
            ConfigError: if the state is of another game, or has other frames.
        """
        require(state.rom == self._rom, "state", state.rom, f"one of {self._rom}")
        shape, ours = state.step.observation.shape, self.spec.observation_shape
        require(shape == ours, "state.step.observation.shape", shape, str(ours))
        self._draws = copy.deepcopy(state.draws) if seed is None else _generator(seed)
        self._ale.restoreState(state.ale)
        _, _, self._step, self._screen, self._merged, _, self._last_action = state
        return state.step

    def ram(self) -> np.ndarray:
        """The console's memory, `[128]` uint8."""
        return self._ale.getRAM()

    def screen(self) -> np.ndarray:
        """The last frame as the console shows it, `[210, 160, 3]` uint8; neither merged nor small.

        Some games have other heights.
        """
        return self._ale.getScreenRGB() if self._screen is None else self._screen.copy()

    def _act(self, action: ale_py.Action) -> int:
        """Plays one frame; gives its reward."""
        drawn, _ = self._draws.randint(0, 2**32, 2, np.uint32)
        if drawn >= float(np.float32(self._config.sticky)) * 2**32:
            self._last_action = action
        return self._ale.act(self._last_action)

    def _look(self, reward: float, before: Step | None) -> Step:
        frame = resize_area(self._merged, self._config.frame_size)[None]
        older = None if before is None else before.observation[None]
        first, spec = np.array([before is None]), self.spec
        (observation,) = push_frame(older, frame, first, spec.context, spec.is_marked)
        over, lives = self._ale.game_over(), self._ale.lives()
        invalid = np.zeros(self.spec.num_actions, np.float32)
        if before is not None and lives < before.lives and not over and self._fire is not None:
            invalid[:] = 1
            invalid[self._fire] = 0
        frames = self._ale.getEpisodeFrameNumber()
        self._screen, self._step = None, Step(observation, reward, lives, over, frames, invalid)
        return self._step

    @property
    def now(self) -> Step:
        """The last step; raises RuntimeError before `reset`."""
        if self._step is None:
            raise RuntimeError("the emulator has no game yet: reset() or restore() first")
        return self._step


class SequenceRun(NamedTuple):
    """What a sequence of L actions did; n = L steps, or fewer if the game ended before."""

    frames: np.ndarray  # [n, H, W] uint8, newest after each step
    rewards: np.ndarray  # [n] float32, raw
    lives: np.ndarray  # [n] int32
    terminated: bool  # the game ended
    ram: np.ndarray  # [128] uint8, at the end

    @property
    def ram_hash(self) -> str:
        """16 hexadecimal digits, the same for the same memory."""
        return hashlib.blake2b(self.ram.tobytes(), digest_size=8).hexdigest()


def play_sequence(
    emulator: Emulator, state: EmulatorState, actions: Any, seeds: Sequence[int]
) -> list[SequenceRun]:
    """Plays a sequence from one state, once for each seed.

    Args:
        emulator: of the state's game; left where the last run ended.
        state: to start from each time.
        actions: `[L]` integers in 0..A-1, at least one.
        seeds: of the sticky actions of each run.

    Raises:
        ConfigError: before anything is played, as `step` and `restore`.
    """
    actions = np.asarray(actions)
    require(actions.size > 0, "actions", actions.tolist(), "at least one")
    actions = check_actions(actions, actions.size, emulator.spec.num_actions)
    runs = []
    for seed in seeds:
        over = emulator.restore(state, seed=seed).terminated
        require(not over, "state", "the end of a game", "one from which the game goes on")
        steps: list[Step] = []
        while len(steps) < len(actions) and not (steps and steps[-1].terminated):
            steps.append(emulator.step(actions[len(steps)]))
        frames = np.stack([step.frame for step in steps])
        rewards = np.array([step.reward for step in steps], np.float32)
        lives = np.array([step.lives for step in steps], np.int32)
        runs.append(SequenceRun(frames, rewards, lives, steps[-1].terminated, emulator.ram()))
    return runs


def _generator(seed: int) -> np.random.RandomState:
    require(0 <= seed < 2**32, "seed", seed, "in 0..2^32 - 1")
    return np.random.RandomState(seed)
