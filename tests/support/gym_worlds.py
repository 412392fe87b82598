"""Small Gymnasium environments, named `tests.support.gym_worlds:Corridor-v0` and so on."""

import sys

import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """Walks on 0..length-1 from a random cell; action 3 is left, 4 is right, 5 stays and is masked.

    The end at the right pays 1 and ends the game; each step pays a random fraction of 0.1;
    `pay` multiplies both.
    """

    def __init__(self, length: int = 6, spoil: str = "", seed: int = 0, pay: float = 1.0):
        del seed
        if spoil == "init":
            sys.exit(4)
        self.length, self.spoil, self.pay = length, spoil, pay
        self.observation_space = spaces.Dict(
            {"z": spaces.Box(-1, 1, (2,), np.float64), "cell": spaces.Discrete(length, start=2)}
        )
        self.action_space = spaces.Discrete(3, start=3)

    def _seen(self):
        noise = self.np_random.uniform(-1, 1, 2)
        if self.spoil == "nan":
            noise[1] = np.nan
        mask = np.array([self.cell > 0, True, False], np.int8)
        return {"z": noise, "cell": np.int64(2 + self.cell)}, {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(0, self.length - 1))
        return self._seen()

    def step(self, action):
        assert self.action_space.contains(action), action
        assert action != 5 and not (action == 3 and self.cell == 0), "an invalid move was played"
        self.cell += {3: -1, 4: 1}[int(action)]
        done = self.cell == self.length - 1
        if self.spoil == "step" and done:
            raise KeyError("spoilt\nin two lines")
        reward = self.pay * (float(done) + 0.1 * self.np_random.uniform())
        return *((seen := self._seen())[:1]), reward, done, False, seen[1]


class Odd(gymnasium.Env):
    """Whatever spaces are asked for."""

    def __init__(self, action: str = "box", observation: str = "box"):
        box = spaces.Box(-1, 1, (2,))
        self.action_space = box if action == "box" else spaces.Discrete(2)
        self.observation_space = box if observation == "box" else spaces.Text(5)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=9)
gymnasium.register("Odd-v0", Odd)
