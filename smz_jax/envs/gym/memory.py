"""Worlds whose newest observation does not tell all: `smz_jax.envs.gym.memory:Cue-v0` and so on."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

NOTHING, QUESTION = 2, 3
"""Observations besides the cues, 0 and 1."""


class Cue(gymnasium.Env):
    """Shows one of two cues, then nothing, and at the step `delay` a question: which was it?

    The answer, the action at the question, pays 1 if it is right and ends the game; all actions
    before it do nothing. So a player who sees the newest observation alone gets 0.5 on average,
    and one who sees the last `delay` + 1 can get 1.
    """

    def __init__(self, delay: int = 8) -> None:
        if not 1 <= delay <= 1000:
            raise ValueError(f"delay = {delay} is not in 1..1000")
        self.delay = delay
        self.observation_space, self.action_space = spaces.Discrete(4), spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draws a cue and shows it."""
        super().reset(seed=seed, options=options)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self.cue, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Takes the answer if the question was seen."""
        self.time += 1
        over = self.time > self.delay
        seen = QUESTION if self.time == self.delay else NOTHING
        return seen, float(over and action == self.cue), over, False, {}


def cartpole_positions(**kwargs: Any) -> gymnasium.Env:
    """CartPole without its two velocities: the cart's place and the pole's angle alone."""
    env, shown = CartPoleEnv(**kwargs), np.array([0, 2])
    whole = env.observation_space
    assert isinstance(whole, spaces.Box)
    bounds = spaces.Box(whole.low[shown], whole.high[shown])
    return gymnasium.wrappers.TransformObservation(env, lambda seen: seen[shown], bounds)


gymnasium.register("Cue-v0", f"{__name__}:Cue")
gymnasium.register("CartPolePositions-v1", cartpole_positions, max_episode_steps=500)
